#include "gram.hpp"

#include <cmath>
#include <stdexcept>
#include <string>

namespace onnxfold {
namespace {

std::string describe(double value, double limit) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0.0 ? "inf" : "-inf";
  return limit > 1e100 ? "a value above 1e280" : "a value above 1e28";
}

}  // namespace

template <typename Real>
void require_usable(const BasicGram<Real>& gram) {
  constexpr double kLimit = kLargestEntry<Real>;
  const std::size_t n = gram.size();
  if (n == 0) throw std::invalid_argument("Gram matrix is empty: give at least one point");
  for (std::size_t i = 0; i < n; ++i) {
    const Real* row = gram.row(i);
    std::size_t usable = 0;
    for (std::size_t j = 0; j < n; ++j) usable += std::abs(row[j]) <= kLimit ? 1U : 0U;
    if (usable == n) continue;
    std::size_t j = 0;
    while (std::abs(row[j]) <= kLimit) ++j;
    throw std::invalid_argument("Gram matrix has " + describe(row[j], kLimit) + " at row " + std::to_string(i) +
                                ", column " + std::to_string(j));
  }
}

template <typename Real>
double largest_diagonal(const BasicGram<Real>& gram) {
  double largest = 0.0;
  for (std::size_t i = 0; i < gram.size(); ++i) {
    if (gram.at(i, i) > largest) largest = gram.at(i, i);
  }
  return largest;
}

template void require_usable(const GramView&);
template void require_usable(const SingleGramView&);
template double largest_diagonal(const GramView&);
template double largest_diagonal(const SingleGramView&);

}  // namespace onnxfold
