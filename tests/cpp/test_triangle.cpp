// Half of a symmetric matrix: the same entries as the whole one.
#include <doctest/doctest.h>

#include <cstddef>
#include <vector>

#include "rng.hpp"
#include "triangle.hpp"

namespace {

using Matrix = std::vector<std::vector<float>>;

Matrix symmetric(std::size_t n, onnxfold::Rng& rng) {
  Matrix made(n, std::vector<float>(n));
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j <= i; ++j) made[i][j] = made[j][i] = static_cast<float>(rng.unit());
  }
  return made;
}

// Rows from the diagonal on say everything.
onnxfold::Triangle<float> stored(const Matrix& matrix) {
  onnxfold::Triangle<float> made(matrix.size());
  std::vector<float> row(made.padded(matrix.size()));
  for (std::size_t i = 0; i < matrix.size(); ++i) {
    for (std::size_t j = i; j < matrix.size(); ++j) row[j] = matrix[i][j];
    made.write_from(i, matrix.size(), row.data());
  }
  return made;
}

void check_equal(const onnxfold::Triangle<float>& found, const Matrix& matrix) {
  std::vector<float> row(found.padded(matrix.size()));
  for (std::size_t i = 0; i < matrix.size(); ++i) {
    found.read(i, matrix.size(), row.data());
    for (std::size_t j = 0; j < matrix.size(); ++j) {
      REQUIRE(found.at(i, j) == matrix[i][j]);
      REQUIRE(row[j] == matrix[i][j]);
    }
  }
}

}  // namespace

TEST_CASE("half of a matrix has its rows and its columns") {
  onnxfold::Rng rng(1, 0);
  for (const std::size_t n : {1, 2, 3, 4, 5, 8, 11, 17}) {
    CAPTURE(n);
    Matrix matrix = symmetric(n, rng);
    onnxfold::Triangle<float> half = stored(matrix);
    check_equal(half, matrix);
    for (std::size_t step = 0; step < 3 * n; ++step) {
      const std::size_t i = rng.below(n);
      std::vector<float> row(half.padded(n), -1.0F);
      for (std::size_t j = 0; j < n; ++j) row[j] = matrix[i][j] = matrix[j][i] = static_cast<float>(rng.unit());
      half.write(i, n, row.data());
      check_equal(half, matrix);
      const std::size_t j = rng.below(n);
      matrix[i][j] = matrix[j][i] = 2.0F;
      half.set(i, j, 2.0F);
      check_equal(half, matrix);
    }
  }
}

TEST_CASE("what is kept of half a matrix moves to the front") {
  onnxfold::Rng rng(2, 0);
  for (const std::size_t n : {1, 4, 7, 16, 23}) {
    for (int draw = 0; draw < 10; ++draw) {
      CAPTURE(n);
      const Matrix matrix = symmetric(n, rng);
      onnxfold::Triangle<float> half = stored(matrix);
      std::vector<std::size_t> kept;
      for (std::size_t i = 0; i < n; ++i) {
        if (rng.below(2) == 0) kept.push_back(i);
      }
      half.pack(kept);
      Matrix expected(kept.size(), std::vector<float>(kept.size()));
      for (std::size_t r = 0; r < kept.size(); ++r) {
        for (std::size_t c = 0; c < kept.size(); ++c) expected[r][c] = matrix[kept[r]][kept[c]];
      }
      check_equal(half, expected);
    }
  }
}
