"""Parameters and multiply-accumulates (MACs) of a model, as products of axis lengths, so that a plan can be priced."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from onnx import AttributeProto, ModelProto, TensorProto, helper

from .graph import Graph, skeleton
from .inputs import concrete_shape
from .linear import WEIGHTS
from .model import FLOATS, Model
from .shapes import shaped
from .stored import integer_weights

Dims = tuple[tuple[str, int], ...]  # (tensor, axis) pairs whose lengths are multiplied


@dataclass(frozen=True)
class Costs:
    """Products of axis lengths that add up to the MACs and to the parameters of one inference with batch 1."""

    macs_terms: tuple[Dims, ...] = field(repr=False)
    params_terms: tuple[Dims, ...] = field(repr=False)
    item_bytes: tuple[float, ...] = field(repr=False)  # of one parameter, for every term of the parameters
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
        return round(sum(size * self._total([term], lengths) for term, size in pairs))

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
    stored = model.constants.stored
    scales = {model.constants.part_name(one, one.slots.scale) for one in stored.values() if one.slots.scale is not None}
    kinds = {name: graph.tensor(name).dtype for name in sorted(used - computed - scales) if name in shapes}
    kinds = {name: kind for name, kind in kinds.items() if kind in FLOATS and name not in stored}
    params = [tuple((name, axis) for axis in range(len(shapes[name]))) for name in kinds]
    sizes: list[float] = [helper.tensor_dtype_to_np_dtype(kind).itemsize for kind in kinds.values()]
    for one in stored.values():
        weights = tuple((one.name, axis) for axis in range(len(shapes.get(one.name, ()))))
        params, sizes = [*params, weights], [*sizes, one.bits / 8]
        if one.slots.scale is not None:  # with a zero point beside every scale
            params = [*params, () if one.axis is None else (weights[one.axis],)]
            sizes.append(4 + one.bits / 8)
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
    """Numbers stored in initializers and Constant nodes of the main graph: floats, and integers that stand for such."""
    tensors = {t.name: t for t in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "Constant":
            held = [a.t for a in node.attribute if a.type == AttributeProto.TENSOR]
            tensors.update(dict.fromkeys(node.output, held[0]) if held else {})
    floats = FLOATS | {TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2}
    quantised = {name for node in proto.graph.node for name in integer_weights(node)}
    return sum(math.prod(t.dims) for name, t in tensors.items() if t.data_type in floats or name in quantised)


def _ints(shape: Sequence[object]) -> tuple[int, ...]:
    return tuple(d if isinstance(d, int) else 1 for d in shape)


def _macs(
    op: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    shapes: Mapping[str, tuple[int, ...]],
    attrs: Mapping[str, object],
) -> list[Dims]:
    if op not in WEIGHTS or any(n not in shapes for n in (inputs[0], inputs[WEIGHTS[op][0]], outputs[0])):
        return []
    x, w, y = inputs[0], inputs[WEIGHTS[op][0]], outputs[0]
    out = tuple((y, axis) for axis in range(len(shapes[y])))
    if op in ("Conv", "ConvInteger", "QLinearConv"):
        return [(*out, *((w, axis) for axis in range(1, len(shapes[w]))))]
    if op == "ConvTranspose":
        moved = tuple((x, axis) for axis in range(len(shapes[x])))
        return [(*moved, *((w, axis) for axis in range(1, len(shapes[w]))))]
    inner = 0 if op in ("Gemm", "QGemm") and attrs.get("transA") else len(shapes[x]) - 1
    return [(*out, (x, inner))]
