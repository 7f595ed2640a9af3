"""Axes are joined, split, added and dropped, by constants and by lengths that the graph computes."""

from __future__ import annotations

import math

from ..builder import Builder, Numbers, Tensor, UnfitError
from .kinds import image


def lengths(g: Builder, x: Tensor | str, start: int, end: int) -> str:
    """A piece of the shape of `x`."""
    return g.ops("Slice", g.op("Shape", x), *(g.constant([v]) for v in (start, end, 0)), shape=(end - start,))[0]


def length(g: Builder, x: Tensor | str, axis: int) -> str:
    """One length of `x`, as PyTorch reads it: Shape, Gather, Unsqueeze."""
    one = g.op("Gather", g.op("Shape", x), g.constant(axis), axis=0)
    return g.axes("Unsqueeze", one, [0], 13)


def flatten(g: Builder, n: Numbers) -> None:
    """All behind the batch joined: Flatten, a Reshape with constants, or one with computed lengths."""
    x, kind = g.take(n, lambda t: t.rank > 2), n.below(5)
    whole = math.prod(x.shape[1:])
    if whole > 300:
        raise UnfitError("too wide")
    if kind == 0:
        y = g.op("Flatten", x)
    elif kind == 1:
        y = g.op("Reshape", x, g.constant([0, -1]))
    elif kind == 2:
        y = g.op("Reshape", x, g.constant([-1, whole]))
    else:
        batch = length(g, x, 0) if kind == 3 else lengths(g, x, 0, 1)
        target = g.op("Concat", batch, g.constant([-1 if kind == 3 else whole]), axis=0)
        y = g.ops("Reshape", x, target, shape=(x.shape[0], whole))[0]
    g.put(y)


def places_joined(g: Builder, n: Numbers) -> None:
    """Height and width become one axis, and the channels may go last (patches of a vision transformer)."""
    x, kind, turned = g.take(n, image), n.below(3), n.flag()
    target = g.constant([[0, x.channels, -1], [0, 0, -1], [0, -1, math.prod(x.spatial)]][kind])
    y = g.op("Reshape", x, target)
    g.put(g.op("Transpose", y, perm=[0, 2, 1]) if turned else y, 2 if turned else 1)


def places_apart(g: Builder, n: Numbers) -> None:
    """One axis of places becomes two."""
    x, computed = g.take(n, lambda t: t.rank == 3 and t.channel == 1), n.flag()
    root = math.isqrt(x.shape[2])
    sides = [root, root] if root * root == x.shape[2] else [1, x.shape[2]]
    if computed:
        target = g.op("Concat", lengths(g, x, 0, 2), g.constant(sides), axis=0)
        g.put(g.ops("Reshape", x, target, shape=(*x.shape[:2], *sides))[0])
    else:
        g.put(g.op("Reshape", x, g.constant([0, 0, *sides])))


def shuffle(g: Builder, n: Numbers) -> None:
    """Channel shuffle: groups of channels become every second, third channel."""
    x, kind = g.take(n, image), n.below(3)
    groups = [d for d in (2, 3, 4) if x.channels % d == 0 and x.channels > d]
    if not groups:
        raise UnfitError("no groups")
    count = n.pick(groups)
    apart, back = [0, count, x.channels // count, *x.spatial], [0, -1, *x.spatial]
    if kind == 1:
        apart[2], back[1] = -1, x.channels
    y = g.op("Reshape", x, g.constant(apart))
    y = g.op("Transpose", y, perm=[0, 2, 1, 3, 4])
    if kind == 2:
        target = g.op("Concat", lengths(g, x, 0, 2), g.constant([*x.spatial]), axis=0)
        g.put(g.ops("Reshape", y, target, shape=x.shape)[0])
    else:
        g.put(g.op("Reshape", y, g.constant(back)))


def squeeze(g: Builder, n: Numbers) -> None:
    """Places of length 1 go, all or one."""
    x, every = g.take(n, lambda t: t.rank > 2 and 1 in t.spatial and t.channels > 1), n.flag()
    gone = [a for a in range(1, x.rank) if x.shape[a] == 1 and a != x.channel]
    gone = gone if every else gone[:1]
    y = g.axes("Squeeze", x, [a - x.rank for a in gone] if n.flag() else gone, 13)
    g.put(y, x.channel - sum(a < x.channel for a in gone))


def unsqueeze(g: Builder, n: Numbers) -> None:
    """Axes of length 1 behind the channels, or in front of them."""
    x, front = g.take(n, lambda t: t.rank < 4), n.flag()
    if front:
        g.put(g.axes("Unsqueeze", x, [1], 13), x.channel + 1)
    else:
        g.put(g.axes("Unsqueeze", x, [*range(x.rank, 4)], 13), x.channel)


def heads_apart(g: Builder, n: Numbers) -> None:
    """Channels become two axes, the first of them (heads, groups) or the second is what later steps call channels."""
    x, second = g.take(n, lambda t: t.rank == 3 and t.channels % 2 == 0 and t.channels > 2), n.flag()
    apart = [2, x.channels // 2]
    shape = [0, *(apart if x.channel == 1 else [0]), *([0] if x.channel == 1 else apart)]
    if x.channel == 1:
        shape[3] = x.shape[2]
    g.put(g.op("Reshape", x, g.constant(shape)), x.channel + second)


STEPS = (flatten, places_joined, places_apart, shuffle, squeeze, unsqueeze, heads_apart)
