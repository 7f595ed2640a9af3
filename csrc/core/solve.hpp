// k-means on a Gram matrix: several starts are refined, the best one is improved in several random ways, and
// the best of those is the answer. (onnxfold/folding/pure is the same in Python, file by file, to the last bit.)
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "gram.hpp"

namespace onnxfold {

struct Options {
  std::uint64_t seed = 0;
  std::size_t restarts = 2;       // starts (the first from Ward, the others from k-means++), and searches; at least 1
  std::size_t max_sweeps = 100;   // Hartigan passes per refinement
  std::size_t perturbations = 0;  // disturbances per search at most; 0: no search
  std::size_t threads = 0;        // 0: as many as the machine has
  std::size_t memory_cap = std::size_t{4} << 30;  // bytes for what runs at once; fewer threads if needed
};

struct Solution {
  std::vector<std::int32_t> labels;  // clusters numbered by their first member, 0..k-1, none empty
  double inertia = 0.0;              // sum of squared distances to the cluster means
  std::size_t sweeps = 0;            // Hartigan passes of the start and the search that won
};

// The same for any number of threads: each start and each search has its own random numbers, and of equally
// good ones the first counts. Beside G each thread holds what its partition does (half of n^2 floats, k n doubles), the
// first half of n^2 Reals for Ward before.
// Throws std::invalid_argument for k outside 1..n, no restarts, or an unusable matrix.
template <typename Real>
Solution solve(const BasicGram<Real>& gram, std::size_t k, const Options& options);

}  // namespace onnxfold
