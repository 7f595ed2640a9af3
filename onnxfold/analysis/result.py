"""What an analysis found, frozen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..frozen import read_only
from ..model.kv_cache import Cache
from .atoms import SlotKey
from .groups import ChannelGroup
from .pins import Refusal
from .rules.facts import At, Atoms, Normalize


@dataclass(frozen=True)
class Recount:
    """An integer of node `node`, at `at`, that equals the number of atoms in `of` times `sign`.

    Of an integer that the graph multiplies from lengths that stay and a number, it is the number.
    """

    node: int
    at: At
    of: Atoms
    sign: int = 1

    def __post_init__(self) -> None:
        read_only(self)


@dataclass(frozen=True, eq=False)
class Frozen:
    """Input `input` of node `node` keeps the numbers `value` when one of `lengths`, (tensor, axis) pairs, changes: what
    the model computes from these is no length (the scale 1 / sqrt(dimension) of attention), or would be another one.

    `counts`: (index in `value`, atoms, sign) of those that are the number of some atoms times a sign."""

    node: int
    input: int
    value: NDArray[Any]
    lengths: frozenset[tuple[str, int]]
    counts: tuple[tuple[int, Atoms, int], ...] = ()

    def __post_init__(self) -> None:
        read_only(self)

    def left(self, kept: NDArray[np.bool_]) -> NDArray[Any]:
        """The numbers where of all atoms those `kept` are left."""
        value = self.value.copy()
        for index, atoms, sign in self.counts:
            value.reshape(-1)[index] = sign * int(kept[atoms].sum())
        return value


@dataclass(frozen=True)
class Mean:
    """Node `node` takes the mean or the sum over axis `axis` of its input 0 (or a sum of squares, or its root, by which
    it may divide): what is left along it is weighted after a fold.

    `variance`: the node that takes the square of the mean off it; what it gives is the statistic of a norm."""

    node: int
    axis: int
    variance: int | None = None


@dataclass(frozen=True)
class OverChannels:
    """Node `node` is a norm over axis `axis` of its input 0: scaled by the constant `scale`, or written out, where it
    only takes the mean (''; then a `Mean` is there too). Its statistic is over the axes `beside` as well: pixels."""

    node: int
    axis: int
    scale: str = ""
    beside: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Index:
    """Input `input` of node `node` holds positions among the atoms `of`, along its axis `axis` one for each of the
    atoms `made`; in `column` of its last axis, if that names several."""

    node: int
    input: int
    of: Atoms
    made: Atoms
    axis: int = 0
    column: int | None = None

    def __post_init__(self) -> None:
        read_only(self)


@dataclass(frozen=True)
class Analysis:
    """Everything later stages need to know of the graph; no later stage knows an operator.

    `slots` maps (tensor, axis, blocks) to the first atom and the number of atoms of that axis; `reached` tells of every
    atom whether it is in a group. `parameters` counts the floating-point numbers of all weights that meet data.
    `caches` are those among inputs and outputs whose heads may change.
    """

    groups: tuple[ChannelGroup, ...]
    refusals: tuple[Refusal, ...]
    recounts: tuple[Recount, ...]
    norms: tuple[Normalize, ...]
    slots: Mapping[SlotKey, tuple[int, int]] = field(repr=False)
    reached: NDArray[np.bool_] = field(repr=False)
    parameters: int
    caches: tuple[Cache, ...] = ()
    frozen: tuple[Frozen, ...] = ()
    means: tuple[Mean, ...] = ()
    indices: tuple[Index, ...] = ()
    over_channels: tuple[OverChannels, ...] = ()

    def __post_init__(self) -> None:
        read_only(self)

    @property
    def atoms(self) -> int:
        """How many atoms there are."""
        return len(self.reached)

    @cached_property
    def shares(self) -> Mapping[tuple[str, int], float]:
        """The share of every axis (tensor, axis) that is in groups, 0..1; axes that are not there are in none."""
        out = dict[tuple[str, int], float]()
        for (tensor, axis, _), (at, size) in self.slots.items():
            inside = float(self.reached[at : at + size].sum()) / max(1, size)
            out[tensor, axis] = max(inside, out.get((tensor, axis), 0.0))
        return out

    def lengths(self, removed: Iterable[Atoms]) -> Mapping[tuple[str, int], int]:
        """New lengths of all axes that get shorter when the atoms in `removed` go."""
        gone = np.zeros(self.atoms, bool)
        for atoms in removed:
            gone[atoms] = True
        return self.shortened(self.gone(np.flatnonzero(gone)).items())

    def gone(self, atoms: Atoms) -> Mapping[int, int]:
        """For every slot that has any of these distinct `atoms`, by number: how many."""
        inside = np.sort(atoms)
        counts = np.searchsorted(inside, self._ends) - np.searchsorted(inside, self._starts)
        return {int(slot): int(counts[slot]) for slot in np.flatnonzero(counts)}

    def shortened(self, gone: Iterable[tuple[int, int]]) -> Mapping[tuple[str, int], int]:
        """New lengths of all axes whose slots, by number, lose so many atoms; counts of the same slot add up."""
        total = dict[int, int]()
        for slot, count in gone:
            total[slot] = total.get(slot, 0) + count
        keys, out = self._keys, dict[tuple[str, int], int]()
        for slot in sorted(total):
            (tensor, axis, blocks), size = keys[slot]
            out[tensor, axis] = (size - total[slot]) // blocks
        return out

    @cached_property
    def _keys(self) -> list[tuple[SlotKey, int]]:
        """By number, the key of every slot and its atoms."""
        return [(key, size) for key, (_, size) in self.slots.items()]

    @cached_property
    def _starts(self) -> Atoms:
        return np.array([start for start, _ in self.slots.values()], np.int64)

    @cached_property
    def _ends(self) -> Atoms:
        return np.array([start + size for start, size in self.slots.values()], np.int64)
