"""One pass over the original with data: for every group, in which order its channels can go and what that costs.

Moments of the consumers' inputs are held until all have been seen; then only orders, error curves and what the channels
do for their consumers stay, with the moments themselves where that is asked for and they are small enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..analysis.groups import ChannelGroup, Place, Role
from ..analysis.result import Analysis
from ..errors import read_only
from ..folding.functional import Functions, functions
from ..folding.second_order import Consumer, Elimination, eliminate
from ..model.constants import Constants
from ..model.linear import Linear, linear
from ..model.model import Model
from ..progress import Progress, silent
from ..recovery.channel_maps import Pool, add_rows, channel_moments, pool
from ..recovery.epilogue import Epilogue, Epilogues
from ..recovery.moments import MOST_FEATURES, Moments, share_of_places
from ..runtime.segments import SegmentRunner
from ..runtime.session import Feeds

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RIDGE = 1e-2
"""Of the mean of the diagonal of the moments: what selection takes samples to be wrong by."""

_REMEMBERED = 2**29  # bytes of moments that are kept for choosing merges, those of narrow consumers first come


@dataclass(frozen=True, eq=False)
class _Use:
    """One consumer of one group: its node, what follows, and by part of the node (a grouped convolution has several)
    the columns [n, b] of every channel, -1 where it reads none of this part.

    With a `pool`, the node is too wide: its inputs are channels, each of their kernel positions an output of its own.
    """

    node: Linear
    epilogue: Epilogue
    parts: Mapping[int, Ints]
    pool: Pool | None = None

    def __post_init__(self) -> None:
        read_only(self)


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """By group: `eliminations`, and what the channels do for their consumers (`functions`).

    `broken`: groups that have neither, because a consumer's inputs or outputs are NaN or infinite on the samples.
    """

    eliminations: Mapping[str, Elimination]
    functions: Mapping[str, Functions]
    broken: tuple[str, ...] = ()


@np.errstate(invalid="ignore", over="ignore")  # what is not finite is found where moments are read
def measure_sensitivity(
    model: Model,
    analysis: Analysis,
    names: Iterable[str],
    feeds: Sequence[Feeds],
    *,
    ridge: float = RIDGE,
    remember: bool = False,
    seed: int = 0,
    progress: Progress[Any] = silent,
) -> Sensitivity:
    """What samples say about every group of `names` whose consumers are all linear nodes narrow enough to be measured.

    With `remember`, moments stay at hand (in single precision, 512 MiB in all at most). Raises what onnxruntime raises
    for a model that does not run.
    """
    graph = model.proto.graph
    constants = model.constants
    epilogues = Epilogues(graph, constants.read)
    chosen = set(names)
    uses = {g.name: _uses(model, g, constants, epilogues) for g in analysis.groups if g.name in chosen}
    index = {name: i for i, node in enumerate(graph.node) for name in node.output}
    at: dict[str, list[str]] = {}
    for name, found in uses.items():
        if found:
            at.setdefault(max((u.node.y for u in found), key=index.__getitem__), []).append(name)
    stops = sorted({u.node.y for found in uses.values() for u in found}, key=index.__getitem__)
    joins = {u.epilogue.join: u.node.axis for found in uses.values() for u in found if u.epilogue.join}
    walk, rng = SegmentRunner(model.proto, feeds, model.folder), np.random.default_rng(seed)
    nodes = {u.node.y: u.node for found in uses.values() for u in found}
    wide = {u.node.y: u.pool for found in uses.values() for u in found if u.pool is not None}
    moments: dict[str, Moments] = {}
    energies = _Energies(joins)
    out: dict[str, Elimination] = {}
    seen: dict[str, Functions] = {}
    broken, waiting, room = list[str](), list[str](), float(_REMEMBERED)

    def done(name: str) -> None:
        nonlocal room
        group = next(g for g in analysis.groups if g.name == name)
        consumers = [r for u in uses[name] for r in _consumers(u, moments[u.node.y], energies, constants)]
        if not all(np.isfinite(r.moments).all() and np.isfinite(r.energy) for r in consumers):
            broken.append(name)
            return
        size = sum(4.0 * (r.moments.size + r.weights.size) for r in consumers)
        kept = remember and size <= room
        room -= size if kept else 0.0
        seen[name] = functions(consumers, kept)
        out[name] = eliminate(consumers, max(1, group.blocks), ridge, group.cells if group.blocks > 1 else None)

    for y in progress("surveying", stops):
        node = nodes[y]
        have = walk.advance(index[y], [node.x, *joins])
        energies.add(have)
        have = [{**h, **more} for h, more in zip(have, walk.advance(index[y] + 1, [y, *joins]), strict=True)]
        energies.add(have)
        moments[y] = _pooled(node, wide[y], have, rng) if y in wide else _moments(node, have, rng)
        waiting += at.get(y, ())
        ready = [n for n in waiting if all(u.epilogue.join in energies.found for u in uses[n] if u.epilogue.join)]
        waiting = [n for n in waiting if n not in ready]
        for name in ready:
            done(name)
        closed = {*out, *broken}
        open_ = {u.node.y for name, found in uses.items() if name not in closed for u in found}
        moments = {kept: sums for kept, sums in moments.items() if kept in open_}
    energies.add(walk.advance(len(graph.node), joins))
    for name in waiting:
        done(name)
    return Sensitivity(out, seen, tuple(broken))


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


def _uses(model: Model, group: ChannelGroup, constants: Constants, epilogues: Epilogues) -> list[_Use]:
    """The group's consumers, or [] if one of them is not linear with moments of its own."""
    found = []
    for place in group.parameters:
        if place.summed:
            return []
        if place.role is not Role.CONSUMES:
            continue
        shape = model.graph.tensor(place.tensor).shape
        for i in place.nodes:
            if i >= len(model.proto.graph.node):
                return []  # inside a body, which cannot be run alone
            proto = model.proto.graph.node[i]
            node = linear(proto, [int(d) for d in shape if isinstance(d, int)]) if shape else None
            if node is None or node.weight != place.tensor:
                return []
            if node.features > MOST_FEATURES:
                how = pool(node, place) if node.groups == 1 else None
                if how is None or node.features // how.taps > MOST_FEATURES:
                    return []
                own = place.positions if node.windows is not None else np.arange(group.size)[:, None]
                found.append(_Use(node, epilogues.epilogue(node), {0: own}, how))
                continue
            parts = _parts(node, place)
            if parts is None:
                return []
            found.append(_Use(node, epilogues.epilogue(node), parts))
    return found


