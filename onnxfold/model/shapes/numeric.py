"""Arithmetic on integers about shapes, element by element: sums, quotients, comparisons, choices, roundings.

Products and exact quotients of lengths stay lengths (`combine`); whatever else is computed of them is a number as it is
now, and remembers its lengths.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
from onnx import TensorProto

from ..graph import Node
from .values import (
    EXACT,
    Operands,
    Value,
    Values,
    combine,
    computed,
    divide,
    each,
    listed,
    multiply,
    plain,
    scalar,
    whole,
)

Rule = Callable[[Operands, Node], Values]
_INTEGERS = (TensorProto.INT64, TensorProto.INT32)
_MOST = 256  # elements of what is computed but by products: longer ones are masks and positions, no lists of lengths


def _kind(v: Operands, n: Node) -> int:
    """The element type of what a node makes; int64 where that is not known."""
    return v.dtype(n.outputs[0]) or v.dtype(n.inputs[0]) or TensorProto.INT64


def _operands(v: Operands, n: Node) -> Sequence[Values]:
    found: Sequence[Values] = np.broadcast_arrays(*(v.need(name) for name in n.inputs if name))
    return found


def _short(x: Values) -> Values:
    if x.size > _MOST:
        raise ValueError("too long to be a list of lengths")
    return x


def _pointwise(how: Callable[..., Any]) -> Rule:
    """An operator that computes every element by itself, of one or two operands."""

    def rule(v: Operands, n: Node) -> Values:
        operands, kind = _operands(v, n), _kind(v, n)
        return each(_short(operands[0]).shape, lambda at: computed([x[at] for x in operands], how, kind))

    return rule


def _folded(how: Callable[[Value, Value, int], Value]) -> Rule:
    """An operator of any number of operands, combined one after the other."""

    def rule(v: Operands, n: Node) -> Values:
        operands, kind = _operands(v, n), _kind(v, n)
        shape = operands[0].shape
        return each(shape, lambda at: reduce(lambda a, b: how(a, b, kind), [x[at] for x in operands]))

    return rule


def _sum(a: Value, b: Value, kind: int) -> Value:
    if _is(b, 0):
        return a
    return b if _is(a, 0) else computed([a, b], operator.add, kind)


def _difference(a: Value, b: Value, kind: int) -> Value:
    return a if _is(b, 0) else computed([a, b], operator.sub, kind)


def _product(a: Value, b: Value, kind: int) -> Value:
    if _is(b, 1):
        return a
    if _is(a, 1):
        return b
    if _is(a, 0) or _is(b, 0):
        return Value(0)
    return computed([a, b], operator.mul, kind) if _fraction(a, b) else _fits(combine(a, b, multiply), kind)


def _quotient(a: Value, b: Value, kind: int) -> Value:
    if _is(b, 1):
        return a
    if kind not in EXACT:
        return combine(a, b, divide)
    exact = not _fraction(a, b) and None not in (a.number, b.number) and b.number and not (a.number or 0) % b.number
    return combine(a, b, divide) if exact else computed([a, b], operator.truediv, kind)


def _greater(a: Value, b: Value, kind: int) -> Value:
    """The larger one: a length, where the other one is a number that no length is below."""
    for one, other in ((a, b), (b, a)):
        if one.counts and not other.live and other.known is not None and other.known <= 0:
            return one
    return computed([a, b], max, kind)


def _smaller(a: Value, b: Value, kind: int) -> Value:
    return computed([a, b], min, kind)


def _is(value: Value, number: int) -> bool:
    return not value.live and value.number == number


def _fraction(*values: Value) -> bool:
    return any(x.real is not None for x in values)


def _fits(value: Value, kind: int) -> Value:
    """`value` if its number is exact in an element type. Raises ValueError."""
    if value.number is not None and plain(value.number, kind).number != value.number:
        raise ValueError("a number that is rounded")
    return value


def _rounded(how: Callable[[Any], Any]) -> Rule:
    """Ceil, Floor, Round: whole numbers stay what they are."""

    def one(x: Value, kind: int) -> Value:
        return x if x.number is not None and x.real is None else computed([x], how, kind)

    return _unary(one)


def _unary(how: Callable[[Value, int], Value]) -> Rule:
    def rule(v: Operands, n: Node) -> Values:
        x, kind = v.need(n.inputs[0]), _kind(v, n)
        return each(x.shape, lambda at: how(x[at], kind))

    return rule


def _positive(x: Value, kind: int) -> Value:
    """Relu: a length is not below 0."""
    return x if x.counts else computed([x], lambda number: max(number, 0), kind)


def _absolute(x: Value, kind: int) -> Value:
    return x if x.counts else computed([x], abs, kind)


def _clip(v: Operands, n: Node) -> Values:
    """Clip: bounds are attributes in old opsets, inputs in new ones."""
    x, kind = v.need(n.inputs[0]), _kind(v, n)
    for which, (name, how) in enumerate((("min", _greater), ("max", _smaller)), 1):
        bound = None
        if len(n.inputs) > which and n.inputs[which]:
            bound = v.need(n.inputs[which]).ravel()[0]
        elif name in n.attrs and abs(n.attrs[name]) < 2**63:  # else it bounds nothing
            bound = plain(n.attrs[name], kind)
        if bound is not None:
            x = _bounded(x, bound, how, kind)
    return x


def _bounded(x: Values, bound: Value, how: Callable[[Value, Value, int], Value], kind: int) -> Values:
    return each(x.shape, lambda at: how(x[at], bound, kind))


def _modulo(v: Operands, n: Node) -> Values:
    """Mod: the sign of the divisor, or with `fmod` that of the dividend. Floats take `fmod`."""
    c_like, kind = n.attrs.get("fmod", 0), _kind(v, n)

    def how(a: Any, b: Any) -> Any:
        if not b:
            raise ValueError("a remainder of a division by 0")
        if c_like and kind not in EXACT:
            return a - b * divide(a, b)
        return math.fmod(a, b) if c_like else a % b

    def one(a: Value, b: Value) -> Value:
        if not b.live and b.number and a.linear and a.unit == 1 and a.factor and a.factor % b.number == 0 and a.live:
            return Value(0)  # a multiple of it, whatever the lengths
        return computed([a, b], how, kind)

    a, b = _operands(v, n)
    return each(_short(a).shape, lambda at: one(a[at], b[at]))


def _power(v: Operands, n: Node) -> Values:
    def how(a: Any, b: Any) -> Any:
        if b < 0 or b > 64 or isinstance(b, float):
            raise ValueError("no power of shape arithmetic")
        return a**b

    return _pointwise(how)(v, n)


def _cast(v: Operands, n: Node) -> Values:
    """Integers, and floats that hold them, are followed; to integers numbers are cut off."""
    to = n.attrs.get("to") if n.op == "Cast" else v.dtype(n.outputs[0])
    if to == TensorProto.BOOL:
        return _pointwise(bool)(v, n)
    if to not in (*_INTEGERS, *EXACT):
        raise TypeError("a length became something else than an integer")
    x, kind = v.need(n.inputs[0]), int(to)

    def one(value: Value) -> Value:
        if value.real is None and (value.number is None or plain(value.number, kind).number == value.number):
            return value
        return computed([value], math.trunc if kind in _INTEGERS else float, kind)

    return each(x.shape, lambda at: one(x[at]))


def _compared(how: Callable[[Any, Any], bool]) -> Rule:
    """1 or 0. No length is below 0, also where it is not known now: -1 stands for "as it is" in Expand."""

    def one(a: Value, b: Value) -> Value:
        for x, y, turn in ((a, b, False), (b, a, True)):
            limit = None if y.live or not x.counts else y.known
            if limit is not None and limit <= 0:
                found = {bool(how(limit, n) if turn else how(n, limit)) for n in (0, 1)}  # the same for all beyond
                if len(found) == 1:
                    return Value(int(found.pop()))
        return computed([a, b], how, TensorProto.BOOL)

    def rule(v: Operands, n: Node) -> Values:
        a, b = _operands(v, n)
        return each(_short(a).shape, lambda at: one(a[at], b[at]))

    return rule


def _logical(how: Callable[[Any, Any], bool], settles: int) -> Rule:
    """And, Or: one operand may settle it."""

    def one(a: Value, b: Value) -> Value:
        return Value(settles) if _is(a, settles) or _is(b, settles) else computed([a, b], how, TensorProto.BOOL)

    def rule(v: Operands, n: Node) -> Values:
        a, b = _operands(v, n)
        return each(_short(a).shape, lambda at: one(a[at], b[at]))

    return rule


def _where(v: Operands, n: Node) -> Values:
    """One of two: a number that is chosen by a length depends on that too."""
    chosen, a, b = _operands(v, n)

    def one(c: Value, x: Value, y: Value) -> Value:
        if not c.live and c.known is not None:
            return x if c.known else y
        if x == y and (not x.live or x.tensor is not None):
            return x
        kind = v.dtype(n.inputs[1]) or TensorProto.INT64
        return computed([c, x, y], lambda c, x, y: x if c else y, kind)

    return each(chosen.shape, lambda at: one(chosen[at], a[at], b[at]))


def _reduced(how: Callable[[Value, Value, int], Value]) -> Rule:
    """ReduceSum, ReduceProd...: the elements along some axes, combined."""

    def rule(v: Operands, n: Node) -> Values:
        x, kind = v.need(n.inputs[0]), _kind(v, n)
        given = v.ints(n.inputs[1]) if len(n.inputs) > 1 and n.inputs[1] else n.attrs.get("axes")
        if not given and n.attrs.get("noop_with_empty_axes", 0):
            return x
        gone = sorted({axis % x.ndim for axis in given or range(x.ndim)}) if x.ndim else []
        if any(x.shape[axis] == 0 for axis in gone):
            raise ValueError("nothing to combine")
        flat = np.moveaxis(x, gone, range(x.ndim - len(gone), x.ndim))
        left = flat.shape[: x.ndim - len(gone)]
        found = each(left, lambda at: reduce(lambda a, b: how(a, b, kind), listed(list(np.ravel(whole(flat[at]))))))
        return np.expand_dims(found, tuple(gone)) if n.attrs.get("keepdims", 1) and gone else found

    return rule


def _size(v: Operands, n: Node) -> Values:
    return scalar(reduce(lambda a, b: combine(a, b, multiply), v.shape(n.inputs[0]), Value(1)))


def _negative(x: Value, kind: int) -> Value:
    return computed([x], operator.neg, kind)


NUMERIC: Mapping[str, Rule] = {
    "Size": _size, "Cast": _cast, "CastLike": _cast, "Where": _where, "Clip": _clip, "Mod": _modulo, "Pow": _power,
    "Add": _folded(_sum), "Sum": _folded(_sum), "Sub": _folded(_difference), "Mul": _folded(_product),
    "Div": _folded(_quotient), "Max": _folded(_greater), "Min": _folded(_smaller),
    "Neg": _unary(_negative), "Abs": _unary(_absolute), "Relu": _unary(_positive),
    "Ceil": _rounded(math.ceil), "Floor": _rounded(math.floor), "Round": _rounded(round),
    "Equal": _compared(operator.eq), "Less": _compared(operator.lt), "Greater": _compared(operator.gt),
    "LessOrEqual": _compared(operator.le), "GreaterOrEqual": _compared(operator.ge),
    "Not": _pointwise(operator.not_), "And": _logical(lambda a, b: bool(a and b), 0),
    "Or": _logical(lambda a, b: bool(a or b), 1), "Xor": _pointwise(lambda a, b: bool(a) != bool(b)),
    "ReduceProd": _reduced(_product), "ReduceSum": _reduced(_sum),
    "ReduceMax": _reduced(_greater), "ReduceMin": _reduced(_smaller),
}  # fmt: skip
