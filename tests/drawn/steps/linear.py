"""Gemm and MatMul."""

from __future__ import annotations

from ..builder import Builder, Numbers
from .kinds import last, long, vector


def gemm(g: Builder, n: Numbers) -> None:
    """With either order of the weight, a factor, and biases of several shapes."""
    x, width, kind = g.take(n, vector), n.width(), n.below(4)
    turned, factor = n.flag(), n.pick((1.0, 0.5))
    w = g.weight(x.channels, width, reads=x.channels) if turned else g.weight(width, x.channels)
    bias = [[], [g.bias(width)], [g.bias(1, width)], [g.bias(1)]][kind]
    g.put(g.op("Gemm", x, w, *bias, transB=int(not turned), alpha=factor))


def matmul(g: Builder, n: Numbers) -> None:
    """On the last axis, with a bias or not."""
    x, width, bias = g.take(n, last), n.width(), n.flag()
    name = g.op("MatMul", x, g.weight(x.channels, width, reads=x.channels))
    g.put(g.op("Add", name, g.bias(width)) if bias else name, x.rank - 1)


def matmul_over_places(g: Builder, n: Numbers) -> None:
    """A weight on the left: places are mixed, channels pass (MLP-Mixer)."""
    x = g.take(n, lambda t: long(t) and t.rank == 3)
    places = n.pick((4, 5, 7))
    g.put(g.op("MatMul", g.weight(places, x.shape[1]), x), 2)


def matmul_of_turned_weight(g: Builder, n: Numbers) -> None:
    """A weight stored once and used twice: as it is and transposed (tied embeddings)."""
    x, width = g.take(n, last), n.width()
    w = g.weight(x.channels, width, reads=x.channels)
    y = g.op("Tanh", g.op("MatMul", x, w))
    g.put(y, x.rank - 1)
    g.put(g.op("MatMul", y, g.op("Transpose", w, perm=[1, 0])), x.rank - 1)


def einsum(g: Builder, n: Numbers) -> None:
    """A linear layer as exporters of attention write it."""
    x, width = g.take(n, lambda t: long(t) and t.rank == 3), n.width()
    w = g.weight(x.channels, width, reads=x.channels)
    g.put(g.op("Einsum", x, w, equation="btc,cd->btd"), 2)


STEPS = (gemm, matmul, matmul_over_places, matmul_of_turned_weight, einsum)
