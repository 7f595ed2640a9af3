"""Ranking: the distance of every pair of layers that could share a weight, and which of them are tied first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import RequestError
from ...frozen import read_only
from ...model.model import Model
from ...options.choices import Distance
from ...progress import Progress, silent
from ...runtime.segments import SegmentRunner
from ...runtime.session import Feeds
from .alignment import AlignableAxes, aligned, reordered
from .joint_fit import Order, Seen, joint, seen
from .layers import Layer, Left, classes
from .similarity import OF_WEIGHTS, cka


def nothing(what: object, whole: bool, left: Sequence[Left]) -> str:
    """The message for a model in which no units can share a weight."""
    units = "residual blocks" if whole else "layers"
    reasons = "; ".join(dict.fromkeys(one.why for one in left))
    nothing = f"nothing to fuse in {what}: no two {units} have weights of the same shape"
    return nothing + (f" ({reasons})" if reasons else "")


Floats = NDArray[np.float64]
Unit = tuple[Layer, ...]  # layers that are fused together with those of another unit: one layer, or those of a block
_POINTS = 4096  # rows of activations that are compared, about


@dataclass(frozen=True, eq=False)
class Class:
    """Units that can share weights, and their distances [n, n], symmetric with zeros on the diagonal."""

    units: tuple[Unit, ...]
    distances: Floats

    def __post_init__(self) -> None:
        read_only(self)

    @property
    def names(self) -> list[str]:
        """What the units are called: by their first layer."""
        return [unit[0].name for unit in self.units]


@dataclass(frozen=True)
class Pair:
    """Two units by name, their `distance`, and the `shape` of the (first) weight that they could share."""

    one: str
    other: str
    distance: float
    shape: tuple[int, ...]


def alone(found: Sequence[Layer]) -> list[list[Unit]]:
    """Every layer a unit, by class."""
    return [[(layer,) for layer in alike] for alike in classes(found)]


def rank(
    model: Model,
    units: Sequence[Sequence[Unit]],
    distance: Distance,
    free: AlignableAxes,
    feeds: Sequence[Feeds] | None,
    progress: Progress[Any] = silent,
) -> list[Class]:
    """The distances in every class of `units`: of the layers at the same place, the mean over a unit by size of weight.

    Layers are brought together by the groups in `free` first (`align.aligned`). Raises RequestError for a distance that
    needs samples where `feeds` is None, and what onnxruntime raises.
    """
    everything = [layer for one in units for unit in one for layer in unit]
    if distance.sampled and feeds is None:
        raise RequestError(f"`distance={distance.value!r}` needs samples: pass `calibration` or `effort='balanced'`")
    measured = _Measured(model, everything, distance, feeds or ())
    out = []
    for one in progress("comparing layers", list(units)):
        distances = np.zeros((len(one), len(one)))
        for i, j in combinations(range(len(one)), 2):
            total = sum(layer.size for layer in one[i])
            parts = [a.size * measured(a, b, free) for a, b in zip(one[i], one[j], strict=True)]
            distances[i, j] = distances[j, i] = sum(parts) / total
        out.append(Class(tuple(one), distances))
    return out


def pairs(ranked: Sequence[Class]) -> list[Pair]:
    """All pairs, the nearest first."""
    found = [
        Pair(one.names[i], one.names[j], float(one.distances[i, j]), one.units[i][0].shape)
        for one in ranked
        for i, j in combinations(range(len(one.units)), 2)
    ]
    return sorted(found, key=lambda p: p.distance)


class Partition:
    """Which units share weights so far; at first each is alone. The next two sets to join are those whose *furthest*
    members are nearest (complete linkage): no unit gets the weights of one unlike it over a chain of others."""

    def __init__(self, ranked: Sequence[Class]) -> None:
        self._ranked = ranked
        self._apart = [np.where(np.eye(len(one.units), dtype=bool), np.inf, one.distances) for one in ranked]
        self._members = [[[i] for i in range(len(one.units))] for one in ranked]

    def next(self) -> tuple[int, int, int] | None:
        """The class and the two sets that are nearest; None where no two may join."""
        best = [(float(one.min(initial=np.inf)), number) for number, one in enumerate(self._apart)]
        distance, number = min(best, default=(np.inf, 0))
        if not np.isfinite(distance):
            return None
        i, j = divmod(int(self._apart[number].argmin()), len(self._apart[number]))
        return number, min(i, j), max(i, j)

    def joined(self, number: int, i: int, j: int) -> Partition:
        """The same with two sets as one."""
        new = self._copy()
        apart, members = new._apart[number], new._members[number]
        apart[i] = apart[:, i] = np.maximum(apart[i], apart[j])
        apart[j] = apart[:, j] = apart[i, i] = np.inf
        members[i], members[j] = sorted(members[i] + members[j]), []
        return new

    def parted(self, number: int, i: int, j: int) -> Partition:
        """The same, but these two sets never join."""
        new = self._copy()
        new._apart[number][i, j] = new._apart[number][j, i] = np.inf
        return new

    @property
    def sets(self) -> list[list[Unit]]:
        """The sets of several units, in the order of the graph."""
        found = [
            [one.units[i] for i in members]
            for one, held in zip(self._ranked, self._members, strict=True)
            for members in held
            if len(members) > 1
        ]
        return sorted(found, key=lambda one: one[0][0].nodes)

    @property
    def layers(self) -> int:
        """How many layers have no weight of their own any more."""
        return sum((len(one) - 1) * len(one[0]) for one in self.sets)

    def distance(self, one: Sequence[Unit]) -> float:
        """The distance of the furthest two of a set."""
        for ranked in self._ranked:
            at = [ranked.units.index(unit) for unit in one if unit in ranked.units]
            if at:
                return float(ranked.distances[np.ix_(at, at)].max())
        return 0.0

    def _copy(self) -> Partition:
        new = Partition(self._ranked)
        new._apart = [one.copy() for one in self._apart]
        new._members = [list(one) for one in self._members]
        return new


def layer_sets(sets: Sequence[Sequence[Unit]]) -> list[list[Layer]]:
    """The layers that share a weight, for units that do."""
    return [list(same) for one in sets for same in zip(*one, strict=True)]


class _Measured:
    """The distance of two layers, of one kind."""

    def __init__(self, model: Model, found: Sequence[Layer], distance: Distance, feeds: Sequence[Feeds]) -> None:
        self._distance, self._read = distance, model.constants.array
        self._seen: Mapping[str, Seen] = seen(model, found, feeds) if distance is Distance.REFIT else {}
        self._given = _given(model, found, feeds) if distance is Distance.ACTIVATIONS else {}

    def __call__(self, a: Layer, b: Layer, free: AlignableAxes) -> float:
        if self._distance is Distance.ACTIVATIONS:
            return _between(self._given[a.key], self._given[b.key])
        if self._distance is Distance.REFIT:
            return self._refitted(a, b, free)
        orders = aligned([(a, b)], self._read, free)
        first, second = (
            layer.matrix(reordered(self._read(layer.weight), layer.weight, orders, free)) for layer in (a, b)
        )
        return OF_WEIGHTS[self._distance](first, second)

    def _refitted(self, a: Layer, b: Layer, free: AlignableAxes) -> float:
        """The share of both layers' energy that one weight for both misses; 1 (all of it) where that cannot be
        measured."""
        if a.key not in self._seen or b.key not in self._seen:
            return 1.0
        orders = aligned([(a, b)], self._read, free) if a.linear.groups == 1 else {}
        first, second = (reordered(self._read(one.weight), one.weight, orders, free) for one in (a, b))
        places = [_order(one, orders, free) for one in (a, b)] if orders else None
        return joint(
            [self._seen[a.key], self._seen[b.key]], a.linear.matrix((first + second) / 2), orders=places, quick=True
        ).after


def _order(layer: Layer, orders: Mapping[str, NDArray[np.int64]], free: AlignableAxes) -> Order:
    """The order of the outputs and of the features of the weight's matrix after groups were permuted."""
    node = layer.linear
    numbers = np.arange(layer.size).reshape(1, node.outputs, node.features)
    moved = layer.matrix(reordered(node.tensor(numbers, layer.shape), layer.weight, orders, free)).astype(np.int64)
    return moved[:, 0] // node.features, moved[0] % node.features


