"""BatchNormalization written as an affine map with its statistics frozen, so that scale and shift can be trained.

A normalization behind a convolution that nothing else reads becomes part of its weight and bias, computed in the graph:
that saves two passes over the activations forward and four back.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from ...model.subgraphs import captures
from ...runtime.autodiff.emitter import Emitter
from ...runtime.autodiff.prepare import shapes_of


def spell_out(graph: GraphProto) -> None:
    """Replace every BatchNormalization of fixed statistics in `graph` (shapes inferred), in place."""
    shapes = shapes_of(graph)
    known = {t.name for t in graph.initializer}
    consumers = Counter(name for node in graph.node for name in (*node.input, *captures(node)))
    consumers.update(v.name for v in graph.output)
    nodes = _constants_first(graph)
    producers = {name: node for node in nodes for name in node.output}
    normalized = dict[str, NodeProto]()  # by input, those that the convolution before them takes in
    for node in (n for n in nodes if _is_affine(n, known, shapes)):
        producer = producers.get(node.input[0])
        if producer is not None and producer.op_type == "Conv" and consumers[node.input[0]] == 1:
            normalized[node.input[0]] = node
    values = {t.name: t for t in graph.initializer}
    del graph.node[:]
    emit = Emitter(graph)
    for node in nodes:
        after = normalized.get(node.output[0]) if node.op_type == "Conv" else None
        if after is not None:
            scale, shift = _scale_and_shift(emit, after, values)
            across = emit.constant([-1] + [1] * (len(shapes[after.input[0]]) - 1), np.int64)
            weight = emit.op("Mul", [node.input[1], emit.op("Reshape", [scale, across])])
            if len(node.input) > 2 and node.input[2]:
                shift = emit.op("Add", [emit.op("Mul", [scale, node.input[2]]), shift])
            del node.input[1:]
            node.input.extend([weight, shift])
            node.output[0] = after.output[0]
            graph.node.append(node)
        elif _is_affine(node, known, shapes) and node.input[0] not in normalized:
            scale, shift = _scale_and_shift(emit, node, values)
            across = emit.constant([1, -1] + [1] * (len(shapes[node.input[0]]) - 2), np.int64)
            product = emit.op("Mul", [node.input[0], emit.op("Reshape", [scale, across])])
            emit.op("Add", [product, emit.op("Reshape", [shift, across])], node.output[0])
        elif not _is_affine(node, known, shapes):
            graph.node.append(node)


def _is_affine(node: NodeProto, known: set[str], shapes: dict[str, tuple[int, ...]]) -> bool:
    training = any(a.name == "training_mode" and a.i for a in node.attribute)
    fixed = node.op_type == "BatchNormalization" and not training and known.issuperset(node.input[3:5])
    return fixed and node.input[0] in shapes


def _scale_and_shift(emit: Emitter, node: NodeProto, values: dict[str, TensorProto]) -> tuple[str, str]:
    """Tensors [C]: gamma / sqrt(variance + epsilon), and beta - mean * that."""
    mean, variance = (numpy_helper.to_array(values[name]).astype(np.float64) for name in node.input[3:5])
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    scale = emit.op("Mul", [node.input[1], emit.constant(1 / np.sqrt(variance + attributes.get("epsilon", 1e-5)))])
    return scale, emit.op("Sub", [node.input[2], emit.op("Mul", [scale, emit.constant(mean)])])


def _constants_first(graph: GraphProto) -> list[NodeProto]:
    """Copies of the nodes, in order, those that depend on no input in front."""
    moving = {v.name for v in graph.input}
    fixed, rest = list[NodeProto](), list[NodeProto]()
    for node in graph.node:
        copy = NodeProto.FromString(node.SerializeToString())
        if moving.intersection((*node.input, *captures(node))):
            moving.update(filter(None, node.output))
            rest.append(copy)
        else:
            fixed.append(copy)
    return fixed + rest