def _parts(node: Linear, place: Place) -> dict[int, Ints] | None:
    """By part of the node, the columns of the channels there; None where one part reads channels unequally often."""
    if place.blocks != node.groups:
        return None
    part, inside = (
        np.divmod(place.positions, node.inputs) if node.groups > 1 else (0 * place.positions, place.positions)
    )
    found = {}
    for number in np.unique(part):
        here = part == number
        counts = here.sum(axis=1)
        if len(np.unique(counts[counts > 0])) > 1:
            return None
        columns = inside[here].reshape(-1, counts.max())[:, :, None] * node.window + np.arange(node.window)
        found[int(number)] = np.full((len(counts), counts.max() * node.window), -1, np.int64)
        found[int(number)][counts > 0] = columns.reshape(len(columns), -1)
    return found


def _consumers(use: _Use, sums: Moments, energies: _Energies, constants: Constants) -> list[Consumer]:
    """One for every part of the node; their errors are relative to the energy of the whole."""
    node = use.node
    weight = constants.read(node.weight)
    assert weight is not None
    rows = node.matrix(weight.astype(np.float64)) * use.epilogue.scale.reshape(node.groups, node.outputs, 1)
    if use.pool is not None:
        rows = use.pool.apart(rows[0])[None]
    covariances = [sums.inputs(g) for g in range(node.groups)]
    energy = energies.found.get(use.epilogue.join) or sum(
        float(np.sum((r @ c) * r)) for r, c in zip(rows, covariances, strict=True)
    )
    return [_consumer(covariances[g], rows[g], columns, energy) for g, columns in use.parts.items()]


def _consumer(covariance: Floats, rows: Floats, columns: Ints, energy: float) -> Consumer:
    mine = columns >= 0
    if 2 * mine.sum() <= len(covariance):  # others make up for little, and inverting them all costs the most
        own = columns[mine]
        numbered = np.full(columns.shape, -1, np.int64)
        numbered[mine] = np.arange(len(own))
        return Consumer(covariance[np.ix_(own, own)], rows[:, own], numbered, energy)
    return Consumer(covariance, rows, columns, energy)
