// Hartigan's refinement: move single points while that lowers the inertia.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include "partition.hpp"

namespace onnxfold {

// Works on clusters that changed only: a point needs a new look at a cluster when that cluster changed,
// and at all clusters when leaving its own became more attractive. Where nothing is marked, no single move
// lowers the inertia by more than the tolerance.
template <typename Real>
class Hartigan {
 public:
  // tolerance: gains below it are taken for rounding errors. The partition must outlive this object.
  Hartigan(Partition<Real>& partition, double tolerance);

  void mark_all();

  // Moves until nothing is marked or max_sweeps passes were made; returns the number of passes. Never
  // empties a cluster, never raises the inertia.
  std::size_t run(std::size_t max_sweeps);

  // Moves a point whatever it costs, marks both clusters.
  void force(std::size_t i, std::size_t to);

  // Begins to remember moves; change() is the inertia gained or lost since then; undo() takes all back and
  // must start from where nothing is marked.
  void remember();
  double change() const { return change_; }
  void undo();

 private:
  void mark(std::size_t c);
  void price(const std::vector<std::size_t>& changed);
  void consider(std::size_t i);

  Partition<Real>& partition_;
  double tolerance_;
  std::vector<std::size_t> marked_;
  std::vector<char> is_marked_;
  std::vector<Real> lowest_;     // the cheapest of the changed clusters, for every point
  std::vector<double> removal_;  // the gain of leaving, for every point
  std::vector<double> checked_;  // no unchanged cluster is cheaper than this (but for the tolerance)
  std::vector<Real> saved_;
  std::vector<double> sums_;  // of one point, for every cluster
  std::vector<std::pair<std::size_t, std::size_t>> moves_;  // point, where it came from
  double change_ = 0.0;
};

}  // namespace onnxfold
