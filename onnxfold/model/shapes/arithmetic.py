"""Integers that a graph computes about shapes (Shape -> Gather -> Concat -> Reshape), followed symbolically.

A `Value` is one integer together with where it comes from, so that the analysis knows the target of a Reshape although
the batch is open, and the emitter knows which integers follow a folded channel by themselves and which must be edited.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from ...errors import ModelError
from ..graph import Graph, Node

LIMIT = 4096  # elements; shape arithmetic is never larger
_SHORT = 8  # floats: old exporters compute shapes in float where operators took nothing else
_EXACT = (TensorProto.FLOAT, TensorProto.DOUBLE)
_KINDS: Mapping[int, type] = {
    TensorProto.INT32: np.int32, TensorProto.FLOAT: np.float32, TensorProto.DOUBLE: np.float64
}  # fmt: skip
Lengths = Callable[[str, int], int | None]


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


class Fixed(Protocol):
    """What is needed of a model's constants."""

    def __contains__(self, name: str) -> bool: ...
    def initializer(self, name: str) -> TensorProto | None: ...
    def array(self, name: str) -> NDArray[Any]: ...


class ShapeValues:
    """The known integers of small tensors, by name; None for a tensor that is not one."""

    def __init__(self, graph: Graph, constants: Fixed, nodes: Iterable[Node] | None = None) -> None:
        """What `nodes` compute (None: all of the graph's, which stand in order)."""
        self._graph, self._constants = graph, constants
        self._known: dict[str, Values | None] = {}
        for node in graph.nodes if nodes is None else nodes:
            self.learn(node)

    def learn(self, node: Node) -> None:
        """Find the integers that one more node computes."""
        rule = _RULES.get(node.op) if node.domain == "" else None
        if rule is None or not node.outputs or node.outputs[0] in self._constants:
            return
        try:
            self._known[node.outputs[0]] = rule(self, node)
        except (ValueError, IndexError, TypeError, KeyError, OverflowError):
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
                if (lost or node.op not in _RULES) and self._plain(name, node) is None:
                    yield from self._sources(name, node)
            for name in node.captures:
                yield from self._sources(name, node)
            if node.op in ("Shape", "Size") and node.domain == "" and lost:
                rank = len(graph.tensor(node.inputs[0]).shape or ())
                yield from ((node.inputs[0], axis, node) for axis in range(rank))
        for name in graph.outputs:
            if name in graph.producer:
                yield from self._sources(name, graph.nodes[graph.producer[name]])

    def frozen(self) -> Iterator[tuple[Node, int, NDArray[Any], frozenset[tuple[str, int]]]]:
        """Where known lengths become other numbers (floats): (node, number of its input, the numbers, the lengths)."""
        for node in self._graph.nodes:
            if node.op in _RULES and self._known.get(node.outputs[0]) is not None:
                continue
            for i, name in enumerate(node.inputs):
                value = self._plain(name, node)
                if value is not None:
                    yield node, i, value, frozenset(source for v in self.need(name).ravel() for source in v.sources)

    def _plain(self, name: str, node: Node) -> NDArray[Any] | None:
        """The numbers of `name`, lengths that `node` takes as floats (or makes floats of); None for anything else."""
        known = self._known.get(name) if name not in self._constants else None
        kind = self.dtype(name)
        if known is None or node.domain or (kind not in _EXACT and node.op != "Cast"):
            return None
        numbers = [v.number for v in known.ravel()]
        if None in numbers or not any(v.sources for v in known.ravel()):
            return None
        return np.array(numbers, _KINDS.get(kind, np.int64)).reshape(known.shape)

    def _sources(self, name: str, node: Node) -> Iterator[tuple[str, int, Node]]:
        known = self._known.get(name) if name not in self._constants else None
        if known is not None:
            yield from ((tensor, axis, node) for v in known.ravel() for tensor, axis in sorted(v.sources))

    def list_for(self, name: str, node: Node) -> NDArray[Any] | None:
        """Computed list `name` as shape inference of `node` should see it; None if it is not known.

        Shape inference does not see that the open batch of a Reshape's target is the batch of what it reshapes: there a
        0 says so.
        """
        values = self._known.get(name)
        if values is None or name in self._constants:
            return None
        numbers = [v.number for v in values.ravel()]
        if None in numbers:
            copied = self._copying(values, node)
            if copied is None:
                return None
            numbers = copied
        try:
            return np.array(numbers, _KINDS.get(self.dtype(name), np.int64)).reshape(values.shape)
        except OverflowError:  # no length
            return None

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

    def dtype(self, name: str) -> int:
        """The onnx element type of a tensor."""
        return self._graph.tensor(name).dtype

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
        if array.size > LIMIT or array.dtype.kind not in "iubf" or (array.dtype.kind == "f" and not _whole(array)):
            return None
        out = np.empty(array.shape, object)
        for at, number in np.ndenumerate(array):
            out[at] = Value(int(number))
        return out


def _whole(array: NDArray[Any]) -> bool:
    """Whether all numbers are integers that float32 holds exactly; long lists are weights."""
    return array.size <= _SHORT and bool(np.all(array == np.round(array)) and np.all(np.abs(array) < 2**24))


