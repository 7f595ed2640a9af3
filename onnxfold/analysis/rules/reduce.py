"""Reductions, Softmax and others that work along some axes: these are mixed, the others pass."""

from __future__ import annotations

from collections.abc import Iterator

from .facts import Average, Fact, Refuse, Tie
from .node_view import NodeView
from .pointwise import others
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
        yield Refuse("has axes computed at run time")
        return
    if not axes:
        axes = [] if n.attr("noop_with_empty_axes", 0) else list(range(x.rank))
    yield from _passing(n, [a % x.rank for a in axes], bool(n.attr("keepdims", 1)))
    if n.op in ("ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL2"):
        yield from (Average(x.axis(a), a % x.rank) for a in axes)


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
    """All axes from `axis` on are normalized together; those before it pass, also to the mean and the deviation."""
    rank = n.x().rank
    for axis in range(n.attr("axis", -1) % rank):
        for y in n.outputs:
            if y is not None:
                yield Tie(n.x().axis(axis), y.axis(axis))


def skip_layer_norm(n: NodeView) -> Iterator[Fact]:
    """The sum of two inputs, normalized over the last axis: that is kept, those before it pass, also to the sum."""
    x = n.x()
    for other in (n.x(1), *n.outputs):
        if other is not None:
            for k in range(2, min(x.rank, other.rank) + 1):
                yield Tie(x.axis(-k), other.axis(-k))


def mean_variance(n: NodeView) -> Iterator[Fact]:
    """MeanVarianceNormalization over the axes named, by default all but the channels."""
    rank = n.x().rank
    yield from _passing(n, [a % rank for a in n.attr("axes", [0, 2, 3])], keepdims=True)


def cumulative_sum(n: NodeView) -> Iterator[Fact]:
    """CumSum adds up along the axis that input 1 gives."""
    axis = n.ints("", 1)
    if axis is None:
        yield Refuse("has an axis computed at run time")
        return
    yield from _passing(n, [axis[0] % n.x().rank], keepdims=True)


def top_k(n: NodeView) -> Iterator[Fact]:
    """Values and indices along one axis."""
    for y in n.outputs:
        if y is not None:
            yield from others(n.x(), y, n.attr("axis", -1) % n.x().rank)


def trilu(n: NodeView) -> Iterator[Fact]:
    """The last two axes form triangles: their positions are numbered."""
    yield from others(n.x(), n.y(), n.x().rank - 2, n.x().rank - 1)


def compress(n: NodeView) -> Iterator[Fact]:
    """Some positions of one axis, or of all elements in a row."""
    if "axis" in n.attrs:
        yield from others(n.x(), n.y(), n.attr("axis") % n.x().rank)


SOFTMAX = ("Softmax", "LogSoftmax", "Hardmax")
RULES = (
    Rule(reduction, REDUCTIONS),
    Rule(arg_reduction, ("ArgMax", "ArgMin")),
    Rule(softmax_old, SOFTMAX),
    Rule(softmax, SOFTMAX, since=13),
    Rule(softmax, ("LpNormalization",)),
    Rule(mean_variance, ("MeanVarianceNormalization",), since=9),
    Rule(cumulative_sum, ("CumSum",), since=11),
    Rule(top_k, ("TopK",)),
    Rule(trilu, ("Trilu",), since=14),
    Rule(compress, ("Compress",)),
    Rule(layer_norm, ("LayerNormalization", "RMSNormalization"), since=17),
    Rule(layer_norm, ("SimplifiedLayerNormalization", "LayerNormalization"), domain="com.microsoft"),
    Rule(skip_layer_norm, ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"), domain="com.microsoft"),
)
