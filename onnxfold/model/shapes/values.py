"""Integers that a graph computes about shapes: each with where it comes from, and what products make of that."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LIMIT = 4096  # elements; shape arithmetic is never larger


@dataclass(frozen=True)
class Value:
    """One integer: `number` where it is known now; `tensor`/`axis` where it is the length of an axis.

    An integer with `sources` (the axes whose lengths it is computed from) follows a folded channel by itself. `linear`:
    it is a length, or a product or an exact quotient of lengths and plain numbers, each source once; `factor` is then
    what the plain numbers make, if they make a whole one (else 0). Quotients are exact while the lengths are multiples
    of `unit`.
    """

    number: int | None
    sources: frozenset[tuple[str, int]] = frozenset()
    tensor: str | None = None
    axis: int | None = None
    linear: bool = True
    factor: int = 1
    unit: int = 1

    @property
    def live(self) -> bool:
        """Whether the graph computes it from lengths."""
        return bool(self.sources)


Values = NDArray[np.object_]


def count(shape: tuple[Any, ...]) -> int:
    """The number of elements of a tensor."""
    total = 1
    for d in shape:
        total *= int(d)
    return total


def listed(values: list[Value]) -> Values:
    """A tensor of one axis."""
    out = np.empty(len(values), object)
    out[:] = values
    return out


def scalar(value: Value) -> Values:
    """A tensor of no axis."""
    out = np.empty((), object)
    out[()] = value
    return out


def each(shape: tuple[int, ...], value: Callable[[tuple[int, ...]], Value]) -> Values:
    """A tensor that holds `value` of every position."""
    out = np.empty(shape, object)
    for at in np.ndindex(shape):
        out[at] = value(at)
    return out


def combine(a: Value, b: Value, how: Callable[[int, int], int]) -> Value:
    """The result of `how`, with where both come from; exact for `multiply` and `divide` only."""
    number = how(a.number, b.number) if a.number is not None and b.number is not None else None
    if how is multiply:
        exact = not a.sources & b.sources
    elif how is divide:
        exact = not b.sources and None not in (a.number, b.number) and a.number == (number or 0) * (b.number or 0)
    else:
        exact = False
    plain_a, plain_b = (v.factor if v.live else v.number or 0 for v in (a, b))
    factor = plain_a * plain_b if how is multiply else plain_a // plain_b if plain_b and not plain_a % plain_b else 0
    unit = a.unit * b.unit
    if exact and how is divide:
        unit *= plain_b // (math.gcd(plain_a, plain_b) if plain_a else 1)
    exact = exact and a.linear and b.linear
    return Value(number, a.sources | b.sources, linear=exact, factor=factor if exact else 0, unit=unit)


def multiply(a: int, b: int) -> int:
    """The product."""
    return a * b


def divide(a: int, b: int) -> int:
    """The quotient, rounded towards 0 as onnx does."""
    return int(a / b) if b else 0
