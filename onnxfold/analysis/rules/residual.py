"""Norms over channels, followed: for those who may fold the residual stream (`fold_residual`).

Layer normalization and its like mix all channels, so nothing is exact here that merges or drops some of them, except
where the statistic that is left stands for the whole one (docs/design/residual.md). The rules of the same operators in
norm.py and reduce.py keep the channels instead.
"""

from __future__ import annotations

from collections.abc import Iterator

from .facts import ChannelNorm, Fact, Refuse, Tie
from .node_view import NodeView, TensorView
from .norm import group_normalization
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


def followed_group_norm(n: NodeView) -> Iterator[Fact]:
    """A single group of all channels, with a scale and a shift for each."""
    if n.attr("num_groups") != 1:
        yield from group_normalization(n)
        return
    for axis in range(2):
        yield Tie(n.x().axis(axis), n.y().axis(axis))
    yield from _scaled(n, 1, 1, n.inputs[1:])


def _scaled(n: NodeView, number: int, scale: int, parts: tuple[TensorView | None, ...]) -> Iterator[Fact]:
    """The norm over axis `number`, with what has one number per channel; input `scale` is its scale."""
    whole = n.y().axis(number)
    if not n.x(scale).constant or n.x(scale).rank != 1:
        yield Refuse("has a scale that is computed, or not one for each channel")
        return
    for part in parts:
        if part is not None:
            yield Tie(part.axis(-1), whole)
    yield ChannelNorm(whole, number, n.x(scale).name)


RULES = (
    Rule(followed_layer_norm, ("LayerNormalization", "RMSNormalization"), since=17),
    Rule(followed_layer_norm, ("SimplifiedLayerNormalization", "LayerNormalization"), domain="com.microsoft"),
    Rule(
        followed_skip_layer_norm, ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"), domain="com.microsoft"
    ),
    Rule(followed_group_norm, ("GroupNormalization",), since=21),
)
