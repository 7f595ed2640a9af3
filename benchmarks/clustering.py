"""Time and inertia of onnxfold's clustering, scikit-learn's KMeans and faiss's Kmeans on the same data.

    python benchmarks/clustering.py                      # synthetic: four sizes
    python benchmarks/clustering.py --model model.onnx   # every Conv of a model: producer rows, half of them kept

Ours starts from the features, so building the Gram matrix is in its time, and uses the defaults of
`onnxfold.cluster`. scikit-learn gets n_init=10, faiss nredo=10 and niter=25, both float32 features as they like
them. All may use all cores. faiss seeds with random points unless told --faiss-plus-plus; it stops as soon as
nothing changes, so its default is quick and far from the best inertia. Our time is the median of repeats, taken
before, between and after theirs; theirs are timed once, after a warm-up on a small problem. Every inertia is
recomputed in float64 from the labels.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxfold.folding.gram import gram
from onnxfold.folding.kmeans import cluster

Features = NDArray[np.float32]
Solver = Callable[["Problem"], NDArray[Any]]

SYNTHETIC = [(64, 576, 32), (256, 2304, 128), (512, 4608, 256), (1024, 2048, 768)]
REPEATS = 3  # of ours, in each of the three places


@dataclass(frozen=True)
class Problem:
    """What to cluster: `features` is n x d."""

    name: str
    features: Features
    k: int


@dataclass(frozen=True)
class Result:
    """Seconds taken, and the inertia reached."""

    seconds: float
    inertia: float


def mixture(n: int, d: int, k: int, seed: int = 0) -> Features:
    """Points around 2/3 k centers, with noise as wide as the centers lie apart and a decaying spectrum."""
    random = np.random.default_rng(seed)
    centers = random.normal(size=(max(1, 2 * k // 3), d))
    points = centers[random.integers(0, len(centers), n)] + random.normal(size=(n, d))
    return (points * np.arange(1, d + 1) ** -0.35).astype(np.float32)


def conv_problems(path: Path) -> Iterator[Problem]:
    """The kernel of every Conv with at least four output channels, one row per output channel."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "Conv" or node.input[1] not in weights:
            continue
        kernel = numpy_helper.to_array(weights[node.input[1]])
        if kernel.shape[0] >= 4:
            rows = kernel.reshape(kernel.shape[0], -1).astype(np.float32)
            yield Problem(node.input[1][:24], rows, len(rows) // 2)


def inertia(features: Features, labels: NDArray[Any]) -> float:
    """From its definition, in float64."""
    points = features.astype(np.float64)
    names, labels = np.unique(labels, return_inverse=True)
    means = np.zeros((len(names), points.shape[1]))
    np.add.at(means, labels, points)
    means /= np.bincount(labels)[:, None]
    return float(((points - means[labels]) ** 2).sum())


def ours(problem: Problem) -> NDArray[Any]:
    return cluster(gram([problem.features]), problem.k).labels


def by_sklearn(problem: Problem) -> NDArray[Any]:
    from sklearn.cluster import KMeans

    return np.asarray(KMeans(problem.k, n_init=10, random_state=0).fit(problem.features).labels_)


def by_faiss(problem: Problem, **options: Any) -> NDArray[Any]:
    import faiss

    n, d = problem.features.shape
    sizes = {"min_points_per_centroid": 1, "max_points_per_centroid": n}  # no warning, no subsampling
    kmeans = faiss.Kmeans(d, problem.k, nredo=10, niter=25, seed=1, **sizes, **options)
    kmeans.train(problem.features)
    return np.asarray(kmeans.index.search(problem.features, 1)[1][:, 0])


def by_faiss_plus_plus(problem: Problem) -> NDArray[Any]:
    import faiss

    return by_faiss(problem, init_method=faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS)


def timed(solve: Solver, problem: Problem) -> Result:
    begin = time.perf_counter()
    labels = solve(problem)
    seconds = time.perf_counter() - begin
    return Result(seconds, inertia(problem.features, labels))


def compare(problem: Problem, solvers: dict[str, Solver]) -> dict[str, Result]:
    """Ours is timed in between the others, so that a busy moment of the machine does not fall on one alone."""
    runs = [timed(ours, problem) for _ in range(REPEATS)]
    others = {}
    for name, solve in solvers.items():
        others[name] = timed(solve, problem)
        runs += [timed(ours, problem) for _ in range(REPEATS)]
    seconds = statistics.median(run.seconds for run in runs)
    return {"ours": Result(seconds, runs[0].inertia), **others}


def line(name: str, shape: str, results: dict[str, Result]) -> str:
    mine = results["ours"]
    text = f"{name:<25}{shape:<18}{mine.seconds * 1e3:>10.2f}{mine.inertia:>14.6g}"
    for theirs in list(results.values())[1:]:
        slower, lower = theirs.seconds / mine.seconds, mine.inertia / theirs.inertia
        text += f"{theirs.seconds * 1e3:>12.1f}{slower:>8.1f}x{lower:>9.5f}"
    return text


def report(problems: Iterable[Problem], solvers: dict[str, Solver]) -> None:
    header = f"{'':<25}{'n x d -> k':<18}{'ours ms':>10}{'inertia':>14}"
    print(header + "".join(f"{f'{name} ms':>12}{'slower':>9}{'ours/it':>9}" for name in solvers))
    rows = []
    for problem in problems:
        n, d = problem.features.shape
        rows.append(compare(problem, solvers))
        print(line(problem.name, f"{n} x {d} -> {problem.k}", rows[-1]), flush=True)
    if not rows:
        raise SystemExit("nothing to cluster: the model has no Conv with constant weights and four or more channels")
    total = {
        name: Result(sum(row[name].seconds for row in rows), sum(row[name].inertia for row in rows)) for name in rows[0]
    }
    print(line("total", f"{len(rows)} problems", total))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="cluster the Conv weights of this ONNX file instead")
    parser.add_argument("--faiss-plus-plus", action="store_true", help="faiss seeds with k-means++")
    parser.add_argument("--largest", type=int, default=1024, help="leave out synthetic problems above this n")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", module="sklearn")
    faiss = by_faiss_plus_plus if arguments.faiss_plus_plus else by_faiss
    solvers: dict[str, Solver] = {"sklearn": by_sklearn, "faiss": faiss}
    warm_up = Problem("", mixture(32, 16, 8), 8)
    for solve in (ours, *solvers.values()):
        solve(warm_up)
    if arguments.model:
        report(conv_problems(arguments.model), solvers)
    else:
        sizes = [size for size in SYNTHETIC if size[0] <= arguments.largest]
        report((Problem("mixture", mixture(n, d, k), k) for n, d, k in sizes), solvers)


if __name__ == "__main__":
    main()
