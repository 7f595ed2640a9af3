"""Operators that act on every element alone, and activations taken apart."""

from __future__ import annotations

from ..builder import Builder, Numbers, Tensor
from .kinds import any_tensor

UNARY = {
    "Relu": 6, "LeakyRelu": 6, "Sigmoid": 6, "Tanh": 6, "Elu": 6, "Selu": 6, "Celu": 12, "HardSigmoid": 6,
    "Softplus": 1, "Softsign": 1, "Erf": 9, "Sin": 7, "Cos": 7, "Atan": 7, "Asinh": 9, "Abs": 6, "Neg": 6,
    "Identity": 1, "ThresholdedRelu": 10, "Shrink": 9, "HardSwish": 14, "Mish": 18, "Gelu": 20, "Floor": 6,
    "Ceil": 6, "Sign": 9,
}  # fmt: skip
"""Operators of one input that keep numbers small, and the opset that they came with."""


def unary(g: Builder, n: Numbers) -> None:
    x = g.take(n, any_tensor)
    g.put(g.op(n.pick([op for op, since in UNARY.items() if since <= g.opset]), x), x.channel)


def relu(g: Builder, n: Numbers) -> None:
    """The one that is met most."""
    x = g.take(n, any_tensor)
    g.put(g.op("Relu", x), x.channel)


def guarded(g: Builder, n: Numbers) -> None:
    """Operators that want positive numbers, or small ones."""
    x, op = g.take(n, any_tensor), n.pick(("Sqrt", "Log", "Reciprocal", "Exp", "Sinh", "Acosh"))
    small = op in ("Exp", "Sinh")
    g.put(g.op(op, g.op("Tanh", x) if small else g.op("Add", g.op("Abs", x), g.constant(1.1))), x.channel)


def clip(g: Builder, n: Numbers) -> None:
    x, low, high = g.take(n, any_tensor), n.flag(), n.flag()
    g.put(g.op("Clip", x, g.constant(-0.5) if low else "", g.constant(1.0) if high else ""), x.channel)


def dropout(g: Builder, n: Numbers) -> None:
    """Does nothing when a model is run."""
    x = g.take(n, any_tensor)
    g.put(g.op("Dropout", x), x.channel)


def cast(g: Builder, n: Numbers) -> None:
    """To float64 and back."""
    x = g.take(n, any_tensor)
    g.put(g.op("Cast", g.op("Cast", x, to=11), to=1), x.channel)


def spread(g: Builder, n: Numbers, x: Tensor, positive: bool = False) -> str:
    """A constant that broadcasts against `x`: per channel with all axes or only those that it needs, or one number."""
    ones = [1] * (x.rank - x.channel - 1)
    full = [*([1] * x.channel), x.channels, *ones]
    shape = n.pick(([x.channels, *ones], full, [], [1] * x.rank, [1, *x.shape[1:]]))
    return g.positive(*shape) if positive else g.bias(*shape)


def with_constant(g: Builder, n: Numbers) -> None:
    """Arithmetic with a constant, on either side."""
    x, op = g.take(n, any_tensor), n.pick(("Mul", "Add", "Sub", "Div", "Max", "Min", "Sum", "Mean"))
    sides = [x.name, spread(g, n, x, op in ("Mul", "Div"))]
    if n.flag() and op != "Div":
        sides.reverse()
    g.put(g.op(op, *sides), x.channel)


def power(g: Builder, n: Numbers) -> None:
    x = g.take(n, any_tensor)
    g.put(g.op("Pow", g.op("Abs", x), spread(g, n, x, True)), x.channel)


def prelu(g: Builder, n: Numbers) -> None:
    x, one = g.take(n, any_tensor), n.flag()
    slope = [1] * (x.rank - x.channel)
    slope[0] = 1 if one else x.channels
    g.put(g.op("PRelu", x, g.bias(*slope)), x.channel)


def where(g: Builder, n: Numbers) -> None:
    """One branch or the other, by a comparison with a constant."""
    x = g.take(n, any_tensor)
    test = g.op(n.pick(("Greater", "Less")), x, spread(g, n, x))
    g.put(g.op("Where", test, x, g.op("Mul", x, spread(g, n, x))), x.channel)


def activation(g: Builder, n: Numbers) -> None:
    """HardSwish, SiLU, GELU and Mish as exporters take them apart."""
    x, kind = g.take(n, any_tensor), n.below(5)
    if kind == 0:
        six = g.op("Clip", g.op("Add", x, g.constant(3.0)), g.constant(0.0), g.constant(6.0))
        y = g.op("Div", g.op("Mul", x, six), g.constant(6.0))
    elif kind == 1:
        y = g.op("Mul", x, g.op("Sigmoid", x))
    elif kind == 2:
        erf = g.op("Erf", g.op("Div", x, g.constant(2**0.5)))
        y = g.op("Mul", g.op("Mul", x, g.op("Add", erf, g.constant(1.0))), g.constant(0.5))
    elif kind == 3:
        cube = g.op("Mul", g.op("Pow", g.op("Tanh", x), g.constant(3.0)), g.constant(0.044715))
        inner = g.op("Tanh", g.op("Mul", g.op("Add", x, cube), g.constant(0.79788)))
        y = g.op("Mul", g.op("Mul", x, g.constant(0.5)), g.op("Add", inner, g.constant(1.0)))
    else:
        y = g.op("Mul", x, g.op("Tanh", g.op("Softplus", x)))
    g.put(y, x.channel)


STEPS = (unary, relu, guarded, clip, dropout, cast, with_constant, power, prelu, where, activation)
