"""Atoms: every position along every axis of every tensor, as one integer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from ..model.dimensions import period
from ..model.graph import Graph
from .rules.facts import Atoms, Axis

SlotKey = tuple[str, int, int]  # tensor, axis, blocks (1: the plain axis)


class AtomTable:
    """Numbers the positions of axes when they are first asked for.

    Axes of length 1 (they broadcast) and of open length have no atoms.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.slots: dict[SlotKey, tuple[int, int]] = {}
        self._blocked: dict[str, set[SlotKey]] = {}
        self._now: set[SlotKey] = set()
        self.count = 0

    def begin(self) -> None:
        """Start a node: forget which blocked axes the last one asked for."""
        self._now = set()

    def axis(self, tensor: str, axis: int, blocks: int) -> Axis:
        """The atoms of an axis (see TensorView.blocked for `blocks` over 1); of a repeated one, those of a period."""
        size = (self._graph.tensor(tensor).shape or ())[axis]
        size = period(size) or size
        if not isinstance(size, int):
            return Axis(np.empty(0, np.int64), None)
        if blocks == 1 and size == 1:
            return Axis(np.empty(0, np.int64), 1)
        key = (tensor, axis, blocks)
        if blocks > 1:
            self._now.add(key)
        if key not in self.slots:
            self.slots[key] = (self.count, size * blocks)
            self.count += size * blocks
        start, length = self.slots[key]
        return Axis(np.arange(start, start + length, dtype=np.int64), length)

    def touched(self, names: Iterable[str]) -> Iterator[SlotKey]:
        """The axes of these tensors that have atoms; blocked ones, where this node asked for them, instead of plain."""
        for name in names:
            for axis in range(len(self._graph.tensor(name).shape or ())):
                blocked = [key for key in sorted(self._now) if key[:2] == (name, axis)]
                if blocked:
                    yield from blocked
                elif len(self.axis(name, axis, 1).atoms):
                    yield (name, axis, 1)

    def unsaid(self, key: SlotKey, said: Atoms) -> Atoms:
        """Atoms of `key` that are not among `said`, which is sorted."""
        start, size = self.slots[key]
        low, high = np.searchsorted(said, (start, start + size))
        missing = np.ones(size, bool)
        missing[said[low:high] - start] = False
        return start + np.flatnonzero(missing)
