#include "labels.hpp"

#include <limits>

namespace onnxfold {

std::size_t make_canonical(Labels& labels) {
  constexpr std::size_t kUnseen = std::numeric_limits<std::size_t>::max();
  std::vector<std::size_t> renamed(labels.size(), kUnseen);
  std::size_t count = 0;
  for (std::size_t& label : labels) {
    if (renamed[label] == kUnseen) renamed[label] = count++;
    label = renamed[label];
  }
  return count;
}

template <typename Real>
double inertia(const BasicGram<Real>& gram, const Labels& labels, std::size_t k) {
  std::vector<std::vector<std::size_t>> members(k);
  for (std::size_t i = 0; i < labels.size(); ++i) members[labels[i]].push_back(i);
  double total = 0.0;
  for (const std::vector<std::size_t>& cluster : members) {
    double pairs = 0.0;
    for (std::size_t a = 0; a < cluster.size(); ++a) {
      double from_a = 0.0;
      for (std::size_t b = a + 1; b < cluster.size(); ++b) from_a += gram.squared_distance(cluster[a], cluster[b]);
      pairs += from_a;
    }
    if (cluster.size() > 1) total += pairs / static_cast<double>(cluster.size());
  }
  return total;
}

template double inertia(const GramView&, const Labels&, std::size_t);
template double inertia(const SingleGramView&, const Labels&, std::size_t);

}  // namespace onnxfold