@dataclass(frozen=True, eq=False)
class _Given:
    """Outputs of a layer: `rows` at some of its places [n, channels], means over the places of every sample [samples,
    channels], and how many places there are in every batch."""

    rows: Floats
    means: Floats
    places: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        read_only(self)


def _given(model: Model, found: Sequence[Layer], feeds: Sequence[Feeds]) -> dict[str, _Given]:
    """The outputs of layers on the samples, in one pass."""
    runner, out = SegmentRunner(model.proto, feeds, model.folder), dict[str, _Given]()
    for layer in sorted(found, key=lambda layer: layer.nodes[0]):
        rows, means, places = list[NDArray[Any]](), list[NDArray[Any]](), list[tuple[int, int]]()
        for batch in runner.advance(layer.nodes[0] + 1, [layer.key]):
            value = batch[layer.key]
            flat = layer.linear.rows(value, None)
            apart = flat.reshape(len(value), -1, flat.shape[1])
            rows.append(np.array(flat[:: max(1, len(flat) * len(feeds) // _POINTS)]))
            means.append(apart.mean(axis=1))
            places.append((len(value), apart.shape[1]))
        out[layer.key] = _Given(
            np.concatenate(rows).astype(np.float64), np.concatenate(means).astype(np.float64), tuple(places)
        )
    return out


def _between(a: _Given, b: _Given) -> float:
    """CKA distance of outputs at the same places, or, where two layers have different numbers of them, of the means."""
    return cka(a.rows, b.rows) if a.places == b.places else cka(a.means, b.means)
