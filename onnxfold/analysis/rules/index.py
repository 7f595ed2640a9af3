"""Operators that pick or place by index: the indexed axes are kept, those around them pass."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .facts import At, Axis, Fact, Free, Indices, Refuse, Tie
from .lengths import follow
from .node_view import NodeView, TensorView
from .table import Rule


def gather(n: NodeView) -> Iterator[Fact]:
    """The axes around the gathered one pass, and so do those of the indices; a constant list of indices is followed,
    also where it has axes of length 1 besides (torch's as_strided)."""
    x, index, y = n.x(0), n.x(1), n.y()
    axis = n.attr("axis", 0) % x.rank
    for k in range(x.rank):
        if k != axis:
            yield Tie(x.axis(k), y.axis(k if k < axis else k + index.rank - 1))
    long = [k for k in range(index.rank) if index.size(k) != 1]
    places = n.ints("", 1) if index.constant and len(long) == 1 else None
    size = x.size(axis) or 0
    if places and len(places) > 1 and size > 1 and all(-size <= place < size for place in places):
        whole, made, taken = x.axis(axis), y.axis(axis + long[0]), [place % size for place in places]
        yield Tie(whole[taken], made)
        yield Free(whole[sorted(set(range(size)) - set(taken))])
        yield Indices(whole, made, 1, long[0])
        return
    yield from (Tie(index.axis(k), y.axis(axis + k)) for k in range(index.rank))
    if index.constant and not long and size > 1 and x.floating:
        yield from _one_picked(n, x.axis(axis), size)


def _one_picked(n: NodeView, whole: Axis, size: int) -> Iterator[Fact]:
    """A constant index of one position: that one stays, the others may go; all may where only lengths are read."""
    place = (n.ints("", 1) or [size])[0]
    if n.lengths_only and place in (0, -1):
        yield Free(whole)
    elif -size <= place < size:
        rest = [other for other in range(size) if other != place % size]
        yield Free(whole[rest])
        yield Indices(whole, whole[[place]], 1)


def gather_elements(n: NodeView) -> Iterator[Fact]:
    """Along one axis; along the others element i of the indices picks from position i."""
    x, index, y = n.x(0), n.x(1), n.y()
    yield from _beside(n, (x, index), y)


def scatter_elements(n: NodeView) -> Iterator[Fact]:
    """As GatherElements, the other way round."""
    x, index, updates, y = n.x(0), n.x(1), n.x(2), n.y()
    yield from _beside(n, (x, index, updates), y)


def _beside(n: NodeView, sides: tuple[TensorView, ...], y: TensorView) -> Iterator[Fact]:
    """Axes that are not indexed pass where all tensors have them in full: a shorter index leaves positions out."""
    indexed = n.attr("axis", 0) % y.rank
    for axis in range(y.rank):
        if axis != indexed and all(side.shape[axis] == y.shape[axis] for side in sides):
            for side in sides:
                yield Tie(side.axis(axis), y.axis(axis))


def gather_nd(n: NodeView) -> Iterator[Fact]:
    """Rows of the indices name positions along some axes of x; batch axes before and the axes behind these pass."""
    x, index, y = n.x(0), n.x(1), n.y()
    named, batch = index.size(-1), n.attr("batch_dims", 0)
    if named is None:
        yield Refuse("has indices of unknown length")
        return
    for axis in range(batch):
        yield Tie(x.axis(axis), y.axis(axis))
    for axis in range(index.rank - 1):
        yield Tie(index.axis(axis), y.axis(axis))
    for axis in range(batch + named, x.rank):
        yield Tie(x.axis(axis), y.axis(axis - named - batch + index.rank - 1))


def overwritten(n: NodeView) -> Iterator[Fact]:
    """ScatterND whose indices are all positions in order (position_grids.py): what is written is the result."""
    for axis, made in enumerate(n.y().axes()):
        yield from (Tie(n.x(i).axis(axis), made) for i in range(3))


def counted_positions(n: NodeView) -> Iterator[Fact]:
    """Range from 0 up, which serves such indices alone: as long as the axis whose length it takes."""
    for limit in n.values("", 1) or []:
        yield Free(n.y().axis(0))
        yield from follow(n.y().axis(0), limit, At(input=1))


def scatter_nd(n: NodeView) -> Iterator[Fact]:
    """Rows of the indices name positions along the first axes of x; the axes behind these pass, and so do those that
    constant indices go along (what is written by a slice)."""
    x, index, updates, y = n.x(0), n.x(1), n.x(2), n.y()
    named = index.size(-1)
    if named is None:
        yield Refuse("has indices of unknown length")
        return
    for axis in range(named, x.rank):
        yield Tie(x.axis(axis), y.axis(axis))
        yield Tie(updates.axis(axis - x.rank), y.axis(axis))
    for column, row, places in _grid(n, index, named):
        yield Tie(x.axis(column), y.axis(column))
        yield Tie(updates.axis(row), y.axis(column)[places])
        yield Indices(y.axis(column), updates.axis(row), 1, row, column)


def _grid(n: NodeView, index: TensorView, named: int) -> Iterator[tuple[int, int, list[int]]]:
    """Of constant indices that go along some axes of x, each by an axis of their own: (axis of x, axis of the indices,
    the positions)."""
    values = n.ints("", 1) if index.constant else None
    if not values or any(not isinstance(d, int) for d in index.shape):
        return
    array = np.array(values).reshape([d for d in index.shape if isinstance(d, int)])
    moves = [
        [row for row in range(index.rank - 1) if (np.diff(array[..., column], axis=row) != 0).any()]
        for column in range(named)
    ]
    rows = [row for along in moves for row in along]
    for column, along in enumerate(moves):
        size = n.x().size(column) or 0
        if len(along) == 1 and rows.count(along[0]) == 1:
            places = np.moveaxis(array[..., column], along[0], -1).reshape(-1, array.shape[along[0]])[0].tolist()
            if len(set(places)) == len(places) > 1 and min(places) >= 0 and max(places) < size:
                yield column, along[0], places


def one_hot(n: NodeView) -> Iterator[Fact]:
    """The new axis numbers the classes; those of the indices pass."""
    index, y = n.x(0), n.y()
    new = n.attr("axis", -1) % y.rank
    for k in range(index.rank):
        yield Tie(index.axis(k), y.axis(k if k < new else k + 1))


def numbered(n: NodeView) -> Iterator[Fact]:
    """What comes out depends on where a position stands: none is like another."""
    yield Refuse("returns positions along its axes")


def compared(n: NodeView) -> Iterator[Fact]:
    """Elements or whole slices are compared with each other, and some are left out."""
    yield Refuse("picks elements by comparing them")


def drawn(n: NodeView) -> Iterator[Fact]:
    """Random numbers: equal channels become different ones, and other shapes draw other numbers."""
    yield Refuse("draws random numbers")


RANDOM = (
    "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
)  # fmt: skip
RULES = (
    Rule(gather, ("Gather",)),
    Rule(gather_elements, ("GatherElements",)),
    Rule(scatter_elements, ("ScatterElements", "Scatter")),
    Rule(gather_nd, ("GatherND",)),
    Rule(scatter_nd, ("ScatterND",)),
    Rule(one_hot, ("OneHot",)),
    Rule(numbered, ("EyeLike", "Range")),
    Rule(compared, ("NonMaxSuppression", "NonZero", "Unique")),
    Rule(drawn, RANDOM),
)
