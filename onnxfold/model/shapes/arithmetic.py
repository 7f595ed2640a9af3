"""Integers that a graph computes about shapes (Shape -> Gather -> Concat -> Reshape), followed symbolically.

A `Value` is one integer together with where it comes from, so that the analysis knows the target of a Reshape although
the batch is open, and the emitter knows which integers follow a folded channel by themselves and which must be edited.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from ...errors import ModelError
from ..dimensions import period
from ..graph import Graph, Node
from .operators import RULES, TAKES_LENGTHS
from .values import EXACT, LIMIT, Value, Values, count, each, plain

_SHORT = 8  # floats: old exporters compute shapes in float where operators took nothing else
_KINDS: Mapping[int, type] = {
    TensorProto.INT32: np.int32, TensorProto.FLOAT: np.float32, TensorProto.DOUBLE: np.float64,
    TensorProto.BOOL: np.bool_,
}  # fmt: skip
_FLOATS = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.float64): TensorProto.DOUBLE}
_LISTS = (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL)


class ShapeConstants(Protocol):
    """What is needed of a model's constants."""

    def __contains__(self, name: str) -> bool: ...
    def initializer(self, name: str) -> TensorProto | None: ...
    def array(self, name: str) -> NDArray[Any]: ...
    @property
    def integers(self) -> dict[str, Values | None]: ...  # what was found of constants by name, kept


