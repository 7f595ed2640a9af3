"""Integers that a graph computes about shapes: each with where it comes from, and what products make of that."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

LIMIT = 4096  # elements; shape arithmetic is never larger
_LARGEST = 2**63  # of an integer; beyond, onnx wraps around
EXACT = (TensorProto.FLOAT, TensorProto.DOUBLE)  # floats that hold the integers of shapes


@dataclass(frozen=True)
class Value:
    """One integer: `number` where it is known now; `tensor`/`axis` where it is the length of an axis.

    An integer with `sources` (the axes whose lengths it is computed from) follows a folded channel by itself. `linear`:
    it is a length, or a product or an exact quotient of lengths and plain numbers, each source once; `factor` is then
    what the plain numbers make, if they make a whole one (else 0). Quotients are exact while the lengths are multiples
    of `unit`. `real`: the number where it is none of the integers (a quotient of floats, before it is rounded).
    `times`: of a length that is always so many times an open one.
    """

    number: int | None
    sources: frozenset[tuple[str, int]] = frozenset()
    tensor: str | None = None
    axis: int | None = None
    linear: bool = True
    factor: int = 1
    unit: int = 1
    real: float | None = None
    times: int = 1

    @property
    def live(self) -> bool:
        """Whether the graph computes it from lengths."""
        return bool(self.sources)

    @property
    def known(self) -> int | float | None:
        """The number as it is now, whole or not; None if that is open."""
        return self.number if self.real is None else self.real

    @property
    def counts(self) -> bool:
        """Whether it is sure to be 0 or more, whatever the lengths become."""
        if self.live:
            return self.linear and self.factor >= 0 and (self.number is None or self.number >= 0)
        return self.known is not None and self.known >= 0


Values = NDArray[np.object_]


class Operands(Protocol):
    """What a rule asks about tensors. It raises KeyError where something is not known."""

    def need(self, name: str) -> Values: ...
    def ints(self, name: str) -> list[int]: ...
    def shape(self, name: str) -> list[Value]: ...
    def dtype(self, name: str) -> int: ...


def count(shape: tuple[Any, ...]) -> int:
    """The number of elements of a tensor."""
    total = 1
    for d in shape:
        total *= int(d)
    return total


def listed(values: Sequence[Value]) -> Values:
    """A tensor of one axis."""
    out = np.empty(len(values), object)
    out[:] = values
    return out


def scalar(value: Value) -> Values:
    """A tensor of no axis."""
    out = np.empty((), object)
    out[()] = value
    return out


def whole(found: Any) -> Values:
    """A tensor, also where numpy gave its only element."""
    return found if isinstance(found, np.ndarray) else scalar(found)


def each(shape: tuple[int, ...], value: Callable[[tuple[int, ...]], Value]) -> Values:
    """A tensor that holds `value` of every position."""
    out = np.empty(shape, object)
    for at in np.ndindex(shape):
        out[at] = value(at)
    return out


def plain(number: int | float, kind: int = TensorProto.INT64) -> Value:
    """A number by itself, of an element type of onnx. Raises OverflowError beyond 64 bits, ValueError for NaN."""
    if kind in EXACT:
        with np.errstate(over="ignore"):
            rounded = float(np.float32(number) if kind == TensorProto.FLOAT else number)
        if not rounded.is_integer() or abs(rounded) > (2**24 if kind == TensorProto.FLOAT else 2**53):
            return Value(None, real=rounded)
        number = rounded
    if not -_LARGEST <= int(number) < _LARGEST:
        raise OverflowError("an integer of more than 64 bits")
    return Value(int(number))


def computed(operands: Sequence[Value], how: Callable[..., Any], kind: int) -> Value:
    """The result of `how`, of element type `kind`: open where an operand is, and no length any more."""
    sources = frozenset[tuple[str, int]]().union(*(x.sources for x in operands))
    numbers = [x.known for x in operands]
    if None in numbers:
        if not sources:
            raise ValueError("a number that nobody knows")
        return Value(None, sources, linear=False, factor=0)
    made = plain(how(*numbers), kind)
    return Value(made.number, sources, linear=not sources, factor=0 if sources else 1, real=made.real)


def leaves_open(a: Value, b: Value) -> bool:
    """Whether ``a / b`` is the open length (a batch) of which `a` is `b` times as many: `b`, a plain number, counts
    what else lies in that axis (heads)."""
    return b.number == a.times > 1 and not b.live


def combine(a: Value, b: Value, how: Callable[[int, int], int]) -> Value:
    """The result of `how`, `multiply` or `divide`, with where both come from."""
    if how is divide and leaves_open(a, b):
        return Value(None)
    number = how(a.number, b.number) if a.number is not None and b.number is not None else None
    if how is multiply:
        exact = not a.sources & b.sources
    else:
        exact = not b.sources and None not in (a.number, b.number) and a.number == (number or 0) * (b.number or 0)
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
    """The quotient, rounded towards 0 as onnx does. Raises ValueError for one by 0."""
    if not b:
        raise ValueError("a quotient by 0")
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
