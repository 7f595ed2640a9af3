"""Parameters and multiply-accumulates (MACs) of a model, as products of axis lengths, so that a plan can be priced."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from onnx import AttributeProto, ModelProto, TensorProto, helper

from .graph import Graph, skeleton
from .inputs import concrete_shape
from .model import FLOATS, Model
from .shapes import shaped

Dims = tuple[tuple[str, int], ...]  # (tensor, axis) pairs whose lengths are multiplied


@dataclass(frozen=True)
class Costs:
    """Products of axis lengths that add up to the MACs and to the parameters of one inference with batch 1."""

    macs_terms: tuple[Dims, ...] = field(repr=False)
    params_terms: tuple[Dims, ...] = field(repr=False)
    item_bytes: tuple[int, ...] = field(repr=False)  # of one parameter, for every term of the parameters
    shapes: Mapping[str, tuple[int, ...]] = field(repr=False)

    def macs(self, lengths: Mapping[tuple[str, int], int]) -> int:
        """MACs with the changed axis `lengths`."""
        return self._total(self.macs_terms, lengths)

    def params(self, lengths: Mapping[tuple[str, int], int]) -> int:
        """Parameters with the changed axis `lengths`."""
        return self._total(self.params_terms, lengths)

    def stored(self, lengths: Mapping[tuple[str, int], int]) -> int:
        """Bytes of the parameters with the changed axis `lengths`, each in its own element type."""
        pairs = zip(self.params_terms, self.item_bytes, strict=True)
        return sum(size * self._total([term], lengths) for term, size in pairs)

    def _total(self, terms: Sequence[Dims], lengths: Mapping[tuple[str, int], int]) -> int:
        return sum(math.prod(lengths.get(dim, self.shapes[dim[0]][dim[1]]) for dim in term) for term in terms)


def costs(model: Model, input_shapes: Mapping[str, Sequence[int]] | None = None) -> Costs:
    """Price `model` at batch 1; open dimensions of its inputs count as in `inputs.concrete_shape`."""
    graph = nominal(model, input_shapes)
    shapes = {name: _ints(t.shape) for name, t in graph.tensors.items() if t.shape is not None}
    macs = [term for node in graph.nodes for term in _macs(node.op, node.inputs, node.outputs, shapes, node.attrs)]
    used = {name for node in model.graph.nodes for name in node.inputs if name in model.constants}
    computed = {
        name for node in model.graph.nodes if node.outputs and all(o in model.constants for o in node.outputs if o)
        for name in node.inputs
    }  # fmt: skip
    kinds = {name: graph.tensor(name).dtype for name in sorted(used - computed) if name in shapes}
    kinds = {name: kind for name, kind in kinds.items() if kind in FLOATS}
    params = [tuple((name, axis) for axis in range(len(shapes[name]))) for name in kinds]
    sizes = [int(helper.tensor_dtype_to_np_dtype(kind).itemsize) for kind in kinds.values()]
    return Costs(tuple(macs), tuple(params), tuple(sizes), shapes)


def nominal(model: Model, input_shapes: Mapping[str, Sequence[int]] | None = None) -> Graph:
    """The graph with every open dimension of its inputs filled in, and all shapes that follow from that."""
    given = {}
    for name in model.graph.inputs:
        shape = model.graph.tensor(name).shape
        if name not in model.constants and shape is not None:
            given[name] = concrete_shape(shape, 1, (input_shapes or {}).get(name))
    bare = skeleton(model.proto, given)
    return shaped(model.graph, bare, model.constants)


def count_parameters(proto: ModelProto) -> int:
    """Floating-point numbers stored in the main graph: initializers and Constant nodes."""
    tensors = list(proto.graph.initializer)
    for node in proto.graph.node:
        if node.op_type == "Constant":
            tensors += [a.t for a in node.attribute if a.type == AttributeProto.TENSOR]
    floats = FLOATS | {TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2}
    return sum(math.prod(t.dims) for t in tensors if t.data_type in floats)


def _ints(shape: Sequence[object]) -> tuple[int, ...]:
    return tuple(d if isinstance(d, int) else 1 for d in shape)


def _macs(
    op: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    shapes: Mapping[str, tuple[int, ...]],
    attrs: Mapping[str, object],
) -> list[Dims]:
    if op not in ("Conv", "ConvTranspose", "Gemm", "MatMul") or any(n not in shapes for n in (*inputs[:2], outputs[0])):
        return []
    x, w, y = inputs[0], inputs[1], outputs[0]
    out = tuple((y, axis) for axis in range(len(shapes[y])))
    if op == "Conv":
        return [(*out, *((w, axis) for axis in range(1, len(shapes[w]))))]
    if op == "ConvTranspose":
        moved = tuple((x, axis) for axis in range(len(shapes[x])))
        return [(*moved, *((w, axis) for axis in range(1, len(shapes[w]))))]
    inner = 0 if op == "Gemm" and attrs.get("transA") else len(shapes[x]) - 1
    return [(*out, (x, inner))]
