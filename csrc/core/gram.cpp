#include "gram.hpp"

#include <cmath>
#include <stdexcept>
#include <string>

namespace onnxfold {
namespace {

std::string describe(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0.0 ? "inf" : "-inf";
  return "a value above 1e280";
}

}  // namespace

void require_usable(const GramView& gram) {
  const std::size_t n = gram.size();
  if (n == 0) throw std::invalid_argument("Gram matrix is empty: give at least one point");
  for (std::size_t i = 0; i < n; ++i) {
    const double* row = gram.row(i);
    std::size_t usable = 0;
    for (std::size_t j = 0; j < n; ++j) usable += std::abs(row[j]) <= kLargestEntry ? 1U : 0U;
    if (usable == n) continue;
    std::size_t j = 0;
    while (std::abs(row[j]) <= kLargestEntry) ++j;
    throw std::invalid_argument("Gram matrix has " + describe(row[j]) + " at row " + std::to_string(i) +
                                ", column " + std::to_string(j));
  }
}

double largest_diagonal(const GramView& gram) {
  double largest = 0.0;
  for (std::size_t i = 0; i < gram.size(); ++i) {
    if (gram.at(i, i) > largest) largest = gram.at(i, i);
  }
  return largest;
}

}  // namespace onnxfold
