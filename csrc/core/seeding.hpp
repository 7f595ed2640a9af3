// Greedy k-means++ starts.
#pragma once

#include <cstddef>

#include "gram.hpp"
#include "labels.hpp"
#include "rng.hpp"

namespace onnxfold {

// k distinct points are drawn, each with probability proportional to its squared distance to those drawn
// before; of 2 + log(k) candidates the one that leaves the lowest sum is kept (Arthur and Vassilvitskii
// 2007, the greedy variant). Every point goes to its nearest seed, a seed to its own cluster, so no
// cluster is empty even when there are fewer distinct points than k. O(n k log k) time, O(n) memory.
template <typename Real>
Labels seed_plus_plus(const BasicGram<Real>& gram, std::size_t k, Rng& rng);

}  // namespace onnxfold
