"""Which weights of a model are trained: those of linear operators and normalizations, as they are stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from ...model.constants import constant_attribute

Floats = NDArray[np.float32]
LINEAR = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))
_SLOTS: Mapping[str, tuple[int, ...]] = {
    "Conv": (1, 2), "ConvTranspose": (1, 2), "Gemm": (0, 1, 2), "MatMul": (0, 1), "BatchNormalization": (1, 2),
    "LayerNormalization": (1, 2), "InstanceNormalization": (1, 2), "GroupNormalization": (1, 2),
    "RMSNormalization": (1,),
}  # fmt: skip
# a vector that is an operand of the first is a scale or a shift, if the other operand comes from one of these
_AFFINE: Mapping[str, frozenset[str]] = {"Add": LINEAR | {"Mul"}, "Mul": frozenset(("Div", "Mul"))}
_SAME = frozenset(("Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Cast"))  # they change no value


def variables(graph: GraphProto) -> dict[str, Floats]:
    """The constants of `graph` (float32, as `static_copy` makes it) to train, by name: initializers or the outputs of
    Constant nodes. One that several nodes share is one variable; what Identity or Transpose make of it is not another.
    """
    stored = {t.name: t for t in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        held = constant_attribute(node) if node.op_type == "Constant" else None
        if held is not None:
            stored[node.output[0]] = held.t
    found: dict[str, Floats] = {}
    for name, vector in _held(graph.node, producers):
        source = _source(name, producers)
        if source in stored and source not in found:
            array = numpy_helper.to_array(stored[source])
            if array.dtype == np.float32 and array.size and (not vector or 1 < array.size == max(array.shape)):
                found[source] = array.copy()
    return found


def as_inputs(proto: ModelProto, values: Mapping[str, Floats]) -> None:
    """Make these constants graph inputs, in place."""
    graph = proto.graph
    kept = [t for t in graph.initializer if t.name not in values]
    nodes = [n for n in graph.node if not (n.op_type == "Constant" and n.output[0] in values)]
    tensors = [type(t).FromString(t.SerializeToString()) for t in kept]
    copies = [NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(tensors)
    graph.node.extend(copies)
    graph.input.extend(helper.make_tensor_value_info(name, 1, x.shape) for name, x in values.items())


def _held(nodes: Iterable[NodeProto], producers: Mapping[str, NodeProto]) -> Iterable[tuple[str, bool]]:
    """The names of operands that may be trained, once or more often, and whether only if they are vectors."""
    for node in nodes:
        if node.domain not in ("", "ai.onnx"):
            continue
        for slot in _SLOTS.get(node.op_type, ()):
            if slot < len(node.input) and node.input[slot]:
                yield node.input[slot], False
        if node.op_type in _AFFINE:
            for one, other in (node.input, reversed(node.input)):
                if other in producers and producers[other].op_type in _AFFINE[node.op_type]:
                    yield one, True


def _source(name: str, producers: Mapping[str, NodeProto]) -> str:
    """Where the numbers of `name` are stored, past nodes that only shape them."""
    while name in producers and producers[name].op_type in _SAME:
        name = producers[name].input[0]
    return name
