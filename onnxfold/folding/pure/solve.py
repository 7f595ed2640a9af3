"""k-means on a Gram matrix: several starts are refined, the best one is improved in several random ways, and the best
of those is the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...frozen import read_only
from .hartigan import Hartigan
from .labels import LabelList, canonical, inertia
from .partition import Partition
from .rng import Rng
from .search import improve
from .seeding import seed_plus_plus
from .ward import cut, ward

_LARGEST = {np.dtype(np.float64): (1e280, "1e280"), np.dtype(np.float32): (1e28, "1e28")}
_RELATIVE_TOLERANCE = {np.dtype(np.float64): 1e-12, np.dtype(np.float32): 1e-6}


@dataclass(frozen=True)
class _Attempt:
    labels: LabelList
    inertia: float
    sweeps: int


@dataclass(frozen=True)
class _Problem:
    """Attempts at k clusters of the points of one matrix. `sweeps`: at most, per refinement."""

    gram: NDArray[Any]
    k: int
    seed: int
    sweeps: int
    perturbations: int

    def __post_init__(self) -> None:
        read_only(self)

    @property
    def tolerance(self) -> float:
        """Gains below it are rounding errors."""
        return float(_RELATIVE_TOLERANCE[self.gram.dtype] * max(float(self.gram.diagonal().max()), 0.0))

    def start(self, index: int) -> _Attempt:
        rng = Rng(self.seed, 2 * index)
        labels = cut(ward(self.gram), self.k) if index == 0 else seed_plus_plus(self.gram, self.k, rng)
        partition = Partition(self.gram, self.k, labels)
        hartigan = Hartigan(partition, self.tolerance)
        hartigan.mark_all()
        return self.finish(partition.labels, hartigan.run(self.sweeps))

    def search(self, index: int, origin: _Attempt) -> _Attempt:
        rng = Rng(self.seed, 2 * index + 1)
        partition = Partition(self.gram, self.k, origin.labels)
        hartigan = Hartigan(partition, self.tolerance)
        hartigan.mark_all()
        sweeps = origin.sweeps + hartigan.run(self.sweeps)
        sweeps += improve(partition, hartigan, rng, self.perturbations, self.sweeps, self.tolerance)
        return self.finish(partition.labels, sweeps)

    def finish(self, labels: NDArray[np.int64] | LabelList, sweeps: int) -> _Attempt:
        numbered = canonical([int(label) for label in labels])
        return _Attempt(numbered, inertia(self.gram, numbered, self.k), sweeps)


def cluster(
    gram: NDArray[Any], k: int, seed: int, restarts: int, sweeps: int, perturbations: int, threads: int
) -> tuple[NDArray[np.int32], float, int]:
    """Labels (int32[n], clusters numbered by their first member), inertia, and Hartigan passes made.

    `gram` is n x n, float64 or float32, C-contiguous; `threads` changes nothing. Raises ValueError as the
    compiled core does.
    """
    given = {"k": k, "seed": seed, "restarts": restarts, "sweeps": sweeps, "perturbations": perturbations}
    for name, value in (given | {"threads": threads}).items():
        if value < 0:
            raise ValueError(f"{name} must not be negative, got {value}")
    _require_usable(gram)
    n = len(gram)
    if not 1 <= k <= n:
        raise ValueError(f"cannot make {k} clusters of {n} points: k must be between 1 and {n}")
    if restarts < 1:
        raise ValueError("restarts must be at least 1")
    won = _solved(_Problem(gram, k, seed, sweeps, perturbations), restarts)
    return np.array(won.labels, np.int32), won.inertia, won.sweeps


def _solved(problem: _Problem, restarts: int) -> _Attempt:
    n = len(problem.gram)
    if problem.k in (1, n):
        return problem.finish(list(range(n)) if problem.k == n else [0] * n, 0)
    won = min(map(problem.start, range(restarts)), key=lambda attempt: attempt.inertia)
    if problem.perturbations > 0:
        won = min((problem.search(index, won) for index in range(restarts)), key=lambda attempt: attempt.inertia)
    return won


def ward_merges(gram: NDArray[Any]) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]:
    """All merges, lowest first: left and right (int32[n-1], lowest members), height (inertia increase)."""
    _require_usable(gram)
    merges = ward(gram)
    left, right, heights = ([merge[part] for merge in merges] for part in range(3))
    return np.array(left, np.int32), np.array(right, np.int32), np.array(heights, np.float64)


def _require_usable(gram: NDArray[Any]) -> None:
    if not isinstance(gram, np.ndarray) or gram.dtype not in _LARGEST or not gram.dtype.isnative:
        raise TypeError(f"gram must be float64 or float32, not {getattr(gram, 'dtype', type(gram).__name__)}")
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1]:
        raise ValueError(f"gram must be a square matrix, not of shape {gram.shape}")
    if len(gram) == 0:
        raise ValueError("Gram matrix is empty: give at least one point")
    limit, said = _LARGEST[gram.dtype]
    usable = np.abs(gram) <= limit
    if not usable.all():
        row, column = (int(at) for at in np.argwhere(~usable)[0])
        value = float(gram[row, column])
        what = f"a value above {said}" if np.isfinite(value) else str(value)
        raise ValueError(f"Gram matrix has {what} at row {row}, column {column}")
