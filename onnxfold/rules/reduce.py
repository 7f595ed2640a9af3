"""Reductions and Softmax: the axes they work along are mixed, the others pass."""

from __future__ import annotations

from collections.abc import Iterator

from ..facts import Fact, Refuse, Tie
from ..view import NodeView
from .table import Rule

REDUCTIONS = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSum", "ReduceSumSquare",
)  # fmt: skip


def _passing(n: NodeView, mixed: list[int], keepdims: bool) -> Iterator[Fact]:
    x, y = n.x(), n.y()
    k = 0
    for axis in range(x.rank):
        if axis not in mixed:
            yield Tie(x.axis(axis), y.axis(k))
        if axis not in mixed or keepdims:
            k += 1


def reduction(n: NodeView) -> Iterator[Fact]:
    """Axes from the attribute (old opsets) or input 1; none given means all, unless noop_with_empty_axes."""
    x = n.x()
    axes = n.ints("axes", 1)
    if axes is None and n.has(1):
        yield Refuse("has computed axes")
        return
    if not axes:
        axes = [] if n.attr("noop_with_empty_axes", 0) else list(range(x.rank))
    yield from _passing(n, [a % x.rank for a in axes], bool(n.attr("keepdims", 1)))


def arg_reduction(n: NodeView) -> Iterator[Fact]:
    """ArgMax and ArgMin number the positions of one axis."""
    yield from _passing(n, [n.attr("axis", 0) % n.x().rank], bool(n.attr("keepdims", 1)))


def softmax(n: NodeView) -> Iterator[Fact]:
    """One axis is mixed."""
    yield from _passing(n, [n.attr("axis", -1) % n.x().rank], keepdims=True)


def softmax_old(n: NodeView) -> Iterator[Fact]:
    """Before opset 13 all axes from `axis` (default 1) on are mixed together."""
    rank = n.x().rank
    yield from _passing(n, list(range(n.attr("axis", 1) % rank, rank)), keepdims=True)


def layer_norm(n: NodeView) -> Iterator[Fact]:
    """All axes from `axis` on are normalised together; those before it pass, also to the mean and the deviation."""
    rank = n.x().rank
    for axis in range(n.attr("axis", -1) % rank):
        for y in n.outputs:
            if y is not None:
                yield Tie(n.x().axis(axis), y.axis(axis))


SOFTMAX = ("Softmax", "LogSoftmax", "Hardmax")
RULES = (
    Rule(reduction, REDUCTIONS),
    Rule(arg_reduction, ("ArgMax", "ArgMin")),
    Rule(softmax_old, SOFTMAX),
    Rule(softmax, SOFTMAX, since=13),
    Rule(layer_norm, ("LayerNormalization", "RMSNormalization"), since=17),
)
