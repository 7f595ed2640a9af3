"""Clustering of channels from the inner products of their feature vectors.

n channels with d features are seen only through their Gram matrix G = XX' (n x n): k-means on it costs the same
whatever d is. This module checks and sets options; the algorithm is the core (`_native`: compiled from
``csrc/``, or the same in Python), or scikit-learn's for comparison.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import PlanError
from ..frozen import read_only
from ..options.choices import Clusterer
from ._native import core as _core
from .gram import Gram

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

DEFAULT_RESTARTS = 2
"""Starts that are refined (the first from Ward's clustering, the others from greedy k-means++), and searches that
start from the best of them."""

DEFAULT_SWEEPS = 100
"""Passes of Hartigan's refinement at most; it converges in a handful."""

PERTURBATIONS_PER_CLUSTER = 10
MOST_PERTURBATIONS = 100
"""By default every restart is disturbed and refined again ten times per cluster, 100 times at most: 600 lower the
inertia on real convolutions by another 0.05 % and take twice the time."""
_LARGEST_SEED = {"native": 2**63 - 1, "sklearn": 2**32 - 1}


@dataclass(frozen=True)
class ClusterSettings:
    """How points are clustered. Checked when made.

    The same settings give the same labels, for any number of `threads` (0: all there are). `restarts`, `sweeps` and
    `perturbations` (per search; None: ten per cluster, 100 at most) buy lower inertia with time; scikit-learn takes
    `seed` only. Raises PlanError for a seed that `clusterer` does not take.
    """

    clusterer: Clusterer = Clusterer.NATIVE
    seed: int = 0
    threads: int = 0
    restarts: int = DEFAULT_RESTARTS
    sweeps: int = DEFAULT_SWEEPS
    perturbations: int | None = None

    def __post_init__(self) -> None:
        largest = _LARGEST_SEED[self.clusterer.value]
        if not 0 <= self.seed <= largest:
            raise PlanError(f"seed must be between 0 and {largest}, got {self.seed}")


@dataclass(frozen=True, eq=False)
class Assignment:
    """Which cluster every point belongs to. Checked when made: clusters are numbered by their first member.

    `labels` is read-only, shape [n], values in 0..k-1, every value used. `inertia` is the sum over points of the
    squared distance to the mean of their cluster, in squared feature units. `clusterer` names who made it.
    Raises PlanError when labels and k do not belong together.
    """

    labels: Labels
    k: int
    inertia: float
    clusterer: str

    def __post_init__(self) -> None:
        labels = np.array(self.labels)
        if labels.ndim != 1 or labels.dtype != np.int64:
            raise PlanError(f"labels must be int64 of shape [n], not {labels.dtype} of shape {list(labels.shape)}")
        if not np.array_equal(labels, canonical(labels)):
            raise PlanError("labels must number the clusters by their first member: pass canonical(labels)")
        found = int(labels.max(initial=-1)) + 1
        if found != self.k:
            raise PlanError(f"labels name {found} clusters, but k is {self.k}")
        if not (np.isfinite(self.inertia) and self.inertia >= 0.0):
            raise PlanError(f"inertia must be a number that is not negative, got {self.inertia}")
        labels.flags.writeable = False
        object.__setattr__(self, "labels", labels)
        read_only(self)


def canonical(labels: NDArray[np.integer[Any]]) -> Labels:
    """Renumber clusters by their first member: point 0 is in 0, the first point that is not in 0 is in 1, and so on.

    `labels` has shape [n] and any integers; the result is int64[n].
    """
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first)).astype(np.int64)[inverse]


def inertia(gram: Gram, labels: Labels) -> float:
    """Sum over points of the squared distance to the mean of their cluster.

    `gram` is n x n, `labels` int64[n] with values in 0..k-1. Tr(G) - sum_c B_c / m_c, where B_c is the sum of G over
    the pairs within cluster c of m_c points.
    """
    members = np.bincount(labels)
    sums = np.zeros((len(members), len(labels)))
    np.add.at(sums, labels, gram)
    within = np.bincount(labels, weights=sums[labels, np.arange(len(labels))])
    return max(0.0, float(np.trace(gram) - np.sum(within / members)))


