"""Two proofs of an analysis that know no operator, for any model.

*permute*: channels of a group reordered everywhere change no output. *duplicate*: channels of a group made exact copies
in pairs, then folded by those pairs, leave every output as it was up to rounding. Each has a negative control: one
parameter axis left out on purpose must show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto
from scipy.sparse import csr_matrix, identity

from .analysis.analyze import analyze
from .analysis.atoms import SlotKey
from .analysis.axis_matrix import axis_matrix
from .analysis.groups import ChannelGroup, Place, Role
from .analysis.result import Analysis
from .evaluation.metrics import relative_l2
from .folding.merge import Merge, apply, folding, rearranging
from .frozen import read_only
from .model.model import Model, load
from .model.save import inline
from .runtime.outputs import raw_outputs, with_outputs
from .runtime.probe_inputs import index_limits, probe
from .runtime.session import Feeds, Session
from .transform.edits import edits
from .transform.emit import emit

Carry = Callable[[Feeds], dict[str, NDArray[Any]]]


@dataclass(frozen=True)
class OracleResult:
    """Relative L2 errors over all outputs (before a final softmax): of the oracle, and of its negative control."""

    error: float
    control: float


def permutation(group: ChannelGroup, rng: np.random.Generator) -> Merge:
    """A random reordering of the channels, within their cells."""
    order = np.arange(group.size)
    for cell in range(group.blocks):
        mine = np.flatnonzero(group.cells == cell)
        order[mine] = rng.permutation(mine)
    matrix = csr_matrix((np.ones(group.size), (np.arange(group.size), order)), shape=(group.size, group.size))
    return rearranging(matrix, matrix)


def pairs(group: ChannelGroup) -> NDArray[np.int64]:
    """Labels that put neighbors of a cell together, two by two."""
    labels = np.arange(group.size)
    for cell in range(group.blocks):
        mine = np.flatnonzero(group.cells == cell)
        labels[mine[1::2]] = mine[: len(mine) // 2 * 2 : 2]
    return labels


def duplication(group: ChannelGroup) -> Merge:
    """Every second channel becomes an exact copy of its neighbor; what reads them stays."""
    labels = pairs(group)
    copy = csr_matrix((np.ones(group.size), (np.arange(group.size), labels)), shape=(group.size, group.size))
    return rearranging(copy, identity(group.size, format="csr"))


def permute(model: Model, analysis: Analysis | None = None, seed: int = 0, **how: Any) -> OracleResult:
    """All groups permuted at once, at random. `how`: see `OracleInputs`."""
    analysis, inputs = analysis or analyze(model), OracleInputs(seed=seed, **how)
    rng = np.random.default_rng(seed)
    merges = {group.name: permutation(group, rng) for group in analysis.groups}
    first = _Run.of(model, model.proto, inputs)

    def error(skip: frozenset[SlotKey]) -> float:
        after = emit(model, edits(model, analysis, merges, skip))
        return _error(model, first, after, partial(carried, analysis, merges))

    return OracleResult(error(frozenset()), error(_control(model, analysis)))


def duplicate(model: Model, analysis: Analysis | None = None, seed: int = 0, **how: Any) -> OracleResult:
    """All groups made twice redundant, then folded back. `how`: see `OracleInputs`.

    The control is folded back by the groups of the other: it has the same graph.
    """
    analysis, inputs = analysis or analyze(model), OracleInputs(seed=seed, **how)
    copying = {group.name: duplication(group) for group in analysis.groups}

    def copies(skip: frozenset[SlotKey]) -> Model:
        return load(inline(emit(model, edits(model, analysis, copying, skip)), model.folder), inputs.shapes)

    twice = copies(frozenset())
    again = analyze(twice, fold_heads=bool(analysis.caches), fold_residual=bool(analysis.over_channels))
    merges = {group.name: folding(pairs(group)) for group in again.groups}

    def error(made: Model) -> float:
        first = _Run.of(model, made.proto, inputs, partial(carried, analysis, copying))
        return _error(model, first, emit(made, edits(made, again, merges)), partial(carried, again, merges))

    return OracleResult(error(twice), error(copies(_control(model, analysis))))


@dataclass(frozen=True, eq=False)
class OracleInputs:
    """What versions are run on: `feeds`, or random ones of so many samples (`batch`) and these `shapes`; floats are fed
    times `scale`."""

    feeds: Feeds | None = None
    batch: int = 2
    shapes: Mapping[str, Sequence[int]] | None = None
    scale: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        read_only(self)

    def of(self, session: Session, model: Model) -> Feeds:
        """The inputs for a session of a version of `model`."""
        limits = index_limits(model.graph)
        feeds = self.feeds or probe(session.inputs, batch=self.batch, seed=self.seed, shapes=self.shapes, limits=limits)
        if self.scale == 1:
            return feeds
        return {n: np.asarray(x * self.scale, x.dtype) if x.dtype.kind == "f" else x for n, x in feeds.items()}


@dataclass(frozen=True, eq=False)
class _Run:
    """A version of a model before a change: what it was given, and its raw outputs by name."""

    feeds: Feeds
    outputs: Feeds

    def __post_init__(self) -> None:
        read_only(self)

    @classmethod
    def of(cls, model: Model, version: ModelProto, inputs: OracleInputs, begin: Carry = dict) -> _Run:
        """The inputs of `model` become those of the `version` by `begin`."""
        session, outputs = _session(model, version), raw_outputs(model.graph)
        feeds = begin(inputs.of(session, model))
        return cls(feeds, dict(zip(outputs, session.run(feeds), strict=True)))


def _session(model: Model, version: ModelProto) -> Session:
    return Session.of_version(with_outputs(version, raw_outputs(model.graph), model.graph), model.folder)


def _error(model: Model, first: _Run, after: ModelProto, ends: Carry) -> float:
    """The largest relative L2 error over the raw outputs of a version of `model`, against the `first`.

    What inputs and outputs of the first are to `after` is told by `ends`: caches have other heads there.
    """
    expected = ends(first.outputs)
    found = _session(model, after).run(ends(first.feeds))
    return max(relative_l2(expected[name], value) for name, value in zip(first.outputs, found, strict=True))


def carried(analysis: Analysis, merges: Mapping[str, Merge], arrays: Feeds) -> dict[str, NDArray[Any]]:
    """What becomes of the values of activations (by tensor) under `merges`: of caches, whose heads are channels."""
    parts: dict[tuple[str, int], list[tuple[Place, Merge]]] = {}
    for group in analysis.groups:
        for place in group.places:
            if place.tensor in arrays and place.role is None and group.name in merges:
                parts.setdefault((place.tensor, place.axis), []).append((place, merges[group.name]))
    found = dict(arrays)
    for (name, axis), here in parts.items():
        found[name] = apply(axis_matrix(analysis, here, name), found[name], axis, 1).astype(found[name].dtype)
    return found


def _control(model: Model, analysis: Analysis) -> frozenset[SlotKey]:
    """A making parameter of the last group, a weight rather than a bias: without it the others disagree with it.

    One of every group where all are made inside bodies: a branch that is not taken shows nothing.
    """
    found, main = list[SlotKey](), len(model.proto.graph.node)
    for group in reversed(analysis.groups):
        places = [p for p in group.parameters if p.role is Role.PRODUCES]
        if places:
            place = max(places, key=lambda p: len(model.graph.tensor(p.tensor).shape or ()))
            found.append((place.tensor, place.axis, place.blocks))
            if min(place.nodes) < main:
                return frozenset(found[-1:])
    return frozenset(found)
