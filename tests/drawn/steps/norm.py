"""Normalization, with operators of its own and taken apart."""

from __future__ import annotations

import math

from ..builder import Builder, Numbers, Tensor, UnfitError
from .kinds import any_tensor, first, last


def batch_norm(g: Builder, n: Numbers) -> None:
    x = g.take(n, lambda t: t.channel == 1)
    c = x.channels
    g.put(g.op("BatchNormalization", x, g.positive(c), g.bias(c), g.bias(c), g.positive(c)))


def many(x: Tensor) -> bool:
    """Enough positions per channel that their variance is no accident."""
    return first(x) and math.prod(x.spatial) >= 6


def instance_norm(g: Builder, n: Numbers) -> None:
    x = g.take(n, many)
    g.put(g.op("InstanceNormalization", x, g.positive(x.channels), g.bias(x.channels)))


def group_norm(g: Builder, n: Numbers) -> None:
    """As PyTorch exports it: groups as channels of an InstanceNormalization, then a scale and a shift; or in one."""
    x, count = g.take(n, many), n.pick((2, 3, 1))
    if x.channels % count:
        raise UnfitError("no groups")
    if n.flag() and g.opset >= 21:  # as an operator
        parameters = x, g.positive(x.channels), g.bias(x.channels)
        g.put(g.ops("GroupNormalization", *parameters, num_groups=count, shape=x.shape)[0])
        return
    apart = g.op("Reshape", x, g.constant([0, count, -1]))
    even = g.op("InstanceNormalization", apart, g.constant([1.0] * count), g.constant([0.0] * count))
    back = g.op("Reshape", even, g.constant([0, x.channels, *x.spatial]))
    ones = [1] * len(x.spatial)
    g.put(g.op("Add", g.op("Mul", back, g.positive(x.channels, *ones)), g.bias(x.channels, *ones)))


def response_norm(g: Builder, n: Numbers) -> None:
    """Global response normalization, of ConvNeXt V2; the mean may be a sum that is divided."""
    x, summed = g.take(n, lambda t: t.rank >= 3), n.flag()
    places = [axis for axis in range(1, x.rank) if axis != x.channel]
    strength = g.axes("ReduceL2", x, places, 18, keepdims=1)
    mean = g.axes("ReduceMean", strength, [x.channel], 18, keepdims=1)
    if summed:
        mean = g.op("Div", g.axes("ReduceSum", strength, [x.channel], 13, keepdims=1), g.constant(float(x.channels)))
    relative = g.op("Div", strength, g.op("Add", mean, g.constant(1e-6)))
    ones = [1] * (x.rank - 1 - x.channel)
    scaled = g.op("Mul", g.op("Mul", x, relative), g.positive(x.channels, *ones))
    g.put(g.op("Add", g.op("Add", scaled, g.bias(x.channels, *ones)), x), x.channel)


def layer_norm(g: Builder, n: Numbers) -> None:
    """Over the last axis: one operator from opset 17 on, several before, or when asked for."""
    x, apart = g.take(n, lambda t: t.shape[-1] >= 4), n.flag()
    scale, shift = g.positive(x.shape[-1]), g.bias(x.shape[-1])
    if g.opset >= 17 and not apart:
        g.put(g.op("LayerNormalization", x, scale, shift, axis=-1), x.channel)
        return
    centered = g.op("Sub", x, g.axes("ReduceMean", x, [-1], 18, keepdims=1))
    square = g.op("Pow", centered, g.constant(2.0))
    spread = g.op("Sqrt", g.op("Add", g.axes("ReduceMean", square, [-1], 18, keepdims=1), g.constant(1e-3)))
    g.put(g.op("Add", g.op("Mul", g.op("Div", centered, spread), scale), shift), x.channel)


def rms_norm(g: Builder, n: Numbers) -> None:
    """Over the channels, wherever they are."""
    x = g.take(n, any_tensor)
    mean = g.axes("ReduceMean", g.op("Mul", x, x), [x.channel], 18, keepdims=1)
    scaled = g.op("Div", x, g.op("Sqrt", g.op("Add", mean, g.constant(1e-2))))
    g.put(g.op("Mul", scaled, g.positive(x.channels)) if last(x) else scaled, x.channel)


STEPS = (batch_norm, instance_norm, group_norm, response_norm, layer_norm, rms_norm)
