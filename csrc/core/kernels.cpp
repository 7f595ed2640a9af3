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

// What the clones of a function have in common, compiled anew in each of them.
#if defined(__GNUC__) || defined(__clang__)
#define ONNXFOLD_INLINE inline __attribute__((always_inline))
#else
#define ONNXFOLD_INLINE inline
#endif

namespace onnxfold::kernels {
namespace {

constexpr std::size_t kLanes = 8;


template <typename Real>
ONNXFOLD_INLINE void add_of(Real* ONNXFOLD_RESTRICT total, const Real* ONNXFOLD_RESTRICT row, std::size_t n) {
  for (std::size_t j = 0; j < n; ++j) total[j] += row[j];
}

template <typename Real>
ONNXFOLD_INLINE void subtract_of(Real* ONNXFOLD_RESTRICT total, const Real* ONNXFOLD_RESTRICT row, std::size_t n) {
  for (std::size_t j = 0; j < n; ++j) total[j] -= row[j];
}

template <typename Real>
ONNXFOLD_INLINE void lower_costs_of(Real* ONNXFOLD_RESTRICT lowest, const Real* ONNXFOLD_RESTRICT diagonal,
                 const Real* ONNXFOLD_RESTRICT sums, CostLine line, std::size_t n) {
  const Real weight = static_cast<Real>(line.weight);
  const Real slope = static_cast<Real>(line.slope);
  const Real offset = static_cast<Real>(line.offset);
  for (std::size_t j = 0; j < n; ++j) {
    const Real cost = weight * diagonal[j] + slope * sums[j] + offset;
    lowest[j] = cost < lowest[j] ? cost : lowest[j];
  }
}

template <typename Real>
ONNXFOLD_INLINE double potential_of(const double* ONNXFOLD_RESTRICT closest, const Real* ONNXFOLD_RESTRICT diagonal,
                 const Real* ONNXFOLD_RESTRICT row, double own, std::size_t n) {
  double lanes[kLanes] = {};
  const std::size_t whole = n - n % kLanes;
  for (std::size_t j = 0; j < whole; j += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      const double distance = diagonal[j + lane] + own - 2.0 * static_cast<double>(row[j + lane]);
      const double positive = distance > 0.0 ? distance : 0.0;
      lanes[lane] += positive < closest[j + lane] ? positive : closest[j + lane];
    }
  }
  for (std::size_t j = whole; j < n; ++j) {
    const double distance = diagonal[j] + own - 2.0 * static_cast<double>(row[j]);
    const double positive = distance > 0.0 ? distance : 0.0;
    lanes[j - whole] += positive < closest[j] ? positive : closest[j];
  }
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

template <typename Real>
ONNXFOLD_INLINE void lower_distances_of(double* ONNXFOLD_RESTRICT closest, const Real* ONNXFOLD_RESTRICT diagonal,
                     const Real* ONNXFOLD_RESTRICT row, double own, std::size_t n) {
  for (std::size_t j = 0; j < n; ++j) {
    const double distance = diagonal[j] + own - 2.0 * static_cast<double>(row[j]);
    const double positive = distance > 0.0 ? distance : 0.0;
    closest[j] = positive < closest[j] ? positive : closest[j];
  }
}

template <typename Real>
ONNXFOLD_INLINE Real lowest_sum_of(const Real* ONNXFOLD_RESTRICT row, const Real* ONNXFOLD_RESTRICT penalty, std::size_t n) {
  Real lowest = std::numeric_limits<Real>::infinity();
#pragma omp simd reduction(min : lowest)
  for (std::size_t j = 0; j < n; ++j) {
    const Real value = row[j] + penalty[j];
    lowest = value < lowest ? value : lowest;
  }
  return lowest;
}

template <typename Real>
ONNXFOLD_INLINE void merge_distances_of(Real* ONNXFOLD_RESTRICT merged, const Real* ONNXFOLD_RESTRICT from_i,
                     const Real* ONNXFOLD_RESTRICT from_j, const Real* ONNXFOLD_RESTRICT sizes, Real size_i, Real size_j,
                     Real distance, std::size_t n) {
  for (std::size_t x = 0; x < n; ++x) {
    const Real weighted = (size_i + sizes[x]) * from_i[x] + (size_j + sizes[x]) * from_j[x] - sizes[x] * distance;
    merged[x] = weighted / (size_i + size_j + sizes[x]);
  }
}

}  // namespace

ONNXFOLD_CLONES
void add(double* total, const double* row, std::size_t n) {
  add_of(total, row, n);
}

ONNXFOLD_CLONES
void add(float* total, const float* row, std::size_t n) {
  add_of(total, row, n);
}

ONNXFOLD_CLONES
void subtract(double* total, const double* row, std::size_t n) {
  subtract_of(total, row, n);
}

ONNXFOLD_CLONES
void subtract(float* total, const float* row, std::size_t n) {
  subtract_of(total, row, n);
}

ONNXFOLD_CLONES
void lower_costs(double* lowest, const double* diagonal, const double* sums, CostLine line, std::size_t n) {
  lower_costs_of(lowest, diagonal, sums, line, n);
}

ONNXFOLD_CLONES
void lower_costs(float* lowest, const float* diagonal, const float* sums, CostLine line, std::size_t n) {
  lower_costs_of(lowest, diagonal, sums, line, n);
}

ONNXFOLD_CLONES
double potential(const double* closest, const double* diagonal, const double* row, double own, std::size_t n) {
  return potential_of(closest, diagonal, row, own, n);
}

ONNXFOLD_CLONES
double potential(const double* closest, const float* diagonal, const float* row, double own, std::size_t n) {
  return potential_of(closest, diagonal, row, own, n);
}

ONNXFOLD_CLONES
void lower_distances(double* closest, const double* diagonal, const double* row, double own, std::size_t n) {
  lower_distances_of(closest, diagonal, row, own, n);
}

ONNXFOLD_CLONES
void lower_distances(double* closest, const float* diagonal, const float* row, double own, std::size_t n) {
  lower_distances_of(closest, diagonal, row, own, n);
}

ONNXFOLD_CLONES
double lowest_sum(const double* row, const double* penalty, std::size_t n) {
  return lowest_sum_of(row, penalty, n);
}

ONNXFOLD_CLONES
float lowest_sum(const float* row, const float* penalty, std::size_t n) {
  return lowest_sum_of(row, penalty, n);
}

ONNXFOLD_CLONES
void merge_distances(double* merged, const double* from_i, const double* from_j, const double* sizes, double size_i, double size_j,
                     double distance, std::size_t n) {
  merge_distances_of(merged, from_i, from_j, sizes, size_i, size_j, distance, n);
}

ONNXFOLD_CLONES
void merge_distances(float* merged, const float* from_i, const float* from_j, const float* sizes, float size_i, float size_j,
                     float distance, std::size_t n) {
  merge_distances_of(merged, from_i, from_j, sizes, size_i, size_j, distance, n);
}

}  // namespace onnxfold::kernels
