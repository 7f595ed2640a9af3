"""Integers that a graph computes about shapes (Shape -> Gather -> Concat -> Reshape), followed symbolically.

A `Value` is one integer together with where it comes from, so that the analysis knows the target of a Reshape although
the batch is open, and the emitter knows which integers follow a folded channel by themselves and which must be edited.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from .errors import ModelError
from .graph import Node
from .model import Model

LIMIT = 4096  # elements; shape arithmetic is never larger
Lengths = Callable[[str, int], int | None]


@dataclass(frozen=True)
class Value:
    """One integer: `number` where it is known now; `tensor`/`axis` where it is the length of an axis.

    An integer with `sources` (the axes whose lengths it is computed from) follows a folded channel by itself.
    """

    number: int | None
    sources: frozenset[tuple[str, int]] = frozenset()
    tensor: str | None = None
    axis: int | None = None

    @property
    def live(self) -> bool:
        """Whether the graph computes it from lengths."""
        return bool(self.sources)


Values = NDArray[np.object_]


class ShapeValues:
    """The known integers of small tensors, by name; None for a tensor that is not one."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._known: dict[str, Values | None] = {}
        for node in model.graph.nodes:
            rule = _RULES.get(node.op) if node.domain == "" else None
            if rule is None or not node.outputs or node.outputs[0] in model.constants:
                continue
            try:
                self._known[node.outputs[0]] = rule(self, node)
            except (ValueError, IndexError, TypeError, KeyError):
                self._known[node.outputs[0]] = None

    def escapes(self) -> Iterator[tuple[str, int, Node]]:
        """Axes (tensor, axis) whose length ends up where nothing follows it (a float, say), and the node there."""
        graph = self._model.graph
        for node in graph.nodes:
            lost = node.domain != "" or (node.op in _RULES and self._known.get(node.outputs[0]) is None)
            for i, name in enumerate(node.inputs):
                known = self._known.get(name) if name not in self._model.constants else None
                if known is None or (i in _TAKES_LENGTHS.get(node.op, ()) and not lost):
                    continue
                if lost or node.op not in _RULES:
                    yield from ((tensor, axis, node) for v in known.ravel() for tensor, axis in sorted(v.sources))
            if node.op in ("Shape", "Size") and node.domain == "" and lost:
                rank = len(graph.tensor(node.inputs[0]).shape or ())
                yield from ((node.inputs[0], axis, node) for axis in range(rank))

    def get(self, name: str) -> Values | None:
        """The values of tensor `name` as an object array of `Value`, in its shape."""
        if name not in self._known and name in self._model.constants:
            self._known[name] = self._constant(name)
        return self._known.get(name)

    def need(self, name: str) -> Values:
        """Like `get`, but an unknown tensor raises KeyError."""
        found = self.get(name)
        if found is None:
            raise KeyError(name)
        return found

    def ints(self, name: str) -> list[int]:
        """The plain integers of a constant tensor; KeyError if any is not known."""
        numbers = [v.number for v in self.need(name).ravel()]
        if any(n is None for n in numbers):
            raise KeyError(name)
        return [int(n) for n in numbers if n is not None]

    def shape(self, name: str) -> list[Value]:
        """The dimensions of tensor `name` as live values."""
        shape = self._model.graph.tensor(name).shape
        if shape is None:
            raise KeyError(name)
        return [
            Value(d if isinstance(d, int) else None, frozenset(((name, i),)), name, i) for i, d in enumerate(shape)
        ]

    def _constant(self, name: str) -> Values | None:
        info = self._model.graph.tensor(name)
        if info.shape is not None and (not all(isinstance(d, int) for d in info.shape) or _count(info.shape) > LIMIT):
            return None
        initializer = self._model.constants.initializer(name)
        if initializer is not None and _count(tuple(initializer.dims)) > LIMIT:
            return None
        try:
            array = self._model.constants.array(name)
        except ModelError:
            return None
        if array.size > LIMIT or array.dtype.kind not in "iub":
            return None
        out = np.empty(array.shape, object)
        for at, number in np.ndenumerate(array):
            out[at] = Value(int(number))
        return out


def _count(shape: tuple[Any, ...]) -> int:
    total = 1
    for d in shape:
        total *= int(d)
    return total