class ShapeValues:
    """The known integers of small tensors, by name; None for a tensor that is not one."""

    def __init__(self, graph: Graph, constants: ShapeConstants, nodes: Iterable[Node] | None = None) -> None:
        """What `nodes` compute (None: all of the graph's, which stand in order)."""
        self._graph, self._constants = graph, constants
        self._known: dict[str, Values | None] = {}
        self._lists = set[str]()
        for node in graph.nodes if nodes is None else nodes:
            self.learn(node)

    def learn(self, node: Node) -> None:
        """Find the integers that one more node computes."""
        rule = RULES.get(node.op) if node.domain == "" else None
        if rule is None or not node.outputs or node.outputs[0] in self._constants:
            return
        try:
            found = rule(self, node)
            made = dict(zip(node.outputs, [found] if isinstance(found, np.ndarray) else found, strict=True))
        except (ValueError, IndexError, TypeError, KeyError, OverflowError, ZeroDivisionError):
            self._known[node.outputs[0]] = None
            return
        self._known.update(made)
        if node.op in ("Shape", "Size") or all(self._is_list(name) for name in node.inputs if name):
            self._lists.update(node.outputs)

    def _is_list(self, name: str) -> bool:
        """Whether no fold changes how many numbers a known tensor holds: it is made of lists of lengths alone."""
        shape = self._graph.tensor(name).shape
        number = shape is not None and all(d == 1 for d in shape)
        return name in self._lists or (name in self._constants and (number or self.dtype(name) in _LISTS))

    def escapes(self) -> Iterator[tuple[str, int, Node]]:
        """Axes (tensor, axis) whose length ends up where nothing follows it (a float, say), and the node there."""
        graph = self._graph
        for node in graph.nodes:
            lost = node.domain != "" or (node.op in RULES and self._known.get(node.outputs[0]) is None)
            for i, name in enumerate(node.inputs):
                if i in TAKES_LENGTHS.get(node.op, ()) and node.domain == "" and (i == 0 or self._of_data(node)):
                    continue
                if (lost or node.op not in RULES) and self._plain(name, node) is None:
                    yield from self._sources(name, node)
            for name in node.captures:
                yield from self._sources(name, node)
            if node.op in ("Shape", "Size") and node.domain == "" and lost:
                rank = len(graph.tensor(node.inputs[0]).shape or ())
                yield from ((node.inputs[0], axis, node) for axis in range(rank))
        for name in (*graph.outputs, *graph.borders):  # of the model, and of bodies
            if name in graph.producer:
                yield from self._sources(name, graph.nodes[graph.producer[name]])

    def _of_data(self, node: Node) -> bool:
        """Whether a node with an operand that gives lengths has no known list for its data: copies alone (Expand,
        Tile) make no number of it."""
        return node.op in ("Expand", "Tile") or self._known.get(node.inputs[0]) is None

    def frozen(self) -> Iterator[tuple[Node, int, NDArray[Any], frozenset[tuple[str, int]]]]:
        """Where known lengths become other numbers (floats): (node, number of its input, the numbers, the lengths)."""
        for node in self._graph.nodes:
            if node.op in RULES and self._known.get(node.outputs[0]) is not None:
                continue
            for i, name in enumerate(node.inputs):
                value = self._plain(name, node)
                if value is not None:
                    yield node, i, value, frozenset(source for v in self.need(name).ravel() for source in v.sources)

    def _plain(self, name: str, node: Node) -> NDArray[Any] | None:
        """The numbers of `name`, lengths that `node` takes as floats (or makes floats of); None for anything else."""
        known = self._known.get(name) if name not in self._constants else None
        kind = self.dtype(name)
        if known is None or node.domain or (kind not in EXACT and node.op != "Cast"):
            return None
        numbers = [v.known for v in known.ravel()]
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
        numbers = [v.known for v in values.ravel()]
        if None in numbers:
            copied = self._copying(values, node)
            if copied is None:
                return None
            numbers = copied
        try:
            return np.array(numbers, _KINDS.get(self.dtype(name), np.int64)).reshape(values.shape)
        except OverflowError:  # no length
            return None

    def _copying(self, target: Values, node: Node) -> list[int | float | None] | None:
        """The target of a Reshape with 0 for open dimensions that are copied; None if it has others."""
        shape = self._graph.tensor(node.inputs[0]).shape
        if node.op != "Reshape" or node.domain or node.attrs.get("allowzero", 0) or shape is None:
            return None
        out = list[int | float | None]()
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
        """The plain integers of a tensor; KeyError if any is not known, or may change with a length."""
        numbers = [None if v.live else v.number for v in self.need(name).ravel()]
        if any(n is None for n in numbers):
            raise KeyError(name)
        return [n for n in numbers if n is not None]

    def shape(self, name: str) -> list[Value]:
        """The dimensions of tensor `name` as live values; those of a list of lengths are plain."""
        shape = self._graph.tensor(name).shape
        if shape is None:
            raise KeyError(name)
        if self._is_list(name) and all(isinstance(d, int) for d in shape):
            return [plain(d) for d in shape if isinstance(d, int)]
        return [
            Value(d if isinstance(d, int) else None, frozenset(((name, i),)), name, i, times=period(d) or 1)
            for i, d in enumerate(shape)
        ]

    def dtype(self, name: str) -> int:
        """The onnx element type of a tensor."""
        return self._graph.tensor(name).dtype

    def _constant(self, name: str) -> Values | None:
        info = self._graph.tensor(name)
        if info.shape is not None and (not all(isinstance(d, int) for d in info.shape) or count(info.shape) > LIMIT):
            return None
        initializer = self._constants.initializer(name)
        if initializer is not None and count(tuple(initializer.dims)) > LIMIT:
            return None
        kept = self._constants.integers
        if name not in kept:
            kept[name] = self._integers(name)
        return kept[name]

    def _integers(self, name: str) -> Values | None:
        try:
            array = self._constants.array(name)
        except ModelError:
            return None
        if array.size > (_SHORT if array.dtype.kind == "f" else LIMIT) or not (
            array.dtype.kind in "iub" or array.dtype in _FLOATS or _whole(array)
        ):
            return None
        kind = _FLOATS.get(array.dtype, TensorProto.INT64)
        try:
            return each(array.shape, lambda at: plain(array[at].item(), kind))
        except OverflowError:  # unsigned, and no length
            return None


def _whole(array: NDArray[Any]) -> bool:
    """Whether all numbers are floats (of few bits) that are small integers."""
    if array.dtype.kind != "f":
        return False
    wide = array.astype(np.float64)  # float16 ends below the bound
    return bool(np.all(wide == np.round(wide)) and np.all(np.abs(wide) < 2**24))
