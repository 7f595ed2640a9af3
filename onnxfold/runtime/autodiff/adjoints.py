"""Reverse rules that replace onnx-ad's: a strided Slice (which it lacks) and fast ones for what fills a vision network.

Ours is also the rule for the moments that the loss is made of: two passes over a tensor instead of eight.

A rule gets onnx-ad's context, the primal node and the adjoints of its outputs, and returns one contribution per input,
or None to leave the node to onnx-ad's own rule. An adjoint has the shape of its tensor and one more axis at the end, of
length 1 here (one seed). onnx-ad itself is imported in reverse.py only, so the context is duck-typed.

The input gradient of a convolution is written as a convolution again (channels swapped, kernel turned by 180 degrees):
onnxruntime's ConvTranspose runs one small product per image and group (measured on a MobileNetV2: 55 times the forward
pass; with these rules 5 to 9 times). Its weight gradient is one matrix product for every kernel position.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

from ...model.conv_windows import windows

MOMENTS = "OnnxfoldMoments"  # an operator of ours: gone again when the gradient is written (reverse.py)
Adjoints = Sequence[str | None]
Rule = Callable[[Any, NodeProto, Adjoints], list[str | None] | None]


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _plain(ctx: Any, adjoint: str, like: str, shape: Sequence[int]) -> str:
    """The adjoint of tensor `like` without the seed axis."""
    return str(ctx.b.op("Reshape", [ctx.full(adjoint, like), ctx.b.ints(shape)], stem="plain"))


def _seeded(ctx: Any, value: str, shape: Sequence[int]) -> str:
    """A plain adjoint with the seed axis put back."""
    return str(ctx.b.op("Reshape", [value, ctx.b.ints([*shape, 1])], stem="seeded"))


def _weights(ctx: Any, array: NDArray[Any], name: str) -> str:
    return str(ctx.b.constant(np.ascontiguousarray(array), ctx.dtype(name), array.shape))


def _spread(ctx: Any, value: str, shape: Sequence[int], strides: Sequence[int]) -> tuple[str, list[int]]:
    """`value` [N, C, *shape] with strides - 1 zeros behind every element along each spatial axis, and its new shape."""
    if all(s == 1 for s in strides):
        return value, list(shape)
    rank = len(shape)
    batch_channels, spatial = list(shape[: rank - len(strides)]), list(shape[rank - len(strides) :])
    split = batch_channels + [n for d in spatial for n in (d, 1)]
    after = [0] * len(batch_channels) + [n for s in strides for n in (0, s - 1)]
    split_value = ctx.b.op("Reshape", [value, ctx.b.ints(split)], stem="split")
    padded = ctx.b.op("Pad", [split_value, ctx.b.ints([0] * len(split) + after)], mode="constant", stem="spread")
    joined = batch_channels + [d * s for d, s in zip(spatial, strides, strict=True)]
    return str(ctx.b.op("Reshape", [padded, ctx.b.ints(joined)], stem="joined")), joined


def conv(ctx: Any, node: NodeProto, grads: Adjoints) -> list[str | None] | None:
    """Conv with respect to its input, its weight and its bias, whichever are asked for."""
    x, w, y = node.input[0], node.input[1], node.output[0]
    into, out, shape = ctx.shapes.static(x), ctx.shapes.static(y), ctx.shapes.static(w)
    if grads[0] is None or into is None or out is None or shape is None:
        return None
    geometry, value = _Geometry.of(node, into, out, shape), _plain(ctx, grads[0], y, out)
    found: list[str | None] = [None] * len(node.input)
    if ctx.asked_for(x):
        found[0] = _seeded(ctx, _of_input(ctx, value, w, geometry), into)
    if ctx.asked_for(w):
        found[1] = _seeded(ctx, _of_weight(ctx, value, x, geometry), shape)
    if len(node.input) > 2 and node.input[2] and ctx.asked_for(node.input[2]):
        found[2] = _of_bias(ctx, value, out)
    return found


@dataclass(frozen=True)
class _Geometry:
    """Shapes (input, output, weight [M, C/group, *k]) and attributes of a Conv node; `before`: pads of each axis."""

    into: Sequence[int]
    out: Sequence[int]
    shape: Sequence[int]
    group: int
    strides: Sequence[int]
    dilations: Sequence[int]
    before: Sequence[int]

    @classmethod
    def of(cls, node: NodeProto, into: Sequence[int], out: Sequence[int], shape: Sequence[int]) -> _Geometry:
        attrs = _attributes(node)
        found = windows(shape[2:], attrs)
        before = [b for b, _ in found.padding(into[2:], out[2:])]
        return cls(into, out, shape, int(attrs.get("group", 1)), found.strides, found.dilations, before)

    @property
    def last(self) -> list[int]:
        """Where the last window begins, along each space axis, pads before counted."""
        return [(n - 1) * s for n, s in zip(self.out[2:], self.strides, strict=True)]

    @property
    def after(self) -> list[int]:
        """Pads behind each axis that the last window ends with; negative where it leaves something out."""
        reach = [(k - 1) * d + 1 for k, d in zip(self.shape[2:], self.dilations, strict=True)]
        ends = zip(self.last, reach, self.into[2:], self.before, strict=True)
        return [start + length - n - b for start, length, n, b in ends]


def _of_input(ctx: Any, value: str, w: str, g: _Geometry) -> str:
    """The adjoint of a Conv's input, from that of its output [N, M, ...]."""
    into, kernel, rank = g.into, list(g.shape[2:]), len(g.into) - 2
    value, shape = _spread(ctx, value, g.out, g.strides)
    reach = [d * (k - 1) for d, k in zip(g.dilations, kernel, strict=True)]
    before = [r - p for r, p in zip(reach, g.before, strict=True)]
    after = [into[2 + i] - shape[2 + i] - before[i] + reach[i] for i in range(rank)]
    value, before, after = _crop(ctx, value, before, after)
    found = ctx.b.op(
        "Conv", [value, _turned(ctx, w, g)], group=g.group, dilations=list(g.dilations), pads=[*before, *after],
        strides=[1] * rank, kernel_shape=kernel, stem="a_conv",
    )  # fmt: skip
    return str(found)


