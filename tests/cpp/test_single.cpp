// Matrices of floats: the same answers as of doubles, to the rounding of what they store.
#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <limits>
#include <stdexcept>
#include <vector>

#include "partition.hpp"
#include "problems.hpp"
#include "rng.hpp"
#include "solve.hpp"
#include "ward.hpp"

namespace {

constexpr double kRounding = 1e-5;  // of the largest diagonal entry; measured 4e-7
constexpr double kDrift = 1e-3;     // of sums of up to 15 entries after 400 moves

std::vector<float> rounded(const problems::Gram& gram) { return {gram.values.begin(), gram.values.end()}; }

onnxfold::Options options(std::size_t threads) {
  onnxfold::Options made;
  made.seed = 5;
  made.perturbations = 40;
  made.threads = threads;
  return made;
}

}  // namespace

TEST_CASE("floats find partitions as good as doubles do") {
  for (const std::size_t n : {9, 64, 150}) {
    const problems::Points points = problems::scattered(n, 7, n);
    const problems::Gram gram(points);
    const std::vector<float> single = rounded(gram);
    for (const std::size_t k : {std::size_t{2}, n / 3, n / 2, n - 1}) {
      const onnxfold::Solution exact = onnxfold::solve(gram.view(), k, options(1));
      const onnxfold::Solution found = onnxfold::solve(onnxfold::SingleGramView(single.data(), n), k, options(1));
      CHECK(problems::canonical(found.labels, k));
      const double truly = problems::inertia(points, found.labels, k);
      CHECK(std::abs(found.inertia - truly) <= kRounding * 7.0 * static_cast<double>(n));
      CHECK(truly <= 1.05 * exact.inertia + kRounding);
    }
  }
}

TEST_CASE("floats: the number of threads changes nothing") {
  const problems::Gram gram(problems::scattered(120, 9, 3));
  const std::vector<float> single = rounded(gram);
  const onnxfold::SingleGramView view(single.data(), 120);
  CHECK(onnxfold::solve(view, 40, options(1)).labels == onnxfold::solve(view, 40, options(3)).labels);
}

TEST_CASE("floats: clusters of one point share its row, and moves leave the sums of a fresh start") {
  constexpr std::size_t kPoints = 30;
  const problems::Gram gram(problems::scattered(kPoints, 5, 4));
  const std::vector<float> single = rounded(gram);
  const onnxfold::SingleGramView view(single.data(), kPoints);
  for (const std::size_t clusters : {std::size_t{2}, std::size_t{12}, std::size_t{28}}) {
    CAPTURE(clusters);
    onnxfold::Labels labels(kPoints);
    for (std::size_t i = 0; i < kPoints; ++i) labels[i] = i % clusters;
    onnxfold::Partition<float> partition(view, clusters, labels);
    onnxfold::Rng rng(7, 0);
    for (int step = 0; step < 400; ++step) {
      const std::size_t i = rng.below(kPoints);
      const std::size_t from = partition.labels()[i];
      const std::size_t to = rng.below(clusters);
      if (to == from) continue;
      partition.move(i, to);  // may leave a cluster empty: another point of one with several goes there
      while (partition.members(from).empty()) {
        const std::size_t other = rng.below(kPoints);
        if (partition.members(partition.labels()[other]).size() > 1) partition.move(other, from);
      }
    }
    const onnxfold::Partition<float> fresh(view, clusters, partition.labels());
    for (std::size_t c = 0; c < clusters; ++c) {
      if (partition.members(c).size() == 1) CHECK(partition.sums(c) == view.row(partition.members(c).front()));
      CHECK(std::abs(fresh.within(c) - partition.within(c)) < 15 * kDrift);
      for (std::size_t i = 0; i < kPoints; ++i) CHECK(std::abs(fresh.sums(c)[i] - partition.sums(c)[i]) < kDrift);
    }
  }
}

TEST_CASE("floats: exact duplicates are merged at no cost") {
  problems::Points points = problems::scattered(30, 5, 1);
  const problems::Points copies = points;
  points.insert(points.end(), copies.begin(), copies.end());
  const problems::Gram gram(points);
  const std::vector<float> single = rounded(gram);
  const onnxfold::Solution found = onnxfold::solve(onnxfold::SingleGramView(single.data(), 60), 30, options(2));
  for (std::size_t i = 0; i < 30; ++i) CHECK(found.labels[i] == found.labels[i + 30]);
  CHECK(found.inertia == 0.0);
}

TEST_CASE("floats: Ward's heights are those of doubles") {
  const problems::Gram gram(problems::scattered(80, 6, 2));
  const std::vector<float> single = rounded(gram);
  const std::vector<onnxfold::Merge> exact = onnxfold::ward(gram.view());
  const std::vector<onnxfold::Merge> found = onnxfold::ward(onnxfold::SingleGramView(single.data(), 80));
  REQUIRE(found.size() == exact.size());
  for (std::size_t i = 0; i < exact.size(); ++i) CHECK(std::abs(found[i].height - exact[i].height) <= 1e-4);
}

TEST_CASE("floats: entries that cannot be added up are refused") {
  std::vector<float> values(16, 1.0F);
  const onnxfold::SingleGramView view(values.data(), 4);
  values[6] = 1e30F;
  CHECK_THROWS_WITH_AS(onnxfold::solve(view, 2, options(1)), "Gram matrix has a value above 1e28 at row 1, column 2",
                       std::invalid_argument);
  values[6] = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_WITH_AS(onnxfold::solve(view, 2, options(1)), "Gram matrix has nan at row 1, column 2",
                       std::invalid_argument);
}
