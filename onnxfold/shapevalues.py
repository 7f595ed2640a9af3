"""Integers that a graph computes about shapes (Shape -> Gather -> Concat -> Reshape), followed symbolically.

A `Value` is one integer together with where it comes from, so that the analysis knows the target of a Reshape although
the batch is open, and the emitter knows which integers follow a folded channel by themselves and which must be edited.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from .errors import ModelError
from .graph import Graph, Node

LIMIT = 4096  # elements; shape arithmetic is never larger
Lengths = Callable[[str, int], int | None]


@dataclass(frozen=True)
class Value:
    """One integer: `number` where it is known now; `tensor`/`axis` where it is the length of an axis.

    An integer with `sources` (the axes whose lengths it is computed from) follows a folded channel by itself. `linear`:
    it is a length, or a product or an exact quotient of lengths and plain numbers, each source once.
    """

    number: int | None
    sources: frozenset[tuple[str, int]] = frozenset()
    tensor: str | None = None
    axis: int | None = None
    linear: bool = True

    @property
    def live(self) -> bool:
        """Whether the graph computes it from lengths."""
        return bool(self.sources)


Values = NDArray[np.object_]


class Fixed(Protocol):
    """What is needed of a model's constants."""

    def __contains__(self, name: str) -> bool: ...
    def initializer(self, name: str) -> TensorProto | None: ...
    def array(self, name: str) -> NDArray[Any]: ...


class ShapeValues:
    """The known integers of small tensors, by name; None for a tensor that is not one."""

    def __init__(self, graph: Graph, constants: Fixed) -> None:
        self._graph, self._constants = graph, constants
        self._known: dict[str, Values | None] = {}
        for node in graph.nodes:
            rule = _RULES.get(node.op) if node.domain == "" else None
            if rule is None or not node.outputs or node.outputs[0] in constants:
                continue
            try:
                self._known[node.outputs[0]] = rule(self, node)
            except (ValueError, IndexError, TypeError, KeyError):
                self._known[node.outputs[0]] = None

    def escapes(self) -> Iterator[tuple[str, int, Node]]:
        """Axes (tensor, axis) whose length ends up where nothing follows it (a float, say), and the node there."""
        graph = self._graph
        for node in graph.nodes:
            lost = node.domain != "" or (node.op in _RULES and self._known.get(node.outputs[0]) is None)
            for i, name in enumerate(node.inputs):
                followed = i in _TAKES_LENGTHS.get(node.op, ()) and (i == 0 or self._known.get(node.inputs[0]) is None)
                if followed and node.domain == "":
                    continue
                if lost or node.op not in _RULES:
                    yield from self._sources(name, node)
            for name in node.captures:
                yield from self._sources(name, node)
            if node.op in ("Shape", "Size") and node.domain == "" and lost:
                rank = len(graph.tensor(node.inputs[0]).shape or ())
                yield from ((node.inputs[0], axis, node) for axis in range(rank))
        for name in graph.outputs:
            if name in graph.producer:
                yield from self._sources(name, graph.nodes[graph.producer[name]])

    def _sources(self, name: str, node: Node) -> Iterator[tuple[str, int, Node]]:
        known = self._known.get(name) if name not in self._constants else None
        if known is not None:
            yield from ((tensor, axis, node) for v in known.ravel() for tensor, axis in sorted(v.sources))

    def settled(self) -> dict[str, NDArray[Any]]:
        """Computed lists by name, for shape inference: those of known integers, and targets of Reshape that copy.

        Shape inference knows neither all the arithmetic that is known here, nor that the open batch of a target is the
        batch of what it reshapes: there a 0 says so.
        """
        found: dict[str, NDArray[Any]] = {}
        for name, values in self._known.items():
            if values is None or name in self._constants:
                continue
            numbers = [v.number for v in values.ravel()]
            if None in numbers:
                copied = [self._copying(values, self._graph.nodes[i]) for i in self._graph.consumers.get(name, ())]
                if not copied or any(c is None or c != copied[0] for c in copied):
                    continue
                numbers = list(copied[0] or ())
            kind = np.int32 if self._graph.tensor(name).dtype == TensorProto.INT32 else np.int64
            found[name] = np.array(numbers, kind).reshape(values.shape)
        return found

    def _copying(self, target: Values, node: Node) -> list[int | None] | None:
        """The target of a Reshape with 0 for open dimensions that are copied; None if it has others."""
        shape = self._graph.tensor(node.inputs[0]).shape
        if node.op != "Reshape" or node.domain or node.attrs.get("allowzero", 0) or shape is None:
            return None
        out = list[int | None]()
        for i, value in enumerate(target.ravel()):
            if value.number is None:
                if value.tensor is None or value.axis is None or i >= len(shape) or shape[i] is None:
                    return None
                if (self._graph.tensor(value.tensor).shape or ())[value.axis] != shape[i]:
                    return None
            out.append(value.number or 0)
        return out

    def get(self, name: str) -> Values | None:
        """The values of tensor `name` as an object array of `Value`, in its shape."""
        if name not in self._known and name in self._constants:
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
        shape = self._graph.tensor(name).shape
        if shape is None:
            raise KeyError(name)
        return [Value(d if isinstance(d, int) else None, frozenset(((name, i),)), name, i) for i, d in enumerate(shape)]

    def _constant(self, name: str) -> Values | None:
        info = self._graph.tensor(name)
        if info.shape is not None and (not all(isinstance(d, int) for d in info.shape) or _count(info.shape) > LIMIT):
            return None
        initializer = self._constants.initializer(name)
        if initializer is not None and _count(tuple(initializer.dims)) > LIMIT:
            return None
        try:
            array = self._constants.array(name)
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
        total = _combine(total, d, _multiply)
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
    if how is _multiply:
        exact = not a.sources & b.sources
    elif how is _divide:
        exact = not b.sources and None not in (a.number, b.number) and a.number == (number or 0) * (b.number or 0)
    else:
        exact = False
    return Value(number, a.sources | b.sources, linear=exact and a.linear and b.linear)


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


def _multiply(a: int, b: int) -> int:
    return a * b


def _divide(a: int, b: int) -> int:
    return int(a / b) if b else 0


# Inputs that operators use as lengths only; their rules follow them.
_TAKES_LENGTHS: Mapping[str, tuple[int, ...]] = {
    "Reshape": (1,), "Expand": (1,), "Slice": (1, 2), "Resize": (3,), "ConstantOfShape": (0,),
}  # fmt: skip
_RULES: Mapping[str, Callable[[ShapeValues, Node], Values]] = {
    "Shape": _shape, "Size": _size, "Gather": _gather, "Slice": _slice, "Unsqueeze": _unsqueeze, "Squeeze": _squeeze,
    "Concat": _concat, "Reshape": _reshape, "Cast": _cast, "Identity": _same,
    "Add": _arithmetic(lambda a, b: a + b), "Sub": _arithmetic(lambda a, b: a - b),
    "Mul": _arithmetic(_multiply), "Div": _arithmetic(_divide),
}  # fmt: skip
