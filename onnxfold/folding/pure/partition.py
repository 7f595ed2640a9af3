"""A partition of the points, with the sums that make a move cheap to price and to do."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .labels import LabelList, members_of

Floats = NDArray[np.float64]


class Partition:
    """`sums` [k, n] holds S[c,i], the sum of G[i,j] over the members j of cluster c, in the type of `gram`; `within`
    [k] the sum of G over all pairs in a cluster. A cluster may be empty between two moves. In float32, `sums` of a
    cluster of one point are exactly that point's row of G, however the others left it."""

    def __init__(self, gram: NDArray[Any], k: int, labels: LabelList) -> None:
        n = len(gram)
        self.gram, self.clusters, self.points = gram, k, n
        self.labels = np.array(labels, np.int64)
        self.members = members_of(labels, k)
        self._position = np.zeros(n, np.int64)  # of a point in `members` of its cluster
        for members in self.members:
            self._position[members] = np.arange(len(members))
        self.diagonal = np.ascontiguousarray(gram.diagonal())
        self._exact = self.diagonal.astype(np.float64)
        self.sums = np.zeros((k, n), gram.dtype)
        self.within, self.sizes = np.zeros(k), np.zeros(k)
        self.lines = np.zeros((3, k))  # what point i costs in c: line 0 * G[i,i] + line 1 * S[c,i] + line 2
        self.rebuild()

    def rebuild(self) -> None:
        """Recompute all sums from the matrix, which rids them of rounding errors."""
        for c, members in enumerate(self.members):
            row = self.sums[c]
            row[:] = 0
            within = 0.0
            for i in members:
                row += self.gram[i]
            for i in members:
                within += float(row[i])
            self.within[c] = within
            self._refresh(c)

    def removal_gains(self, c: int) -> Floats | float:
        """How much inertia goes when a member of c leaves, for all members; minus infinity where it is alone."""
        members = self.members[c]
        size = self.sizes[c]
        if len(members) < 2:
            return -np.inf
        distance = self._exact[members] - 2.0 * self.sums[c, members].astype(np.float64) / size
        return np.asarray(size / (size - 1.0) * (distance + self.within[c] / (size * size)))

    def removal_gain(self, i: int) -> float:
        """The same for one point."""
        c = self.labels[i]
        size = float(self.sizes[c])
        if size < 2:
            return -np.inf
        distance = float(self._exact[i]) - 2.0 * float(self.sums[c, i]) / size + float(self.within[c]) / (size * size)
        return size / (size - 1.0) * distance

    def insertion_costs(self, i: int) -> Floats:
        """How much inertia comes when point i joins each of the clusters; means nothing for its own."""
        weight, slope, offset = self.lines
        if self.gram.dtype == np.float32:
            sums = np.bincount(self.labels, self.gram[i].astype(np.float64), self.clusters)
        else:
            sums = self.sums[:, i]
        return np.asarray(weight * self._exact[i] + slope * sums + offset)

    def move(self, i: int, to: int) -> float:
        """Move point i to another cluster; by how much the inertia changes."""
        start = int(self.labels[i])
        gain = self.removal_gain(i) if self.sizes[start] > 1 else 0.0
        own = float(self._exact[i])
        left, joined = float(self.sums[start, i]), float(self.sums[to, i])
        weight, slope, offset = (float(line) for line in self.lines[:, to])
        cost = weight * own + slope * joined + offset
        self.within[start] += own - 2.0 * left
        self.within[to] += own + 2.0 * joined
        self.sums[start] -= self.gram[i]
        self.sums[to] += self.gram[i]
        last = self.members[start].pop()
        if last != i:
            self.members[start][self._position[i]] = last
            self._position[last] = self._position[i]
        self._position[i] = len(self.members[to])
        self.members[to].append(i)
        self.labels[i] = to
        self._refresh(start)
        self._refresh(to)
        return cost - gain

    def _refresh(self, c: int) -> None:
        size = float(len(self.members[c]))
        self.sizes[c] = size
        if size == 1.0 and self.gram.dtype == np.float32:
            alone = self.members[c][0]
            self.within[c], self.sums[c] = self._exact[alone], self.gram[alone]
        if size:
            within = self.within[c] / (size * (size + 1.0))
            self.lines[:, c] = size / (size + 1.0), -2.0 / (size + 1.0), within
        else:
            self.within[c], self.sums[c], self.lines[:, c] = 0.0, 0, 0.0
