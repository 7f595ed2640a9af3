"""Norms over channels, followed: for those who may fold the residual stream (`fold_residual`).

Layer normalization and its like mix all channels, so nothing is exact here that merges or drops some of them, except
where the statistic that is left stands for the whole one (docs/design/residual.md). The rules of the same operators in
norm.py and reduce.py keep the channels instead.
"""

from __future__ import annotations

from collections.abc import Iterator

from .facts import Average, ChannelNorm, Fact, Refuse, Tie
from .node_view import NodeView, TensorView
from .norm import group_normalization, group_normalization_old, instance_normalization
from .pointwise import others
from .reduce import layer_norm, skip_layer_norm
from .table import Rule


def followed_layer_norm(n: NodeView) -> Iterator[Fact]:
    """Over the last axis alone; scale and shift have one number per channel."""
    yield from layer_norm(n)
    rank = n.x().rank
    if n.attr("axis", -1) % rank == rank - 1:
        yield Tie(n.x().axis(-1), n.y().axis(-1))
        yield from _scaled(n, rank - 1, 1, n.inputs[1:])


def followed_skip_layer_norm(n: NodeView) -> Iterator[Fact]:
    """The sum of two inputs and a bias, normalized; the sum may be the last output."""
    yield from skip_layer_norm(n)
    for other in (n.x(1), *n.outputs):
        if other is not None and other.rank == n.x().rank:
            yield Tie(n.x().axis(-1), other.axis(-1))
    yield from _scaled(n, n.x().rank - 1, 2, n.inputs[2:])


def followed_lp_norm(n: NodeView) -> Iterator[Fact]:
    """What is divided by the root of the sum of its squares (p = 2) along one axis."""
    x, y = n.x(), n.y()
    axis = n.attr("axis", -1) % x.rank
    yield from others(x, y, axis)
    if n.attr("p", 2) == 2:
        yield Tie(x.axis(axis), y.axis(axis))
        yield Average(x.axis(axis), axis)


def followed_group_norm(n: NodeView) -> Iterator[Fact]:
    """A single group of all channels, with a scale and a shift for each."""
    yield from _single_group(n) if n.attr("num_groups") == 1 else group_normalization(n)


def followed_group_norm_old(n: NodeView) -> Iterator[Fact]:
    """Opsets 18 to 20: a single group of all channels has one scale and one shift."""
    yield from _single_group(n) if n.attr("num_groups") == 1 else group_normalization_old(n)


def _single_group(n: NodeView) -> Iterator[Fact]:
    for axis in range(2):
        yield Tie(n.x().axis(axis), n.y().axis(axis))
    yield from _scaled(n, 1, 1, n.inputs[1:], tuple(range(2, n.x().rank)))


def followed_instance_norm(n: NodeView) -> Iterator[Fact]:
    """[N, 1, channels and pixels] is a single group of all channels, as exporters write it."""
    yield from instance_normalization(n)
    if n.x().rank == 3 and n.x().size(1) == 1:
        yield Tie(n.x().axis(2), n.y().axis(2))
        yield from _scaled(n, 2, 1, ())


def _scaled(
    n: NodeView, number: int, scale: int, parts: tuple[TensorView | None, ...], beside: tuple[int, ...] = ()
) -> Iterator[Fact]:
    """The norm over axis `number`, and over the axes `beside`, with what has one number per channel; input `scale` is
    its scale."""
    whole = n.y().axis(number)
    if not n.x(scale).constant or n.x(scale).rank != 1:
        yield Refuse("has a scale that is computed, or not one for each channel")
        return
    for part in parts:
        if part is not None:
            yield Tie(part.axis(-1), whole)
    yield ChannelNorm(whole, number, n.x(scale).name, beside)


RULES = (
    Rule(followed_layer_norm, ("LayerNormalization", "RMSNormalization"), since=17),
    Rule(followed_layer_norm, ("SimplifiedLayerNormalization", "LayerNormalization"), domain="com.microsoft"),
    Rule(
        followed_skip_layer_norm, ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"), domain="com.microsoft"
    ),
    Rule(followed_lp_norm, ("LpNormalization",)),
    Rule(followed_group_norm, ("GroupNormalization",), since=21),
    Rule(followed_group_norm_old, ("GroupNormalization",), domain="com.microsoft"),
    Rule(followed_instance_norm, ("InstanceNormalization",), since=6),
)
