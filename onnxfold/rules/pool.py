"""Pooling and resizing: batch and channel pass, positions are mixed."""

from __future__ import annotations

from collections.abc import Iterator

from ..facts import Fact, Refuse, Tie
from ..view import NodeView
from .lengths import follow
from .table import Rule

POOLS = ("AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool", "MaxPool")


def pool(n: NodeView) -> Iterator[Fact]:
    """Axes 0 and 1 pass; the optional second output of MaxPool holds flat indices, which count channels too."""
    if sum(y is not None for y in n.outputs) > 1:
        yield Refuse("also outputs indices that number the channels")
        return
    for axis in (0, 1):
        yield Tie(n.x().axis(axis), n.y().axis(axis))


def resize(n: NodeView) -> Iterator[Fact]:
    """Axes that keep their length pass; the others are interpolated. Sizes given for a passing axis must follow it."""
    x, y = n.x(), n.y()
    if n.attr("coordinate_transformation_mode", "") == "tf_crop_and_resize":
        yield Refuse("crops while resizing")
        return
    sizes = 3 if n.op == "Resize" and n.version > 10 else None
    target = n.values("", sizes) if sizes and n.has(sizes) else None
    if sizes and n.has(sizes) and target is None:
        yield Refuse("has computed sizes")
        return
    axes = n.attr("axes") or range(x.rank)
    named = {axis % x.rank: i for i, axis in enumerate(axes)}
    for axis in range(x.rank):
        if axis > 1 and (x.size(axis) is None or x.size(axis) != y.size(axis)):
            continue
        if axis == 1 and x.size(1) != y.size(1):
            continue
        yield Tie(x.axis(axis), y.axis(axis))
        if target is not None and axis in named and sizes is not None:
            yield from follow(y.axis(axis), target[named[axis]], n.at("", sizes, named[axis]))


RULES = (
    Rule(pool, POOLS),
    Rule(resize, ("Resize", "Upsample")),
)
