#include "solve.hpp"

#include <algorithm>
#include <atomic>
#include <exception>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "hartigan.hpp"
#include "labels.hpp"
#include "partition.hpp"
#include "rng.hpp"
#include "search.hpp"
#include "seeding.hpp"
#include "ward.hpp"

namespace onnxfold {
namespace {

struct Attempt {
  Labels labels;
  double inertia = 0.0;
  std::size_t sweeps = 0;
};

template <typename Real>
Attempt finish(const BasicGram<Real>& gram, std::size_t k, Labels labels, std::size_t sweeps) {
  make_canonical(labels);
  const double cost = inertia(gram, labels, k);
  return {std::move(labels), cost, sweeps};
}

template <typename Real>
Attempt start(const BasicGram<Real>& gram, std::size_t k, const Options& options, std::size_t index) {
  Rng rng(options.seed, 2 * index);
  Partition<Real> partition(gram, k, index == 0 ? cut(ward(gram), k) : seed_plus_plus(gram, k, rng));
  Hartigan<Real> hartigan(partition, kRelativeTolerance<Real> * largest_diagonal(gram));
  hartigan.mark_all();
  const std::size_t sweeps = hartigan.run(options.max_sweeps);
  return finish(gram, k, partition.labels(), sweeps);
}

template <typename Real>
Attempt search(const BasicGram<Real>& gram, std::size_t k, const Options& options, std::size_t index, const Attempt& from) {
  Rng rng(options.seed, 2 * index + 1);
  const double tolerance = kRelativeTolerance<Real> * largest_diagonal(gram);
  Partition<Real> partition(gram, k, from.labels);
  Hartigan<Real> hartigan(partition, tolerance);
  hartigan.mark_all();
  std::size_t sweeps = from.sweeps + hartigan.run(options.max_sweeps);
  sweeps += improve(partition, hartigan, rng, {options.perturbations, options.max_sweeps}, tolerance);
  return finish(gram, k, partition.labels(), sweeps);
}

template <typename Real>
std::size_t usable_threads(std::size_t n, std::size_t k, const Options& options) {
  const std::size_t wanted =
      options.threads > 0 ? options.threads : std::max<std::size_t>(1, std::thread::hardware_concurrency());
  const std::size_t each = sizeof(Real) * n * std::max<std::size_t>(Partition<Real>::rows(n, k), 1);
  return std::max<std::size_t>(1, std::min({wanted, options.restarts, options.memory_cap / each}));
}

// Calls task(index) for every restart, on several threads, and hands back what they return in that order.
template <typename Task>
std::vector<Attempt> for_every_restart(const Options& options, std::size_t threads, const Task& task) {
  std::vector<Attempt> attempts(options.restarts);
  std::vector<std::exception_ptr> errors(options.restarts);
  std::atomic<std::size_t> next{0};
  const auto work = [&]() noexcept {
    for (std::size_t index = next++; index < options.restarts; index = next++) {
      try {
        attempts[index] = task(index);
      } catch (...) {
        errors[index] = std::current_exception();
      }
    }
  };
  std::vector<std::thread> helpers;
  helpers.reserve(threads);
  try {
    while (helpers.size() + 1 < threads) helpers.emplace_back(work);
  } catch (const std::system_error&) {
    // No more threads to be had: those there are do the work.
  }
  work();
  for (std::thread& helper : helpers) helper.join();
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
  return attempts;
}

Attempt best_of(std::vector<Attempt> attempts) {
  std::size_t best = 0;
  for (std::size_t index = 1; index < attempts.size(); ++index) {
    if (attempts[index].inertia < attempts[best].inertia) best = index;
  }
  return std::move(attempts[best]);
}

}  // namespace

template <typename Real>
Solution solve(const BasicGram<Real>& gram, std::size_t k, const Options& options) {
  const std::size_t n = gram.size();
  require_usable(gram);
  if (k < 1 || k > n) {
    throw std::invalid_argument("cannot make " + std::to_string(k) + " clusters of " + std::to_string(n) +
                                " points: k must be between 1 and " + std::to_string(n));
  }
  if (options.restarts < 1) throw std::invalid_argument("restarts must be at least 1");

  Attempt won;
  if (k == 1 || k == n) {
    Labels labels(n, 0);
    for (std::size_t i = 0; i < n; ++i) labels[i] = k == 1 ? 0 : i;
    won = finish(gram, k, std::move(labels), 0);
  } else {
    const std::size_t threads = usable_threads<Real>(n, k, options);
    const auto started = [&](std::size_t index) { return start(gram, k, options, index); };
    won = best_of(for_every_restart(options, threads, started));
    if (options.perturbations > 0) {
      const Attempt from = std::move(won);
      const auto searched = [&](std::size_t index) { return search(gram, k, options, index, from); };
      won = best_of(for_every_restart(options, threads, searched));
    }
  }
  Solution solution;
  solution.labels.reserve(n);
  for (const std::size_t label : won.labels) solution.labels.push_back(static_cast<std::int32_t>(label));
  solution.inertia = won.inertia;
  solution.sweeps = won.sweeps;
  return solution;
}

template Solution solve(const GramView&, std::size_t, const Options&);
template Solution solve(const SingleGramView&, std::size_t, const Options&);

}  // namespace onnxfold
