"""Pooling and resizing."""

from __future__ import annotations

import numpy as np

from ..builder import Builder, Numbers, Tensor
from .kinds import image
from .reshape import lengths


def halves(x: Tensor) -> bool:
    return image(x) and min(x.spatial) >= 2


def pool(g: Builder, n: Numbers) -> None:
    x, op, stride = g.take(n, halves), n.pick(("MaxPool", "AveragePool", "LpPool")), n.pick((2, 1))
    g.put(g.op(op, x, kernel_shape=[2, 2], strides=[stride, stride]))


def global_pool(g: Builder, n: Numbers) -> None:
    x = g.take(n, image)
    g.put(g.op(n.pick(("GlobalAveragePool", "GlobalMaxPool")), x))


def resize(g: Builder, n: Numbers) -> None:
    """By scales, by sizes that are written out, or by sizes that the graph computes."""
    x, kind, linear = g.take(n, lambda t: image(t) and max(t.spatial) <= 8), n.below(4), n.flag()
    how = {"mode": "linear" if linear else "nearest"}
    no_crop = "" if g.opset >= 13 else g.constant(np.zeros(0, np.float32))
    no_scales = "" if g.opset >= 13 else g.constant(np.zeros(0, np.float32))
    if kind == 0 or (kind == 1 and g.open_batch):
        g.put(g.op("Resize", x, no_crop, g.constant([1.0, 1.0, 2.0, 2.0]), **how))
        return
    size = [2 * d for d in x.spatial]
    if kind == 1:
        sizes = g.constant([*x.shape[:2], *size])
    elif kind == 2:
        sizes = g.op("Concat", lengths(g, x, 0, 2), g.constant(size), axis=0)
    else:
        sizes = g.op("Concat", lengths(g, x, 0, 1), g.constant([x.channels]), g.constant(size), axis=0)
    g.put(g.ops("Resize", x, no_crop, no_scales, sizes, shape=(*x.shape[:2], *size), **how)[0])


STEPS = (pool, global_pool, resize)
