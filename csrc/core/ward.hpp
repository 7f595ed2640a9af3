// Ward's hierarchical clustering.
#pragma once

#include <cstddef>
#include <vector>

#include "gram.hpp"
#include "labels.hpp"

namespace onnxfold {

// Two clusters become one. Clusters are named by their lowest member, left < right; the union is `left`.
struct Merge {
  std::size_t left;
  std::size_t right;
  double height;  // by how much the inertia grows
};

// All n - 1 merges, lowest height first, a merge never before those it builds on. Nearest-neighbour chain
// with the Lance-Williams update (Murtagh 1983): O(n^2) time, half of n^2 Reals beside G.
template <typename Real>
std::vector<Merge> ward(const BasicGram<Real>& gram);

// The labels after the first n - k merges, canonical.
Labels cut(const std::vector<Merge>& merges, std::size_t k);

}  // namespace onnxfold
