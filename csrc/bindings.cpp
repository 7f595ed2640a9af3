// The Python module onnxfold.folding._core: converts, checks shapes, releases the GIL. No algorithm lives here.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/solve.hpp"
#include "core/ward.hpp"

namespace py = pybind11;

namespace {

// The matrix is read where it lies: nothing is copied or converted behind the caller's back.
template <typename Real>
onnxfold::BasicGram<Real> view_of(const py::array& gram) {
  if (gram.ndim() != 2 || gram.shape(0) != gram.shape(1)) {
    throw py::value_error("gram must be a square matrix, not of shape " + std::string(py::str(gram.attr("shape"))));
  }
  constexpr int kNeeded = py::array::c_style | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  if ((gram.flags() & kNeeded) != kNeeded) {
    throw py::value_error("gram must be C-contiguous: pass numpy.ascontiguousarray(gram)");
  }
  return {static_cast<const Real*>(gram.data()), static_cast<std::size_t>(gram.shape(0))};
}

bool is_single(const py::array& gram) {
  if (py::dtype::of<float>().is(gram.dtype())) return true;
  if (py::dtype::of<double>().is(gram.dtype())) return false;
  throw py::type_error("gram must be float64 or float32, not " + std::string(py::str(gram.dtype())));
}

std::size_t not_negative(const char* name, std::int64_t value) {
  if (value < 0) throw py::value_error(std::string(name) + " must not be negative, got " + std::to_string(value));
  return static_cast<std::size_t>(value);
}

template <typename T>
py::array_t<T> to_array(const std::vector<T>& values) {
  return py::array_t<T>(static_cast<py::ssize_t>(values.size()), values.data());
}

template <typename Real>
onnxfold::Solution solved(const py::array& gram, std::size_t clusters, const onnxfold::Options& options) {
  const onnxfold::BasicGram<Real> view = view_of<Real>(gram);
  const py::gil_scoped_release unlocked;
  return onnxfold::solve(view, clusters, options);
}

template <typename Real>
std::vector<onnxfold::Merge> merged(const py::array& gram) {
  const onnxfold::BasicGram<Real> view = view_of<Real>(gram);
  const py::gil_scoped_release unlocked;
  onnxfold::require_usable(view);
  return onnxfold::ward(view);
}

py::tuple cluster(const py::array& gram, std::int64_t k, std::int64_t seed, std::int64_t restarts, std::int64_t sweeps,
                  std::int64_t perturbations, std::int64_t threads) {
  const std::size_t clusters = not_negative("k", k);
  onnxfold::Options options;
  options.seed = not_negative("seed", seed);
  options.restarts = not_negative("restarts", restarts);
  options.max_sweeps = not_negative("sweeps", sweeps);
  options.perturbations = not_negative("perturbations", perturbations);
  options.threads = not_negative("threads", threads);
  const onnxfold::Solution solution =
      is_single(gram) ? solved<float>(gram, clusters, options) : solved<double>(gram, clusters, options);
  return py::make_tuple(to_array(solution.labels), solution.inertia, solution.sweeps);
}

py::tuple ward(const py::array& gram) {
  std::vector<std::int32_t> left;
  std::vector<std::int32_t> right;
  std::vector<double> height;
  for (const onnxfold::Merge& merge : is_single(gram) ? merged<float>(gram) : merged<double>(gram)) {
    left.push_back(static_cast<std::int32_t>(merge.left));
    right.push_back(static_cast<std::int32_t>(merge.right));
    height.push_back(merge.height);
  }
  return py::make_tuple(to_array(left), to_array(right), to_array(height));
}

}  // namespace

PYBIND11_MODULE(_core, module) {
  module.doc() = "k-means and Ward clustering of points given by their Gram matrix.";
  module.def("cluster", &cluster, py::arg("gram"), py::arg("k"), py::arg("seed"), py::arg("restarts"),
             py::arg("sweeps"), py::arg("perturbations"), py::arg("threads"),
             "Labels (int32[n], clusters numbered by their first member), inertia, and Hartigan passes made.");
  module.def("ward", &ward, py::arg("gram"),
             "All merges, lowest first: left and right (int32[n-1], lowest members), height (inertia increase).");
}
