"""Hartigan's refinement: move single points while that lowers the inertia (Hartigan and Wong 1979)."""

from __future__ import annotations

import numpy as np

from .partition import Partition


class Hartigan:
    """Works on clusters that changed only: a point needs a new look at a cluster when that cluster changed, and at all
    clusters when leaving its own became more attractive. Gains below `tolerance` are taken for rounding errors."""

    def __init__(self, partition: Partition, tolerance: float) -> None:
        n = partition.points
        self._partition, self._tolerance = partition, tolerance
        self._marked: dict[int, None] = {}  # clusters, in the order in which they changed
        self._lowest = np.full(n, np.inf, partition.gram.dtype)  # the cheapest of the changed clusters, by point
        self._removal = np.full(n, -np.inf)  # the gain of leaving, by point
        self._checked = np.full(n, -np.inf)  # no unchanged cluster is cheaper than this
        self._moves: list[tuple[int, int]] = []  # point, where it came from
        self.change = 0.0

    def mark_all(self) -> None:
        """All clusters changed."""
        self._marked |= dict.fromkeys(range(self._partition.clusters))

    def force(self, i: int, to: int) -> None:
        """Move a point whatever it costs."""
        start = int(self._partition.labels[i])
        self._moves.append((i, start))
        self.change += self._partition.move(i, to)
        self._marked[start] = self._marked[to] = None

    def remember(self) -> None:
        """Begin to remember moves: `change` is the inertia gained or lost since then."""
        self._moves.clear()
        self.change = 0.0

    def undo(self) -> None:
        """Take all moves back that were remembered; must start from where nothing is marked."""
        for i, start in reversed(self._moves):
            self._marked[int(self._partition.labels[i])] = self._marked[start] = None
            self._partition.move(i, start)
        for c in self._marked:
            members = self._partition.members[c]
            self._removal[members] = self._checked[members] = self._partition.removal_gains(c)
        self._marked.clear()
        self.remember()

    def run(self, most: int) -> int:
        """Move until nothing is marked or `most` passes were made; how many were. Never raises the inertia."""
        sweeps = 0
        while self._marked and sweeps < most:
            sweeps += 1
            changed = list(self._marked)
            self._marked.clear()
            self._price(changed)
            looks = self._lowest < self._removal - self._tolerance
            if len(changed) < self._partition.clusters:
                looks |= self._removal > self._checked
            self._checked[~looks] = self._removal[~looks]
            for i in np.flatnonzero(looks):
                self._consider(int(i))
        return sweeps

    def _price(self, changed: list[int]) -> None:
        """Fill `_lowest` for all points with the cheapest of the changed clusters other than their own."""
        one, lowest = self._partition, self._lowest
        lowest[:] = np.inf
        lines = one.lines.astype(lowest.dtype)
        for c in changed:
            members = one.members[c]
            kept = lowest[members]
            np.minimum(lowest, lines[0, c] * one.diagonal + lines[1, c] * one.sums[c] + lines[2, c], out=lowest)
            lowest[members] = kept
            self._removal[members] = one.removal_gains(c)

    def _consider(self, i: int) -> None:
        """Look at all clusters as they are now and move the point to the cheapest if that pays."""
        gain = self._partition.removal_gain(i)
        self._checked[i] = self._removal[i] = gain
        if gain == -np.inf:
            return
        costs = self._partition.insertion_costs(i)
        costs[self._partition.labels[i]] = np.inf
        target = int(np.argmin(costs))
        if costs[target] < gain - self._tolerance:
            self.force(i, target)
            self._checked[i] = costs[target]  # what leaving again would gain; nothing else was cheaper
