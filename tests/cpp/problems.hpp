// Points to cluster, and slow, obvious ways to get the answer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <vector>

#include "gram.hpp"
#include "labels.hpp"
#include "rng.hpp"

namespace problems {

using Points = std::vector<std::vector<double>>;

// Owns the Gram matrix that a view reads.
struct Gram {
  explicit Gram(const Points& points) : values(points.size() * points.size()), size(points.size()) {
    for (std::size_t i = 0; i < size; ++i) {
      for (std::size_t j = 0; j < size; ++j) {
        double product = 0.0;
        for (std::size_t f = 0; f < points[i].size(); ++f) product += points[i][f] * points[j][f];
        values[i * size + j] = product;
      }
    }
  }

  onnxfold::GramView view() const { return {values.data(), size}; }

  std::vector<double> values;
  std::size_t size;
};

// Uniform in a cube of side 2 around the origin.
inline Points scattered(std::size_t n, std::size_t d, std::uint64_t seed) {
  onnxfold::Rng rng(seed, 0);
  Points points(n, std::vector<double>(d));
  for (std::vector<double>& point : points) {
    for (double& value : point) value = 2.0 * rng.unit() - 1.0;
  }
  return points;
}

// The inertia from its definition: squared distances to the means, over the features.
template <typename Label>
double inertia(const Points& points, const std::vector<Label>& labels, std::size_t k) {
  const std::size_t d = points[0].size();
  Points means(k, std::vector<double>(d, 0.0));
  std::vector<double> sizes(k, 0.0);
  for (std::size_t i = 0; i < points.size(); ++i) {
    const std::size_t c = static_cast<std::size_t>(labels[i]);
    sizes[c] += 1.0;
    for (std::size_t f = 0; f < d; ++f) means[c][f] += points[i][f];
  }
  double total = 0.0;
  for (std::size_t i = 0; i < points.size(); ++i) {
    const std::size_t c = static_cast<std::size_t>(labels[i]);
    for (std::size_t f = 0; f < d; ++f) {
      const double distance = points[i][f] - means[c][f] / sizes[c];
      total += distance * distance;
    }
  }
  return total;
}

// The lowest inertia of all partitions into exactly k clusters.
inline double optimum(const Points& points, std::size_t k) {
  std::vector<std::size_t> labels(points.size(), 0);
  double best = std::numeric_limits<double>::infinity();
  const std::function<void(std::size_t, std::size_t)> place = [&](std::size_t i, std::size_t used) {
    if (i == points.size()) {
      if (used != k) return;
      const double cost = inertia(points, labels, k);
      if (cost < best) best = cost;
      return;
    }
    for (std::size_t c = 0; c < used + 1 && c < k; ++c) {
      labels[i] = c;
      place(i + 1, c == used ? used + 1 : used);
    }
  };
  place(0, 0);
  return best;
}

// True when labels are 0..k-1, all used, numbered by their first member.
template <typename Label>
bool canonical(const std::vector<Label>& labels, std::size_t k) {
  std::size_t seen = 0;
  for (const Label label : labels) {
    if (static_cast<std::size_t>(label) > seen) return false;
    if (static_cast<std::size_t>(label) == seen) ++seen;
  }
  return seen == k;
}

}  // namespace problems
