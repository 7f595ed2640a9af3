#include <doctest/doctest.h>

#include <cmath>

#include "problems.hpp"
#include "solve.hpp"

namespace {

constexpr double kTolerance = 1e-11;  // inertia of points in a cube of side 2, other order of sums; measured 4e-15

onnxfold::Options options(std::size_t restarts, std::size_t perturbations, std::size_t threads = 1) {
  onnxfold::Options made;
  made.restarts = restarts;
  made.perturbations = perturbations;
  made.threads = threads;
  return made;
}

}  // namespace

TEST_CASE("finds the optimum of all partitions") {
  for (const std::size_t d : {1, 2, 5}) {
    for (std::size_t n = 2; n <= 8; ++n) {
      for (std::size_t k = 1; k <= n; ++k) {
        CAPTURE(d);
        CAPTURE(n);
        CAPTURE(k);
        const problems::Points points = problems::scattered(n, d, 100 * n + k);
        const problems::Gram gram(points);
        const onnxfold::Solution solution = onnxfold::solve(gram.view(), k, options(4, 20));
        CHECK(std::abs(solution.inertia - problems::optimum(points, k)) < kTolerance);
        CHECK(std::abs(solution.inertia - problems::inertia(points, solution.labels, k)) < kTolerance);
        CHECK(problems::canonical(solution.labels, k));
      }
    }
  }
}

TEST_CASE("the number of threads changes nothing, nor does the memory cap") {
  const problems::Gram gram(problems::scattered(131, 6, 1));
  for (const std::size_t k : {2, 17, 100}) {
    const onnxfold::Solution one = onnxfold::solve(gram.view(), k, options(5, 30, 1));
    for (const std::size_t threads : {0, 2, 4, 16}) {
      const onnxfold::Solution many = onnxfold::solve(gram.view(), k, options(5, 30, threads));
      CHECK(many.labels == one.labels);
      CHECK(many.inertia == one.inertia);
      CHECK(many.sweeps == one.sweeps);
    }
    onnxfold::Options tight = options(5, 30, 4);
    tight.memory_cap = 1;
    CHECK(onnxfold::solve(gram.view(), k, tight).labels == one.labels);
  }
}

TEST_CASE("seeds matter, and the same seed is the same answer") {
  constexpr std::size_t kClusters = 40;
  const problems::Gram gram(problems::scattered(160, 4, 2));
  onnxfold::Options first = options(3, 5);
  onnxfold::Options second = options(3, 5);
  second.seed = 1;
  CHECK(onnxfold::solve(gram.view(), kClusters, first).labels == onnxfold::solve(gram.view(), kClusters, first).labels);
  CHECK(onnxfold::solve(gram.view(), kClusters, first).labels !=
        onnxfold::solve(gram.view(), kClusters, second).labels);
}

TEST_CASE("more work is never worse") {
  const problems::Gram gram(problems::scattered(150, 4, 3));
  double lowest = onnxfold::solve(gram.view(), 30, options(1, 0)).inertia;
  const double ward_only = lowest;
  for (const std::size_t perturbations : {10, 100, 400}) {
    const double now = onnxfold::solve(gram.view(), 30, options(1, perturbations)).inertia;
    CHECK(now <= lowest);
    lowest = now;
  }
  CHECK(lowest < ward_only);  // the search finds something here
  CHECK(onnxfold::solve(gram.view(), 30, options(6, 0)).inertia <= ward_only);
}

TEST_CASE("where the origin lies makes no difference") {
  problems::Points points = problems::scattered(50, 3, 4);
  const problems::Gram before(points);
  for (std::vector<double>& point : points) point[0] += 100.0;
  const problems::Gram after(points);
  const onnxfold::Solution here = onnxfold::solve(before.view(), 12, options(2, 50));
  const onnxfold::Solution there = onnxfold::solve(after.view(), 12, options(2, 50));
  CHECK(here.labels == there.labels);
  CHECK(std::abs(here.inertia - there.inertia) < 1e-8);  // 100^2 times rounding, 50 points
}
