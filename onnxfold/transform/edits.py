"""Edits: what merges change of a model, as new weights, integers and lengths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..analysis.atoms import SlotKey
from ..analysis.axis_matrix import _axis_matrix, axis_matrix
from ..analysis.groups import ChannelGroup, Place
from ..analysis.result import Analysis, Frozen, Index, Mean, Recount
from ..analysis.rules.facts import At
from ..folding.merge import Merge, apply, apply_in_pieces
from ..frozen import read_only
from ..model.graph import Node
from ..model.model import Model
from ..model.quantized.scheme import Scheme
from ..model.tensors import Pending
from .norms import norm_edits, uniform_scales
from .requantize import merged

_Parts = list[tuple[Place, Merge]]


@dataclass(frozen=True)
class Integer:
    """An integer that counts channels: element `at` of node `node`, its `value` after the fold, and whether it has to
    be written (`new`), because it changes or because what computes it does."""

    node: int
    at: At
    value: int
    new: bool


@dataclass(frozen=True)
class Edits:
    """All that changes: new `arrays` by constant name, `integers` (every one that is counted), `lengths` of axes by
    (tensor, axis). `schemes`: how those of `arrays` become integers that are stored so, before rounding. `Pending`
    arrays are computed when they are written. `inputs`: (node, which) -> the tensor to read instead; `bypass`: tensor
    -> what all its consumers read instead. `numbers`: (node, which) -> numbers to read instead. `factors`: (node, axis)
    -> what its input 0 is multiplied by first, along that axis. `epsilons`: of norms, by node."""

    arrays: Mapping[str, NDArray[Any] | Pending] = field(repr=False)
    integers: Sequence[Integer]
    lengths: Mapping[tuple[str, int], int]
    schemes: Mapping[str, Scheme] = field(default_factory=dict, repr=False)
    inputs: Mapping[tuple[int, int], str] = field(default_factory=dict)
    bypass: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[tuple[int, int], NDArray[Any]] = field(default_factory=dict)
    factors: Mapping[tuple[int, int], NDArray[np.float64]] = field(default_factory=dict)
    epsilons: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        read_only(self)


def edits(
    model: Model,
    analysis: Analysis,
    merges: Mapping[str, Merge],
    skip: frozenset[SlotKey] = frozenset(),
    lazy: bool = False,
) -> Edits:
    """What the merges (by group name) change; if `lazy`, new values of weights outside the model's file are pending.

    `skip` leaves out parameter axes on purpose: the negative control of the oracles, never anything else.
    """
    groups = [(g, merges[g.name]) for g in analysis.groups if g.name in merges]
    removed = [removed_atoms(g, m.keep) for g, m in groups]
    kept = np.ones(analysis.atoms, bool)
    for atoms in removed:
        kept[atoms] = False
    changes: dict[str, _Parts] = {}
    for group, merge in groups:
        for place in group.parameters:
            changes.setdefault(place.tensor, []).append((place, merge))
    changes = _once(model, changes, skip)
    weights = [_Weight(model, analysis, name, parts, kept) for name, parts in changes.items()]
    arrays: dict[str, NDArray[Any] | Pending] = {
        one.name: Pending(one.shape, partial(getattr, one, "array")) if lazy and one.pending else one.array
        for one in weights
    }
    norms = list(norm_edits(model, analysis, groups, arrays))
    arrays |= {one.scale: one.values for one in norms if not one.own} | dict(uniform_scales(model, groups, arrays))
    numbers: dict[tuple[int, int], NDArray[Any]] = {(one.node, one.at): one.values for one in norms if one.own}
    for one in analysis.indices:
        if not (kept[one.of].all() and kept[one.made].all()):
            old = model.constants.array(model.graph.nodes[one.node].inputs[one.input])
            numbers[one.node, one.input] = _places(numbers.get((one.node, one.input), old), one, kept)
    integers, lengths = [(r, int(kept[r.of].sum())) for r in analysis.recounts], analysis.lengths(removed)
    return Edits(
        arrays,
        [Integer(r.node, r.at, -1 if r.at.rest else r.sign * left, _new(r, left, lengths)) for r, left in integers],
        lengths,
        {one.name: one.scheme for one in weights if one.name in model.constants.stored},
        numbers=numbers
        | {(one.node, one.input): one.left(kept) for one in analysis.frozen if _thaws(one, kept, lengths)},
        factors=dict(_factors(model, analysis, groups)),
        epsilons={one.node: one.epsilon for one in norms},
    )


def _places(old: NDArray[Any], index: Index, kept: NDArray[np.bool_]) -> NDArray[Any]:
    """The positions in a constant, as they are numbered after the fold."""
    number = np.cumsum(kept[index.of]) - 1
    new = np.compress(kept[index.made], old, index.axis) if old.ndim else old
    if index.column is None:
        return np.asarray(number[new], old.dtype)
    new[..., index.column] = number[new[..., index.column]]
    return new


def _factors(
    model: Model, analysis: Analysis, groups: Sequence[tuple[ChannelGroup, Merge]]
) -> Iterator[tuple[tuple[int, int], NDArray[np.float64]]]:
    """Where means are taken over channels that merge: how many each that is left stands for, times the share of all
    that is left, as the mean is over fewer; or what the merge says of the whole mean."""
    for mean in analysis.means:
        tensor = model.graph.nodes[mean.node].inputs[0]
        parts = [(p, m) for g, m in groups for p in g.places if (p.tensor, p.axis) == (tensor, mean.axis)]
        if parts:
            yield from _of_mean(analysis, parts, mean, model.graph.nodes[mean.node])


def _of_mean(
    analysis: Analysis, parts: _Parts, mean: Mean, node: Node
) -> Iterator[tuple[tuple[int, int], NDArray[np.float64]]]:
    """The factors [new length] of one mean or sum, which `node` takes, and of the variance that is made of it."""
    tensor = node.inputs[0]
    counts = np.asarray(axis_matrix(analysis, parts, tensor, consumed=True).sum(axis=1), np.float64).ravel()
    share = len(counts) / analysis.slots[tensor, mean.axis, 1][1]  # of all channels that is left
    told, behind = next((m.squares for _, m in parts if m.squares), None), 1.0
    if told is not None:  # the sum over what is left, times this, stands for the sum over all
        factor = told.get(node.outputs[0], 1.0)
        factor, behind = (factor, 1.0) if mean.variance is None else (1.0, factor)
        counts = np.full(len(counts), factor / share)
    for number, factors in ((mean.node, _scaling(node.op, counts, share)), (mean.variance, counts * 0 + behind)):
        if number is not None and not np.allclose(factors, 1.0, rtol=0.0, atol=1e-9):
            yield (number, mean.axis), factors


def _scaling(op: str, counts: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """By what an operator has to multiply channels of which each counts for so many, a `share` of all there were."""
    if op == "ReduceMean":
        return counts * share
    if op == "LpNormalization":  # which divides: what it gives is multiplied, for all channels alike
        return np.full(len(counts), 1.0 / np.sqrt(counts.mean()))
    return counts if op == "ReduceSum" else np.sqrt(counts)


def _new(recount: Recount, left: int, lengths: Mapping[tuple[str, int], int]) -> bool:
    """Whether an integer, of which `left` channels are left, or what computes it changes."""
    return (left != len(recount.of) and not recount.at.rest) or not recount.at.lengths.isdisjoint(lengths)


def _thaws(frozen: Frozen, kept: NDArray[np.bool_], lengths: Mapping[tuple[str, int], int]) -> bool:
    """Whether numbers, or what computes them, change."""
    return not frozen.lengths.isdisjoint(lengths) or not all(kept[atoms].all() for _, atoms, _ in frozen.counts)


def _once(model: Model, changes: Mapping[str, _Parts], skip: frozenset[SlotKey]) -> dict[str, _Parts]:
    """The changes without what is to `skip`; of weights that stand on one stored tensor one, as their edits agree."""
    chosen, first = dict[str, str](), {key[0] for key in skip}
    for name in sorted(changes, key=lambda name: (name not in first, -len(changes[name]))):
        chosen.setdefault(model.tied.stored(name), name)
    once = set(chosen.values())
    left = {
        name: [(p, m) for p, m in parts if (p.tensor, p.axis, p.blocks) not in skip]
        for name, parts in changes.items() if name in once
    }  # fmt: skip
    return {name: parts for name, parts in left.items() if parts}


def removed_atoms(group: ChannelGroup, keep: NDArray[np.int64]) -> NDArray[np.int64]:
    """The atoms of the channels of `group` that are not in `keep`."""
    gone = np.ones(group.size, bool)
    gone[keep] = False
    return group.atoms[gone[group.owner]]


@dataclass(frozen=True, eq=False)
class _Weight:
    """A weight that `parts` touch; of all atoms, those `kept`."""

    model: Model
    analysis: Analysis
    name: str
    parts: Sequence[tuple[Place, Merge]]
    kept: NDArray[np.bool_]

    def __post_init__(self) -> None:
        read_only(self)

    @property
    def array(self) -> NDArray[Any]:
        """Its values after all merges."""
        original = self.model.constants.array(self.name)
        if original.ndim == 2 and original.dtype.kind not in "iu" and len(self._axes) == 1:
            ((axis, blocks),) = self._axes
            if blocks == 1:
                computed = original.dtype if original.dtype in (np.float32, np.float64) else np.dtype(np.float32)
                matrix = _axis_matrix(self.parts, self.name, self._left(axis, 1), dtype=computed)
                return apply_in_pieces(matrix, original, axis)
        array = original if original.dtype in (np.float32, np.float64) else original.astype(np.float32)
        for axis, blocks in sorted(self._axes, key=lambda at: (-at[1], at[0])):  # blocked axes first
            here = [(p, m) for p, m in self.parts if (p.axis, p.blocks) == (axis, blocks)]
            matrix = _axis_matrix(here, self.name, self._left(axis, blocks), dtype=array.dtype)
            array = apply(matrix, array, axis, blocks)
        return (array if original.dtype.kind not in "iu" else np.rint(array)).astype(original.dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of `array`, where no axis has blocks."""
        tensor = self.model.constants.initializer(self.name)
        assert tensor is not None
        shape = list(tensor.dims)
        for axis, blocks in self._axes:
            shape[axis] = int(self._left(axis, blocks).sum())
        return tuple(shape)

    @property
    def scheme(self) -> Scheme:
        """How it becomes integers, where it is stored so."""
        scheme = self.model.constants.scheme(self.name)
        for axis, blocks in sorted(self._axes):
            left = self._left(axis, blocks)
            matrix = _axis_matrix([(p, m) for p, m in self.parts if p.axis == axis], self.name, left)
            scheme = merged(scheme, axis, blocks, left, matrix, self.model.constants.stored[self.name].block)
        return scheme

    @property
    def pending(self) -> bool:
        """Whether its values can wait until they are written: they lie outside the model's file."""
        return all(p.blocks == 1 for p, _ in self.parts) and self.model.constants.outside(self.name) is not None

    @property
    def _axes(self) -> set[tuple[int, int]]:
        return {(place.axis, place.blocks) for place, _ in self.parts}

    def _left(self, axis: int, blocks: int) -> NDArray[np.bool_]:
        start, size = self.analysis.slots[self.name, axis, blocks]
        return self.kept[start : start + size]
