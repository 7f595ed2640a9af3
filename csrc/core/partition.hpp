// A partition of the points, with the sums that make a move cheap to price and to do.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "gram.hpp"
#include "kernels.hpp"
#include "labels.hpp"

namespace onnxfold {

// Keeps S[c,i] = sum_{j in c} G[i,j] (the memory of a restart), B[c] = sum_{i,j in c} G[i,j] and the members.
// One row of S per cluster: a move then touches two contiguous rows, and pricing one cluster for all points
// reads one. Of floats, which are for many points, a cluster of one point has that point's row of G for its
// sums: then S has min(k, n - k + 1) rows, half of n at most, instead of k.
template <typename Real>
class Partition {
 public:
  // labels: one per point, each in 0..k-1.
  Partition(const BasicGram<Real>& gram, std::size_t k, Labels labels);

  // Of S, at most. With e empty clusters at most n - k + e have several members, and one is empty at a time.
  static std::size_t rows(std::size_t n, std::size_t k) { return kShares && n - k + 1 < k ? n - k + 1 : k; }

  std::size_t points() const { return gram_.size(); }
  std::size_t clusters() const { return members_.size(); }
  const BasicGram<Real>& gram() const { return gram_; }
  const Labels& labels() const { return labels_; }
  const std::vector<std::size_t>& members(std::size_t c) const { return members_[c]; }
  const Real* sums(std::size_t c) const { return rows_[c]; }
  const Real* diagonal() const { return diagonal_.data(); }
  double within(std::size_t c) const { return within_[c]; }
  const kernels::CostLine& line(std::size_t c) const { return lines_[c]; }

  // How much inertia goes when point i leaves its cluster: m/(m-1) |x_i - mu|^2, minus infinity when it is
  // alone there (it must stay).
  double removal_gain(std::size_t i) const;

  // How much inertia comes when point i joins cluster c, in which it is not: m/(m+1) |x_i - mu|^2.
  double insertion_cost(std::size_t i, std::size_t c) const { return insertion_cost(i, c, rows_[c][i]); }

  // The same where S[c,i] is known.
  double insertion_cost(std::size_t i, std::size_t c, double sum) const {
    const kernels::CostLine& line = lines_[c];
    return line.weight * diagonal_[i] + line.slope * sum + line.offset;
  }

  // S[c,i] for every cluster. For many points (floats) it is added up from one row of G: one number of every row of
  // S would come from another page each. OUT sums.
  void sums_of(std::size_t i, std::vector<double>& sums) const;

  // Moves point i to another cluster and returns by how much the inertia changes. A cluster may be empty
  // in between, one at a time; it must have got a member before it is priced.
  double move(std::size_t i, std::size_t to);

  // Recomputes all sums from G, which rids them of rounding errors. O(n^2).
  void rebuild();

 private:
  static constexpr bool kShares = sizeof(Real) < sizeof(double);  // rows of G, with clusters of one point

  Real* own_row(std::size_t c);
  void share_row(std::size_t c, const Real* row);
  void leave(std::size_t i);
  void join(std::size_t i, std::size_t to);
  void refresh_line(std::size_t c);

  BasicGram<Real> gram_;
  Labels labels_;
  std::vector<std::vector<std::size_t>> members_;
  std::vector<std::size_t> position_;  // of a point in members_ of its cluster
  std::size_t stride_;                 // n rounded up, and not a multiple of the page size
  std::vector<Real> diagonal_;
  std::unique_ptr<Real[]> sums_;
  std::vector<Real*> owned_;        // of a cluster, in sums_; null where it shares another
  std::vector<Real*> spare_;        // rows of sums_ that no cluster has
  std::vector<const Real*> rows_;   // of a cluster: the row of S
  std::vector<Real> nothing_;       // of a cluster without members
  std::vector<double> within_;
  std::vector<kernels::CostLine> lines_;
};

}  // namespace onnxfold
