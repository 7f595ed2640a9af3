"""What operators compute of integers about shapes: one rule each, from the values of inputs to those of the output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from onnx import TensorProto, numpy_helper

from ..graph import Node
from .values import LIMIT, Value, Values, combine, count, divide, each, listed, multiply, scalar

EXACT = (TensorProto.FLOAT, TensorProto.DOUBLE)  # floats that hold the integers of shapes


class Operands(Protocol):
    """What a rule asks about tensors. It raises KeyError where something is not known."""

    def need(self, name: str) -> Values: ...
    def ints(self, name: str) -> list[int]: ...
    def shape(self, name: str) -> list[Value]: ...
    def dtype(self, name: str) -> int: ...


def _shape(v: Operands, n: Node) -> Values:
    dims = v.shape(n.inputs[0])
    end = n.attrs.get("end")
    return listed(dims[n.attrs.get("start", 0) : end])


def _cast(v: Operands, n: Node) -> Values:
    if n.attrs["to"] not in (TensorProto.INT64, TensorProto.INT32, *EXACT):
        raise TypeError("a length became something else than an integer")
    return v.need(n.inputs[0])


def _product(v: Operands, n: Node) -> Values:
    x = v.need(n.inputs[0])
    if x.ndim > 1 or ("axes" in n.attrs and len(n.attrs["axes"]) != x.ndim):
        raise ValueError("only lists are multiplied")
    total = Value(1)
    for value in x.ravel():
        total = combine(total, value, multiply)
    return listed([total]) if n.attrs.get("keepdims", 1) and x.ndim else scalar(total)


def _filled(v: Operands, n: Node) -> Values:
    """ConstantOfShape: a short list, or a number."""
    lengths = v.ints(n.inputs[0])
    if count(tuple(lengths)) > LIMIT:
        raise ValueError("too long to be shape arithmetic")
    value = n.attrs.get("value")
    number = 0 if value is None else numpy_helper.to_array(value).ravel()[0]
    if number != int(number):
        raise TypeError("not an integer")
    out = np.empty(lengths, object)
    out[...] = Value(int(number))
    return out


def _equal(v: Operands, n: Node) -> Values:
    """0 or 1. A length that is not known now equals no negative number (-1 stands for "as it is" in Expand)."""
    a, b = np.broadcast_arrays(v.need(n.inputs[0]), v.need(n.inputs[1]))
    return each(a.shape, lambda at: Value(_same_number(a[at], b[at])))


def _same_number(a: Value, b: Value) -> int:
    if not a.live and not b.live and a.number is not None and b.number is not None:
        return int(a.number == b.number)
    if (a.live and not b.live and (b.number or 0) < 0) or (b.live and not a.live and (a.number or 0) < 0):
        return 0
    raise ValueError("depends on a length")


def _where(v: Operands, n: Node) -> Values:
    c, a, b = np.broadcast_arrays(*(v.need(name) for name in n.inputs))
    if any(x.live or x.number is None for x in c.ravel()):
        raise ValueError("depends on a length")
    return each(c.shape, lambda at: a[at] if c[at].number else b[at])


def _size(v: Operands, n: Node) -> Values:
    total = Value(1)
    for d in v.shape(n.inputs[0]):
        total = combine(total, d, multiply)
    return scalar(total)


def _gather(v: Operands, n: Node) -> Values:
    index = np.array([x.number for x in v.need(n.inputs[1]).ravel()], np.int64)
    taken = np.take(v.need(n.inputs[0]), index.reshape(v.need(n.inputs[1]).shape), axis=n.attrs.get("axis", 0))
    return scalar(taken) if isinstance(taken, Value) else taken  # numpy unwraps a single object


def _slice(v: Operands, n: Node) -> Values:
    x = v.need(n.inputs[0])
    if n.version < 10:
        starts, ends = n.attrs["starts"], n.attrs["ends"]
        axes, steps = n.attrs.get("axes", list(range(len(starts)))), [1] * len(starts)
    else:
        starts, ends = v.ints(n.inputs[1]), v.ints(n.inputs[2])
        more = [v.ints(n.inputs[i]) if len(n.inputs) > i and n.inputs[i] else None for i in (3, 4)]
        axes, steps = more[0] or list(range(len(starts))), more[1] or [1] * len(starts)
    cut = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        # an end before the beginning of a reversed slice means "to the very start"
        cut[axis] = slice(start, None if step < 0 and end < -x.shape[axis] else end, step)
    return x[tuple(cut)]


def _axes(v: Operands, n: Node) -> list[int]:
    return v.ints(n.inputs[1]) if len(n.inputs) > 1 and n.inputs[1] else list(n.attrs["axes"])


def _unsqueeze(v: Operands, n: Node) -> Values:
    return np.expand_dims(v.need(n.inputs[0]), tuple(_axes(v, n)))


def _squeeze(v: Operands, n: Node) -> Values:
    given = "axes" in n.attrs or (len(n.inputs) > 1 and n.inputs[1])
    squeezed: Any = np.squeeze(v.need(n.inputs[0]), axis=tuple(_axes(v, n)) if given else None)
    return squeezed if isinstance(squeezed, np.ndarray) else scalar(squeezed)


def _concat(v: Operands, n: Node) -> Values:
    return np.concatenate([v.need(i) for i in n.inputs], axis=n.attrs["axis"])


def _reshape(v: Operands, n: Node) -> Values:
    return v.need(n.inputs[0]).reshape(v.ints(n.inputs[1]))


def _same(v: Operands, n: Node) -> Values:
    return v.need(n.inputs[0])


def _arithmetic(how: Callable[[int, int], int]) -> Callable[[Operands, Node], Values]:
    def rule(v: Operands, n: Node) -> Values:
        if how is divide and v.dtype(n.outputs[0]) in EXACT:
            raise TypeError("a length became something else than an integer")
        a, b = np.broadcast_arrays(v.need(n.inputs[0]), v.need(n.inputs[1]))
        return each(a.shape, lambda at: combine(a[at], b[at], how))

    return rule


# Operands that operators use as lengths only; their rules follow them.
TAKES_LENGTHS: Mapping[str, tuple[int, ...]] = {
    "Reshape": (1,), "Expand": (1,), "Slice": (1, 2), "Resize": (3,), "ConstantOfShape": (0,),
}  # fmt: skip
RULES: Mapping[str, Callable[[Operands, Node], Values]] = {
    "Shape": _shape, "Size": _size, "Gather": _gather, "Slice": _slice, "Unsqueeze": _unsqueeze, "Squeeze": _squeeze,
    "Concat": _concat, "Reshape": _reshape, "Cast": _cast, "Identity": _same,
    "ReduceProd": _product, "ConstantOfShape": _filled, "Equal": _equal, "Where": _where,
    "Add": _arithmetic(lambda a, b: a + b), "Sub": _arithmetic(lambda a, b: a - b),
    "Mul": _arithmetic(multiply), "Div": _arithmetic(divide),
}  # fmt: skip