def _turned(ctx: Any, w: str, g: _Geometry) -> str:
    """Weight [M, C/group, *k] as [C, M/group, *k], the kernel turned by 180 degrees."""
    group, makes, reads, kernel = g.group, g.shape[0] // g.group, g.shape[1], list(g.shape[2:])
    weight = ctx.values.get(w)
    if weight is not None:
        turned = weight.reshape(group, makes, reads, *kernel).swapaxes(1, 2).reshape(group * reads, makes, *kernel)
        return _weights(ctx, np.flip(turned, tuple(range(2, turned.ndim))), w)
    size = math.prod(kernel)
    flat = ctx.b.op("Reshape", [w, ctx.b.ints([group, makes, reads, size])], stem="flat")
    swapped = ctx.b.op("Transpose", [flat], perm=[0, 2, 1, 3], stem="swapped")
    if size > 1:
        swapped = ctx.b.op("Gather", [swapped, ctx.b.ints(range(size - 1, -1, -1))], axis=3, stem="turned")
    return str(ctx.b.op("Reshape", [swapped, ctx.b.ints([group * reads, makes, *kernel])], stem="turned"))


def _of_weight(ctx: Any, value: str, x: str, g: _Geometry) -> str:
    """The adjoint of a Conv's weight: for every kernel position, the product of what it met with the output's adjoint.

    (A convolution of the input with the adjoint as its filters, which is onnx-ad's rule, took up to three times as long
    and knows no groups.)
    """
    batch, kernel, places = g.into[0], g.shape[2:], math.prod(g.out[2:])
    reads, makes = g.shape[1], g.shape[0] // g.group
    rank = len(kernel)
    last = g.last
    if any(g.before) or any(g.after):  # a negative pad cuts off what no window reaches
        x = ctx.b.op("Pad", [x, ctx.b.ints([0, 0, *g.before, 0, 0, *g.after])], mode="constant", stem="padded")
    split = ctx.b.ints([batch, g.group, makes, places])
    across = ctx.b.op("Transpose", [ctx.b.op("Reshape", [value, split])], perm=[0, 1, 3, 2], stem="across")
    axes, steps, first = ctx.b.ints(range(2, 2 + rank)), ctx.b.ints(g.strides), ctx.b.ints([0])
    as_rows = ctx.b.ints([batch, g.group, reads, places])
    parts = []
    for at in np.ndindex(*kernel):
        start = [i * d for i, d in zip(at, g.dilations, strict=True)]
        stop = [a + b + 1 for a, b in zip(start, last, strict=True)]
        met = x
        if math.prod(kernel) > 1 or any(s > 1 for s in g.strides):
            met = ctx.b.op("Slice", [x, ctx.b.ints(start), ctx.b.ints(stop), axes, steps], stem="met")
        rows = ctx.b.op("Reshape", [met, as_rows], stem="rows")
        product = ctx.b.op("MatMul", [rows, across], stem="product")
        parts.append(ctx.b.op("ReduceSum", [product, first], keepdims=1, stem="summed"))
    every = ctx.b.op("Concat", parts, axis=0, stem="every") if len(parts) > 1 else parts[0]
    ordered = ctx.b.op("Transpose", [every], perm=[1, 3, 2, 0], stem="ordered")
    return str(ctx.b.op("Reshape", [ordered, ctx.b.ints(g.shape)], stem="a_weight"))


