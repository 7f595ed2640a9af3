#include "ward.hpp"

#include <algorithm>
#include <limits>

#include "kernels.hpp"
#include "triangle.hpp"

namespace onnxfold {
namespace {

template <typename Real>
constexpr Real kInfinity = std::numeric_limits<Real>::infinity();

// The distances between clusters that are still there. Slots of clusters that are gone stay until half of
// all are gone; then the matrix is packed, so that later scans are short.
template <typename Real>
class ClusterDistances {
 public:
  explicit ClusterDistances(const BasicGram<Real>& gram)
      : slots_(gram.size()),
        alive_(gram.size()),
        values_(slots_),
        sizes_(slots_, Real(1)),
        penalty_(slots_, Real(0)),
        names_(slots_),
        heights_(slots_, Real(0)),
        row_(Triangle<Real>::padded(slots_)),
        other_(row_.size()),
        merged_(row_.size()) {
    std::vector<double> diagonal(slots_);
    for (std::size_t i = 0; i < slots_; ++i) diagonal[i] = gram.at(i, i);
    for (std::size_t i = 0; i < slots_; ++i) {
      names_[i] = i;
      row_[i] = kInfinity<Real>;
      const Real* products = gram.row(i);
      for (std::size_t j = i + 1; j < slots_; ++j) {
        const double distance = diagonal[i] + diagonal[j] - 2.0 * products[j];
        row_[j] = static_cast<Real>(distance > 0.0 ? 0.5 * distance : 0.0);
      }
      values_.write_from(i, slots_, row_.data());
    }
  }

  std::size_t alive() const { return alive_; }
  std::size_t slots() const { return slots_; }

  std::size_t first() const {
    std::size_t slot = 0;
    while (penalty_[slot] > Real(0)) ++slot;
    return slot;
  }

  // The nearest other cluster; `preferred` when it is as near as any (it may be slots(): nobody).
  std::size_t nearest(std::size_t slot, std::size_t preferred) {
    values_.read(slot, slots_, row_.data());
    const Real lowest = kernels::lowest_sum(row_.data(), penalty_.data(), slots_);
    if (preferred < slots_ && row_[preferred] <= lowest) return preferred;
    std::size_t found = 0;
    while (row_[found] + penalty_[found] > lowest) ++found;
    return found;
  }

  // Puts both clusters into the lower slot. A height is never below those it builds on (it is not, but
  // for rounding).
  Merge merge(std::size_t a, std::size_t b) {
    const std::size_t i = std::min(a, b);
    const std::size_t j = std::max(a, b);
    values_.read(i, slots_, row_.data());
    values_.read(j, slots_, other_.data());
    const Real distance = row_[j];
    const Real height = std::max({distance, heights_[i], heights_[j]});
    kernels::merge_distances(merged_.data(), row_.data(), other_.data(), sizes_.data(), sizes_[i], sizes_[j], distance,
                             slots_);
    merged_[i] = kInfinity<Real>;
    values_.write(i, slots_, merged_.data());
    sizes_[i] += sizes_[j];
    sizes_[j] = Real(0);
    penalty_[j] = kInfinity<Real>;
    heights_[i] = height;
    --alive_;
    return Merge{names_[i], names_[j], height};
  }

  // Drops the slots of clusters that are gone, keeping the order. INOUT slots: positions to translate.
  void pack(std::vector<std::size_t>& chain) {
    std::vector<std::size_t> kept;
    std::vector<std::size_t> moved(slots_, 0);
    for (std::size_t slot = 0; slot < slots_; ++slot) {
      if (penalty_[slot] > Real(0)) continue;
      moved[slot] = kept.size();
      kept.push_back(slot);
    }
    values_.pack(kept);
    for (std::size_t r = 0; r < kept.size(); ++r) {
      sizes_[r] = sizes_[kept[r]];
      penalty_[r] = Real(0);
      names_[r] = names_[kept[r]];
      heights_[r] = heights_[kept[r]];
    }
    slots_ = kept.size();
    for (std::size_t& slot : chain) slot = moved[slot];
  }

 private:
  std::size_t slots_;
  std::size_t alive_;
  Triangle<Real> values_;
  std::vector<Real> sizes_;    // members; 0 when gone
  std::vector<Real> penalty_;  // 0, infinite when gone
  std::vector<std::size_t> names_;
  std::vector<Real> heights_;  // of the merge that made the cluster
  std::vector<Real> row_;
  std::vector<Real> other_;
  std::vector<Real> merged_;
};

}  // namespace

template <typename Real>
std::vector<Merge> ward(const BasicGram<Real>& gram) {
  constexpr std::size_t kWorthPacking = 64;
  ClusterDistances<Real> distances(gram);
  std::vector<Merge> merges;
  merges.reserve(gram.size());
  std::vector<std::size_t> chain;
  while (distances.alive() > 1) {
    if (distances.slots() > kWorthPacking && 2 * distances.alive() <= distances.slots()) distances.pack(chain);
    if (chain.empty()) chain.push_back(distances.first());
    const std::size_t top = chain.back();
    const std::size_t before = chain.size() > 1 ? chain[chain.size() - 2] : distances.slots();
    const std::size_t next = distances.nearest(top, before);
    // A cluster already deeper in the chain can only be met through rounding: then all distances between
    // are the same to rounding, and the chain may as well close here.
    const bool closed = next == before || std::find(chain.begin(), chain.end(), next) != chain.end();
    if (!closed) {
      chain.push_back(next);
      continue;
    }
    merges.push_back(distances.merge(top, before));
    chain.resize(chain.size() - 2);
  }
  std::stable_sort(merges.begin(), merges.end(), [](const Merge& a, const Merge& b) { return a.height < b.height; });
  return merges;
}

template std::vector<Merge> ward(const GramView&);
template std::vector<Merge> ward(const SingleGramView&);

Labels cut(const std::vector<Merge>& merges, std::size_t k) {
  const std::size_t n = merges.size() + 1;
  Labels parent(n);
  for (std::size_t i = 0; i < n; ++i) parent[i] = i;
  for (std::size_t step = 0; step < n - k; ++step) parent[merges[step].right] = merges[step].left;
  for (std::size_t i = 0; i < n; ++i) parent[i] = parent[parent[i]];  // parents have lower numbers: done already
  make_canonical(parent);
  return parent;
}

}  // namespace onnxfold
