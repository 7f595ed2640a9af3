#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "hartigan.hpp"
#include "partition.hpp"
#include "problems.hpp"
#include "search.hpp"

namespace {

constexpr double kTolerance = 1e-12;   // what solve() passes for points in a cube of side 2
constexpr double kSumsTolerance = 1e-11;  // rounding after hundreds of moves; measured 3e-14

onnxfold::Labels random_labels(std::size_t n, std::size_t k, std::uint64_t seed) {
  onnxfold::Rng rng(seed, 1);
  onnxfold::Labels labels(n);
  for (std::size_t i = 0; i < n; ++i) labels[i] = i < k ? i : rng.below(k);
  return labels;
}

// The most any single move would lower the inertia, from the definition.
double best_single_move(const problems::Points& points, onnxfold::Labels labels, std::size_t k) {
  const double now = problems::inertia(points, labels, k);
  double best = 0.0;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    const std::size_t own = labels[i];
    if (std::count(labels.begin(), labels.end(), own) == 1) continue;
    for (std::size_t c = 0; c < k; ++c) {
      labels[i] = c;
      best = std::max(best, now - problems::inertia(points, labels, k));
    }
    labels[i] = own;
  }
  return best;
}

}  // namespace

TEST_CASE("prices are the change of the inertia") {
  constexpr std::size_t kClusters = 4;
  const problems::Points points = problems::scattered(21, 3, 5);
  const problems::Gram gram(points);
  onnxfold::Partition partition(gram.view(), kClusters, random_labels(21, kClusters, 5));
  onnxfold::Rng rng(6, 0);
  for (int step = 0; step < 300; ++step) {
    const std::size_t i = rng.below(21);
    const std::size_t to = rng.below(kClusters);
    const std::size_t from = partition.labels()[i];
    if (to == from || partition.members(from).size() < 2) continue;
    const double before = problems::inertia(points, partition.labels(), kClusters);
    const double price = partition.insertion_cost(i, to) - partition.removal_gain(i);
    const double change = partition.move(i, to);
    const double after = problems::inertia(points, partition.labels(), kClusters);
    CHECK(std::abs(price - (after - before)) < kSumsTolerance);
    CHECK(change == price);
  }
  onnxfold::Partition fresh(gram.view(), kClusters, partition.labels());
  for (std::size_t c = 0; c < kClusters; ++c) {
    CHECK(std::abs(fresh.within(c) - partition.within(c)) < kSumsTolerance);
    for (std::size_t i = 0; i < 21; ++i) CHECK(std::abs(fresh.sums(c)[i] - partition.sums(c)[i]) < kSumsTolerance);
  }
}

TEST_CASE("no sweep raises the inertia, and at the end no single move lowers it") {
  for (const std::size_t n : {7, 30, 64, 65}) {
    for (const std::size_t k : {2, 3, 6}) {
      CAPTURE(n);
      CAPTURE(k);
      const problems::Points points = problems::scattered(n, 4, n + k);
      const problems::Gram gram(points);
      onnxfold::Partition partition(gram.view(), k, random_labels(n, k, n));
      onnxfold::Hartigan hartigan(partition, kTolerance);
      hartigan.mark_all();
      hartigan.remember();
      const double start = problems::inertia(points, partition.labels(), k);
      double before = start;
      std::size_t sweeps = 0;
      while (hartigan.run(1) > 0) {
        REQUIRE(++sweeps < 1000);
        const double after = problems::inertia(points, partition.labels(), k);
        REQUIRE(after <= before + kSumsTolerance);
        before = after;
        for (std::size_t c = 0; c < k; ++c) REQUIRE(!partition.members(c).empty());
      }
      CHECK(sweeps >= 2);  // it had something to do
      CHECK(std::abs(start + hartigan.change() - before) < kSumsTolerance);
      CHECK(best_single_move(points, partition.labels(), k) < kSumsTolerance);
    }
  }
}

TEST_CASE("after a disturbance the refinement again leaves no single move to make") {
  constexpr std::size_t kPoints = 40;
  constexpr std::size_t kClusters = 9;
  const problems::Points points = problems::scattered(kPoints, 3, 11);
  const problems::Gram gram(points);
  onnxfold::Partition partition(gram.view(), kClusters, random_labels(kPoints, kClusters, 11));
  onnxfold::Hartigan hartigan(partition, kTolerance);
  hartigan.mark_all();
  hartigan.run(1000);
  onnxfold::Rng rng(12, 0);
  double lowest = problems::inertia(points, partition.labels(), kClusters);
  for (int step = 0; step < 40; ++step) {
    onnxfold::improve(partition, hartigan, rng, {1, 1000}, kTolerance);
    const double now = problems::inertia(points, partition.labels(), kClusters);
    REQUIRE(now <= lowest + kSumsTolerance);
    lowest = now;
    REQUIRE(best_single_move(points, partition.labels(), kClusters) < kSumsTolerance);
  }
}

TEST_CASE("undo takes everything back") {
  constexpr std::size_t kClusters = 5;
  const problems::Points points = problems::scattered(33, 3, 21);
  const problems::Gram gram(points);
  onnxfold::Partition partition(gram.view(), kClusters, random_labels(33, kClusters, 21));
  onnxfold::Hartigan hartigan(partition, kTolerance);
  hartigan.mark_all();
  hartigan.run(1000);
  const onnxfold::Labels labels = partition.labels();
  hartigan.remember();
  for (std::size_t i = 0; i < 33; ++i) {
    const std::size_t to = (labels[i] + 1) % kClusters;
    if (partition.members(partition.labels()[i]).size() > 1) hartigan.force(i, to);
  }
  CHECK(partition.labels() != labels);
  hartigan.undo();
  CHECK(partition.labels() == labels);
  CHECK(hartigan.change() == 0.0);
  CHECK(hartigan.run(1000) == 0);
}
