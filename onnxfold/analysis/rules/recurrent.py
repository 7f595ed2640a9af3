"""LSTM, GRU and RNN: the hidden units are channels that the node makes and, one step later, reads itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from .facts import At, Axis, Blocks, Consumes, Count, Fact, Free, Refuse, Tie
from .lengths import follow
from .node_view import NodeView, TensorView
from .pointwise import others
from .table import Rule

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def recurrent(n: NodeView) -> Iterator[Fact]:
    """Every gate holds the hidden units in the same order; gates, clipping, peepholes and activations act on every unit
    alone.

    Two directions share the last axis of Y. Where the analysis sees them apart (directions.py), axes of units have the
    positions of both directions in a row, and each direction may keep others, but equally many.
    """
    x, w, r = n.x(0), n.x(1), n.x(2)
    yield from _batches(n, first=bool(n.attr("layout", 0)))
    if w.constant:
        yield Tie(x.axis(2), w.axis(2))
    if not r.constant:
        return  # nothing could take the sum of the units that it reads: they are kept
    unit = r.axis(2)
    directions = len(unit) // (r.size(2) or 1) or 1
    places = list(_units(n, unit, directions))
    if any(axis.size not in (None, copies.size) for axis, copies in places):
        yield Refuse("has parameters that do not match each other")
        return
    for axis, copies in places:
        yield Tie(axis, copies)
    yield Consumes(unit)
    yield Count(r.length(2), At(attr="hidden_size"))
    if directions > 1:
        yield Blocks(unit, directions)


def joined(n: NodeView) -> Iterator[Fact]:
    """A Reshape that puts the units of both directions side by side: where both are seen apart, the new axis has just
    these. All other axes stay as they are."""
    x, y = n.x(), n.y()
    target = n.values("shape", 1) or []
    for axis, value in enumerate(target):
        last = axis == y.rank - 1
        yield Tie(x.axis(-1 if last else axis), y.axis(axis))
        if value.number not in (0, -1):
            yield from follow(y.axis(axis), value, At(input=1, index=axis))


def side_by_side(n: NodeView, held: Sequence[int | None]) -> Iterator[Fact]:
    """A Concat of tensors of which some hold one direction each, number `held`, where both are seen apart: the units of
    both are tied at once, as no unit stands in all of them."""
    y, axis = n.y(), n.attr("axis", 1) % n.y().rank
    parts = [n.x(i) for i in range(len(held))]
    for x in parts:
        yield from others(x, y, axis)
    sizes = [x.size(axis) or 0 for x in parts]
    if y.size(axis) != sum(sizes):
        return  # where the parts lie is open: this axis is kept
    ends = np.cumsum(sizes)
    there = [y.axis(axis)[end - size : end] for size, end in zip(sizes, ends.tolist(), strict=True)]
    for x, one, made in zip(parts, held, there, strict=True):
        yield Tie(x.axis(axis), made) if one is None else Free(x.axis(axis))
    for first, second in zip(*([i for i, one in enumerate(held) if one == which] for which in (0, 1)), strict=True):
        ours = parts[first].axis(axis)[: sizes[first]], parts[second].axis(axis)[sizes[second] :]
        yield Tie(_both(*ours), _both(there[first], there[second]))


def _both(a: Axis, b: Axis) -> Axis:
    return Axis(np.concatenate([a.atoms, b.atoms]), len(a) + len(b))


def _units(n: NodeView, unit: Axis, directions: int) -> Iterator[tuple[Axis, Axis]]:
    """The axes that hold the hidden units, and the units as they stand there.

    W and R have them once per gate, B twice (biases of the input and of the state), the peepholes P for three gates;
    all of one direction after all of the other, where they are seen apart.
    """
    gates, apart = GATES[n.op], np.arange(len(unit)).reshape(directions, -1)
    for number, times in ((1, gates), (2, gates), (3, 2 * gates), (7, 3)):
        for parameter in _given(n, number):
            copies = unit[np.tile(apart, times).ravel()] if directions > 1 else unit.tile(times)
            yield parameter.axis(1), copies
    for state in (*_given(n, 5, 6), *n.outputs):
        if state is not None:
            yield state.axis(-1), unit


def _batches(n: NodeView, first: bool) -> Iterator[Fact]:
    """The batch of x, of the lengths, of the states and of Y; sequences are mixed."""
    batch = n.x().axis(0 if first else 1)
    for lengths in _given(n, 4):
        yield Tie(batch, lengths.axis(0))
    for state in (*_given(n, 5, 6), *n.outputs[1:]):
        if state is not None:
            yield Tie(batch, state.axis(0 if first else 1))
    for y in n.outputs[:1]:
        if y is not None:
            yield Tie(batch, y.axis(0 if first else 2))


def _given(n: NodeView, *numbers: int) -> Iterator[TensorView]:
    """Those of these inputs that are there."""
    yield from (n.x(i) for i in numbers if n.has(i))


RULES = (Rule(recurrent, ("LSTM", "GRU", "RNN"), since=7),)