def conv_transpose(ctx: Any, node: NodeProto, grads: Adjoints) -> list[str | None] | None:
    """ConvTranspose of given pads, with respect to its input, weight and bias: it is the adjoint of a Conv."""
    x, w, y, attrs = node.input[0], node.input[1], node.output[0], _attributes(node)
    into, out, shape = ctx.shapes.static(x), ctx.shapes.static(y), ctx.shapes.static(w)
    plain = attrs.get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID") and "output_shape" not in attrs
    if grads[0] is None or into is None or out is None or shape is None or not plain:
        return None
    g, value = _Geometry.of(node, out, into, shape), _plain(ctx, grads[0], y, out)
    found: list[str | None] = [None] * len(node.input)
    if ctx.asked_for(x):
        cut, before, after = _crop(ctx, value, g.before, g.after)
        back = ctx.b.op(
            "Conv", [cut, w], group=g.group, dilations=list(g.dilations), pads=[*before, *after],
            strides=list(g.strides), kernel_shape=list(shape[2:]), stem="a_deconv",
        )  # fmt: skip
        found[0] = _seeded(ctx, back, into)
    if ctx.asked_for(w):
        found[1] = _seeded(ctx, _of_weight(ctx, x, value, g), shape)
    if len(node.input) > 2 and node.input[2] and ctx.asked_for(node.input[2]):
        found[2] = _of_bias(ctx, value, out)
    return found


def _of_bias(ctx: Any, value: str, out: Sequence[int]) -> str:
    """The adjoint of a bias [M], from that of the output [N, M, ...]."""
    places = ctx.b.ints([a for a in range(len(out)) if a != 1])
    return _seeded(ctx, ctx.b.op("ReduceSum", [value, places], keepdims=0, stem="a_bias"), out[1:2])


def _crop(ctx: Any, value: str, before: Sequence[int], after: Sequence[int]) -> tuple[str, list[int], list[int]]:
    """Negative pads taken off the spatial axes of `value`; what is left of the pads (Conv takes none below 0)."""
    cut = [(min(b, 0), min(a, 0)) for b, a in zip(before, after, strict=True)]
    if any(any(c) for c in cut):
        pads = [0, 0, *(c[0] for c in cut), 0, 0, *(c[1] for c in cut)]
        value = str(ctx.b.op("Pad", [value, ctx.b.ints(pads)], mode="constant", stem="crop"))
    return value, [max(b, 0) for b in before], [max(a, 0) for a in after]


