#include "partition.hpp"

#include <algorithm>
#include <limits>
#include <utility>

#include "large_array.hpp"

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
      owned_(k, nullptr),
      rows_(k, nullptr),
      nothing_(kShares ? gram.size() : 0, Real(0)),
      within_(k),
      lines_(k) {
  for (std::size_t i = 0; i < points(); ++i) {
    diagonal_[i] = gram_.row(i)[i];
    position_[i] = members_[labels_[i]].size();
    members_[labels_[i]].push_back(i);
  }
  const std::size_t most = rows(points(), k);
  sums_ = large_array<Real>(most * stride_);
  for (std::size_t row = most; row > 0; --row) spare_.push_back(sums_.get() + (row - 1) * stride_);
  rebuild();
}

template <typename Real>
void Partition<Real>::rebuild() {
  for (std::size_t c = 0; c < clusters(); ++c) {
    if (kShares && members_[c].size() < 2) {
      refresh_line(c);
      continue;
    }
    Real* sums = own_row(c);
    std::fill_n(sums, points(), Real(0));
    for (const std::size_t i : members_[c]) kernels::add(sums, gram_.row(i), points());
    within_[c] = 0.0;
    for (const std::size_t i : members_[c]) within_[c] += sums[i];
    refresh_line(c);
  }
}

// The row of sums_ that a cluster has from now on; what is in it means nothing if it had none.
template <typename Real>
Real* Partition<Real>::own_row(std::size_t c) {
  if (owned_[c] == nullptr) {
    owned_[c] = spare_.back();
    spare_.pop_back();
    rows_[c] = owned_[c];
  }
  return owned_[c];
}

template <typename Real>
void Partition<Real>::share_row(std::size_t c, const Real* row) {
  if (owned_[c] != nullptr) spare_.push_back(owned_[c]);
  owned_[c] = nullptr;
  rows_[c] = row;
}

template <typename Real>
void Partition<Real>::refresh_line(std::size_t c) {
  const double size = static_cast<double>(members_[c].size());
  if (members_[c].empty()) {
    within_[c] = 0.0;
    if constexpr (kShares) {
      share_row(c, nothing_.data());
    } else {
      std::fill_n(own_row(c), points(), Real(0));
    }
    lines_[c] = {0.0, 0.0, 0.0};
    return;
  }
  if (kShares && members_[c].size() == 1) {
    within_[c] = diagonal_[members_[c].front()];
    share_row(c, gram_.row(members_[c].front()));
  }
  lines_[c] = {size / (size + 1.0), -2.0 / (size + 1.0), within_[c] / (size * (size + 1.0))};
}

template <typename Real>
void Partition<Real>::sums_of(std::size_t i, std::vector<double>& sums) const {
  sums.assign(clusters(), 0.0);
  if constexpr (kShares) {
    const Real* row = gram_.row(i);
    for (std::size_t j = 0; j < points(); ++j) sums[labels_[j]] += row[j];
  } else {
    for (std::size_t c = 0; c < clusters(); ++c) sums[c] = rows_[c][i];
  }
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

  within_[from] += diagonal_[i] - 2.0 * sums(from)[i];
  within_[to] += diagonal_[i] + 2.0 * sums(to)[i];
  leave(i);
  join(i, to);
  return cost - gain;
}

// Takes a point out of its cluster; within_ is right already.
template <typename Real>
void Partition<Real>::leave(std::size_t i) {
  const std::size_t from = labels_[i];
  std::vector<std::size_t>& members = members_[from];
  const std::size_t last = members.back();
  members[position_[i]] = last;
  position_[last] = position_[i];
  members.pop_back();
  if (!kShares || members.size() > 1) kernels::subtract(own_row(from), gram_.row(i), points());
  refresh_line(from);
}

// Puts a point that is nowhere into a cluster; within_ is right already.
template <typename Real>
void Partition<Real>::join(std::size_t i, std::size_t to) {
  std::vector<std::size_t>& members = members_[to];
  position_[i] = members.size();
  members.push_back(i);
  labels_[i] = to;
  if (!kShares || members.size() > 1) {
    const Real* before = rows_[to];
    Real* sums = own_row(to);
    if (before != sums) std::copy_n(before, points(), sums);
    kernels::add(sums, gram_.row(i), points());
  }
  refresh_line(to);
}

template class Partition<double>;
template class Partition<float>;

}  // namespace onnxfold
