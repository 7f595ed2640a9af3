// A symmetric matrix in half the memory.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <vector>

#include "large_array.hpp"

namespace onnxfold {

// n x n, of which the lower triangle is stored, in square tiles one behind the other: half of n^2 Reals, and whole
// rows are still read from whole cache lines (a row of the lower triangle alone would be one line per number to the
// right of the diagonal). Tiles on the diagonal hold both halves.
template <typename Real>
class Triangle {
 public:
  static constexpr std::size_t kSide = 4;

  // All entries are zero.
  explicit Triangle(std::size_t size)
      : count_(before((size + kSide - 1) / kSide) * kSide * kSide), values_(large_array<Real>(count_)) {
    std::fill_n(values_.get(), count_, Real(0));
  }

  // How many Reals `read` writes for a matrix of this size.
  static std::size_t padded(std::size_t size) { return (size + kSide - 1) / kSide * kSide; }

  Real at(std::size_t i, std::size_t j) const { return i < j ? *lower(j, i) : *lower(i, j); }

  void set(std::size_t i, std::size_t j, Real value) {
    *lower(i < j ? j : i, i < j ? i : j) = value;
    if (i / kSide == j / kSide) *lower(i < j ? i : j, i < j ? j : i) = value;
  }

  // The first `size` entries of row i. OUT row, padded(size) entries, of which those from `size` on mean nothing.
  void read(std::size_t i, std::size_t size, Real* row) const {
    const std::size_t own = i / kSide;
    const Real* line = values_.get() + before(own) * kSide * kSide + i % kSide * kSide;
    for (std::size_t tile = 0; tile <= own; ++tile, line += kSide * kSide) {
      for (std::size_t c = 0; c < kSide; ++c) row[tile * kSide + c] = line[c];
    }
    for (std::size_t tile = own + 1; tile * kSide < size; ++tile) {
      const Real* column = values_.get() + (before(tile) + own) * kSide * kSide + i % kSide;
      for (std::size_t r = 0; r < kSide; ++r) row[tile * kSide + r] = column[r * kSide];
    }
  }

  // The other way round. IN row, padded(size) entries: those from `size` on come to places that mean nothing.
  void write(std::size_t i, std::size_t size, const Real* row) {
    const std::size_t own = i / kSide;
    Real* line = values_.get() + before(own) * kSide * kSide + i % kSide * kSide;
    for (std::size_t tile = 0; tile < own; ++tile, line += kSide * kSide) {
      for (std::size_t c = 0; c < kSide; ++c) line[c] = row[tile * kSide + c];
    }
    for (std::size_t j = own * kSide; j < i; ++j) set(i, j, row[j]);
    write_from(i, size, row);
  }

  // Of the first `size` entries of row i those from the diagonal on. IN row as for `write`.
  void write_from(std::size_t i, std::size_t size, const Real* row) {
    const std::size_t own = i / kSide;
    for (std::size_t j = i; j < (own + 1) * kSide; ++j) set(i, j, row[j]);
    for (std::size_t tile = own + 1; tile * kSide < size; ++tile) {
      Real* column = values_.get() + (before(tile) + own) * kSide * kSide + i % kSide;
      for (std::size_t r = 0; r < kSide; ++r) column[r * kSide] = row[tile * kSide + r];
    }
  }

  // Keeps the rows and columns `kept` (ascending), which are the first ones from then on.
  void pack(const std::vector<std::size_t>& kept) {
    for (std::size_t r = 0; r < kept.size(); ++r) {  // targets never lie behind their sources
      for (std::size_t c = 0; c <= r; ++c) set(r, c, *lower(kept[r], kept[c]));
    }
  }

 private:
  // Tiles before those of a row of tiles.
  static std::size_t before(std::size_t tiles) { return tiles * (tiles + 1) / 2; }

  // INOUT the place of an entry whose tile is stored: i / kSide >= j / kSide.
  const Real* lower(std::size_t i, std::size_t j) const {
    return values_.get() + ((before(i / kSide) + j / kSide) * kSide + i % kSide) * kSide + j % kSide;
  }
  Real* lower(std::size_t i, std::size_t j) {
    return values_.get() + ((before(i / kSide) + j / kSide) * kSide + i % kSide) * kSide + j % kSide;
  }

  std::size_t count_;
  std::unique_ptr<Real[]> values_;
};

}  // namespace onnxfold
