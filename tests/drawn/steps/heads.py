"""What stands at the ends of a graph: mostly a layer that reads the channels, so that they can be folded."""

from __future__ import annotations

from ..builder import Builder, Tensor


def head(g: Builder, x: Tensor, number: int) -> None:
    """`number` says which of the heads that suit: a plain output (rarely), a layer, pooling and a layer."""
    if number % 8 == 7:
        g.outputs.append(x)
        return
    if x.rank == 4 and x.channel == 1 and number % 2:
        name = g.op("Conv", x, g.weight(3, x.channels, 1, 1), g.bias(3))
    else:
        name = classified(g, x, number)
    if number % 5 == 4:
        name = g.op("Softmax", name, axis=1)
    g.outputs.append(Tensor(name, g.shape(name)))


def classified(g: Builder, x: Tensor, number: int) -> str:
    """Classes for every sample, or for every place where the channels come last."""
    if x.channel == x.rank - 1 and x.rank > 2:
        return g.op("MatMul", x, g.weight(x.channels, 5, reads=x.channels))
    name = x.name
    if x.rank == 4 and x.channel == 1 and number % 4 == 0:
        name = g.op("GlobalAveragePool", x)
    if x.rank > 2:
        name = g.op("Flatten", name)
    width = g.shape(name)[1]
    return g.op("Gemm", name, g.weight(5, width), g.bias(5), transB=1)
