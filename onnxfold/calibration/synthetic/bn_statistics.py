"""BatchNormalization removed from a graph, its statistics kept: what means and variances its outputs should have.

A normalization is affine per channel, so its input having the running mean m and variance v is the same as its output
having the mean beta and the variance gamma^2 (epsilon counts as part of v). The loss is put on the output, and the node
is folded into the convolution before it, or becomes a product and a sum: one pass less forward and back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from ...errors import ModelError
from ...model.constants import Constants
from ...model.model import Model
from ...runtime.autodiff.prepare import shapes_of
from .loss import ChannelStatistics

Floats = NDArray[np.float64]


def take_out(graph: GraphProto, model: Model) -> list[ChannelStatistics]:
    """Replace every BatchNormalization of fixed parameters in `graph` (a copy of the model's), in place."""
    layers: list[ChannelStatistics] = []
    consumers = Counter(name for node in graph.node for name in node.input)
    consumers.update(v.name for v in graph.output)
    producers = {name: node for node in graph.node for name in node.output}
    shapes = shapes_of(graph)
    nodes: list[NodeProto] = []
    for node in graph.node:
        affine = _affine(node, model.constants)
        if affine is None:
            nodes.append(node)
            continue
        scale, shift, mean, variance = affine
        layers.append(ChannelStatistics(node.output[0], mean, variance))
        producer = producers.get(node.input[0])
        if (
            producer is not None
            and consumers[node.input[0]] == 1
            and _fold(graph, producer, scale, shift, model.constants)
        ):
            producer.output[0] = node.output[0]
        else:
            nodes += _spelled_out(graph, node, scale, shift, shapes.get(node.output[0], ()))
    copies = [NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    return layers


def _affine(node: NodeProto, constants: Constants) -> tuple[Floats, Floats, Floats, Floats] | None:
    """(scale, shift, mean and variance of the output) of a BatchNormalization, each [C]; None if it is not that."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type != "BatchNormalization" or node.domain or attributes.get("training_mode", 0):
        return None
    if node.input[0] in constants or not all(name in constants for name in node.input[1:5]):
        return None
    try:
        gamma, beta, mean, variance = (constants.array(name).astype(np.float64) for name in node.input[1:5])
    except ModelError:
        return None
    variance = variance + float(attributes.get("epsilon", 1e-5))
    if not all(np.isfinite(a).all() for a in (gamma, beta, mean, variance)) or not (variance > 0).all():
        return None
    scale = gamma / np.sqrt(variance)
    return scale, beta - mean * scale, beta, np.square(gamma)


def _fold(graph: GraphProto, producer: NodeProto, scale: Floats, shift: Floats, constants: Constants) -> bool:
    """Scale and shift into the weight and bias of a Conv, in place; False where that cannot be."""
    if producer.op_type != "Conv" or not all(name in constants for name in producer.input[1:]):
        return False
    weight = constants.array(producer.input[1]).astype(np.float64)
    bias = (
        constants.array(producer.input[2]).astype(np.float64) if len(producer.input) > 2 and producer.input[2] else 0.0
    )
    folded = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    names = [_added(graph, producer.output[0], a) for a in (folded, bias * scale + shift)]
    del producer.input[1:]
    producer.input.extend(names)
    return True


def _spelled_out(
    graph: GraphProto, node: NodeProto, scale: Floats, shift: Floats, shape: Sequence[int]
) -> list[NodeProto]:
    across = (1, -1) + (1,) * (len(shape) - 2)
    times, plus = (_added(graph, node.output[0], a.reshape(across)) for a in (scale, shift))
    product = f"{node.output[0]}_scaled"
    graph.value_info.append(helper.make_tensor_value_info(product, TensorProto.FLOAT, shape or None))
    return [
        helper.make_node("Mul", [node.input[0], times], [product]),
        helper.make_node("Add", [product, plus], [node.output[0]]),
    ]


def _added(graph: GraphProto, near: str, array: Floats) -> str:
    name = f"{near}_onnxfold{len(graph.initializer)}"
    with np.errstate(over="ignore"):  # of a broken model: what is infinite will be seen
        narrow = np.ascontiguousarray(array, np.float32)
    graph.initializer.append(numpy_helper.from_array(narrow, name))
    return name
