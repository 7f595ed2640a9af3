"""Gemm, MatMul, Einsum and their like: axes that are contracted, others that pass."""

from __future__ import annotations

from collections.abc import Iterator

from .facts import Consumes, Contract, Fact, Holds, Refuse, Tie
from .node_view import NodeView, TensorView
from .pointwise import same_axes
from .table import Rule


def gemm(n: NodeView) -> Iterator[Fact]:
    """Y = alpha * A' B' + beta * C, with optional transposes."""
    yield from general(n, n.x(0), n.x(1), n.x(2) if n.has(2) else None)


def general(n: NodeView, a: TensorView, b: TensorView, c: TensorView | None) -> Iterator[Fact]:
    """Gemm and its quantized kin."""
    y = n.y()
    inner_a, outer_a = (0, 1) if n.attr("transA", 0) else (1, 0)
    outer_b, inner_b = (0, 1) if n.attr("transB", 0) else (1, 0)
    yield Tie(a.axis(outer_a), y.axis(0))
    yield Tie(b.axis(outer_b), y.axis(1))
    if c is not None:
        yield from same_axes(c, y)
    if a.constant != b.constant:
        yield Tie(a.axis(inner_a), b.axis(inner_b))
        yield Consumes(a.axis(inner_a) if a.constant else b.axis(inner_b))  # also where what it adds is its own input


def matmul(n: NodeView) -> Iterator[Fact]:
    """numpy.matmul. The contracted axis is followed where one side is a constant weight."""
    yield from product(n, n.x(0), n.x(1))


def fused_matmul(n: NodeView) -> Iterator[Fact]:
    """MatMul of matrices that may be transposed first."""
    if n.attr("transBatchA", 0) or n.attr("transBatchB", 0):
        yield Refuse("moves batch axes")
        return
    yield from product(n, n.x(0), n.x(1), bool(n.attr("transA", 0)), bool(n.attr("transB", 0)))


def product(n: NodeView, a: TensorView, b: TensorView, turn_a: bool = False, turn_b: bool = False) -> Iterator[Fact]:
    """Stacks of matrices times stacks of matrices (MatMul and its kin); vectors are never turned."""
    y = n.y()
    if a.rank < 1 or b.rank < 1:
        yield Refuse("has a scalar operand")
        return
    inner_a, outer_a = (-2, -1) if turn_a and a.rank > 1 else (-1, -2)
    inner_b, outer_b = (-1, -2) if turn_b or b.rank == 1 else (-2, -1)
    for k in range(3, max(a.rank, b.rank) + 1):  # batch axes broadcast
        for side in (a, b):
            if k <= side.rank and k - (min(a.rank, b.rank) < 2) <= y.rank:
                yield Tie(side.axis(-k), y.axis(-k if min(a.rank, b.rank) > 1 else -(k - 1)))
    if a.rank > 1:
        yield Tie(a.axis(outer_a), y.axis(-2 if b.rank > 1 else -1))
    if b.rank > 1:
        yield Tie(b.axis(outer_b), y.axis(-1))
    if a.constant or b.constant:
        yield Tie(a.axis(inner_a), b.axis(inner_b))
        if a.constant and b.constant:  # a table, and what makes something of it
            yield from (Holds(a.axis(inner_a)), Consumes(b.axis(inner_b)))
    else:
        yield Contract(a.axis(inner_a), b.axis(inner_b))


def einsum(n: NodeView) -> Iterator[Fact]:
    """An index of the output passes; one that is summed over is followed where one constant alone has it."""
    sides = [x for x in n.inputs if x is not None]
    terms, out = subscripts(str(n.attr("equation")), [x.rank for x in sides], n.y().rank)
    if [len(t) for t in (*terms, out)] != [t.rank for t in (*sides, n.y())] or len(set(out)) < len(out):
        yield Refuse("has an equation that does not match its tensors")
        return
    twice = {label for term in terms for label in term if term.count(label) > 1}  # a diagonal: kept
    for label in sorted({label for term in terms for label in term} - twice):
        held = [(x, term.index(label)) for x, term in zip(sides, terms, strict=True) if label in term]
        if label in out:
            for x, axis in held:
                yield Tie(x.axis(axis), n.y().axis(out.index(label)))
        else:
            yield from _summed(held)


def _summed(held: list[tuple[TensorView, int]]) -> Iterator[Fact]:
    """An index that is summed over: the constant takes the sums of what is merged, or one of two activations."""
    weights = [x.axis(axis) for x, axis in held if x.constant]
    if len(weights) == 1 < len(held):
        for x, axis in held:
            yield Tie(weights[0], x.axis(axis))
        yield Consumes(weights[0])
    elif not weights and len(held) == 2:
        yield Contract(*(x.axis(axis) for x, axis in held))


def subscripts(equation: str, ranks: list[int], rank: int) -> tuple[list[list[str]], list[str]]:
    """The labels of every operand's axes, and of the output's. An ellipsis stands for axes numbered from the right.

    >>> subscripts("...ij,jk", [3, 2], 3)
    ([['1', 'i', 'j'], ['j', 'k']], ['1', 'i', 'k'])
    """

    def labels(term: str, rank: int) -> list[str]:
        before, dots, behind = term.partition("...")
        more = rank - len(before) - len(behind) if dots else 0
        return [*before, *(str(k) for k in range(more, 0, -1)), *behind]

    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = [labels(term, r) for term, r in zip(left.split(","), ranks, strict=False)]
    if arrow:
        return terms, labels(right, rank)
    every = [label for term in terms for label in term]
    once = sorted(label for label in set(every) if label.isalpha() and every.count(label) == 1)
    spread = sorted({int(label) for label in every if label.isdigit()}, reverse=True)
    return terms, [*map(str, spread), *once]


RULES = (
    Rule(gemm, ("Gemm",), since=7),
    Rule(matmul, ("MatMul",)),
    Rule(einsum, ("Einsum",), since=12),
    Rule(gemm, ("FusedGemm",), domain="com.microsoft"),
    Rule(fused_matmul, ("FusedMatMul",), domain="com.microsoft"),
)
