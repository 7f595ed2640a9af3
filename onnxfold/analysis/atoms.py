"""Atoms: every position along every axis of every tensor, as one integer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from ..frozen import read_only
from ..model.dimensions import period
from ..model.graph import Graph
from .rules.facts import Atoms, Axis

SlotKey = tuple[str, int, int]  # tensor, axis, blocks (1: the plain axis)
NONE: Atoms = np.empty(0, np.int64)
NONE.flags.writeable = False


@dataclass(frozen=True, eq=False)
class Tied:
    """Atoms a[i] and b[i] are the same channel, as node number `node` has it."""

    a: Atoms
    b: Atoms
    node: int

    def __post_init__(self) -> None:
        if self.a.flags.writeable or self.b.flags.writeable:  # few are, and there are many ties
            read_only(self)


def ends(ties: Iterable[Tied]) -> tuple[Atoms, Atoms]:
    """Both sides of many ties in a row."""
    listed = list(ties)
    return np.concatenate([NONE, *(tie.a for tie in listed)]), np.concatenate([NONE, *(tie.b for tie in listed)])


class AtomTable:
    """Numbers the positions of axes when they are first asked for.

    Axes of length 1 (they broadcast) and of open length have no atoms.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.slots: dict[SlotKey, tuple[int, int]] = {}
        self._axes: dict[SlotKey, Axis] = {}
        self._by_axis: dict[tuple[str, int], list[SlotKey]] = {}
        self._now: set[SlotKey] = set()
        self.count = 0

    def begin(self) -> None:
        """Start a node: forget which blocked axes the last one asked for."""
        self._now = set()

    def axis(self, tensor: str, axis: int, blocks: int) -> Axis:
        """The atoms of an axis (see TensorView.blocked for `blocks` over 1); of a repeated one, those of a period."""
        key = (tensor, axis, blocks)
        found = self._axes.get(key)
        if found is None:
            found = self._axes[key] = self._new(key)
        if blocks > 1 and found.size is not None:
            self._now.add(key)
        return found

    def _new(self, key: SlotKey) -> Axis:
        tensor, axis, blocks = key
        size = (self._graph.tensor(tensor).shape or ())[axis]
        size = period(size) or size
        if not isinstance(size, int):
            return Axis(NONE, None)
        if blocks == 1 and size == 1:
            return Axis(NONE, 1)
        start, length = self.slots[key] = (self.count, size * blocks)
        self._by_axis.setdefault(key[:2], []).append(key)
        self.count += length
        atoms = np.arange(start, start + length, dtype=np.int64)
        atoms.flags.writeable = False  # here, so that no view is made of it
        return Axis(atoms, length)

    def of(self, tensor: str) -> list[SlotKey]:
        """The axes of a tensor that were asked for and have atoms, also those in blocks."""
        rank = len(self._graph.tensor(tensor).shape or ())
        return [key for axis in range(rank) for key in self._by_axis.get((tensor, axis), ())]

    def touched(self, names: Iterable[str]) -> Iterator[SlotKey]:
        """The axes of these tensors that have atoms; blocked ones, where this node asked for them, instead of plain."""
        for name in names:
            for axis in range(len(self._graph.tensor(name).shape or ())):
                if self._now and (blocked := sorted(key for key in self._now if key[:2] == (name, axis))):
                    yield from blocked
                elif len(self.axis(name, axis, 1).atoms):
                    yield (name, axis, 1)

    def unsaid(self, key: SlotKey, said: Atoms) -> Atoms:
        """Atoms of `key` that are not among `said`, which are sorted and all different."""
        start, size = self.slots[key]
        low, high = said.searchsorted((start, start + size))
        if high - low == size:
            return NONE
        missing = np.ones(size, bool)
        missing[said[low:high] - start] = False
        return start + np.flatnonzero(missing)
