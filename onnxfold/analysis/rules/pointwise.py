"""Operators that act on every element alone: a channel goes in where it comes out."""

from __future__ import annotations

from collections.abc import Iterator

from .facts import Fact, Free, Tie
from .node_view import NodeView, TensorView
from .table import Rule

UNARY = (
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Cast", "Ceil", "Celu", "Cos", "Cosh",
    "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Log",
    "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus",
    "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu",
)  # fmt: skip
BROADCAST = (
    "Add", "And", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater", "GreaterOrEqual", "Less",
    "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "Pow", "PRelu", "Sub", "Sum", "Where", "Xor",
)  # fmt: skip
MICROSOFT_UNARY = ("Gelu", "FastGelu", "QuickGelu")


def same_axes(x: TensorView, y: TensorView) -> Iterator[Fact]:
    """Every axis of `x` is the same axis of `y`, aligned from the last (numpy broadcasting)."""
    for k in range(1, min(x.rank, y.rank) + 1):
        yield Tie(x.axis(-k), y.axis(-k))


def others(x: TensorView, y: TensorView, *skip: int) -> Iterator[Fact]:
    """All axes but those in `skip` pass unchanged."""
    for axis in range(x.rank):
        if axis not in skip:
            yield Tie(x.axis(axis), y.axis(axis))


def unary(n: NodeView) -> Iterator[Fact]:
    """One tensor in, one of the same shape out."""
    yield from same_axes(n.x(), n.y())


def broadcast(n: NodeView) -> Iterator[Fact]:
    """Any number of tensors, broadcast against each other."""
    for x in n.inputs:
        if x is not None:
            yield from same_axes(x, n.y())


def first_only(n: NodeView) -> Iterator[Fact]:
    """Inputs after the first are scalars or settings (Clip's bounds, Dropout's ratio); outputs have the same shape."""
    for y in n.outputs:
        if y is not None:
            yield from same_axes(n.x(), y)


def cast_like(n: NodeView) -> Iterator[Fact]:
    """Of its second input only the type counts."""
    yield from same_axes(n.x(), n.y())
    yield from (Free(n.x(1).axis(axis)) for axis in range(n.x(1).rank))


def gated(n: NodeView) -> Iterator[Fact]:
    """SwiGLU and BiasSplitGelu: a gate and what it is for, in two tensors, or one half of the last axis each."""
    x, y = n.x(), n.y()
    if n.op == "SwiGLU" and n.has(1):
        yield from same_axes(x, y)
        yield from same_axes(n.x(1), y)
        return
    yield from (Tie(x.axis(k), y.axis(k)) for k in range(x.rank - 1))
    half, whole = y.size(-1), x.size(-1)
    if half is None or whole != 2 * half:
        return
    sides = [x.axis(-1), *([n.x(1).axis(-1)] if n.has(1) else [])]
    for side in sides:
        yield from (Tie(side[:half], y.axis(-1)), Tie(side[half:], y.axis(-1)))


RULES = (
    Rule(unary, UNARY),
    Rule(broadcast, BROADCAST, since=7),
    Rule(first_only, ("Clip", "Dropout")),
    Rule(cast_like, ("CastLike",)),
    Rule(broadcast, (*MICROSOFT_UNARY, "BiasGelu"), domain="com.microsoft"),
    Rule(broadcast, ("SwiGLU",), since=28),
    Rule(gated, ("SwiGLU", "BiasSplitGelu"), domain="com.microsoft"),
)
