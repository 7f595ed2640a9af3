// The Python module onnxfold._core: converts, checks shapes, releases the GIL. No algorithm lives here.
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
onnxfold::GramView view_of(const py::array& gram) {
  if (!py::dtype::of<double>().is(gram.dtype())) {
    throw py::type_error("gram must be float64, not " + std::string(py::str(gram.dtype())));
  }
  if (gram.ndim() != 2 || gram.shape(0) != gram.shape(1)) {
    throw py::value_error("gram must be a square matrix, not of shape " + std::string(py::str(gram.attr("shape"))));
  }
  constexpr int kNeeded = py::array::c_style | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  if ((gram.flags() & kNeeded) != kNeeded) {
    throw py::value_error("gram must be C-contiguous: pass numpy.ascontiguousarray(gram)");
  }
  return {static_cast<const double*>(gram.data()), static_cast<std::size_t>(gram.shape(0))};
}

std::size_t not_negative(const char* name, std::int64_t value) {
  if (value < 0) throw py::value_error(std::string(name) + " must not be negative, got " + std::to_string(value));
  return static_cast<std::size_t>(value);
}

template <typename T>
py::array_t<T> to_array(const std::vector<T>& values) {
  return py::array_t<T>(static_cast<py::ssize_t>(values.size()), values.data());
}

py::tuple cluster(const py::array& gram, std::int64_t k, std::int64_t seed, std::int64_t restarts, std::int64_t sweeps,
                  std::int64_t perturbations, std::int64_t threads) {
  const onnxfold::GramView view = view_of(gram);
  const std::size_t clusters = not_negative("k", k);
  onnxfold::Options options;
  options.seed = not_negative("seed", seed);
  options.restarts = not_negative("restarts", restarts);
  options.max_sweeps = not_negative("sweeps", sweeps);
  options.perturbations = not_negative("perturbations", perturbations);
  options.threads = not_negative("threads", threads);
  onnxfold::Solution solution;
  {
    const py::gil_scoped_release unlocked;
    solution = onnxfold::solve(view, clusters, options);
  }
  return py::make_tuple(to_array(solution.labels), solution.inertia, solution.sweeps);
}

py::tuple ward(const py::array& gram) {
  const onnxfold::GramView view = view_of(gram);
  std::vector<std::int32_t> left;
  std::vector<std::int32_t> right;
  std::vector<double> height;
  {
    const py::gil_scoped_release unlocked;
    onnxfold::require_usable(view);
    for (const onnxfold::Merge& merge : onnxfold::ward(view)) {
      left.push_back(static_cast<std::int32_t>(merge.left));
      right.push_back(static_cast<std::int32_t>(merge.right));
      height.push_back(merge.height);
    }
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
