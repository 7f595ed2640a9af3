"""Reverse rules of Conv and ConvTranspose, written for what onnxruntime's CPU kernels do fast.

The input gradient of a convolution of stride 1 is a convolution again (channels swapped, kernel turned by 180 degrees);
with strides it is a ConvTranspose, which needs no zeros between the elements. The gradient of a dense weight is one
matrix product for every kernel position; depthwise.py has that of a depthwise weight.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from onnx import NodeProto

from .conv_geometry import Geometry
from .depthwise import of_depthwise
from .parts import Adjoints, attributes, plain, reshaped, seeded, weights

_SMALL = 1024  # places: on smaller maps ConvTranspose is faster, for a depthwise weight that is no constant


def conv(ctx: Any, node: NodeProto, grads: Adjoints) -> list[str | None] | None:
    """Conv with respect to its input, its weight and its bias, whichever are asked for."""
    x, w, y = node.input[0], node.input[1], node.output[0]
    into, out, shape = ctx.shapes.static(x), ctx.shapes.static(y), ctx.shapes.static(w)
    if grads[0] is None or into is None or out is None or shape is None:
        return None
    geometry, value = Geometry.of(node, into, out, shape), plain(ctx, grads[0], y, out)
    found: list[str | None] = [None] * len(node.input)
    if ctx.asked_for(x):
        found[0] = seeded(ctx, _of_input(ctx, value, w, geometry), into)
    if ctx.asked_for(w):
        found[1] = seeded(ctx, _of_weight(ctx, value, x, w, geometry), shape)
    if len(node.input) > 2 and node.input[2] and ctx.asked_for(node.input[2]):
        found[2] = _of_bias(ctx, value, out)
    return found


def conv_transpose(ctx: Any, node: NodeProto, grads: Adjoints) -> list[str | None] | None:
    """ConvTranspose of given pads, with respect to its input, weight and bias: it is the adjoint of a Conv."""
    x, w, y, attrs = node.input[0], node.input[1], node.output[0], attributes(node)
    into, out, shape = ctx.shapes.static(x), ctx.shapes.static(y), ctx.shapes.static(w)
    given = attrs.get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID") and "output_shape" not in attrs
    if grads[0] is None or into is None or out is None or shape is None or not given:
        return None
    g, value = Geometry.of(node, out, into, shape), plain(ctx, grads[0], y, out)
    found: list[str | None] = [None] * len(node.input)
    if ctx.asked_for(x):
        cut, before, after = _crop(ctx, value, g.before, g.after)
        back = ctx.b.op(
            "Conv", [cut, w], group=g.group, dilations=list(g.dilations), pads=[*before, *after],
            strides=list(g.strides), kernel_shape=list(shape[2:]), stem="a_deconv",
        )  # fmt: skip
        found[0] = seeded(ctx, back, into)
    if ctx.asked_for(w):
        found[1] = seeded(ctx, _of_weight(ctx, x, value, w, g), shape)
    if len(node.input) > 2 and node.input[2] and ctx.asked_for(node.input[2]):
        found[2] = _of_bias(ctx, value, out)
    return found


def _of_input(ctx: Any, value: str, w: str, g: Geometry) -> str:
    """The adjoint of a Conv's input, from that of its output [N, M, ...]."""
    small = g.depthwise and w not in ctx.values and math.prod(g.into[2:]) <= _SMALL
    if small or any(s > 1 for s in g.strides):
        return _transposed(ctx, value, w, g)
    before = [r - p for r, p in zip(g.reach, g.before, strict=True)]
    after = [r - p for r, p in zip(g.reach, g.after, strict=True)]
    value, before, after = _crop(ctx, value, before, after)
    found = ctx.b.op(
        "Conv", [value, _turned(ctx, w, g)], group=g.group, dilations=list(g.dilations), pads=[*before, *after],
        strides=list(g.strides), kernel_shape=list(g.shape[2:]), stem="a_conv",
    )  # fmt: skip
    return str(found)


def _transposed(ctx: Any, value: str, w: str, g: Geometry) -> str:
    """The same by a ConvTranspose of the same weight.

    Its pads are equal at both ends, because cuDNN knows no others: a longer end is output_padding, the rest is cut off.
    """
    if g.depthwise and w in ctx.values:
        # for a constant one, onnxruntime has a much faster Conv, which is worth the zeros between the values
        spread = replace(g, strides=[1] * len(g.strides), out=[*g.out[:2], *(n + 1 for n in g.last)])
        return _of_input(ctx, _spread(ctx, value, w, g), w, spread)
    ends, longer = list[int](), list[int]()
    for before, after, stride in zip(g.before, g.after, g.strides, strict=True):
        rest = before - after
        ends.append(before if 0 <= rest < stride else max(0, min(before, after)))
        longer.append(rest if 0 <= rest < stride else max(0, -after))
    found = ctx.b.op(
        "ConvTranspose", [value, w], group=g.group, dilations=list(g.dilations), strides=list(g.strides),
        pads=[*ends, *ends], output_padding=longer, kernel_shape=list(g.shape[2:]), stem="a_conv",
    )  # fmt: skip
    cut_before = [end - before for end, before in zip(ends, g.before, strict=True)]
    cut_after = [end - more - after for end, more, after in zip(ends, longer, g.after, strict=True)]
    return _crop(ctx, found, cut_before, cut_after)[0]


