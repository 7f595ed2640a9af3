"""Reshape, Flatten, Squeeze and Unsqueeze: axes keep their order but are joined, split, added or dropped."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from .facts import At, Axis, Count, Fact, Free, OneOf, Refuse, Tie
from .lengths import follow
from .node_view import NodeView, TensorView, Value
from .shared_parts import SharedPart, common_parts, front_part
from .table import Rule

Segment = tuple[list[int], list[int]]


def segments(x: Sequence[object], y: Sequence[object]) -> Iterator[Segment]:
    """Runs of axes of `x` and of `y` that hold the same elements; open dimensions match by name only.

    >>> list(segments(("N", 8, 4, 4), ("N", 128)))
    [([0], [0]), ([1, 2, 3], [1])]
    >>> list(segments((8, 4, "T"), (32, "T")))
    [([2], [1]), ([0, 1], [0])]
    >>> list(segments((6, 4), (4, 6)))
    [([0, 1], [0, 1])]
    """
    i = 0
    while i < min(len(x), len(y)) and x[i] is not None and x[i] == y[i]:
        yield [i], [i]
        i += 1
    right_x, right_y = len(x), len(y)
    while right_x > i and right_y > i:
        a, b = right_x - 1, right_y - 1
        alike = x[a] is not None and x[a] == y[b]
        while not alike:
            have, want = _elements(x[a:right_x]), _elements(y[b:right_y])
            if have is None or want is None:
                return
            if have == want:
                break
            if have < want:
                a -= 1
            else:
                b -= 1
            if a < i or b < i:
                return
        yield list(range(a, right_x)), list(range(b, right_y))
        right_x, right_y = a, b


def _elements(dims: Sequence[object]) -> int | None:
    """How many elements axes of these lengths hold; None where one is open or empty."""
    lengths = [d for d in dims if isinstance(d, int) and d > 0]
    return math.prod(lengths) if len(lengths) == len(dims) else None


def reshaped(x: TensorView, y: TensorView, target: Sequence[Value] | None) -> Iterator[Fact]:
    """Facts of a reshape from `x` to `y`; `target` holds the integers of a Reshape's second input."""
    (dims_x, axes_x), (dims_y, axes_y) = x.spread(), y.spread()
    said, found = set[int](), list(segments(dims_x, dims_y))
    first, front = _front(dims_x, dims_y, found)
    if front is not None and (a := axes_x[first]) is not None and (b := axes_y[first]) is not None:
        said.add(b)
        yield from front.ties(x.axis(a), y.axis(b))
        yield from _counted(x, y, None, b, target)
    for of_x, of_y in found:
        wide_x = [axis for a in of_x if dims_x[a] != 1 and (axis := axes_x[a]) is not None]
        wide_y = [axis for a in of_y if dims_y[a] != 1 and (axis := axes_y[a]) is not None]
        facts = list(_between(x, y, wide_x, wide_y, target)) if wide_x and wide_y else []
        said.update(wide_y if facts else ())
        yield from facts
    for axis in range(y.rank):
        if axis not in said:
            yield from _computed(y, axis, target)


def _between(
    x: TensorView, y: TensorView, wide_x: list[int], wide_y: list[int], target: Sequence[Value] | None
) -> Iterator[Fact]:
    """Facts of some axes of `x` that become some axes of `y`, none of length 1; none where they cross."""
    if len(wide_x) == 1 and len(wide_y) == 1:
        yield Tie(x.axis(wide_x[0]), y.axis(wide_y[0]))
        yield from _counted(x, y, wide_x[0], wide_y[0], target)
    elif len(wide_y) == 1:
        counts, joined = _counted(x, y, None, wide_y[0], target), y.axis(wide_y[0])
        yield OneOf(tuple((Tie(part, joined), *counts) for _, part in _parts(x, wide_x)))
    elif len(wide_x) == 1:
        whole = x.axis(wide_x[0])
        yield OneOf(tuple((Tie(whole, part), *_all_counted(x, y, wide_y, a, target)) for a, part in _parts(y, wide_y)))
    else:
        parts = common_parts([x.size(a) or 0 for a in wide_x], [y.size(a) or 0 for a in wide_y])
        options = list[tuple[Tie | Count, ...]]()
        for part in sorted(parts, key=lambda part: -part.length):
            a, b = wide_x[part.of_x], wide_y[part.of_y]
            options.append((*part.ties(x.axis(a), y.axis(b)), *_all_counted(x, y, wide_y, b, target)))
        yield from [OneOf(tuple(options))] if options else []


def _all_counted(
    x: TensorView, y: TensorView, axes: list[int], followed: int, target: Sequence[Value] | None
) -> Iterator[Count]:
    """The integers of the target for some axes of y of which one is followed."""
    yield from _counted(x, y, None, followed, target)
    for axis in axes:
        if axis != followed:
            yield from _computed(y, axis, target)


