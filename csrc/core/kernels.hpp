// The loops that take the time, for matrices of doubles and of floats. All arrays have n entries and do not overlap. Results do not depend on
// the vector width of the machine: sums run in a fixed number of lanes, minima are exact in any order.
#pragma once

#include <cstddef>

namespace onnxfold::kernels {

// INOUT total; IN row.  total += row
void add(double* total, const double* row, std::size_t n);
void add(float* total, const float* row, std::size_t n);

// INOUT total; IN row.  total -= row
void subtract(double* total, const double* row, std::size_t n);
void subtract(float* total, const float* row, std::size_t n);

// What it costs to put point i into a cluster, as a function of S[c,i]: weight * diagonal + slope * sum + offset.
struct CostLine {
  double weight;  // m / (m + 1)
  double slope;   // -2 / (m + 1)
  double offset;  // B / (m (m + 1))
};

// INOUT lowest; IN diagonal, sums.  lowest = min(lowest, line(diagonal, sums))
void lower_costs(double* lowest, const double* diagonal, const double* sums, CostLine line, std::size_t n);
void lower_costs(float* lowest, const float* diagonal, const float* sums, CostLine line, std::size_t n);

// IN closest, diagonal, row.  Sum over j of min(closest[j], |x_j - x_c|^2), where row is row c of the Gram
// matrix and own = G[c,c].
double potential(const double* closest, const double* diagonal, const double* row, double own, std::size_t n);
double potential(const double* closest, const float* diagonal, const float* row, double own, std::size_t n);

// INOUT closest; IN diagonal, row.  closest[j] = min(closest[j], |x_j - x_c|^2)
void lower_distances(double* closest, const double* diagonal, const double* row, double own, std::size_t n);
void lower_distances(double* closest, const float* diagonal, const float* row, double own, std::size_t n);

// IN row, penalty.  The lowest row[j] + penalty[j].
double lowest_sum(const double* row, const double* penalty, std::size_t n);
float lowest_sum(const float* row, const float* penalty, std::size_t n);

// Lance-Williams for Ward: distances from every cluster x to the union of clusters i and j.
// IN from_i, from_j, sizes; OUT merged.  distance is between i and j; size_i, size_j their member counts.
void merge_distances(double* merged, const double* from_i, const double* from_j, const double* sizes, double size_i,
                     double size_j, double distance, std::size_t n);
void merge_distances(float* merged, const float* from_i, const float* from_j, const float* sizes, float size_i,
                     float size_j, float distance, std::size_t n);

}  // namespace onnxfold::kernels
