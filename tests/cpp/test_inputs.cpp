// Nasty inputs.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <stdexcept>

#include "problems.hpp"
#include "solve.hpp"
#include "ward.hpp"

namespace {

onnxfold::Solution solve(const problems::Gram& gram, std::size_t k) {
  onnxfold::Options options;
  options.restarts = 4;
  options.perturbations = 20;
  options.threads = 2;
  return onnxfold::solve(gram.view(), k, options);
}

}  // namespace

TEST_CASE("as many clusters as points") {
  const problems::Gram gram(problems::scattered(9, 3, 1));
  const onnxfold::Solution solution = solve(gram, 9);
  CHECK(solution.inertia == 0.0);
  CHECK(problems::canonical(solution.labels, 9));
}

TEST_CASE("one cluster") {
  const problems::Points points = problems::scattered(9, 3, 2);
  const onnxfold::Solution solution = solve(problems::Gram(points), 1);
  CHECK(problems::canonical(solution.labels, 1));
  CHECK(std::abs(solution.inertia - problems::inertia(points, solution.labels, 1)) < 1e-13);  // a few roundings
}

TEST_CASE("one point") {
  const onnxfold::Solution solution = solve(problems::Gram(problems::Points(1, {2.0, 1.0})), 1);
  CHECK(solution.labels == std::vector<std::int32_t>{0});
  CHECK(solution.inertia == 0.0);
}

TEST_CASE("all points equal still fill every cluster") {
  for (const std::size_t n : {2, 5, 16, 67}) {
    for (std::size_t k = 1; k <= n; k += n > 20 ? 11 : 1) {
      CAPTURE(n);
      CAPTURE(k);
      for (const double value : {0.0, 0.1, 1e6}) {
        const onnxfold::Solution solution = solve(problems::Gram(problems::Points(n, {value, value / 3.0})), k);
        CHECK(problems::canonical(solution.labels, k));
        CHECK(solution.inertia == 0.0);
      }
    }
  }
}

TEST_CASE("fewer distinct points than clusters still fill every cluster") {
  const problems::Points distinct = problems::scattered(4, 3, 3);
  problems::Points points;
  for (std::size_t i = 0; i < 23; ++i) points.push_back(distinct[i * i % 4]);
  for (std::size_t k = 4; k <= 23; ++k) {
    CAPTURE(k);
    const onnxfold::Solution solution = solve(problems::Gram(points), k);
    CHECK(problems::canonical(solution.labels, k));
    CHECK(solution.inertia == 0.0);
  }
}

TEST_CASE("exact duplicates are found exactly") {
  constexpr std::size_t kDistinct = 37;
  problems::Points points = problems::scattered(kDistinct, 4, 4);
  const problems::Points once = points;
  points.insert(points.end(), once.rbegin(), once.rend());
  const onnxfold::Solution solution = solve(problems::Gram(points), kDistinct);
  CHECK(solution.inertia == 0.0);
  for (std::size_t i = 0; i < kDistinct; ++i) CHECK(solution.labels[i] == solution.labels[2 * kDistinct - 1 - i]);
}

TEST_CASE("one dimension, and sizes that no vector width divides") {
  for (const std::size_t n : {3, 5, 7, 9, 15, 17, 31, 33, 63, 65, 127}) {
    CAPTURE(n);
    const problems::Points points = problems::scattered(n, 1, n);
    const onnxfold::Solution solution = solve(problems::Gram(points), n / 2);
    CHECK(problems::canonical(solution.labels, n / 2));
    CHECK(std::abs(solution.inertia - problems::inertia(points, solution.labels, n / 2)) < 1e-12);  // n roundings
  }
}

TEST_CASE("tiny and huge scales give the same labels") {
  const problems::Points points = problems::scattered(30, 3, 5);
  const std::vector<std::int32_t> expected = solve(problems::Gram(points), 8).labels;
  for (const double scale : {0x1.0p-300, 0x1.0p300}) {
    problems::Points scaled = points;
    for (std::vector<double>& point : scaled) {
      for (double& value : point) value *= scale;
    }
    CHECK(solve(problems::Gram(scaled), 8).labels == expected);
  }
}

TEST_CASE("values that are no numbers are refused by name") {
  problems::Gram gram(problems::scattered(7, 3, 6));
  double& entry = gram.values[3 * 7 + 5];
  entry = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_WITH_AS(solve(gram, 2), "Gram matrix has nan at row 3, column 5", std::invalid_argument);
  entry = std::numeric_limits<double>::infinity();
  CHECK_THROWS_WITH_AS(solve(gram, 2), "Gram matrix has inf at row 3, column 5", std::invalid_argument);
  entry = -std::numeric_limits<double>::infinity();
  CHECK_THROWS_WITH_AS(solve(gram, 2), "Gram matrix has -inf at row 3, column 5", std::invalid_argument);
  entry = 1e300;
  CHECK_THROWS_WITH_AS(solve(gram, 7), "Gram matrix has a value above 1e280 at row 3, column 5",
                       std::invalid_argument);
}

TEST_CASE("numbers of clusters that cannot be are refused") {
  const problems::Gram gram(problems::scattered(7, 3, 7));
  CHECK_THROWS_WITH_AS(solve(gram, 0), "cannot make 0 clusters of 7 points: k must be between 1 and 7",
                       std::invalid_argument);
  CHECK_THROWS_WITH_AS(solve(gram, 8), "cannot make 8 clusters of 7 points: k must be between 1 and 7",
                       std::invalid_argument);
  CHECK_THROWS_AS(onnxfold::solve(onnxfold::GramView(nullptr, 0), 1, {}), std::invalid_argument);
  onnxfold::Options none;
  none.restarts = 0;
  CHECK_THROWS_AS(onnxfold::solve(gram.view(), 2, none), std::invalid_argument);
}
