"""Reverse rules that replace onnx-ad's: a strided Slice (which it lacks) and fast ones for what fills a vision network.

Ours is also the rule for the moments that the loss is made of: two passes over a tensor instead of eight.
parts.py says what a rule is; those of convolutions are in conv_adjoints.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto

from .conv_adjoints import conv, conv_transpose
from .parts import Adjoints, Rule, plain, reshaped, seeded

MOMENTS = "OnnxfoldMoments"  # an operator of ours: gone again when the gradient is written (reverse.py)


def _spread(ctx: Any, value: str, shape: Sequence[int], strides: Sequence[int]) -> tuple[str, list[int]]:
    """`value` with strides - 1 zeros behind every element along each axis, and its new shape."""
    shape = list(shape)
    for axis in (a for a, stride in enumerate(strides) if stride > 1):
        split = [math.prod(shape[: axis + 1]), 1, math.prod(shape[axis + 1 :])]
        pads = ctx.b.ints([0, 0, 0, 0, strides[axis] - 1, 0])
        value = ctx.b.op("Pad", [reshaped(ctx, value, split), pads], mode="constant", stem="spread")
        shape[axis] *= strides[axis]
    return reshaped(ctx, value, shape), shape


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
    value, shape = _spread(ctx, plain(ctx, grads[0], y, out), out, stride)
    behind = [n - f - s for n, f, s in zip(into, first, shape, strict=True)]
    found = ctx.b.op("Pad", [value, ctx.b.ints([*first, *behind])], mode="constant", stem="a_slice")
    return [seeded(ctx, found, into)] + [None] * (len(node.input) - 1)


def relu(ctx: Any, node: NodeProto, grads: Adjoints) -> list[str | None] | None:
    """Relu: the adjoint where the output is above 0 (the subgradient at 0 is 0)."""
    y = node.output[0]
    out = ctx.shapes.static(y)
    if grads[0] is None or out is None:
        return None
    above = ctx.b.op("Greater", [y, ctx.constant(0.0, ctx.dtype(y))], stem="above")
    return [_where(ctx, above, grads[0], y, out)]


def clip(ctx: Any, node: NodeProto, grads: Adjoints) -> list[str | None] | None:
    """Clip with constant bounds: the adjoint where the output lies between them (the subgradient at a bound is 0)."""
    y = node.output[0]
    out, bounds = ctx.shapes.static(y), [name for name in node.input[1:] if name]
    if grads[0] is None or out is None or not bounds or any(map(ctx.asked_for, bounds)):
        return None
    compare = zip(("Greater", "Less"), node.input[1:], strict=False)
    inside = [ctx.b.op(op, [y, bound], stem="inside") for op, bound in compare if bound]
    mask = inside[0] if len(inside) == 1 else ctx.b.op("And", inside, stem="inside")
    return [_where(ctx, mask, grads[0], y, out)] + [None] * (len(node.input) - 1)


def _where(ctx: Any, mask: str, adjoint: str, y: str, shape: Sequence[int]) -> str:
    """The adjoint of `y` where `mask` is true, else 0: a product, because Where takes about six times as long."""
    factor = ctx.b.op("Cast", [mask], to=ctx.dtype(y), stem="mask")
    return seeded(ctx, ctx.b.op("Mul", [plain(ctx, adjoint, y, shape), factor], stem="masked"), shape)


def moments(ctx: Any, node: NodeProto, grads: Adjoints) -> list[str | None] | None:
    """MOMENTS, see objective.py: x [N, C, ...] gives m = mean(x) [C] and s = mean(x * x) [C]: dm / n + 2 x ds / n."""
    x = node.input[0]
    into = ctx.shapes.static(x)
    count = float(np.prod(into) / into[1])
    across = [1, into[1]] + [1] * (len(into) - 2)
    terms: list[str] = []
    for grad, out, factor in zip(grads, node.output, (1.0, 2.0), strict=True):
        if grad is not None:
            small = ctx.b.op("Mul", [plain(ctx, grad, out, across), ctx.constant(factor / count, ctx.dtype(x))])
            terms.append(small if factor == 1 else ctx.b.op("Mul", [x, small], stem="a_square"))
    if len(terms) == 1:
        return None
    return [seeded(ctx, ctx.b.op("Add", terms, stem="a_moments"), into)]


RULES: Mapping[str, Rule] = {
    "Conv": conv, "ConvTranspose": conv_transpose, "Slice": strided_slice, "Relu": relu, "Clip": clip, MOMENTS: moments,
}  # fmt: skip
