#include "seeding.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels.hpp"

namespace onnxfold {
namespace {

// A point drawn with probability proportional to its weight, never one of weight zero. IN running: the
// weights summed up, the last above zero.
std::size_t pick(const std::vector<double>& running, Rng& rng) {
  const double total = running.back();
  auto found = std::upper_bound(running.begin(), running.end(), rng.unit() * total);
  if (found == running.end()) found = std::lower_bound(running.begin(), running.end(), total);  // rounded up
  return static_cast<std::size_t>(found - running.begin());
}

std::size_t first_unused(const std::vector<bool>& used) {
  std::size_t j = 0;
  while (used[j]) ++j;
  return j;
}

}  // namespace

template <typename Real>
Labels seed_plus_plus(const BasicGram<Real>& gram, std::size_t k, Rng& rng) {
  const std::size_t n = gram.size();
  const std::size_t candidates = 2 + static_cast<std::size_t>(std::log(static_cast<double>(k)));
  std::vector<Real> diagonal(n);
  for (std::size_t i = 0; i < n; ++i) diagonal[i] = gram.row(i)[i];

  std::vector<double> closest(n, std::numeric_limits<double>::infinity());
  std::vector<bool> used(n, false);
  std::vector<std::size_t> seeds;
  const auto take = [&](std::size_t seed) {
    seeds.push_back(seed);
    used[seed] = true;
    kernels::lower_distances(closest.data(), diagonal.data(), gram.row(seed), diagonal[seed], n);
    closest[seed] = 0.0;
  };

  take(rng.below(n));
  std::vector<double> running(n);
  while (seeds.size() < k) {
    std::partial_sum(closest.begin(), closest.end(), running.begin());
    if (!(running.back() > 0.0)) {  // every point lies on a seed already
      take(first_unused(used));
      continue;
    }
    std::size_t best = n;
    double lowest = std::numeric_limits<double>::infinity();
    for (std::size_t draw = 0; draw < candidates; ++draw) {
      const std::size_t candidate = pick(running, rng);
      const double left =
          kernels::potential(closest.data(), diagonal.data(), gram.row(candidate), diagonal[candidate], n);
      if (left < lowest) {
        lowest = left;
        best = candidate;
      }
    }
    take(best);
  }

  Labels labels(n, 0);
  std::vector<double> nearest(n, std::numeric_limits<double>::infinity());
  for (std::size_t c = 0; c < k; ++c) {
    const Real* row = gram.row(seeds[c]);
    for (std::size_t i = 0; i < n; ++i) {
      const double distance = double{diagonal[i]} + double{diagonal[seeds[c]]} - 2.0 * double{row[i]};
      if (distance < nearest[i]) {
        nearest[i] = distance;
        labels[i] = c;
      }
    }
  }
  for (std::size_t c = 0; c < k; ++c) labels[seeds[c]] = c;
  return labels;
}

template Labels seed_plus_plus(const GramView&, std::size_t, Rng&);
template Labels seed_plus_plus(const SingleGramView&, std::size_t, Rng&);

}  // namespace onnxfold