def cluster(gram: Gram, k: int, settings: ClusterSettings | None = None, *, blocks: Labels | None = None) -> Assignment:
    """Put n points into exactly k clusters with an inertia as low as can be found.

    `gram` is their Gram matrix: n x n, symmetric, positive semidefinite, centered or not. With `blocks` (the block
    id of every point, int64[n]; all blocks equally large) no cluster crosses blocks, and every block gets
    k / (number of blocks) clusters.

    Without `settings`, the defaults count. Beside `gram` every start that runs (as many as there are threads) takes
    half as much again in float32, and max(n / 2, k) x n numbers in float64: 11,008 points in float32 take 0.73 GB in
    all on one thread, 0.97 GB on two.

    Raises PlanError for a k that cannot be met, and for NaN or infinite values, naming row and column.

    Source: Hartigan and Wong 1979 for the refinement, Arthur and Vassilvitskii 2007 for the seeding, Ward 1963.
    """
    matrix, settings = _square(gram), settings or ClusterSettings()
    n = len(matrix)
    if not 1 <= k <= n:
        raise PlanError(f"cannot make {k} clusters of {n} points: k must be between 1 and {n}")
    groups = [np.arange(n)] if blocks is None else _members(np.asarray(blocks), n, k)
    each = k // len(groups)
    search = _native if settings.clusterer is Clusterer.NATIVE else _sklearn
    labels = np.empty(n, dtype=np.int64)
    total = 0.0
    for number, group in enumerate(groups):
        part = matrix if len(groups) == 1 else np.ascontiguousarray(matrix[np.ix_(group, group)])
        found, cost = search(part, each, settings)
        labels[group] = found + number * each
        total += cost
    return Assignment(canonical(labels), k, total, settings.clusterer.value)


def ward_curve(gram: Gram) -> Floats:
    """Inertia of Ward's clustering for every number of clusters: entry k of n + 1; entry 0 is NaN, entry n is 0.

    `gram` is n x n as for `cluster`. Never increasing in k, and an upper bound of what `cluster` reaches. O(n^2) time
    and half as much memory again. Raises PlanError for NaN or infinite values, naming row and column.
    """
    matrix = _square(gram)
    try:
        _, _, heights = _core.ward(matrix)
    except ValueError as error:
        raise PlanError(str(error)) from error
    curve = np.zeros(len(matrix) + 1)
    curve[0] = np.nan
    curve[1:-1] = np.cumsum(heights)[::-1]
    return curve


def _square(gram: Gram) -> Gram:
    """OUT: the matrix as float64, or float32 if that is what it is; C-contiguous (a copy only if it is not)."""
    matrix: Gram = np.ascontiguousarray(gram, None if np.asarray(gram).dtype == np.float32 else np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) == 0:
        raise PlanError(f"the Gram matrix must be square and not empty, not of shape {list(np.shape(gram))}")
    return matrix


def _members(blocks: Labels, n: int, k: int) -> list[NDArray[np.intp]]:
    """OUT: the points of every block, in increasing order."""
    if blocks.shape != (n,):
        raise PlanError(f"blocks must name the block of each of the {n} points, but has shape {list(blocks.shape)}")
    names, counts = np.unique(blocks, return_counts=True)
    if counts.min() != counts.max():
        raise PlanError(f"blocks must be equally large, but their sizes are {counts.tolist()}")
    if k % len(names) != 0:
        raise PlanError(f"cannot share {k} clusters among {len(names)} blocks: choose a multiple of {len(names)}")
    return [np.flatnonzero(blocks == name) for name in names]


def _native(gram: Gram, k: int, given: ClusterSettings) -> tuple[Labels, float]:
    perturbations = given.perturbations
    if perturbations is None:
        perturbations = min(PERTURBATIONS_PER_CLUSTER * k, MOST_PERTURBATIONS)
    try:
        labels, cost, _ = _core.cluster(gram, k, given.seed, given.restarts, given.sweeps, perturbations, given.threads)
    except ValueError as error:
        raise PlanError(str(error)) from error
    return labels.astype(np.int64), cost


def _sklearn(gram: Gram, k: int, given: ClusterSettings) -> tuple[Labels, float]:
    from sklearn.cluster import KMeans  # slow to import, and only this path needs it

    if not np.isfinite(gram).all():
        row, column = (int(at) for at in np.argwhere(~np.isfinite(gram))[0])
        raise PlanError(f"Gram matrix has {gram[row, column]} at row {row}, column {column}")
    values, vectors = np.linalg.eigh(gram)
    points = vectors * np.sqrt(np.maximum(values, 0.0))  # any factor of G has the same distances
    labels = KMeans(n_clusters=k, n_init=10, random_state=given.seed).fit(points).labels_.astype(np.int64)
    found = len(np.unique(labels))
    if found != k:
        raise PlanError(f"scikit-learn found {found} distinct clusters where {k} were asked for: use Clusterer.NATIVE")
    return labels, inertia(gram, canonical(labels))
