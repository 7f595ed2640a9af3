"""Gemm and MatMul: one axis is contracted, the others pass."""

from __future__ import annotations

from collections.abc import Iterator

from ..facts import Fact, Refuse, Tie
from ..view import NodeView, TensorView
from .pointwise import same_axes
from .table import Rule


def gemm(n: NodeView) -> Iterator[Fact]:
    """Y = alpha * A' B' + beta * C, with optional transposes."""
    yield from general(n, n.x(0), n.x(1), n.x(2) if n.has(2) else None)


def general(n: NodeView, a: TensorView, b: TensorView, c: TensorView | None) -> Iterator[Fact]:
    """Gemm and its quantised kin."""
    y = n.y()
    inner_a, outer_a = (0, 1) if n.attr("transA", 0) else (1, 0)
    outer_b, inner_b = (0, 1) if n.attr("transB", 0) else (1, 0)
    yield Tie(a.axis(outer_a), y.axis(0))
    yield Tie(b.axis(outer_b), y.axis(1))
    if c is not None:
        yield from same_axes(c, y)
    if a.constant or b.constant:
        yield Tie(a.axis(inner_a), b.axis(inner_b))


def matmul(n: NodeView) -> Iterator[Fact]:
    """numpy.matmul. The contracted axis is followed where one side is a constant weight."""
    yield from product(n, n.x(0), n.x(1))


def product(n: NodeView, a: TensorView, b: TensorView) -> Iterator[Fact]:
    """MatMul and its quantised kin."""
    y = n.y()
    if a.rank < 1 or b.rank < 1:
        yield Refuse("has a scalar operand")
        return
    inner_b = -2 if b.rank > 1 else -1
    for k in range(3, max(a.rank, b.rank) + 1):  # batch axes broadcast
        for side in (a, b):
            if k <= side.rank and k - (min(a.rank, b.rank) < 2) <= y.rank:
                yield Tie(side.axis(-k), y.axis(-k if min(a.rank, b.rank) > 1 else -(k - 1)))
    if a.rank > 1:
        yield Tie(a.axis(-2), y.axis(-2 if b.rank > 1 else -1))
    if b.rank > 1:
        yield Tie(b.axis(-1), y.axis(-1))
    if a.constant or b.constant:
        yield Tie(a.axis(-1), b.axis(inner_b))


RULES = (
    Rule(gemm, ("Gemm",), since=7),
    Rule(matmul, ("MatMul",)),
)
