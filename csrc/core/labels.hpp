// Labels of points, and what a labelling costs.
#pragma once

#include <cstddef>
#include <vector>

#include "gram.hpp"

namespace onnxfold {

using Labels = std::vector<std::size_t>;  // the cluster of every point, in 0..k-1

// Numbers clusters by their first member: the first point is in 0, the first point not in 0 is in 1, ...
// Returns the number of clusters. INOUT labels (any values below labels.size()).
std::size_t make_canonical(Labels& labels);

// Sum over points of the squared distance to the mean of their cluster, from pair distances:
// sum over clusters of (1/m) sum_{i<j} |x_i - x_j|^2. Exact duplicates cost exactly zero. O(n + sum m^2).
template <typename Real>
double inertia(const BasicGram<Real>& gram, const Labels& labels, std::size_t k);

}  // namespace onnxfold
