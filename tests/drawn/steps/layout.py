"""Positions are moved, cut and repeated: Split, Slice, Pad, Transpose, Gather, Expand, Tile, DepthToSpace."""

from __future__ import annotations

from ..builder import Builder, Numbers, UnfitError
from .kinds import any_tensor, image

END = 2**63 - 1


def split(g: Builder, n: Numbers) -> None:
    """Channels into two parts or three, equal or not; all go back to the pool, or only one."""
    x, kind, one = g.take(n, lambda t: t.channels >= 4), n.below(3), n.flag()
    sizes = {0: [x.channels // 2] * 2, 1: [3, x.channels - 3], 2: [1, 1, x.channels - 2]}[kind]
    if sum(sizes) != x.channels:
        raise UnfitError("an odd number of channels")
    axis = x.channel - x.rank if n.flag() else x.channel
    if kind == 0:
        count = {"num_outputs": 2} if g.opset >= 18 else {}
        parts = g.ops("Split", x, outputs=2, axis=axis, **count)
    elif g.opset < 13:
        parts = g.ops("Split", x, outputs=len(sizes), axis=axis, split=sizes)
    else:
        parts = g.ops("Split", x, g.constant(sizes), outputs=len(sizes), axis=axis)
    for part in parts[-1:] if one else parts:
        g.put(part, x.channel)


def cut(g: Builder, n: Numbers) -> None:
    """Slice of channels or of places, counted from either end, with steps now and then."""
    x = g.take(n, any_tensor)
    axis = n.pick([x.channel, *(a for a in range(1, x.rank) if a != x.channel)])
    size = x.shape[axis]
    if size < 3:
        raise UnfitError("too short")
    start, end, step = n.pick(((1, END, 1), (0, size - 1, 1), (0, -1, 1), (-2, size, 1), (0, END, 2), (2, 1000, 1)))
    values = [g.constant([v]) for v in (start, end, axis - x.rank if n.flag() else axis, step)]
    g.put(g.op("Slice", x, *(values if step > 1 or n.flag() else values[:3])), x.channel)


def halves_swapped(g: Builder, n: Numbers) -> None:
    """The second half of the channels, then the first (rotary embeddings without the angles)."""
    x = g.take(n, lambda t: t.channels % 2 == 0)
    half, axis = x.channels // 2, [x.channel]
    parts = [
        g.op("Slice", x, *(g.constant(v) for v in ([a], [b], axis))) for a, b in ((half, END), (0, half))
    ]  # fmt: skip
    g.put(g.op("Concat", g.op("Neg", parts[0]), parts[1], axis=x.channel), x.channel)


def pad(g: Builder, n: Numbers) -> None:
    """Places or channels, with a constant or by reflection."""
    x, channels = g.take(n, lambda t: t.rank > 2 and t.shape[-1] > 1), n.flag()
    mode = n.pick(("constant", "reflect", "edge"))
    pads = [0] * 2 * x.rank
    axis = x.channel if channels else n.pick([a for a in range(1, x.rank) if a != x.channel])
    if x.shape[axis] < 3:
        raise UnfitError("too short")
    pads[axis], pads[axis + x.rank] = n.pick(((1, 1), (0, 2), (1, 0)))
    g.put(g.op("Pad", x, g.constant(pads), mode=mode), x.channel)


def channels_last(g: Builder, n: Numbers) -> None:
    x = g.take(n, lambda t: t.channel == 1 and t.rank > 2)
    g.put(g.op("Transpose", x, perm=[0, *range(2, x.rank), 1]), x.rank - 1)


def channels_first(g: Builder, n: Numbers) -> None:
    x = g.take(n, lambda t: t.channel == t.rank - 1 and t.rank > 2)
    g.put(g.op("Transpose", x, perm=[0, x.rank - 1, *range(1, x.rank - 1)]), 1)


def height_and_width_swapped(g: Builder, n: Numbers) -> None:
    x = g.take(n, image)
    g.put(g.op("Transpose", x, perm=[0, 1, 3, 2]))


def gather(g: Builder, n: Numbers) -> None:
    """Some places, or all channels in another order."""
    x, channels = g.take(n, lambda t: t.rank > 2 and min(t.shape) > 1), n.flag()
    axis = x.channel if channels else n.pick([a for a in range(1, x.rank) if a != x.channel])
    order = [*range(x.shape[axis])][::-1] if channels else [0, x.shape[axis] - 1, 0]
    g.put(g.op("Gather", x, g.constant(order), axis=axis), x.channel)


def place(g: Builder, n: Numbers) -> None:
    """One place alone (the class token)."""
    x = g.take(n, lambda t: t.rank > 2)
    axis = n.pick([a for a in range(1, x.rank) if a != x.channel])
    y = g.op("Gather", x, g.constant(n.pick((0, -1))), axis=axis)
    g.put(y, x.channel - (axis < x.channel))


def expand(g: Builder, n: Numbers) -> None:
    """Places of length 1 become more; the channels are named in the shape, or left at 1."""
    x, named, more = g.take(n, any_tensor), not n.flag(), n.pick((3, 1))
    shape = [more if d == 1 else n.pick((1, d)) for d in x.shape]
    shape[0], shape[x.channel] = 1, x.channels if named else 1
    g.put(g.op("Expand", x, g.constant(shape)), x.channel)


def tile(g: Builder, n: Numbers) -> None:
    """Places, or channels, once more."""
    x, channels = g.take(n, lambda t: t.rank > 2), n.flag()
    times = [1] * x.rank
    times[x.channel if channels else n.pick([a for a in range(1, x.rank) if a != x.channel])] = 2
    g.put(g.op("Tile", x, g.constant(times)), x.channel)


def depth_to_space(g: Builder, n: Numbers) -> None:
    x, mode = g.take(n, lambda t: image(t) and t.channels % 4 == 0 and t.channels > 4), n.pick(("DCR", "CRD"))
    g.put(g.op("DepthToSpace", x, blocksize=2, mode=mode))


def space_to_depth(g: Builder, n: Numbers) -> None:
    x = g.take(n, lambda t: image(t) and not any(d % 2 for d in t.spatial))
    g.put(g.op("SpaceToDepth", x, blocksize=2))


def running_sum(g: Builder, n: Numbers) -> None:
    """An operator without a rule."""
    x = g.take(n, lambda t: t.rank > 2)
    axis = n.pick([a for a in range(1, x.rank) if a != x.channel] + [x.channel])
    g.put(g.op("Tanh", g.op("CumSum", x, g.constant(axis))), x.channel)


STEPS = (
    split, cut, halves_swapped, pad, channels_last, channels_first, height_and_width_swapped, gather, place, expand,
    tile, depth_to_space, space_to_depth, running_sum,
)  # fmt: skip
