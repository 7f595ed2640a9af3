"""Ward's hierarchical clustering: nearest-neighbor chain with the Lance-Williams update (Murtagh 1983)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .labels import LabelList, canonical

Merges = list[tuple[int, int, float]]
"""(left, right, height): the clusters' lowest members, left < right, and by how much the inertia grows."""


def ward(gram: NDArray[Any]) -> Merges:
    """All n - 1 merges of the points of `gram` (n x n), lowest first, a merge never before those that it builds on."""
    distances = _ClusterDistances(gram)
    merges: Merges = []
    chain: list[int] = []
    while len(merges) < len(gram) - 1:
        if not chain:
            chain.append(distances.first())
        top = chain[-1]
        before = chain[-2] if len(chain) > 1 else -1
        following = distances.nearest(top, before)
        if following != before and following not in chain:
            chain.append(following)
            continue
        merges.append(distances.merge(top, before))
        del chain[-2:]
    return sorted(merges, key=lambda merge: merge[2])


def cut(merges: Merges, k: int) -> LabelList:
    """The labels after the first n - k merges."""
    n = len(merges) + 1
    parent = list(range(n))
    for left, right, _ in merges[: n - k]:
        parent[right] = left
    for i in range(n):
        parent[i] = parent[parent[i]]  # parents have lower numbers: done already
    return canonical(parent)


class _ClusterDistances:
    """The distance matrix between clusters; a cluster lives in the slot of its lowest member."""

    def __init__(self, gram: NDArray[Any]) -> None:
        n, real = len(gram), gram.dtype
        diagonal = gram.diagonal().astype(np.float64)
        self._values = np.full((n, n), np.inf, real)
        for i in range(n - 1):
            apart = diagonal[i] + diagonal[i + 1 :] - 2.0 * gram[i, i + 1 :].astype(np.float64)
            self._values[i, i + 1 :] = self._values[i + 1 :, i] = 0.5 * np.maximum(apart, 0.0)
        self._sizes = np.ones(n, real)
        self._penalty = np.zeros(n, real)  # infinite where the cluster is gone
        self._heights = np.zeros(n, real)  # of the merge that made the cluster

    def first(self) -> int:
        return int(np.argmin(self._penalty))

    def nearest(self, slot: int, preferred: int) -> int:
        """The nearest other cluster; `preferred` where it is as near as any (-1: nobody)."""
        row = self._values[slot] + self._penalty
        found = int(np.argmin(row))
        return preferred if preferred >= 0 and self._values[slot, preferred] <= row[found] else found

    def merge(self, a: int, b: int) -> tuple[int, int, float]:
        """Puts both clusters into the lower slot. A height is never below those that it builds on."""
        i, j, sizes = min(a, b), max(a, b), self._sizes
        distance = self._values[i, j]
        height = max(distance, self._heights[i], self._heights[j])
        weighted = (sizes[i] + sizes) * self._values[i] + (sizes[j] + sizes) * self._values[j] - sizes * distance
        row = weighted / (sizes[i] + sizes[j] + sizes)
        row[i] = np.inf
        self._values[i] = self._values[:, i] = row
        sizes[i] += sizes[j]
        sizes[j] = 0
        self._penalty[j] = np.inf
        self._heights[i] = height
        return i, j, float(height)
