"""Pooling, resizing and sampling: batch and channel pass, positions are mixed."""

from __future__ import annotations

import math
from collections.abc import Iterator

from .facts import Fact, Refuse, Tie
from .lengths import follow
from .node_view import NodeView
from .table import Rule

POOLS = ("AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool", "MaxPool")


def pool(n: NodeView) -> Iterator[Fact]:
    """Axes 0 and 1 pass, and others along which the window is one position wide (channels may lie there); the optional
    second output of MaxPool holds flat indices, which count channels too."""
    if sum(y is not None for y in n.outputs) > 1:
        yield Refuse("also outputs indices that number the channels")
        return
    for axis in (0, 1, *_single(n)):
        yield Tie(n.x().axis(axis), n.y().axis(axis))


def _single(n: NodeView) -> Iterator[int]:
    """The axes along which every window is one position, and each position has one."""
    kernel = n.attr("kernel_shape", [])
    strides, pads = n.attr("strides", [1] * len(kernel)), n.attr("pads", [0] * 2 * len(kernel))
    for i, size in enumerate(kernel):
        if size == strides[i] == 1 and not pads[i] and not pads[i + len(kernel)]:
            yield i + 2


def resize(n: NodeView) -> Iterator[Fact]:
    """Axes that keep their length pass; the others are interpolated. Sizes given for a passing axis must follow it."""
    x, y = n.x(), n.y()
    if n.attr("coordinate_transformation_mode", "") == "tf_crop_and_resize":
        yield Refuse("crops while resizing")
        return
    sizes = 3 if n.op == "Resize" and n.version > 10 else None
    target = n.values("", sizes) if sizes and n.has(sizes) else None
    if sizes and n.has(sizes) and target is None:
        yield Refuse("has sizes computed at run time")
        return
    axes = n.attr("axes") or range(x.rank)
    named = {axis % x.rank: i for i, axis in enumerate(axes)}
    for axis in range(x.rank):
        same = x.size(axis) == y.size(axis) and (axis == 1 or x.size(axis) is not None)
        if axis == 0 or same:
            yield Tie(x.axis(axis), y.axis(axis))
        if target is not None and axis in named and sizes is not None:
            value = target[named[axis]]
            if axis == 0 or same or value.live:
                yield from follow(y.axis(axis), value, n.at("", sizes, named[axis]))


def grid_sample(n: NodeView) -> Iterator[Fact]:
    """Batch and channel pass; where to look is the same for all channels."""
    x, y = n.x(), n.y()
    yield from (Tie(x.axis(0), y.axis(0)), Tie(n.x(1).axis(0), y.axis(0)), Tie(x.axis(1), y.axis(1)))


def pooled_regions(n: NodeView) -> Iterator[Fact]:
    """RoiAlign and MaxRoiPool: the channel passes, and so do the regions, which become the batch."""
    y = n.y()
    yield Tie(n.x().axis(1), y.axis(1))
    for regions in n.inputs[1:]:
        if regions is not None:
            yield Tie(regions.axis(0), y.axis(0))


def col2im(n: NodeView) -> Iterator[Fact]:
    """Axis 1 of the input holds all positions of the block for every channel in a row."""
    x, y, block = n.x(), n.y(), n.ints("", 2)
    if block is None:
        yield Refuse("has a block size computed at run time")
        return
    yield Tie(x.axis(0), y.axis(0))
    yield Tie(x.axis(1), y.axis(1).repeat(math.prod(block)))


RULES = (
    Rule(pool, POOLS),
    Rule(resize, ("Resize", "Upsample")),
    Rule(grid_sample, ("GridSample",), since=16),
    Rule(pooled_regions, ("RoiAlign", "MaxRoiPool")),
    Rule(col2im, ("Col2Im",), since=18),
)
