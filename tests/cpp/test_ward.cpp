#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "labels.hpp"
#include "problems.hpp"
#include "ward.hpp"

namespace {

// Heights come from n updates of a distance; measured 2e-15 of the largest.
constexpr double kHeightTolerance = 1e-12;

// Ward from its definition: in each step merge the pair of clusters that raises the inertia least.
std::vector<onnxfold::Merge> naive_ward(const problems::Points& points) {
  const std::size_t n = points.size();
  std::vector<std::size_t> labels(n);
  for (std::size_t i = 0; i < n; ++i) labels[i] = i;
  std::vector<onnxfold::Merge> merges;
  double now = 0.0;
  for (std::size_t step = 0; step + 1 < n; ++step) {
    onnxfold::Merge best{0, 0, std::numeric_limits<double>::infinity()};
    for (std::size_t a = 0; a < n; ++a) {
      if (labels[a] != a) continue;
      for (std::size_t b = a + 1; b < n; ++b) {
        if (labels[b] != b) continue;
        std::vector<std::size_t> merged = labels;
        for (std::size_t& label : merged) label = label == b ? a : label;
        std::vector<std::size_t> named = merged;
        const std::size_t count = onnxfold::make_canonical(named);
        const double height = problems::inertia(points, named, count) - now;
        if (height < best.height) best = {a, b, height};
      }
    }
    for (std::size_t& label : labels) label = label == best.right ? best.left : label;
    now += best.height;
    merges.push_back(best);
  }
  return merges;
}

}  // namespace

TEST_CASE("ward makes the merges of the naive algorithm") {
  for (const std::size_t n : {2, 3, 8, 13, 24}) {
    for (std::uint64_t seed = 0; seed < 3; ++seed) {
      CAPTURE(n);
      CAPTURE(seed);
      const problems::Points points = problems::scattered(n, 3, seed);
      const problems::Gram gram(points);
      const std::vector<onnxfold::Merge> merges = onnxfold::ward(gram.view());
      const std::vector<onnxfold::Merge> expected = naive_ward(points);
      REQUIRE(merges.size() == n - 1);
      for (std::size_t step = 0; step < merges.size(); ++step) {
        CHECK(merges[step].left == expected[step].left);
        CHECK(merges[step].right == expected[step].right);
        CHECK(std::abs(merges[step].height - expected[step].height) < kHeightTolerance);
      }
    }
  }
}

TEST_CASE("heights rise, and add up to the inertia of every cut") {
  for (const std::size_t n : {2, 65, 150, 257}) {  // above 64 the distance matrix is packed on the way
    CAPTURE(n);
    const problems::Points points = problems::scattered(n, 5, n);
    const problems::Gram gram(points);
    const std::vector<onnxfold::Merge> merges = onnxfold::ward(gram.view());
    REQUIRE(merges.size() == n - 1);
    double total = 0.0;
    for (std::size_t k = n; k >= 1; --k) {
      const onnxfold::Labels labels = onnxfold::cut(merges, k);
      REQUIRE(problems::canonical(labels, k));
      REQUIRE(std::abs(problems::inertia(points, labels, k) - total) < kHeightTolerance * static_cast<double>(n));
      if (k == 1) break;
      const onnxfold::Merge& merge = merges[n - k];
      REQUIRE(merge.left < merge.right);
      if (n - k > 0) REQUIRE(merge.height >= merges[n - k - 1].height);
      total += merge.height;
    }
  }
}

TEST_CASE("equal distances everywhere end, and cut to any number") {
  constexpr std::size_t kPoints = 70;
  problems::Points corners(kPoints, std::vector<double>(kPoints, 0.0));  // a simplex: all pairs tie
  for (std::size_t i = 0; i < kPoints; ++i) corners[i][i] = 1.0;
  const problems::Gram simplex(corners);
  const problems::Gram same(problems::Points(kPoints, {1.0, 2.0}));
  for (const problems::Gram* gram : {&simplex, &same}) {
    const std::vector<onnxfold::Merge> merges = onnxfold::ward(gram->view());
    REQUIRE(merges.size() == kPoints - 1);
    for (std::size_t k = 1; k <= kPoints; ++k) CHECK(problems::canonical(onnxfold::cut(merges, k), k));
  }
  for (const onnxfold::Merge& merge : onnxfold::ward(same.view())) CHECK(merge.height == 0.0);
}

TEST_CASE("one point has nothing to merge") {
  const problems::Gram gram(problems::Points(1, {3.0}));
  CHECK(onnxfold::ward(gram.view()).empty());
  CHECK(onnxfold::cut({}, 1) == onnxfold::Labels{0});
}
