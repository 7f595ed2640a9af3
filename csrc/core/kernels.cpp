#include "kernels.hpp"

#include <limits>

// One object file, two instruction sets, chosen when the library is loaded. Sanitizers do not get on with
// such functions, and other compilers spell them differently: they use the plain build.
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__linux__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define ONNXFOLD_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define ONNXFOLD_CLONES
#endif

#if defined(__GNUC__) || defined(__clang__)
#define ONNXFOLD_RESTRICT __restrict__
#else
#define ONNXFOLD_RESTRICT
#endif

namespace onnxfold::kernels {
namespace {

constexpr std::size_t kLanes = 8;

}  // namespace

ONNXFOLD_CLONES
void add(double* ONNXFOLD_RESTRICT total, const double* ONNXFOLD_RESTRICT row, std::size_t n) {
  for (std::size_t j = 0; j < n; ++j) total[j] += row[j];
}

ONNXFOLD_CLONES
void subtract(double* ONNXFOLD_RESTRICT total, const double* ONNXFOLD_RESTRICT row, std::size_t n) {
  for (std::size_t j = 0; j < n; ++j) total[j] -= row[j];
}

ONNXFOLD_CLONES
void lower_costs(double* ONNXFOLD_RESTRICT lowest, const double* ONNXFOLD_RESTRICT diagonal,
                 const double* ONNXFOLD_RESTRICT sums, CostLine line, std::size_t n) {
  for (std::size_t j = 0; j < n; ++j) {
    const double cost = line.weight * diagonal[j] + line.slope * sums[j] + line.offset;
    lowest[j] = cost < lowest[j] ? cost : lowest[j];
  }
}

ONNXFOLD_CLONES
double potential(const double* ONNXFOLD_RESTRICT closest, const double* ONNXFOLD_RESTRICT diagonal,
                 const double* ONNXFOLD_RESTRICT row, double own, std::size_t n) {
  double lanes[kLanes] = {};
  const std::size_t whole = n - n % kLanes;
  for (std::size_t j = 0; j < whole; j += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      const double distance = diagonal[j + lane] + own - 2.0 * row[j + lane];
      const double positive = distance > 0.0 ? distance : 0.0;
      lanes[lane] += positive < closest[j + lane] ? positive : closest[j + lane];
    }
  }
  for (std::size_t j = whole; j < n; ++j) {
    const double distance = diagonal[j] + own - 2.0 * row[j];
    const double positive = distance > 0.0 ? distance : 0.0;
    lanes[j - whole] += positive < closest[j] ? positive : closest[j];
  }
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

ONNXFOLD_CLONES
void lower_distances(double* ONNXFOLD_RESTRICT closest, const double* ONNXFOLD_RESTRICT diagonal,
                     const double* ONNXFOLD_RESTRICT row, double own, std::size_t n) {
  for (std::size_t j = 0; j < n; ++j) {
    const double distance = diagonal[j] + own - 2.0 * row[j];
    const double positive = distance > 0.0 ? distance : 0.0;
    closest[j] = positive < closest[j] ? positive : closest[j];
  }
}

ONNXFOLD_CLONES
double lowest_sum(const double* ONNXFOLD_RESTRICT row, const double* ONNXFOLD_RESTRICT penalty, std::size_t n) {
  double lowest = std::numeric_limits<double>::infinity();
#pragma omp simd reduction(min : lowest)
  for (std::size_t j = 0; j < n; ++j) {
    const double value = row[j] + penalty[j];
    lowest = value < lowest ? value : lowest;
  }
  return lowest;
}

ONNXFOLD_CLONES
void merge_distances(double* ONNXFOLD_RESTRICT merged, const double* ONNXFOLD_RESTRICT from_i,
                     const double* ONNXFOLD_RESTRICT from_j, const double* ONNXFOLD_RESTRICT sizes, double size_i,
                     double size_j, double distance, std::size_t n) {
  for (std::size_t x = 0; x < n; ++x) {
    const double weighted = (size_i + sizes[x]) * from_i[x] + (size_j + sizes[x]) * from_j[x] - sizes[x] * distance;
    merged[x] = weighted / (size_i + size_j + sizes[x]);
  }
}

}  // namespace onnxfold::kernels
