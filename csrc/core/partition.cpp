#include "partition.hpp"

#include <algorithm>
#include <limits>
#include <utility>

namespace onnxfold {
namespace {

// Rows start on cache lines, and not all on the same set of the cache.
template <typename Real>
std::size_t padded(std::size_t n) {
  constexpr std::size_t kLine = 64 / sizeof(Real);
  const std::size_t rounded = (n + kLine - 1) / kLine * kLine;
  return rounded % (8 * kLine) == 0 ? rounded + kLine : rounded;
}

}  // namespace

template <typename Real>
Partition<Real>::Partition(const BasicGram<Real>& gram, std::size_t k, Labels labels)
    : gram_(gram),
      labels_(std::move(labels)),
      members_(k),
      position_(gram.size()),
      stride_(padded<Real>(gram.size())),
      diagonal_(gram.size()),
      sums_(k * stride_),
      within_(k),
      lines_(k) {
  for (std::size_t i = 0; i < points(); ++i) {
    diagonal_[i] = gram_.row(i)[i];
    position_[i] = members_[labels_[i]].size();
    members_[labels_[i]].push_back(i);
  }
  rebuild();
}

template <typename Real>
void Partition<Real>::rebuild() {
  for (std::size_t c = 0; c < clusters(); ++c) {
    Real* sums = sums_.data() + c * stride_;
    std::fill_n(sums, points(), Real(0));
    for (const std::size_t i : members_[c]) kernels::add(sums, gram_.row(i), points());
    within_[c] = 0.0;
    for (const std::size_t i : members_[c]) within_[c] += sums[i];
    refresh_line(c);
  }
}

template <typename Real>
void Partition<Real>::refresh_line(std::size_t c) {
  const double size = static_cast<double>(members_[c].size());
  if (members_[c].empty()) {
    within_[c] = 0.0;
    std::fill_n(sums_.data() + c * stride_, points(), Real(0));
    lines_[c] = {0.0, 0.0, 0.0};
    return;
  }
  lines_[c] = {size / (size + 1.0), -2.0 / (size + 1.0), within_[c] / (size * (size + 1.0))};
}

template <typename Real>
double Partition<Real>::removal_gain(std::size_t i) const {
  const std::size_t c = labels_[i];
  const double size = static_cast<double>(members_[c].size());
  if (members_[c].size() < 2) return -std::numeric_limits<double>::infinity();
  const double distance = diagonal_[i] - 2.0 * sums(c)[i] / size + within_[c] / (size * size);
  return size / (size - 1.0) * distance;
}

template <typename Real>
double Partition<Real>::move(std::size_t i, std::size_t to) {
  const std::size_t from = labels_[i];
  const double gain = members_[from].size() > 1 ? removal_gain(i) : 0.0;
  const double cost = insertion_cost(i, to);

  Real* left = sums_.data() + from * stride_;
  Real* joined = sums_.data() + to * stride_;
  within_[from] += diagonal_[i] - 2.0 * left[i];
  within_[to] += diagonal_[i] + 2.0 * joined[i];
  kernels::subtract(left, gram_.row(i), points());
  kernels::add(joined, gram_.row(i), points());

  const std::size_t last = members_[from].back();
  members_[from][position_[i]] = last;
  position_[last] = position_[i];
  members_[from].pop_back();
  position_[i] = members_[to].size();
  members_[to].push_back(i);
  labels_[i] = to;
  refresh_line(from);
  refresh_line(to);
  return cost - gain;
}

template class Partition<double>;
template class Partition<float>;

}  // namespace onnxfold
