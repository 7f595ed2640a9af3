"""Normalization with one scale and shift per channel, and normalization over neighbors."""

from __future__ import annotations

from collections.abc import Iterator

from .facts import At, Count, Fact, Normalize, Refuse, Tie
from .node_view import NodeView
from .pointwise import others, same_axes
from .table import Rule


def batch_normalization(n: NodeView) -> Iterator[Fact]:
    """Inference form: x of any rank, channels on axis 1; scale, bias, mean and variance per channel."""
    if n.attr("training_mode", 0) or sum(y is not None for y in n.outputs) > 1:
        yield Refuse("is in training mode")
        return
    if n.attr("spatial", 1) == 0:
        yield Refuse("normalizes every position by itself (spatial=0)")
        return
    x, y = n.x(), n.y()
    channel = 1 if x.rank > 1 else 0
    yield from same_axes(x, y)
    parameters = scale, bias, mean, var = [n.x(i) for i in (1, 2, 3, 4)]
    for parameter in parameters:
        yield Tie(parameter.axis(0), y.axis(channel))
    if all(parameter.constant for parameter in parameters):
        epsilon = float(n.attr("epsilon", 1e-5))
        yield Normalize(y.axis(channel), scale.name, bias.name, mean.name, var.name, epsilon)


def instance_normalization(n: NodeView) -> Iterator[Fact]:
    """Every channel is normalized over its own positions: they stay, the channel passes."""
    x, y = n.x(), n.y()
    yield Tie(x.axis(0), y.axis(0))
    for channel in (x.axis(1), n.x(1).axis(0), n.x(2).axis(0)):
        yield Tie(channel, y.axis(1))


def group_normalization(n: NodeView) -> Iterator[Fact]:
    """Channels of a block are normalized together: one twice as often changes the others, so they are kept.

    Blocks of one channel are InstanceNormalization.
    """
    x, y = n.x(), n.y()
    yield Tie(x.axis(0), y.axis(0))
    if x.size(1) == n.attr("num_groups"):
        for channel in (x.axis(1), n.x(1).axis(0), n.x(2).axis(0)):
            yield Tie(channel, y.axis(1))
        yield Count(y.axis(1), At(attr="num_groups"))


def local_response(n: NodeView) -> Iterator[Fact]:
    """LRN divides a channel by its neighbors: channels are kept, all other axes pass."""
    yield from others(n.x(), n.y(), 1)


RULES = (
    Rule(batch_normalization, ("BatchNormalization",), since=7),
    Rule(instance_normalization, ("InstanceNormalization",), since=6),
    Rule(group_normalization, ("GroupNormalization",), since=21),
    Rule(local_response, ("LRN",)),
)
