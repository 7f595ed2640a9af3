#include "search.hpp"

#include <limits>
#include <vector>

namespace onnxfold {
namespace {

constexpr std::size_t kMergeCandidates = 4;
constexpr std::size_t kSplitCandidates = 4;
constexpr std::size_t kPatience = 40;
constexpr std::size_t kRebuildEvery = 512;

struct Pair {
  std::size_t dissolved;
  std::size_t kept;
  double cost;
};

// The cheapest merge of cluster a with another: m_a m_b / (m_a + m_b) |mu_a - mu_b|^2. INOUT between:
// scratch, one entry per cluster.
template <typename Real>
Pair cheapest_merge(const Partition<Real>& partition, std::size_t a, std::vector<double>& between) {
  between.assign(partition.clusters(), 0.0);
  const Real* sums = partition.sums(a);
  const Labels& labels = partition.labels();
  for (std::size_t i = 0; i < partition.points(); ++i) between[labels[i]] += sums[i];
  const double size_a = static_cast<double>(partition.members(a).size());
  const double norm_a = partition.within(a) / (size_a * size_a);
  Pair best{a, a, std::numeric_limits<double>::infinity()};
  for (std::size_t b = 0; b < partition.clusters(); ++b) {
    if (b == a) continue;
    const double size_b = static_cast<double>(partition.members(b).size());
    const double distance = norm_a + partition.within(b) / (size_b * size_b) - 2.0 * between[b] / (size_a * size_b);
    const double cost = size_a * size_b / (size_a + size_b) * distance;
    if (cost < best.cost) best = {a, b, cost};
  }
  return best;
}

template <typename Real>
Pair pick_merge(const Partition<Real>& partition, Rng& rng, std::vector<double>& between) {
  Pair best{0, 0, std::numeric_limits<double>::infinity()};
  for (std::size_t draw = 0; draw < kMergeCandidates; ++draw) {
    const Pair pair = cheapest_merge(partition, rng.below(partition.clusters()), between);
    if (draw == 0 || pair.cost < best.cost) best = pair;
  }
  return best;
}

// A point whose cluster has others, far from the mean of that cluster.
template <typename Real>
std::size_t pick_split(const Partition<Real>& partition, Rng& rng) {
  std::size_t best = partition.points();
  double most = -std::numeric_limits<double>::infinity();
  for (std::size_t draw = 0; draw < kSplitCandidates; ++draw) {
    const std::size_t i = rng.below(partition.points());
    const double gain = partition.removal_gain(i);
    if (gain > most) {
      most = gain;
      best = i;
    }
  }
  if (best < partition.points()) return best;
  best = 0;
  while (partition.members(partition.labels()[best]).size() < 2) ++best;  // k < n: there is one
  return best;
}

template <typename Real>
void disturb(const Partition<Real>& partition, Hartigan<Real>& hartigan, Rng& rng, std::vector<double>& between) {
  const Pair pair = pick_merge(partition, rng, between);
  const std::vector<std::size_t> dissolved = partition.members(pair.dissolved);
  for (const std::size_t i : dissolved) hartigan.force(i, pair.kept);
  hartigan.force(pick_split(partition, rng), pair.dissolved);
}

}  // namespace

template <typename Real>
std::size_t improve(Partition<Real>& partition, Hartigan<Real>& hartigan, Rng& rng, SearchLimits limits, double tolerance) {
  std::vector<double> between;
  std::size_t sweeps = 0;
  std::size_t failures = 0;
  for (std::size_t step = 0; step < limits.perturbations && failures < kPatience; ++step) {
    if (step % kRebuildEvery == kRebuildEvery - 1) partition.rebuild();
    hartigan.remember();
    disturb(partition, hartigan, rng, between);
    sweeps += hartigan.run(limits.max_sweeps);
    if (hartigan.change() < -tolerance) {
      failures = 0;
    } else {
      ++failures;
      hartigan.undo();
    }
  }
  return sweeps;
}

template std::size_t improve(Partition<double>&, Hartigan<double>&, Rng&, SearchLimits, double);
template std::size_t improve(Partition<float>&, Hartigan<float>&, Rng&, SearchLimits, double);

}  // namespace onnxfold
