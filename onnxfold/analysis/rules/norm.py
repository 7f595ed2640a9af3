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
    """Scale and shift per channel."""
    yield from _in_blocks(n, 1, "num_groups")


def group_normalization_old(n: NodeView) -> Iterator[Fact]:
    """Opsets 18 to 20: scale and shift per block."""
    yield from _in_blocks(n, 1, "num_groups", each=True)


def group_norm(n: NodeView) -> Iterator[Fact]:
    """com.microsoft.GroupNorm and SkipGroupNorm, which adds a tensor and a bias before; channels last by default."""
    x = n.x()
    channel = x.rank - 1 if n.attr("channels_last", 1) else 1
    yield from _in_blocks(n, channel, "groups")
    for part in (*n.inputs[3:], *n.outputs[1:]):
        if part is not None and part.rank == x.rank:
            yield from (Tie(part.axis(0), x.axis(0)), Tie(part.axis(channel), x.axis(channel)))
        elif part is not None:
            yield Tie(part.axis(-1), x.axis(channel))


def _in_blocks(n: NodeView, channel: int, attr: str, each: bool = False) -> Iterator[Fact]:
    """The channels of a block are normalized together: one twice as often would change the others. So whole blocks
    pass, like heads; scale and shift have one number per channel, or for `each` block."""
    x, y, blocks = n.x(), n.y(), n.attr(attr)
    yield Tie(x.axis(0), y.axis(0))
    whole = y.axis(channel)
    if not blocks or not whole.size or whole.size % blocks or blocks == 1:
        return
    first, size = whole[:: whole.size // blocks], whole.size // blocks
    yield Tie(x.axis(channel), whole)
    yield Tie(first.repeat(size), whole)
    for parameter in (n.x(1), n.x(2)):
        yield Tie(parameter.axis(0), first if each else whole)
    yield Count(first, At(attr=attr))


def local_response(n: NodeView) -> Iterator[Fact]:
    """LRN divides a channel by its neighbors: channels are kept, all other axes pass."""
    yield from others(n.x(), n.y(), 1)


RULES = (
    Rule(batch_normalization, ("BatchNormalization",), since=7),
    Rule(instance_normalization, ("InstanceNormalization",), since=6),
    Rule(group_normalization, ("GroupNormalization",), since=21),
    Rule(group_normalization_old, ("GroupNormalization",), domain="com.microsoft"),
    Rule(group_norm, ("GroupNorm", "SkipGroupNorm"), domain="com.microsoft"),
    Rule(local_response, ("LRN",)),
)
