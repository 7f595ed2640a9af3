"""Operators that move, cut and join whole positions: Concat, Split, Slice, Pad, Transpose, Expand, DepthToSpace..."""

from __future__ import annotations

from collections.abc import Iterator

from .facts import At, Axis, Count, Fact, Free, Refuse, Tie
from .lengths import follow
from .node_view import NodeView, Value
from .pointwise import others
from .table import Rule


def concat(n: NodeView) -> Iterator[Fact]:
    """The inputs stand one after the other along `axis`."""
    y = n.y()
    axis, start = n.attr("axis", 1) % y.rank, 0
    parts = [n.x(i) for i in range(len(n.inputs))]
    for x in parts:
        yield from others(x, y, axis)
    for x in parts:
        size = x.size(axis)
        if size is None or y.size(axis) is None:
            return  # where the parts lie is open: this axis is kept
        yield Tie(x.axis(axis), y.axis(axis)[start : start + size])
        start += size


def split(n: NodeView) -> Iterator[Fact]:
    """The outputs are consecutive parts along `axis`; sizes are written out when parts become unequal."""
    x = n.x()
    axis, start = n.attr("axis", 0) % x.rank, 0
    if any(y is None for y in n.outputs):
        yield Refuse("has an output without a name")
        return
    parts, sizes = [n.y(i) for i in range(len(n.outputs))], n.values("split", 1)
    whole: Axis | None = None if x.size(axis) is None else x.axis(axis)
    for y in parts:
        yield from others(x, y, axis)
    for i, y in enumerate(parts):
        at = At(attr="split", index=i) if n.version < 13 else At(None, 1, i, "num_outputs")
        size, part = y.size(axis), y.axis(axis)
        whole = None if size is None else whole  # where the parts behind it lie is open: they are kept
        if whole is not None and size is not None:
            part = whole[start : start + size]
            yield Tie(part, y.axis(axis))
            start += size
        if sizes is not None and i < len(sizes) and sizes[i].live:
            yield from follow(part, sizes[i], at)
        elif whole is not None:
            yield Count(part, at)


def cut(n: NodeView) -> Iterator[Fact]:
    """Slice follows positions. With a step, all that lie in one step (a gate and what it is for, say) stay together."""
    x, y = n.x(), n.y()
    starts, ends = n.values("starts", 1), n.values("ends", 2)
    axes = n.ints("axes", 3) if n.has(3) or "axes" in n.attrs else list(range(len(starts or ())))
    steps = n.ints("steps", 4) if n.has(4) else [1] * len(starts or ())
    if axes is None or starts is None or ends is None or steps is None:
        yield Refuse("has bounds computed at run time")
        return
    named = {axis % x.rank: i for i, axis in enumerate(axes)}
    for axis in range(x.rank):
        if axis not in named:
            yield Tie(x.axis(axis), y.axis(axis))
            continue
        i, size, whole = named[axis], x.size(axis), x.axis(axis)
        first, last, live = starts[i].number, ends[i].number, starts[i].live or ends[i].live
        bounds = (starts[i], n.at("starts", 1, i)), (ends[i], n.at("ends", 2, i))
        if steps[i] != 1 and size is not None and not live:
            yield from _strided(whole, y.axis(axis), range(size)[slice(first, last, steps[i])], first or 0)
            continue
        open_ended = size is None or first is None or last is None
        if size is None or open_ended or steps[i] != 1 or (x.constant and live):
            # also a table, cut to the length of an input: at other lengths other rows are used
            yield from (fact for value, at in bounds for fact in follow(whole[:0], value, at))
            continue
        begin, end, _ = slice(first, last).indices(size)
        end = max(begin, end)
        yield Tie(whole[begin:end], y.axis(axis))
        yield Free(whole[:begin])
        yield Free(whole[end:])
        yield from _bound(whole, begin, *bounds[0])
        if (last or 0) < size or ends[i].live:  # beyond the end means "to the end", whatever the length becomes
            yield from _bound(whole, end, *bounds[1])


def _strided(x: Axis, y: Axis, taken: range, start: int) -> Iterator[Fact]:
    """One position of every step over the whole axis, or all positions the other way round: bounds that mean so still
    do when the axis is shorter. Other steps keep it."""
    size, step = len(x), taken.step
    if step == -1 and len(taken) == size > 0:
        yield Tie(x[::-1], y)
    elif step > 1 and size and not size % step and len(taken) == size // step and 0 <= start < step:
        yield Tie(x[start::step], y)
        yield Tie(x[::step].repeat(step), x)


def _bound(whole: Axis, position: int, value: Value, at: At) -> list[Count]:
    """Bounds count what lies before them, negative ones what lies behind."""
    if value.number is not None and value.number < 0:
        behind = whole[position:] if value.number >= -len(whole) else whole[:0]
        return follow(behind, value, at, -1)
    return follow(whole[:position], value, at)


