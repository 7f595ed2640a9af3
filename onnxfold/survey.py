"""One pass over the original with data: for every group, in which order its channels can go and what that costs.

Moments of the readers' inputs are held until all have been seen; then only orders and error curves stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .analyse import Analysis
from .channels import ChannelGroup, Role
from .eliminate import Elimination, Reader, eliminate
from .linear import Linear, linear
from .model import Model
from .moments import MOST_FEATURES, Moments, share_of_places
from .pooled import Pool, add_rows, channel_moments, pool
from .progress import Progress, silent
from .session import Feeds
from .tails import Followers, Tail
from .walk import Walk

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _Use:
    """One reader of one group: its node, what follows, and the columns [n, b] of every channel.

    With a `pool`, the node is too wide: its inputs are channels, each of their kernel positions an output of its own.
    """

    node: Linear
    tail: Tail
    columns: Ints
    pool: Pool | None = None


def survey(
    model: Model,
    analysis: Analysis,
    names: Iterable[str],
    feeds: Sequence[Feeds],
    *,
    ridge: float = 1e-2,
    seed: int = 0,
    progress: Progress[Any] = silent,
) -> Mapping[str, Elimination]:
    """The elimination of every group of `names` whose readers are all linear nodes narrow enough to be measured."""
    graph = model.proto.graph
    constants = _Constants(model)
    followers = Followers(graph, constants.read)
    chosen = set(names)
    uses = {g.name: _uses(model, g, constants, followers) for g in analysis.groups if g.name in chosen}
    index = {name: i for i, node in enumerate(graph.node) for name in node.output}
    at: dict[str, list[str]] = {}
    for name, found in uses.items():
        if found:
            at.setdefault(max((u.node.y for u in found), key=index.__getitem__), []).append(name)
    stops = sorted({u.node.y for found in uses.values() for u in found}, key=index.__getitem__)
    joins = {u.tail.join: u.node.axis for found in uses.values() for u in found if u.tail.join}
    walk, rng = Walk(model.proto, feeds, model.folder), np.random.default_rng(seed)
    nodes = {u.node.y: u.node for found in uses.values() for u in found}
    wide = {u.node.y: u.pool for found in uses.values() for u in found if u.pool is not None}
    moments: dict[str, Moments] = {}
    energies = _Energies(joins)
    out: dict[str, Elimination] = {}
    waiting: list[str] = []

    def done(name: str) -> Elimination:
        group = next(g for g in analysis.groups if g.name == name)
        readers = [_reader(u, moments[u.node.y], energies, constants) for u in uses[name]]
        return eliminate(readers, max(1, group.blocks), ridge, group.cells if group.blocks > 1 else None)

    for y in progress("surveying", stops):
        node = nodes[y]
        have = walk.advance(index[y], [node.x, *joins])
        energies.add(have)
        have = [{**h, **more} for h, more in zip(have, walk.advance(index[y] + 1, [y, *joins]), strict=True)]
        energies.add(have)
        moments[y] = _pooled(node, wide[y], have, rng) if y in wide else _moments(node, have, rng)
        waiting += at.get(y, ())
        ready = [n for n in waiting if all(u.tail.join in energies.found for u in uses[n] if u.tail.join)]
        waiting = [n for n in waiting if n not in ready]
        for name in ready:
            out[name] = done(name)
        open_ = {u.node.y for name, found in uses.items() if name not in out for u in found}
        moments = {kept: sums for kept, sums in moments.items() if kept in open_}
    energies.add(walk.advance(len(graph.node), joins))
    out.update({name: done(name) for name in waiting})
    return out


def _moments(node: Linear, have: Sequence[Mapping[str, NDArray[Any]]], rng: np.random.Generator) -> Moments:
    sums = Moments(node)
    share = share_of_places(node, sum(node.positions(h[node.y]) for h in have))
    for h in have:
        sums.add(h[node.x], h[node.y], share, rng)
    return sums


def _pooled(node: Linear, how: Pool, have: Sequence[Mapping[str, NDArray[Any]]], rng: np.random.Generator) -> Moments:
    """Moments of the channels alone."""
    sums = channel_moments(node.features // how.taps)
    for h in have:
        rows = how.rows(node, h[node.x])
        add_rows(sums, rows, share_of_places(sums.node, len(rows) * len(have)), rng)
    return sums


class _Energies:
    """Variances of joins, summed over their channels (on the axes given by name), as they pass by."""

    def __init__(self, axes: Mapping[str, int]) -> None:
        self.found: dict[str, float] = {}
        self._axes = axes

    def add(self, have: Sequence[Mapping[str, NDArray[Any]]]) -> None:
        for name, axis in self._axes.items():
            if name in self.found or not all(name in h for h in have):
                continue
            self.found[name] = float(np.mean([_variance(h[name], axis) for h in have]))


def _variance(value: NDArray[Any], axis: int) -> float:
    axes = tuple(a for a in range(value.ndim) if a != axis % value.ndim)
    return float(value.var(axis=axes, dtype=np.float64).sum())


class _Constants:
    """The values of the model's constants, for `Followers`."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def read(self, name: str) -> NDArray[Any] | None:
        constants = self._model.constants
        if not name or name not in constants:
            return None
        return constants.array(name)


def _uses(model: Model, group: ChannelGroup, constants: _Constants, followers: Followers) -> list[_Use]:
    """The group's readers, or [] if one of them is not linear with moments of its own."""
    found = []
    for place in group.parameters:
        if place.role is not Role.READS:
            continue
        shape = model.graph.tensor(place.tensor).shape
        for i in place.nodes:
            proto = model.proto.graph.node[i]
            node = linear(proto, [int(d) for d in shape if isinstance(d, int)]) if shape else None
            if node is None or node.weight != place.tensor or node.groups != 1:
                return []
            if node.features > MOST_FEATURES:
                how = pool(node, place)
                if how is None or node.features // how.taps > MOST_FEATURES:
                    return []
                own = place.positions if node.windows is not None else np.arange(group.size)[:, None]
                found.append(_Use(node, followers.tail(node), own, how))
                continue
            columns = place.positions[:, :, None] * node.window + np.arange(node.window)
            found.append(_Use(node, followers.tail(node), columns.reshape(group.size, -1)))
    return found


def _reader(use: _Use, sums: Moments, energies: _Energies, constants: _Constants) -> Reader:
    weight = constants.read(use.node.weight)
    assert weight is not None
    rows = use.node.matrix(weight.astype(np.float64))[0] * use.tail.scale[:, None]
    if use.pool is not None:
        rows = use.pool.apart(rows)
    covariance = sums.inputs()
    energy = energies.found.get(use.tail.join) or float(np.sum((rows @ covariance) * rows))
    if 2 * use.columns.size <= len(covariance):  # others make up for little, and inverting them all costs the most
        own = use.columns.ravel()
        return Reader(
            covariance[np.ix_(own, own)], rows[:, own], np.arange(len(own)).reshape(use.columns.shape), energy
        )
    return Reader(covariance, rows, use.columns, energy)