def _list(values: list[Value]) -> Values:
    out = np.empty(len(values), object)
    out[:] = values
    return out


def _shape(v: ShapeValues, n: Node) -> Values:
    dims = v.shape(n.inputs[0])
    end = n.attrs.get("end")
    return _list(dims[n.attrs.get("start", 0) : end])


def _cast(v: ShapeValues, n: Node) -> Values:
    if n.attrs["to"] not in (TensorProto.INT64, TensorProto.INT32):
        raise TypeError("a length became something else than an integer")
    return v.need(n.inputs[0])


def _size(v: ShapeValues, n: Node) -> Values:
    out = np.empty((), object)
    total: Value = Value(1)
    for d in v.shape(n.inputs[0]):
        total = _combine(total, d, lambda a, b: a * b)
    out[()] = total
    return out


def _gather(v: ShapeValues, n: Node) -> Values:
    index = np.array([x.number for x in v.need(n.inputs[1]).ravel()], np.int64)
    taken = np.take(v.need(n.inputs[0]), index.reshape(v.need(n.inputs[1]).shape), axis=n.attrs.get("axis", 0))
    if isinstance(taken, Value):  # numpy unwraps a single object
        out = np.empty((), object)
        out[()] = taken
        return out
    return taken


def _slice(v: ShapeValues, n: Node) -> Values:
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


def _axes(v: ShapeValues, n: Node) -> list[int]:
    return v.ints(n.inputs[1]) if len(n.inputs) > 1 and n.inputs[1] else list(n.attrs["axes"])


def _unsqueeze(v: ShapeValues, n: Node) -> Values:
    return np.expand_dims(v.need(n.inputs[0]), tuple(_axes(v, n)))


def _squeeze(v: ShapeValues, n: Node) -> Values:
    given = "axes" in n.attrs or (len(n.inputs) > 1 and n.inputs[1])
    out = np.empty((), object)
    squeezed: Any = np.squeeze(v.need(n.inputs[0]), axis=tuple(_axes(v, n)) if given else None)
    if isinstance(squeezed, np.ndarray):
        return squeezed
    out[()] = squeezed
    return out


def _concat(v: ShapeValues, n: Node) -> Values:
    return np.concatenate([v.need(i) for i in n.inputs], axis=n.attrs["axis"])


def _reshape(v: ShapeValues, n: Node) -> Values:
    return v.need(n.inputs[0]).reshape(v.ints(n.inputs[1]))


def _same(v: ShapeValues, n: Node) -> Values:
    return v.need(n.inputs[0])


def _combine(a: Value, b: Value, how: Callable[[int, int], int]) -> Value:
    number = how(a.number, b.number) if a.number is not None and b.number is not None else None
    return Value(number, a.sources | b.sources)


def _arithmetic(how: Callable[[int, int], int]) -> Callable[[ShapeValues, Node], Values]:
    def rule(v: ShapeValues, n: Node) -> Values:
        a, b = np.broadcast_arrays(v.need(n.inputs[0]), v.need(n.inputs[1]))
        out = np.empty(a.shape, object)
        for at in np.ndindex(a.shape):
            left: Any = a[at]
            right: Any = b[at]
            out[at] = _combine(left, right, how)
        return out

    return rule


def _divide(a: int, b: int) -> int:
    return int(a / b) if b else 0


# Inputs that operators use as lengths only; their rules follow them.
_TAKES_LENGTHS: Mapping[str, tuple[int, ...]] = {"Reshape": (1,), "Expand": (1,), "Slice": (1, 2), "Resize": (3,)}
_RULES: Mapping[str, Callable[[ShapeValues, Node], Values]] = {
    "Shape": _shape, "Size": _size, "Gather": _gather, "Slice": _slice, "Unsqueeze": _unsqueeze, "Squeeze": _squeeze,
    "Concat": _concat, "Reshape": _reshape, "Cast": _cast, "Identity": _same,
    "Add": _arithmetic(lambda a, b: a + b), "Sub": _arithmetic(lambda a, b: a - b),
    "Mul": _arithmetic(lambda a, b: a * b), "Div": _arithmetic(_divide),
}  # fmt: skip
