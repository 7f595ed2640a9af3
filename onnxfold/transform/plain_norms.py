"""Scales and shifts of norms taken into the layers that read them, where nothing else does.

The result is the same but for rounding, and norms that treat all channels alike allow another basis
(docs/design/residual.md): ``(x * gamma + beta) W + b = x (gamma W) + (beta W + b)``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from ..analysis.result import Analysis
from ..analysis.rotation import CENTERED, SHAPED, Stream, streams
from ..model.editable_weights import Weights
from ..model.graph import Graph, Node
from ..model.model import Model

_SKIP = ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization")  # their scale comes after a second tensor


@dataclass(frozen=True)
class _Reader:
    """A layer that reads a norm: its weight, along which axis, and the bias added to what it gives ('' for none)."""

    weight: str
    axis: int
    bias: str


@dataclass(frozen=True)
class _Scaling:
    """The constants `scale` and `shift` ('' for none) of a norm, and what reads the result."""

    scale: str
    shift: str
    readers: tuple[_Reader, ...]


def plain_norms(model: Model, analysis: Analysis) -> Model:
    """`model` with all scales of norms over channels of groups that can be taken into what reads them; `model` itself
    where there are none. Only values of weights differ: of float32 ones that one node alone uses."""
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    weights = Weights(proto, model)
    scalings = list(_Scalings(model, weights).of(analysis))
    for one in scalings:
        _take_in(weights, one)
    return replace(model, proto=proto) if scalings else model


def _take_in(weights: Weights, one: _Scaling) -> None:
    scale = _read(weights, one.scale)
    shift = _read(weights, one.shift) if one.shift else None
    for reader in one.readers:
        weight = _read(weights, reader.weight)
        if shift is not None and shift.any():
            moved = np.tensordot(shift, weight, (0, reader.axis))
            weights.write(reader.bias, _read(weights, reader.bias) + moved)
        weights.write(reader.weight, weight * scale.reshape(-1, *[1] * (weight.ndim - 1 - reader.axis)))
    weights.write(one.scale, np.ones_like(scale))
    if shift is not None:
        weights.write(one.shift, np.zeros_like(shift))


@dataclass(frozen=True)
class _Scalings:
    """What scales norms in a model, and who reads that."""

    model: Model = field(repr=False)
    weights: Weights = field(repr=False)

    @property
    def _graph(self) -> Graph:
        return self.model.graph

    def of(self, analysis: Analysis) -> Iterator[_Scaling]:
        """Those that can be taken in: of operators, and of products behind norms that are written out."""
        for stream in streams(self.model, analysis).values():
            yield from filter(None, self._in(stream))

    def _in(self, stream: Stream) -> Iterator[_Scaling | None]:
        tensors = {place.tensor for place in stream.group.places}
        operators = {one.node for one in stream.norms.values() if one.scale}
        for index, node in enumerate(self._graph.nodes):
            if index in operators:
                yield self._operator(node, tensors)
            elif node.op == "Mul" and node.outputs[0] in tensors:
                yield self._product(node, tensors)

    def _operator(self, node: Node, tensors: set[str]) -> _Scaling | None:
        at = 2 if node.op in _SKIP else 1
        shift = node.inputs[at + 1] if node.op in CENTERED and len(node.inputs) > at + 1 else ""
        return self._scaling(node.inputs[at], shift, node.outputs[0], tensors)

    def _product(self, node: Node, tensors: set[str]) -> _Scaling | None:
        """A product with one number per channel, and the sum with another behind it."""
        scale = [name for name in node.inputs if name in tensors and name in self.model.constants]
        if len(scale) != 1:
            return None
        users = [user for user in self._users(node.outputs[0]) if user.op != "Shape"]
        if len(users) == 1 and users[0].op == "Add":
            shift = [name for name in users[0].inputs if name in tensors and name in self.model.constants]
            if len(shift) == 1:
                return self._scaling(scale[0], shift[0], users[0].outputs[0], tensors)
        return self._scaling(scale[0], "", node.outputs[0], tensors)

    def _scaling(self, scale: str, shift: str, result: str, tensors: set[str]) -> _Scaling | None:
        parts = [name for name in (scale, shift) if name]
        if not all(self._owned(name, 1) for name in parts):
            return None
        shifted = bool(shift) and bool(np.any(self.model.constants.array(shift)))
        readers = list(self._readers(result, shifted, tensors))
        found = tuple(one for one in readers if one is not None)
        return _Scaling(scale, shift, found) if found and len(found) == len(readers) else None

    def _readers(self, result: str, shifted: bool, tensors: set[str]) -> Iterator[_Reader | None]:
        """All that reads a tensor, also in another shape or in part; None for what is no layer of its own."""
        if result in self._graph.outputs:
            yield None
        for user in self._users(result):
            if user.op in SHAPED and user.inputs[0] == result and user.outputs[0] in tensors:
                yield from self._readers(user.outputs[0], shifted, tensors)
            elif user.op != "Shape":
                yield self._reader(user, result, shifted)

    def _reader(self, node: Node, result: str, shifted: bool) -> _Reader | None:
        """None where a node does more with the result than multiply it by a weight of its own; a shift needs a bias."""
        if node.domain or node.op not in ("MatMul", "Gemm") or node.inputs[0] != result or result in node.inputs[1:]:
            return None
        weight = node.inputs[1]
        if not self._owned(weight, 2) or (node.op == "Gemm" and node.attrs.get("transA", 0)):
            return None
        axis = 1 if node.op == "Gemm" and node.attrs.get("transB", 0) else 0
        bias = self._bias(node) if shifted else ""
        if shifted and not (bias and self._owned(bias, 1) and node.attrs.get("alpha", 1.0) == 1.0):
            return None
        if bias and self._graph.tensor(bias).shape != (self._graph.tensor(weight).shape or ())[1 - axis :][:1]:
            return None
        return _Reader(weight, axis, bias)

    def _bias(self, node: Node) -> str:
        """The constant that is added to what a node gives; '' for none."""
        if node.op == "Gemm":
            return node.inputs[2] if len(node.inputs) > 2 and node.attrs.get("beta", 1.0) == 1.0 else ""
        users = self._users(node.outputs[0])
        if len(users) != 1 or users[0].op != "Add" or node.outputs[0] in self._graph.outputs:
            return ""
        return next((name for name in users[0].inputs if name in self.model.constants), "")

    def _users(self, tensor: str) -> list[Node]:
        return [self._graph.nodes[index] for index in self._graph.consumers.get(tensor, ())]

    def _owned(self, name: str, rank: int) -> bool:
        """Whether a constant is float32 of this rank, and used by one node alone."""
        if name not in self.model.constants or name in self.weights.integers.stored:
            return False
        value = self.weights.read(name)
        plain = value is not None and value.dtype == np.float32 and value.ndim == rank
        return plain and self.weights.uses(name) == 1 and name not in self._graph.outputs


def _read(weights: Weights, name: str) -> NDArray[np.float64]:
    value = weights.read(name)
    assert value is not None
    return value.astype(np.float64)