def _spread(ctx: Any, value: str, w: str, g: Geometry) -> str:
    """`value`, of as many channels as `w` has rows, with strides - 1 zeros between any two elements of a row."""
    ones = weights(ctx, np.ones((g.out[1], 1, *[1] * len(g.strides))), w)
    return str(ctx.b.op("ConvTranspose", [value, ones], group=g.out[1], strides=list(g.strides), stem="spread"))


def _turned(ctx: Any, w: str, g: Geometry) -> str:
    """Weight [M, C/group, *k] as [C, M/group, *k], the kernel turned by 180 degrees."""
    group, makes, reads, kernel = g.group, g.shape[0] // g.group, g.shape[1], list(g.shape[2:])
    weight = ctx.values.get(w)
    if weight is not None:
        turned = weight.reshape(group, makes, reads, *kernel).swapaxes(1, 2).reshape(group * reads, makes, *kernel)
        return weights(ctx, np.flip(turned, tuple(range(2, turned.ndim))), w)
    size = math.prod(kernel)
    swapped = reshaped(ctx, w, [group, makes, reads, size])
    if makes > 1 or reads > 1:
        swapped = ctx.b.op("Transpose", [swapped], perm=[0, 2, 1, 3], stem="swapped")
    if size > 1:
        swapped = ctx.b.op("Gather", [swapped, ctx.b.ints(range(size - 1, -1, -1))], axis=3, stem="turned")
    return reshaped(ctx, swapped, [group * reads, makes, *kernel])


def _of_weight(ctx: Any, value: str, x: str, w: str, g: Geometry) -> str:
    """The adjoint of a Conv's weight `w`, from that of its output."""
    if any(g.before) or any(g.after):  # a negative pad cuts off what no window reaches
        x = ctx.b.op("Pad", [x, ctx.b.ints([0, 0, *g.before, 0, 0, *g.after])], mode="constant", stem="padded")
    if g.depthwise and len(g.shape) == 4:
        return of_depthwise(ctx, value, x, w, g)
    return _of_dense(ctx, value, x, g)


def _of_dense(ctx: Any, value: str, x: str, g: Geometry) -> str:
    """For every kernel position, the product of the output's adjoint with what it met of `x` (padded).

    (A convolution of the input with the adjoint as its filters, which is onnx-ad's rule, took up to three times as long
    and knows no groups.)
    """
    batch, kernel, places = g.into[0], g.shape[2:], math.prod(g.out[2:])
    reads, makes = g.shape[1], g.shape[0] // g.group
    # all images in one product, where moving them costs less than adding up a product of every image
    if math.prod(kernel) * makes * reads > (makes + reads) * places:
        x, value = _channels_first(ctx, x, len(kernel)), _channels_first(ctx, value, len(kernel))
        images, places = 1, batch * places
    else:
        images = batch
    value = reshaped(ctx, value, [images, g.group, makes, places])
    axes, steps, first = ctx.b.ints(range(2, 2 + len(kernel))), ctx.b.ints(g.strides), ctx.b.ints([0])
    parts = []
    for at in np.ndindex(*kernel):
        start = [i * d for i, d in zip(at, g.dilations, strict=True)]
        stop = [a + b + 1 for a, b in zip(start, g.last, strict=True)]
        met = x
        if math.prod(kernel) > 1 or any(s > 1 for s in g.strides):
            met = ctx.b.op("Slice", [x, ctx.b.ints(start), ctx.b.ints(stop), axes, steps], stem="met")
        rows = reshaped(ctx, met, [images, g.group, reads, places])
        across = ctx.b.op("Transpose", [rows], perm=[0, 1, 3, 2], stem="across")  # becomes a part of the product
        product = ctx.b.op("MatMul", [value, across], stem="product")
        if images > 1:
            product = ctx.b.op("ReduceSum", [product, first], keepdims=1, stem="summed")
        parts.append(product)
    if len(parts) == 1:
        return reshaped(ctx, parts[0], g.shape)
    every = ctx.b.op("Concat", parts, axis=0, stem="every")
    return reshaped(ctx, ctx.b.op("Transpose", [every], perm=[1, 2, 3, 0], stem="ordered"), g.shape)


def _channels_first(ctx: Any, value: str, rank: int) -> str:
    """`value` [N, C, *space] as [C, N, *space]."""
    return str(ctx.b.op("Transpose", [value], perm=[1, 0, *range(2, 2 + rank)], stem="by_channel"))


def _of_bias(ctx: Any, value: str, out: Sequence[int]) -> str:
    """The adjoint of a bias [M], from that of the output [N, M, ...]."""
    places = ctx.b.ints([a for a in range(len(out)) if a != 1])
    return seeded(ctx, ctx.b.op("ReduceSum", [value, places], keepdims=0, stem="a_bias"), out[1:2])


def _crop(ctx: Any, value: str, before: Sequence[int], after: Sequence[int]) -> tuple[str, list[int], list[int]]:
    """Negative pads taken off the spatial axes of `value`; what is left of the pads (Conv takes none below 0)."""
    cut = [(min(b, 0), min(a, 0)) for b, a in zip(before, after, strict=True)]
    if any(any(c) for c in cut):
        pads = [0, 0, *(c[0] for c in cut), 0, 0, *(c[1] for c in cut)]
        value = str(ctx.b.op("Pad", [value, ctx.b.ints(pads)], mode="constant", stem="crop"))
    return value, [max(b, 0) for b in before], [max(a, 0) for a in after]
