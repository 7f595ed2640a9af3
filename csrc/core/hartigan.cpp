#include "hartigan.hpp"

#include <algorithm>
#include <limits>

namespace onnxfold {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

}  // namespace

template <typename Real>
Hartigan<Real>::Hartigan(Partition<Real>& partition, double tolerance)
    : partition_(partition),
      tolerance_(tolerance),
      is_marked_(partition.clusters(), 0),
      lowest_(partition.points(), std::numeric_limits<Real>::infinity()),
      removal_(partition.points(), -kInfinity),
      checked_(partition.points(), -kInfinity) {}

template <typename Real>
void Hartigan<Real>::mark(std::size_t c) {
  if (is_marked_[c]) return;
  is_marked_[c] = 1;
  marked_.push_back(c);
}

template <typename Real>
void Hartigan<Real>::mark_all() {
  for (std::size_t c = 0; c < partition_.clusters(); ++c) mark(c);
}

template <typename Real>
void Hartigan<Real>::force(std::size_t i, std::size_t to) {
  const std::size_t from = partition_.labels()[i];
  moves_.emplace_back(i, from);
  change_ += partition_.move(i, to);
  mark(from);
  mark(to);
}

template <typename Real>
void Hartigan<Real>::remember() {
  moves_.clear();
  change_ = 0.0;
}

template <typename Real>
void Hartigan<Real>::undo() {
  for (auto entry = moves_.rbegin(); entry != moves_.rend(); ++entry) {
    mark(partition_.labels()[entry->first]);
    mark(entry->second);
    partition_.move(entry->first, entry->second);
  }
  for (const std::size_t c : marked_) {
    is_marked_[c] = 0;
    for (const std::size_t i : partition_.members(c)) removal_[i] = checked_[i] = partition_.removal_gain(i);
  }
  marked_.clear();
  remember();
}

// Fills lowest_ for all points with the cheapest of the changed clusters other than their own.
template <typename Real>
void Hartigan<Real>::price(const std::vector<std::size_t>& changed) {
  std::fill(lowest_.begin(), lowest_.end(), std::numeric_limits<Real>::infinity());
  for (const std::size_t c : changed) {
    const std::vector<std::size_t>& members = partition_.members(c);
    saved_.clear();
    for (const std::size_t i : members) saved_.push_back(lowest_[i]);
    kernels::lower_costs(lowest_.data(), partition_.diagonal(), partition_.sums(c), partition_.line(c),
                         partition_.points());
    for (std::size_t at = 0; at < members.size(); ++at) {
      lowest_[members[at]] = saved_[at];
      removal_[members[at]] = partition_.removal_gain(members[at]);
    }
  }
}

// Looks at all clusters as they are now and moves the point to the cheapest if that pays.
template <typename Real>
void Hartigan<Real>::consider(std::size_t i) {
  const std::size_t own = partition_.labels()[i];
  const double gain = partition_.removal_gain(i);
  checked_[i] = removal_[i] = gain;
  if (gain == -kInfinity) return;
  partition_.sums_of(i, sums_);
  double lowest = kInfinity;
  std::size_t target = own;
  for (std::size_t c = 0; c < partition_.clusters(); ++c) {
    const double cost = partition_.insertion_cost(i, c, sums_[c]);
    if (cost < lowest && c != own) {
      lowest = cost;
      target = c;
    }
  }
  if (!(lowest < gain - tolerance_)) return;
  force(i, target);
  checked_[i] = lowest;  // what leaving again would gain; nothing else was cheaper
}

template <typename Real>
std::size_t Hartigan<Real>::run(std::size_t max_sweeps) {
  std::size_t sweeps = 0;
  std::vector<std::size_t> changed;
  while (!marked_.empty() && sweeps < max_sweeps) {
    ++sweeps;
    changed.swap(marked_);
    marked_.clear();
    for (const std::size_t c : changed) is_marked_[c] = 0;
    price(changed);
    const bool all = changed.size() == partition_.clusters();
    for (std::size_t i = 0; i < partition_.points(); ++i) {
      const bool unchecked = removal_[i] > checked_[i] && !all;
      if (unchecked || lowest_[i] < removal_[i] - tolerance_) {
        consider(i);
      } else {
        checked_[i] = removal_[i];
      }
    }
  }
  return sweeps;
}

template class Hartigan<double>;
template class Hartigan<float>;

}  // namespace onnxfold