def strided_slice(ctx: Any, node: NodeProto, grads: Adjoints) -> list[str | None] | None:
    """Slice with positive steps: zeros between the elements, then before and behind them."""
    x, y = node.input[0], node.output[0]
    into, out = ctx.shapes.static(x), ctx.shapes.static(y)
    if grads[0] is None or into is None or out is None or len(node.input) < 5 or not node.input[4]:
        return None
    starts, axes, steps = (ctx.integers(node.input[i]) for i in (1, 3, 4))
    if starts is None or steps is None or any(s < 1 for s in steps) or all(s == 1 for s in steps):
        return None
    axes = list(range(len(starts))) if axes is None else [a % len(into) for a in axes]
    stride, first = [1] * len(into), [0] * len(into)
    for axis, start, step in zip(axes, starts, steps, strict=True):
        stride[axis] = step
        first[axis] = min(max(start + into[axis] if start < 0 else start, 0), into[axis])
    value, shape = _spread(ctx, _plain(ctx, grads[0], y, out), out, stride)
    behind = [n - f - s for n, f, s in zip(into, first, shape, strict=True)]
    found = ctx.b.op("Pad", [value, ctx.b.ints([*first, *behind])], mode="constant", stem="a_slice")
    return [_seeded(ctx, found, into)] + [None] * (len(node.input) - 1)


def relu(ctx: Any, node: NodeProto, grads: Adjoints) -> list[str | None] | None:
    """Relu: the adjoint where the output is above 0 (the subgradient at 0 is 0)."""
    out = ctx.shapes.static(node.output[0])
    if grads[0] is None or out is None:
        return None
    zero = ctx.constant(0.0, ctx.dtype(node.output[0]))
    above = ctx.b.op("Greater", [node.output[0], zero], stem="above")
    plain = _plain(ctx, grads[0], node.output[0], out)
    return [_seeded(ctx, ctx.b.op("Where", [above, plain, zero], stem="a_relu"), out)]


def clip(ctx: Any, node: NodeProto, grads: Adjoints) -> list[str | None] | None:
    """Clip with constant bounds: the adjoint where the output lies between them (the subgradient at a bound is 0)."""
    y = node.output[0]
    out, bounds = ctx.shapes.static(y), [name for name in node.input[1:] if name]
    if grads[0] is None or out is None or not bounds or any(map(ctx.asked_for, bounds)):
        return None
    compare = zip(("Greater", "Less"), node.input[1:], strict=False)
    inside = [ctx.b.op(op, [y, bound], stem="inside") for op, bound in compare if bound]
    mask = inside[0] if len(inside) == 1 else ctx.b.op("And", inside, stem="inside")
    kept = ctx.b.op("Where", [mask, _plain(ctx, grads[0], y, out), ctx.constant(0.0, ctx.dtype(y))], stem="a_clip")
    return [_seeded(ctx, kept, out)] + [None] * (len(node.input) - 1)


def moments(ctx: Any, node: NodeProto, grads: Adjoints) -> list[str | None] | None:
    """MOMENTS, see objective.py: x [N, C, ...] gives m = mean(x) [C] and s = mean(x * x) [C]: dm / n + 2 x ds / n."""
    x = node.input[0]
    into = ctx.shapes.static(x)
    count = float(np.prod(into) / into[1])
    across = [1, into[1]] + [1] * (len(into) - 2)
    terms: list[str] = []
    for grad, out, factor in zip(grads, node.output, (1.0, 2.0), strict=True):
        if grad is not None:
            small = ctx.b.op("Mul", [_plain(ctx, grad, out, across), ctx.constant(factor / count, ctx.dtype(x))])
            terms.append(small if factor == 1 else ctx.b.op("Mul", [x, small], stem="a_square"))
    if len(terms) == 1:
        return None
    return [_seeded(ctx, ctx.b.op("Add", terms, stem="a_moments"), into)]


RULES: Mapping[str, Rule] = {
    "Conv": conv, "ConvTranspose": conv_transpose, "Slice": strided_slice, "Relu": relu, "Clip": clip, MOMENTS: moments,
}  # fmt: skip
