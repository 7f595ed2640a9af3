// Iterated local search: disturb a refined partition a little, refine again, keep what is better.
#pragma once

#include <cstddef>

#include "hartigan.hpp"
#include "partition.hpp"
#include "rng.hpp"

namespace onnxfold {

struct SearchLimits {
  std::size_t perturbations;  // how many disturbances are tried at most
  std::size_t max_sweeps;     // Hartigan passes after each
};

// A disturbance merges a cluster with the one it is cheapest to merge with, and gives the free cluster to
// a point far from its mean. Both are the best of a few random ones. Gives up after 100 disturbances in a
// row that led nowhere. Returns the number of passes made. Needs 1 < k < n and a refined partition.
template <typename Real>
std::size_t improve(Partition<Real>& partition, Hartigan<Real>& hartigan, Rng& rng, SearchLimits limits, double tolerance);

}  // namespace onnxfold
