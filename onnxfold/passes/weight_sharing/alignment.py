"""Alignment: the inner channels of layers permuted so that their weights match before they share one.

The whole channel group that an axis of a weight lies in may be permuted, which changes no output (`testing.permute`).
The best order of one group, all others fixed, is a linear assignment on the cross-Gram matrix of its channels and those
that they are to match; groups take turns until nothing changes (weight matching: Ainsworth, Hayase, Srinivasa, "Git
Re-Basin", ICLR 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ...analysis.result import Analysis
from ...folding.merge import Merge, rearranging
from ...frozen import read_only
from .layers import Layer

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_SWEEPS = 10
_GAIN = 1e-9  # relative; less is rounding


@dataclass(frozen=True)
class Alignable:
    """Where the channels of a group are along an axis of a weight: channel c at `positions[c]`, all of them, once."""

    group: str
    positions: Ints

    def __post_init__(self) -> None:
        read_only(self)


AlignableAxes = Mapping[tuple[str, int], Alignable]
Read = Callable[[str], NDArray[Any]]


def alignable(analysis: Analysis) -> AlignableAxes:
    """By (tensor, axis), the group that can be permuted there: one without blocks that fills the whole axis."""
    found = {}
    for group in analysis.groups:
        for place in group.parameters:
            full = place.blocks == 1 and group.blocks == 1 and place.positions.shape == (group.size, 1)
            if full and analysis.slots[place.tensor, place.axis, 1][1] == group.size:
                found[place.tensor, place.axis] = Alignable(group.name, place.positions[:, 0])
    return found


def aligned(sets: Sequence[Sequence[Layer]], read: Read, free: AlignableAxes) -> dict[str, Ints]:
    """Orders of groups, by name, that bring the weights of the layers of each set together: new channel i is old i.

    `read` gives a weight by its name. Only groups that change. The distance, the sum over all pairs of |A - B|_F^2,
    never grows.
    """
    task = _Task([[layer for layer in one] for one in sets if len(one) > 1], read, free)
    if not task.groups:
        return {}
    plain = task.descended({})
    best = min((plain, task.descended(task.guess())), key=task.apart) if task.tangled else plain
    return {name: order for name, order in best.items() if (order != np.arange(len(order))).any()}


def permutations(orders: Mapping[str, Ints]) -> dict[str, Merge]:
    """Orders of groups as merges."""
    merges = {}
    for name, order in orders.items():
        n = len(order)
        matrix = csr_matrix((np.ones(n), (np.arange(n), order)), shape=(n, n))
        merges[name] = rearranging(matrix, matrix)
    return merges


def reordered(array: NDArray[np.floating], weight: str, orders: Mapping[str, Ints], free: AlignableAxes) -> Floats:
    """A weight after its groups were permuted."""
    moved = np.asarray(array, np.float64)
    for axis in range(moved.ndim):
        alignable = free.get((weight, axis))
        if alignable is not None and alignable.group in orders:
            index = np.empty(len(alignable.positions), np.int64)
            index[alignable.positions] = alignable.positions[orders[alignable.group]]
            moved = np.take(moved, index, axis)
    return moved


class _Task:
    """Sets of layers to align: `groups` that may be permuted, in order. Of the groups on one axis of a set, the first
    stays as it is. `tangled`: sets have two or more axes to align, so that the order in which groups are taken counts.
    """

    def __init__(self, sets: Sequence[Sequence[Layer]], read: Read, free: AlignableAxes) -> None:
        self._sets, self._free = sets, free
        self._weights = {layer.weight: np.asarray(read(layer.weight), np.float64) for one in sets for layer in one}
        self._where: dict[str, list[tuple[int, Layer, int]]] = {}
        self.tangled = False
        met = dict[str, None]()
        for number, one in enumerate(sets):
            per_layer = [self._axes(layer) for layer in one]
            for layer, axes in zip(one, per_layer, strict=True):
                for axis, alignable in axes.items():
                    self._where.setdefault(alignable.group, []).append((number, layer, axis))
            for axis in range(len(one[0].shape)):
                here = dict.fromkeys(axes[axis].group for axes in per_layer if axis in axes)
                met.update(dict.fromkeys(list(here)[1:]))
            moving = [a for a in range(len(one[0].shape)) if len({x[a].group for x in per_layer if a in x}) > 1]
            self.tangled |= len(moving) > 1
        self.groups = list(met)

    def _axes(self, layer: Layer) -> dict[int, Alignable]:
        found = {axis: self._free.get((layer.weight, axis)) for axis in range(len(layer.shape))}
        return {axis: alignable for axis, alignable in found.items() if alignable is not None}

    def _now(self, layer: Layer, orders: Mapping[str, Ints]) -> Floats:
        return reordered(self._weights[layer.weight], layer.weight, orders, self._free)

    def apart(self, orders: Mapping[str, Ints], only: set[int] | None = None) -> float:
        """Sum over sets and pairs of |A - B|^2: n times the sum of squares less the square of the sum."""
        total = 0.0
        for number, one in enumerate(self._sets):
            if only is None or number in only:
                now = [self._now(layer, orders) for layer in one]
                total += len(now) * sum(float(np.sum(w * w)) for w in now) - float(np.sum(np.square(sum(now))))
        return total

    def descended(self, orders: Mapping[str, Ints]) -> dict[str, Ints]:
        """Group by group the best order, until none gains."""
        best = dict(orders)
        for _ in range(_SWEEPS):
            moved = False
            for group in self.groups:
                touched = {number for number, _, _ in self._where[group]}
                evaluator = {**best, group: self._order(group, best, exact=True)}
                before, after = self.apart(best, touched), self.apart(evaluator, touched)
                if after < before - _GAIN * max(before, 1e-30):
                    best, moved = evaluator, True
            if not moved:
                break
        return best

    def guess(self) -> dict[str, Ints]:
        """An order for every group by what no permutation of other axes changes: the sorted values of every slice."""
        orders: dict[str, Ints] = {}
        for group in self.groups:
            orders[group] = self._order(group, orders, exact=False)
        return orders

    def _order(self, group: str, orders: Mapping[str, Ints], exact: bool) -> Ints:
        """[n] which old channel of `group` stands best in place of each."""
        rest = {name: order for name, order in orders.items() if name != group}
        gram: Floats | None = None
        for number, layer, axis in self._where[group]:
            alignable = self._free[layer.weight, axis]
            mine = _slices(self._now(layer, rest), axis, exact)[alignable.positions]
            for other in self._sets[number]:
                theirs = self._axes(other).get(axis)
                if theirs is not None and theirs.group != group:
                    wanted = _slices(self._now(other, orders), axis, exact)[alignable.positions]
                    gram = wanted @ mine.T if gram is None else gram + wanted @ mine.T
        if gram is None:
            return np.arange(len(next(iter(self._free[w.weight, a] for _, w, a in self._where[group])).positions))
        from scipy.optimize import linear_sum_assignment  # slow to import, and folds do not need it

        _, columns = linear_sum_assignment(gram, maximize=True)
        return np.asarray(columns, np.int64)


def _slices(array: Floats, axis: int, exact: bool) -> Floats:
    """[positions, rest] of a weight along `axis`; sorted within each position unless `exact`."""
    flat = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)
    return flat if exact else np.sort(flat, axis=1)