def pad(n: NodeView) -> Iterator[Fact]:
    """Constant padding adds positions that nothing makes; other modes, and cropping, keep their axis."""
    x, y = n.x(), n.y()
    pads = n.values("pads", 1)
    axes = n.ints("axes", 3) if n.has(3) else list(range(x.rank))
    if pads is None or axes is None:
        yield Refuse("has pads computed at run time")
        return
    named = {axis % x.rank: i for i, axis in enumerate(axes)}
    constant = n.attr("mode", "constant") == "constant"
    for axis in range(x.rank):
        if axis not in named:
            yield Tie(x.axis(axis), y.axis(axis))
            continue
        ends = named[axis], named[axis] + len(axes)
        before, after = (pads[i].number for i in ends)
        size, whole = x.size(axis), y.axis(axis)
        added = [whole[:0], whole[:0]]
        if before == after == 0:
            yield Tie(x.axis(axis), whole)
        elif constant and None not in (size, before, after) and min(before or 0, after or 0) >= 0:
            begin, end = before or 0, (before or 0) + (size or 0)
            yield Tie(x.axis(axis), whole[begin:end])
            added = [whole[:begin], whole[end:]]
        for i, part in zip(ends, added, strict=True):
            yield Free(part)
            yield from follow(part, pads[i], n.at("pads", 1, i))


def transpose(n: NodeView) -> Iterator[Fact]:
    """Axis k of the output is axis perm[k] of the input."""
    x = n.x()
    for k, axis in enumerate(n.attr("perm", list(reversed(range(x.rank))))):
        yield Tie(x.axis(axis), n.y().axis(k))


def expand(n: NodeView) -> Iterator[Fact]:
    """Broadcast to a given shape; a 1 there leaves the axis as it is. New axes hold copies only."""
    x, y = n.x(), n.y()
    shape = n.values("", 1)
    if shape is None:
        yield Refuse("has a shape computed at run time")
        return
    for k in range(1, y.rank + 1):
        if k <= x.rank:
            yield Tie(x.axis(-k), y.axis(-k))
        else:
            yield Free(y.axis(-k))
        if k <= len(shape):
            length = y.length(y.rank - k)
            of = length[:0] if shape[-k].number == 1 else length
            yield from follow(of, shape[-k], At(input=1, index=len(shape) - k))


def constant_of_shape(n: NodeView) -> Iterator[Fact]:
    """One number everywhere: no position differs from another."""
    y, shape = n.y(), n.values("", 0)
    if shape is None:
        yield Refuse("has a shape computed at run time")
        return
    for k, value in enumerate(shape):
        yield Free(y.axis(k))
        yield from follow(y.length(k), value, At(input=0, index=k))


def tile(n: NodeView) -> Iterator[Fact]:
    """Whole copies of an axis, one after the other; of an axis of length 1, as many as the result is long."""
    x, y, repeats = n.x(), n.y(), n.values("", 1)
    if repeats is None:
        yield Refuse("has repeats computed at run time")
        return
    for axis, times in enumerate(repeats):
        copied, at = x.size(axis) == 1 and times.number != 1, At(input=1, index=axis)
        yield from follow(y.length(axis) if copied else x.axis(axis)[:0], times, at)  # what makes other numbers is kept
        if copied or times.number == 1:
            yield Tie(x.axis(axis), y.axis(axis))
        elif times.number and x.size(axis) is not None:
            yield Tie(x.axis(axis).tile(times.number), y.axis(axis))
        elif not times.live and y.repeating(axis) == x.size(axis):
            yield Tie(x.axis(axis), y.axis(axis))  # for every sample of an open batch


def depth_to_space(n: NodeView) -> Iterator[Fact]:
    """Every output channel is made of blocksize^2 channels: one of each part (DCR), or a run of them (CRD)."""
    x, y, parts = n.x(), n.y(), n.attr("blocksize") ** 2
    yield Tie(x.axis(0), y.axis(0))
    if n.attr("mode", "DCR") == "DCR":
        yield Tie(x.axis(1), y.axis(1).tile(parts))
    elif n.attr("mode") == "CRD":
        yield Tie(x.axis(1), y.axis(1).repeat(parts))


def space_to_depth(n: NodeView) -> Iterator[Fact]:
    """The channels once for every position of a block, one whole copy after the other."""
    x, y = n.x(), n.y()
    yield Tie(x.axis(0), y.axis(0))
    yield Tie(x.axis(1).tile(n.attr("blocksize") ** 2), y.axis(1))


def reverse_sequence(n: NodeView) -> Iterator[Fact]:
    """Positions in time are turned around, as many as input 1 says for every sample; other axes pass."""
    yield from others(n.x(), n.y(), n.attr("time_axis", 0))
    yield Tie(n.x(1).axis(0), n.y().axis(n.attr("batch_axis", 1)))


RULES = (
    Rule(concat, ("Concat",), since=4),
    Rule(split, ("Split",), since=2),
    Rule(cut, ("Slice",)),
    Rule(pad, ("Pad",), since=2),
    Rule(transpose, ("Transpose",)),
    Rule(expand, ("Expand",)),
    Rule(constant_of_shape, ("ConstantOfShape",), since=9),
    Rule(tile, ("Tile",), since=6),
    Rule(depth_to_space, ("DepthToSpace",)),
    Rule(space_to_depth, ("SpaceToDepth",)),
    Rule(reverse_sequence, ("ReverseSequence",)),
)
