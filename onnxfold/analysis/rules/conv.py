"""Convolutions in any number of spatial dimensions: group 1, grouped, depthwise, transposed."""

from __future__ import annotations

from collections.abc import Iterator

from .facts import At, Blocks, Consumes, Count, Fact, Refuse, Tie
from .node_view import NodeView, TensorView
from .table import Rule


def conv(n: NodeView) -> Iterator[Fact]:
    """Weight [M, C/group, ...]; the bias is per output channel."""
    yield from convolution(n, n.x(0), n.x(1), n.x(2) if n.has(2) else None)


def convolution(n: NodeView, x: TensorView, w: TensorView, bias: TensorView | None) -> Iterator[Fact]:
    """Conv and its quantized kin. Channels are read where the weight is constant: nothing else can take their sum."""
    y = n.y()
    group = n.attr("group", 1)
    channels, made = x.size(1), w.size(0)
    if channels is None or made is None:
        yield Refuse("has an unknown number of channels")
        return
    if group == channels and w.size(1) != 1:
        yield Refuse("has a weight that does not match its input")
        return
    yield Tie(x.axis(0), y.axis(0))
    yield Tie(w.axis(0), y.axis(1))
    if bias is not None:
        yield Tie(bias.axis(0), y.axis(1))
    if group == 1:
        if w.constant:
            yield Tie(x.axis(1), w.axis(1))
    elif group == channels:
        yield Tie(x.axis(1).repeat(made // channels), y.axis(1))
        yield Count(x.axis(1), At(attr="group"))
    elif w.constant:
        yield Tie(x.axis(1), w.blocked(1, group))
        yield Blocks(x.axis(1), group)
        yield Blocks(y.axis(1), group)


def conv_transpose(n: NodeView) -> Iterator[Fact]:
    """Weight [C, M/group, ...]: axis 0 reads, axis 1 makes."""
    x, w, y = n.x(0), n.x(1), n.y()
    group = n.attr("group", 1)
    channels, per_group = x.size(1), w.size(1)
    if channels is None or per_group is None:
        yield Refuse("has an unknown number of channels")
        return
    yield Tie(x.axis(0), y.axis(0))
    if n.has(2):
        yield Tie(n.x(2).axis(0), y.axis(1))
    if group == 1:
        if w.constant:
            yield Tie(x.axis(1), w.axis(0))
        yield Tie(w.axis(1), y.axis(1))
    elif group == channels and per_group == 1:
        yield Tie(w.axis(0), y.axis(1))
        yield Tie(x.axis(1), y.axis(1))
        yield Count(x.axis(1), At(attr="group"))
    elif w.constant:
        yield Tie(x.axis(1), w.axis(0))
        yield Tie(w.blocked(1, group), y.axis(1))
        yield Blocks(x.axis(1), group)
        yield Blocks(y.axis(1), group)


def fused_conv(n: NodeView) -> Iterator[Fact]:
    """Conv, plus input 3 if there is one (its own input, perhaps), then a function of every element."""
    group, w = n.attr("group", 1), n.x(1)
    yield from conv(n)
    if n.has(3):
        for axis in (0, 1):
            yield Tie(n.x(3).axis(axis), n.y().axis(axis))
        if w.size(1) != 1:
            yield Consumes(w.axis(1) if group == 1 else w.blocked(1, group))


def deform_conv(n: NodeView) -> Iterator[Fact]:
    """Conv (x, w, offsets, bias, mask): where it looks is the same for all channels of one of `offset_group` blocks."""
    yield from convolution(n, n.x(0), n.x(1), n.x(3) if n.has(3) else None)
    for number in (2, 4):
        if n.has(number):
            yield Tie(n.x(number).axis(0), n.y().axis(0))
    if n.attr("offset_group", 1) > 1:
        yield Blocks(n.x(0).axis(1), n.attr("offset_group"))


def causal_conv(n: NodeView) -> Iterator[Fact]:
    """CausalConvWithState: depthwise, [batch, channels, ..., time], with the last positions of both runs as states."""
    x, y = n.x(0), n.y()
    more = ("channels_last", "state_window", "state_update_capacity", "input_channel_offset", "input_channels")
    if any(n.attr(name, 0) for name in more) or n.attr("state_channels_last", -1) > 0:
        yield Refuse("has channels last, or states of several positions")
        return
    yield Tie(x.axis(0), y.axis(0))
    yield Tie(x.axis(1), y.axis(1))
    for parameter in (n.x(1), *((n.x(2),) if n.has(2) else ())):
        yield Tie(parameter.axis(0), y.axis(1))
    for state in (*((n.x(3),) if n.has(3) else ()), *n.outputs[1:2]):
        if state is not None:
            yield from (Tie(state.axis(0), y.axis(0)), Tie(state.axis(1), y.axis(1)))


RULES = (
    Rule(conv, ("Conv",)),
    Rule(conv_transpose, ("ConvTranspose",)),
    Rule(deform_conv, ("DeformConv",), since=19),
    Rule(causal_conv, ("CausalConvWithState",), since=27),
    Rule(causal_conv, ("CausalConvWithState",), domain="com.microsoft"),
    Rule(fused_conv, ("FusedConv",), domain="com.microsoft"),
)