def _front(x: Sequence[object], y: Sequence[object], found: Sequence[Segment]) -> tuple[int, SharedPart | None]:
    """The number of the first axes that are different, and what these have in common, where nothing else is known."""
    first = next((i for i, pair in enumerate(found) if pair != ([i], [i])), len(found))
    free = all(first not in of_x and first not in of_y for of_x, of_y in found)
    return first, front_part(x[first:], y[first:]) if free else None


def _parts(view: TensorView, axes: list[int]) -> list[tuple[int, Axis]]:
    """Each of some neighboring axes as it lies in all of them together, the longest first: where nothing else decides,
    it has the most to give."""
    sizes = [view.axis(a).size or 1 for a in axes]
    order = sorted(range(len(axes)), key=lambda i: -sizes[i])
    return [(axes[i], view.axis(axes[i]).repeat(math.prod(sizes[i + 1 :])).tile(math.prod(sizes[:i]))) for i in order]


def _counted(
    x: TensorView, y: TensorView, from_axis: int | None, axis: int, target: Sequence[Value] | None
) -> list[Count]:
    if target is None:
        return []
    value = target[axis]
    copies = value.number == 0 and from_axis == axis and not value.live
    if copies or (value.number == -1 and not value.live):
        return []
    at, repeated = At(input=1, index=axis), y.axis(axis)
    if value.live and value.number is None and value.linear and value.factor == repeated.size != 1:
        return [Count(repeated, at)]  # so many times an open length: the graph multiplies
    return follow(repeated, value, at, rest=_only(target))


def _computed(y: TensorView, axis: int, target: Sequence[Value] | None) -> list[Count]:
    """An axis that is not followed: what its length is computed from, if it is, must give the same again."""
    if target is None or not target[axis].live:
        return []
    return follow(y.axis(axis), target[axis], At(input=1, index=axis), rest=_only(target))


def _only(target: Sequence[Value]) -> bool:
    """Whether a target may have a -1: there is none yet."""
    return all(value.number != -1 for value in target)


def reshape(n: NodeView) -> Iterator[Fact]:
    """Reshape to the integers of input 1 (0: as in the input, -1: what is left)."""
    target = n.values("shape", 1)
    if target is None:
        yield Refuse("has a shape computed at run time")
        return
    yield from reshaped(n.x(), n.y(), target)


def flatten(n: NodeView) -> Iterator[Fact]:
    """Two axes out: those before `axis` joined, and those from it on."""
    x, y = n.x(), n.y()
    axis = n.attr("axis", 1)
    axis = axis + x.rank if axis < 0 else axis
    if axis == 1:
        yield Tie(x.axis(0), y.axis(0))
        rest = [a for a in range(1, x.rank) if x.shape[a] != 1]
        if len(rest) == 1:
            yield Tie(x.axis(rest[0]), y.axis(1))
        elif y.size(1) is not None:
            yield from (fact for fact in reshaped(x, y, None) if isinstance(fact, OneOf))
    else:
        yield from reshaped(x, y, None)


def _axes(n: NodeView, rank: int) -> list[int] | None:
    axes = n.ints("axes", 1)
    return None if axes is None else sorted(a % rank for a in axes)


def squeeze(n: NodeView) -> Iterator[Fact]:
    """The named axes, of length 1, go. Without names every axis of length 1 goes, so lengths must be known."""
    x, y = n.x(), n.y()
    gone = _axes(n, x.rank)
    if gone is None:
        if n.has(1) or any(not isinstance(d, int) for d in x.shape):
            yield Refuse("squeezes unknown axes")
            return
        gone = [a for a, d in enumerate(x.shape) if d == 1]
    for k, axis in enumerate(a for a in range(x.rank) if a not in gone):
        yield Tie(x.axis(axis), y.axis(k))


def unsqueeze(n: NodeView) -> Iterator[Fact]:
    """Axes of length 1 are added at the named places of the output."""
    x, y = n.x(), n.y()
    new = _axes(n, y.rank)
    if new is None:
        yield Refuse("unsqueezes unknown axes")
        return
    for axis, k in enumerate(a for a in range(y.rank) if a not in new):
        yield Tie(x.axis(axis), y.axis(k))


def shape(n: NodeView) -> Iterator[Fact]:
    """Only lengths are read; where they end up is checked by the analysis."""
    for axis in n.x().axes():
        yield Free(axis)


RULES = (
    Rule(reshape, ("Reshape",), since=5),
    Rule(flatten, ("Flatten",)),
    Rule(squeeze, ("Squeeze",)),
    Rule(unsqueeze, ("Unsqueeze",)),
    Rule(shape, ("Shape", "Size")),
)
