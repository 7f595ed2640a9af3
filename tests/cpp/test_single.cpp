// Matrices of floats: the same answers as of doubles, to the rounding of what they store.
#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <limits>
#include <stdexcept>
#include <vector>

#include "problems.hpp"
#include "solve.hpp"
#include "ward.hpp"

namespace {

constexpr double kRounding = 1e-5;  // of the largest diagonal entry; measured 4e-7

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