def _count(shape: tuple[Any, ...]) -> int:
    total = 1
    for d in shape:
        total *= int(d)
    return total


def _list(values: list[Value]) -> Values:
    out = np.empty(len(values), object)
    out[:] = values
    return out


def _scalar(value: Value) -> Values:
    out = np.empty((), object)
    out[()] = value
    return out


def _each(shape: tuple[int, ...], value: Callable[[tuple[int, ...]], Value]) -> Values:
    out = np.empty(shape, object)
    for at in np.ndindex(shape):
        out[at] = value(at)
    return out


def _shape(v: ShapeValues, n: Node) -> Values:
    dims = v.shape(n.inputs[0])
    end = n.attrs.get("end")
    return _list(dims[n.attrs.get("start", 0) : end])


def _cast(v: ShapeValues, n: Node) -> Values:
    if n.attrs["to"] not in (TensorProto.INT64, TensorProto.INT32, *_EXACT):
        raise TypeError("a length became something else than an integer")
    return v.need(n.inputs[0])


def _product(v: ShapeValues, n: Node) -> Values:
    x = v.need(n.inputs[0])
    if x.ndim > 1 or ("axes" in n.attrs and len(n.attrs["axes"]) != x.ndim):
        raise ValueError("only lists are multiplied")
    total = Value(1)
    for value in x.ravel():
        total = _combine(total, value, _multiply)
    return _list([total]) if n.attrs.get("keepdims", 1) and x.ndim else _scalar(total)


def _filled(v: ShapeValues, n: Node) -> Values:
    """ConstantOfShape: a short list, or a number."""
    lengths = v.ints(n.inputs[0])
    if _count(tuple(lengths)) > LIMIT:
        raise ValueError("too long to be shape arithmetic")
    value = n.attrs.get("value")
    number = 0 if value is None else numpy_helper.to_array(value).ravel()[0]
    if number != int(number):
        raise TypeError("not an integer")
    out = np.empty(lengths, object)
    out[...] = Value(int(number))
    return out


def _equal(v: ShapeValues, n: Node) -> Values:
    """0 or 1. A length that is not known now equals no negative number (-1 stands for "as it is" in Expand)."""
    a, b = np.broadcast_arrays(v.need(n.inputs[0]), v.need(n.inputs[1]))
    return _each(a.shape, lambda at: Value(_same_number(a[at], b[at])))


def _same_number(a: Value, b: Value) -> int:
    if not a.live and not b.live and a.number is not None and b.number is not None:
        return int(a.number == b.number)
    if (a.live and not b.live and (b.number or 0) < 0) or (b.live and not a.live and (a.number or 0) < 0):
        return 0
    raise ValueError("depends on a length")


def _where(v: ShapeValues, n: Node) -> Values:
    c, a, b = np.broadcast_arrays(*(v.need(name) for name in n.inputs))
    if any(x.live or x.number is None for x in c.ravel()):
        raise ValueError("depends on a length")
    return _each(c.shape, lambda at: a[at] if c[at].number else b[at])


def _size(v: ShapeValues, n: Node) -> Values:
    total = Value(1)
    for d in v.shape(n.inputs[0]):
        total = _combine(total, d, _multiply)
    return _scalar(total)


def _gather(v: ShapeValues, n: Node) -> Values:
    index = np.array([x.number for x in v.need(n.inputs[1]).ravel()], np.int64)
    taken = np.take(v.need(n.inputs[0]), index.reshape(v.need(n.inputs[1]).shape), axis=n.attrs.get("axis", 0))
    return _scalar(taken) if isinstance(taken, Value) else taken  # numpy unwraps a single object


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
    squeezed: Any = np.squeeze(v.need(n.inputs[0]), axis=tuple(_axes(v, n)) if given else None)
    return squeezed if isinstance(squeezed, np.ndarray) else _scalar(squeezed)


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
    plain_a, plain_b = (v.factor if v.live else v.number or 0 for v in (a, b))
    factor = plain_a * plain_b if how is _multiply else plain_a // plain_b if plain_b and not plain_a % plain_b else 0
    unit = a.unit * b.unit
    if exact and how is _divide:
        unit *= plain_b // (math.gcd(plain_a, plain_b) if plain_a else 1)
    exact = exact and a.linear and b.linear
    return Value(number, a.sources | b.sources, linear=exact, factor=factor if exact else 0, unit=unit)


def _arithmetic(how: Callable[[int, int], int]) -> Callable[[ShapeValues, Node], Values]:
    def rule(v: ShapeValues, n: Node) -> Values:
        if how is _divide and v.dtype(n.outputs[0]) in _EXACT:
            raise TypeError("a length became something else than an integer")
        a, b = np.broadcast_arrays(v.need(n.inputs[0]), v.need(n.inputs[1]))
        return _each(a.shape, lambda at: _combine(a[at], b[at], how))

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
    "ReduceProd": _product, "ConstantOfShape": _filled, "Equal": _equal, "Where": _where,
    "Add": _arithmetic(lambda a, b: a + b), "Sub": _arithmetic(lambda a, b: a - b),
    "Mul": _arithmetic(_multiply), "Div": _arithmetic(_divide),
}  # fmt: skip
