"""The gradient of a depthwise weight by matrix products.

An element of the kernel is a sum of products of places of the input with places of the output's adjoint. Each element
by itself would be a pass over both. Instead, some columns of the adjoint are multiplied by all columns of the input
that they meet, summed over images and rows: among the results are all products that a row of the kernel needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .conv_geometry import Geometry
from .parts import reshaped, weights

_COLUMNS = 16  # of the adjoint at a time: of more, most products are not needed


def of_depthwise(ctx: Any, value: str, x: str, w: str, g: Geometry) -> str:
    """The adjoint of weight `w` [C, 1, kh, kw], from that of the output and the padded input, both [N, C, ...]."""
    x, value = (ctx.b.op("Transpose", [name], perm=[1, 0, 2, 3], stem="by_channel") for name in (x, value))
    width = g.out[3]
    parts = -(-width // _COLUMNS)
    edges = [width * i // parts for i in range(parts + 1)]
    found = [_of_columns(ctx, value, x, w, g, edges[i : i + 2]) for i in range(parts)]
    return reshaped(ctx, ctx.b.op("Sum", found, stem="a_weight") if parts > 1 else found[0], g.shape)


def _of_columns(ctx: Any, value: str, x: str, w: str, g: Geometry, edges: Sequence[int]) -> str:
    """[C, kh, kw]: what columns edges[0] to edges[1] - 1 of the adjoint add to it. Both tensors are [C, N, ...]."""
    batch, channels, height = g.into[0], g.group, g.out[2]
    width, first = edges[1] - edges[0], edges[0] * g.strides[1]
    columns = (width - 1) * g.strides[1] + g.reach[1] + 1
    if width < g.out[3]:
        value = ctx.b.op("Slice", [value, *(ctx.b.ints([n]) for n in (*edges, 3))], stem="columns")
        x = ctx.b.op("Slice", [x, *(ctx.b.ints([n]) for n in (first, first + columns, 3))], stem="columns")
    value = reshaped(ctx, value, [channels, batch * height, width])
    axis, step = ctx.b.ints([2]), ctx.b.ints(g.strides[:1])
    rows = []
    for row in range(g.shape[2]):
        start = row * g.dilations[0]
        met = ctx.b.op("Slice", [x, ctx.b.ints([start]), ctx.b.ints([start + g.last[0] + 1]), axis, step], stem="met")
        met = reshaped(ctx, met, [channels, batch * height, columns])
        across = ctx.b.op("Transpose", [met], perm=[0, 2, 1], stem="across")  # becomes a part of the product
        product = ctx.b.op("MatMul", [across, value], stem="product")
        rows.append(reshaped(ctx, product, [channels, 1, columns * width]))
    every = ctx.b.op("Concat", rows, axis=1, stem="every") if len(rows) > 1 else rows[0]
    return str(ctx.b.op("MatMul", [every, _picked(ctx, w, g, columns, width)], stem="picked"))


def _picked(ctx: Any, w: str, g: Geometry, columns: int, width: int) -> str:
    """[columns * width, kw]: which products of a column of the input and one of the adjoint make up an element."""
    place = np.arange(width)
    picked = np.zeros((columns, width, g.shape[3]))
    for column in range(g.shape[3]):
        picked[column * g.dilations[1] + place * g.strides[1], place, column] = 1
    return weights(ctx, picked.reshape(columns * width, -1), w)
