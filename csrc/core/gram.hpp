// A read-only view of a Gram matrix G = X X' and the distances it implies.
#pragma once

#include <cstddef>

namespace onnxfold {

// n points, seen only through their inner products. Row-major, contiguous, symmetric; not owned.
// Distances do not depend on where the origin of the points is, so G may be centred or not. Real is double or
// float: everything that grows with n^2 or k n is stored in it, which for large n is what counts.
template <typename Real>
class BasicGram {
 public:
  BasicGram(const Real* values, std::size_t size) : values_(values), size_(size) {}

  std::size_t size() const { return size_; }
  const Real* row(std::size_t i) const { return values_ + i * size_; }
  double at(std::size_t i, std::size_t j) const { return values_[i * size_ + j]; }

  // |x_i - x_j|^2, never below zero.
  double squared_distance(std::size_t i, std::size_t j) const {
    const double distance = at(i, i) + at(j, j) - 2.0 * at(i, j);
    return distance > 0.0 ? distance : 0.0;
  }

 private:
  const Real* values_;
  std::size_t size_;
};

using GramView = BasicGram<double>;
using SingleGramView = BasicGram<float>;

// The largest magnitude an entry may have: sums over n^2 entries must stay finite.
template <typename Real>
constexpr double kLargestEntry = sizeof(Real) < sizeof(double) ? 1e28 : 1e280;

// Gains below this part of the largest diagonal entry are rounding errors.
template <typename Real>
constexpr double kRelativeTolerance = sizeof(Real) < sizeof(double) ? 1e-6 : 1e-12;

// Throws std::invalid_argument naming row and column of the first entry that is NaN, infinite or above
// kLargestEntry, and when there are no points at all.
template <typename Real>
void require_usable(const BasicGram<Real>& gram);

// The scale of rounding errors in G: its largest diagonal entry (0 when all points are the origin).
template <typename Real>
double largest_diagonal(const BasicGram<Real>& gram);

}  // namespace onnxfold
