"""Reverse rules that replace onnx-ad's: a strided Slice (which it lacks) and fast ones for what fills a vision network.

Ours is also the rule for the moments that the loss is made of: two passes over a tensor instead of eight.

A rule gets onnx-ad's context, the primal node and the adjoints of its outputs, and returns one contribution per input,
or None to leave the node to onnx-ad's own rule. An adjoint has the shape of its tensor and one more axis at the end, of
length 1 here (one seed). onnx-ad itself is imported in gradients.py only, so the context is duck-typed.

The input gradient of a convolution is written as a convolution again (channels swapped, kernel turned by 180 degrees):
onnxruntime's ConvTranspose runs one small product per image and group (measured on a MobileNetV2: 55 times the forward
pass; with these rules 5 to 9 times).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

from ..windows import windows

MOMENTS = "OnnxfoldMoments"  # an operator of ours: gone again when the gradient is written (gradients.py)
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
    """Conv of constant weights, with respect to its input: weight [M, C/group, *k] becomes [C, M/group, *k], turned."""
    x, w, y = node.input[0], node.input[1], node.output[0]
    into, out, weight = ctx.shapes.static(x), ctx.shapes.static(y), ctx.values.get(w)
    if grads[0] is None or into is None or out is None or weight is None or any(map(ctx.asked_for, node.input[1:])):
        return None
    attrs, rank = _attributes(node), len(into) - 2
    group, strides = int(attrs.get("group", 1)), list(attrs.get("strides", [1] * rank))
    kernel = weight.shape[2:]
    geometry = windows(kernel, attrs)
    dilations, before = list(geometry.dilations), [b for b, _ in geometry.padding(into[2:], out[2:])]
    makes, reads = weight.shape[0] // group, weight.shape[1]
    turned = weight.reshape(group, makes, reads, *kernel).swapaxes(1, 2).reshape(group * reads, makes, *kernel)
    turned = np.flip(turned, tuple(range(2, 2 + rank)))
    value, shape = _spread(ctx, _plain(ctx, grads[0], y, out), out, strides)
    reach = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
    before = [r - p for r, p in zip(reach, before, strict=True)]
    after = [into[2 + i] - shape[2 + i] - before[i] + reach[i] for i in range(rank)]
    value, before, after = _crop(ctx, value, before, after)
    found = ctx.b.op(
        "Conv", [value, _weights(ctx, turned, w)], group=group, dilations=dilations, pads=[*before, *after],
        strides=[1] * rank, kernel_shape=list(kernel), stem="a_conv",
    )  # fmt: skip
    return [_seeded(ctx, found, into)] + [None] * (len(node.input) - 1)


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


RULES: Mapping[str, Rule] = {"Conv": conv, "Slice": strided_slice, "Relu": relu, "Clip": clip, MOMENTS: moments}
