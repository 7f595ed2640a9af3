"""One pass over the original with samples: for every group, in which order its channels are best dropped, and what that
costs.

Moments of the inputs of a group's consumers are held until all of these have been seen. Then only the order, the error
curve and what the channels do for their consumers are kept; the moments too where that is asked for and they are small.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..analysis.groups import ChannelGroup, Place, Role
from ..analysis.result import Analysis
from ..folding.functional import Functions, functions
from ..folding.second_order import Consumer, Elimination, eliminate
from ..frozen import read_only
from ..model.constants import Constants
from ..model.linear import Linear, linear
from ..model.model import Model
from ..progress import Progress, silent, steps
from ..recovery.channel_maps import ChannelPooling, add_rows, channel_moments, pooling_of
from ..recovery.epilogue import Epilogue, Epilogues
from ..recovery.moments import MOST_FEATURES, Moments, share_of_places
from ..runtime.segments import SegmentRunner
from ..runtime.session import Feeds

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RIDGE = 1e-2
"""Of the mean of the diagonal of the moments: so uncertain are moments of samples taken to be."""
RIDGE_OUT_OF_DOMAIN = 0.5
"""The same for photographs, which show few of the classes a model knows: channels that do nothing there may serve
elsewhere (three networks folded by 12 %: true errors of 71, 50 and 74 % instead of 72, 51 and 78 %)."""

_REMEMBERED = 2**29  # bytes of moments that are kept at most, to choose merges by; first come, first served


@dataclass(frozen=True, eq=False)
class _Use:
    """One consumer of one group: its node, what follows that, and by part of the node (a grouped convolution has
    several) the columns [n, b] of every channel in the weight, -1 for channels that this part does not consume.

    With a `pooling`, the node is too wide for the moments of all its inputs: only its channels count as inputs, and
    each kernel position as an output of its own.
    """

    node: Linear
    epilogue: Epilogue
    parts: Mapping[int, Ints]
    pooling: ChannelPooling | None = None

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
    progress: Progress[Any] = silent,
) -> Sensitivity:
    """Measure on samples, for every group of `names`, in which order its channels are best dropped and what that costs.
    Groups with a consumer that is no linear node, or too wide, are left out.

    With `remember`, moments are kept (in single precision, 512 MiB in all at most). Raises what onnxruntime raises
    for a model that does not run.
    """
    graph, chosen = model.proto.graph, set(names)
    epilogues = Epilogues(graph, model.constants.read)
    groups = [g for g in analysis.groups if g.name in chosen]
    measured = _Groups(groups, {g.name: _uses(model, g, epilogues) for g in groups}, model.constants, ridge, remember)
    index = {name: i for i, node in enumerate(graph.node) for name in node.output}
    runner, rng = SegmentRunner(model.proto, feeds, model.folder), np.random.default_rng(0)
    joins = measured.energies.axes
    for y in progress("measuring sensitivity", sorted(measured.nodes, key=index.__getitem__)):
        node = measured.nodes[y]
        have = runner.advance(index[y], [node.x, *joins])
        measured.energies.add(have)
        have = [{**h, **more} for h, more in zip(have, runner.advance(index[y] + 1, [y, *joins]), strict=True)]
        measured.energies.add(have)
        pooling = measured.poolings.get(y)
        measured.add(y, _moments(node, have, rng) if pooling is None else _pooled(node, pooling, have, rng))
    measured.energies.add(runner.advance(len(graph.node), joins))
    return measured.result()


class _Groups:
    """The groups of one pass, and the moments of their consumers' inputs: each is held until all groups that need it
    are done."""

    def __init__(
        self,
        groups: Sequence[ChannelGroup],
        uses: Mapping[str, Sequence[_Use]],
        constants: Constants,
        ridge: float,
        remember: bool,
    ) -> None:
        self._groups = {g.name: g for g in groups}
        self._open = {name: found for name, found in uses.items() if found}
        self._waiting = list[str]()  # of the open ones, those whose consumers have all been seen
        self._constants, self._ridge = constants, ridge
        self._remember, self._bytes_left = remember, float(_REMEMBERED)
        everything = [use for found in uses.values() for use in found]
        self.nodes = {use.node.y: use.node for use in everything}
        self.poolings = {use.node.y: use.pooling for use in everything if use.pooling is not None}
        self.energies = _Energies({u.epilogue.join: u.node.axis for u in everything if u.epilogue.join})
        self._moments = dict[str, Moments]()
        self._eliminations, self._functions = dict[str, Elimination](), dict[str, Functions]()
        self._broken = list[str]()

    def add(self, y: str, moments: Moments) -> None:
        """Take in what was seen of the node that makes `y`; groups whose consumers have now all been seen are done."""
        self._moments[y] = moments
        seen = [n for n, found in self._open.items() if all(use.node.y in self._moments for use in found)]
        self._waiting += [name for name in seen if name not in self._waiting]
        self._finish_ready(joined=False)

    def result(self) -> Sensitivity:
        """What was found of all groups, once the pass is over."""
        self._finish_ready(joined=True)
        return Sensitivity(self._eliminations, self._functions, tuple(self._broken))

    def _finish_ready(self, joined: bool) -> None:
        """`joined`: the sums that consumers join have all been made."""
        for name in list(self._waiting):
            joins = [use.epilogue.join for use in self._open[name] if use.epilogue.join]
            if joined or all(join in self.energies.found for join in joins):
                self._finish(name, self._open.pop(name))
                self._waiting.remove(name)
        needed = {use.node.y for found in self._open.values() for use in found}
        self._moments = {y: sums for y, sums in self._moments.items() if y in needed}

    def _finish(self, name: str, found: Sequence[_Use]) -> None:
        """Order and error curve of one group."""
        group = self._groups[name]
        consumers = [c for u in found for c in _consumers(u, self._moments[u.node.y], self.energies, self._constants)]
        if not all(np.isfinite(c.moments).all() and np.isfinite(c.energy) for c in consumers):
            self._broken.append(name)
            return
        size = sum(4.0 * (c.moments.size + c.weights.size) for c in consumers)
        kept = self._remember and size <= self._bytes_left
        self._bytes_left -= size if kept else 0.0
        self._functions[name] = functions(consumers, kept)
        cells = group.cells if group.blocks > 1 else None
        self._eliminations[name] = eliminate(consumers, max(1, group.blocks), self._ridge, cells)


def _moments(node: Linear, have: Sequence[Mapping[str, NDArray[Any]]], rng: np.random.Generator) -> Moments:
    sums = Moments(node)
    share = share_of_places(node, sum(node.positions(h[node.y]) for h in have))
    for h in steps("collecting statistics", have):
        sums.add(h[node.x], h[node.y], share, rng)
    sums.settle()
    return sums


def _pooled(
    node: Linear, how: ChannelPooling, have: Sequence[Mapping[str, NDArray[Any]]], rng: np.random.Generator
) -> Moments:
    """Moments of the channels alone."""
    sums = channel_moments(node.features // how.taps)
    for h in steps("collecting statistics", have):
        rows = how.rows(node, h[node.x])
        add_rows(sums, rows, share_of_places(sums.node, len(rows) * len(have)), rng)
    sums.settle()
    return sums


class _Energies:
    """Variances of the sums that consumers join, added up over their channels (on the `axes` given by name), from what
    a pass over the model makes on the way."""

    def __init__(self, axes: Mapping[str, int]) -> None:
        self.found: dict[str, float] = {}
        self.axes = axes

    def add(self, have: Sequence[Mapping[str, NDArray[Any]]]) -> None:
        for name, axis in self.axes.items():
            if name in self.found or not all(name in h for h in have):
                continue
            self.found[name] = float(np.mean([_variance(h[name], axis) for h in have]))


def _variance(value: NDArray[Any], axis: int) -> float:
    axes = tuple(a for a in range(value.ndim) if a != axis % value.ndim)
    return float(value.var(axis=axes, dtype=np.float64).sum())


def _uses(model: Model, group: ChannelGroup, epilogues: Epilogues) -> list[_Use]:
    """The group's consumers, or [] if one of them is not linear with moments of its own."""
    found = []
    for place in group.parameters:
        if place.summed:
            return []
        if place.role is not Role.CONSUMES:
            continue
        shape = model.graph.tensor(place.tensor).shape
        for i in place.nodes:
            if model.graph.in_body(i):
                return []
            proto = model.proto.graph.node[i]
            node = linear(proto, [int(d) for d in shape if isinstance(d, int)]) if shape else None
            if node is None or node.weight != place.tensor:
                return []
            if node.features > MOST_FEATURES:
                how = pooling_of(node, place) if node.groups == 1 else None
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
    if use.pooling is not None:
        rows = use.pooling.apart(rows[0])[None]
    covariances = [sums.inputs(g) for g in range(node.groups)]
    energy = energies.found.get(use.epilogue.join) or sum(
        float(np.sum((r @ c) * r)) for r, c in zip(rows, covariances, strict=True)
    )
    return [_consumer(covariances[g], rows[g], columns, energy) for g, columns in use.parts.items()]


def _consumer(covariance: Floats, rows: Floats, columns: Ints, energy: float) -> Consumer:
    mine = columns >= 0
    if 2 * mine.sum() <= len(covariance):  # the other inputs compensate little, and inverting with them costs the most
        own = columns[mine]
        numbered = np.full(columns.shape, -1, np.int64)
        numbered[mine] = np.arange(len(own))
        return Consumer(covariance[np.ix_(own, own)], rows[:, own], numbered, energy)
    return Consumer(covariance, rows, columns, energy)
