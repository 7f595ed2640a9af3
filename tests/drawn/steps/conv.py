"""Convolutions: plain, grouped, depthwise, transposed, over one axis, and with weights that come from elsewhere."""

from __future__ import annotations

from ..builder import Builder, Numbers, Tensor, UnfitError
from .kinds import first, image, large_image


def conv(g: Builder, n: Numbers) -> None:
    """Group 1; kernel, stride, dilation and bias vary."""
    x, width, bias = g.take(n, image), n.width(), n.flag()
    kernel = n.pick((1, 3))
    how = n.pick(({}, {"strides": [2, 2]}, {"dilations": [2, 2]}, {"auto_pad": "SAME_UPPER"}))
    if "auto_pad" not in how:
        how = {**how, "pads": [kernel // 2 * how.get("dilations", [1])[0]] * 4}
    w = g.weight(width, x.channels, kernel, kernel)
    g.put(g.op("Conv", x, w, *([g.bias(width)] if bias else []), **how))


def grouped_conv(g: Builder, n: Numbers) -> None:
    """Several groups of several channels."""
    x = g.take(n, image)
    groups = [d for d in (2, 3, 4) if x.channels % d == 0 and x.channels > d]
    if not groups:
        raise UnfitError("no groups")
    count, each, bias = n.pick(groups), n.pick((2, 3, 1, 4)), n.flag()
    w = g.weight(count * each, x.channels // count, 1, 1)
    g.put(g.op("Conv", x, w, *([g.bias(count * each)] if bias else []), group=count))


def depthwise_conv(g: Builder, n: Numbers) -> None:
    """One group per channel, each making one channel or two."""
    x, times, bias = g.take(n, large_image), n.pick((1, 1, 2)), n.flag()
    w = g.weight(times * x.channels, 1, 3, 3)
    more = [g.bias(times * x.channels)] if bias else []
    g.put(g.op("Conv", x, w, *more, group=x.channels, pads=[1, 1, 1, 1]))


def conv_transpose(g: Builder, n: Numbers) -> None:
    """Group 1, grouped or depthwise."""
    x, kind, bias, stride = g.take(n, image), n.below(3), n.flag(), n.pick((1, 2))
    group = (1, 2, x.channels)[kind]
    each = 1 if kind == 2 else n.pick((4, 6, 3))
    if x.channels % group:
        raise UnfitError("no groups")
    w = g.weight(x.channels, each, 2, 2, reads=4 * x.channels // group // stride)
    more = [g.bias(each * group)] if bias else []
    g.put(g.op("ConvTranspose", x, w, *more, group=group, strides=[stride, stride]))


def conv_over_places(g: Builder, n: Numbers) -> None:
    """Over one axis, group 1 or depthwise."""
    x = g.take(n, lambda t: first(t) and t.rank == 3)
    deep, width = n.flag(), n.width()
    group = x.channels if deep else 1
    made = x.channels if deep else width
    g.put(g.op("Conv", x, g.weight(made, x.channels // group, 1), g.bias(made), group=group))


def conv_twice(g: Builder, n: Numbers) -> None:
    """The same weight on two tensors, or twice in a row."""
    x, row = g.take(n, image), n.flag()
    w = g.weight(x.channels, x.channels, 1, 1)
    if row:
        g.put(g.op("Conv", g.op("Tanh", g.op("Conv", x, w)), w))
        return
    other = g.take(n, lambda t: image(t) and t.channels == x.channels and t != x)
    for tensor in (x, other):
        g.put(g.op("Conv", tensor, w))


def conv_of_computed_weight(g: Builder, n: Numbers) -> None:
    """A weight that plain operators compute from constants: weight normalization, a transpose, a sum."""
    x, width = g.take(n, image), n.width()
    w = computed(g, n, width, x)
    g.put(g.op("Conv", x, w))


def computed(g: Builder, n: Numbers, width: int, x: Tensor) -> str:
    kind, shape = n.below(4), (width, x.channels, 1, 1)
    if kind == 0:
        return g.op("Mul", g.weight(*shape), g.positive(width, 1, 1, 1))
    if kind == 1:
        return g.op("Transpose", g.weight(1, 1, x.channels, width, reads=x.channels), perm=[3, 2, 0, 1])
    if kind == 2:
        return g.op("Reshape", g.weight(width, x.channels), g.constant([0, -1, 1, 1]))
    v = g.weight(*shape)
    norm = g.axes("ReduceSum", g.op("Mul", v, v), [1, 2, 3], 13, keepdims=1)
    return g.op("Mul", g.op("Div", v, g.op("Sqrt", norm)), g.positive(width, 1, 1, 1))


STEPS = (
    conv, grouped_conv, depthwise_conv, conv_transpose, conv_over_places, conv_twice, conv_of_computed_weight,
)  # fmt: skip
