"""Copies of models in which half precision is float32: gradients underflow in it, and CPUs run little of bfloat16."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, numpy_helper
from onnx.external_data_helper import uses_external_data

from .subgraphs import subgraphs

BFLOAT16 = TensorProto.BFLOAT16
HALF = (TensorProto.FLOAT16, BFLOAT16)
_SAYS_TYPE = ("to", "dtype", "output_dtype")  # attributes that hold an element type


def holds(proto: ModelProto, kind: int) -> bool:
    """Whether some weight, input, output or Cast of `proto` is of this element type."""
    graph = proto.graph
    kinds = {v.type.tensor_type.elem_type for v in (*graph.input, *graph.output)}
    kinds.update(t.data_type for t in _tensors(graph))
    return kind in kinds or any(attribute.i == kind for attribute in _saying(graph.node))


def widened(proto: ModelProto, kinds: Collection[int]) -> ModelProto:
    """A copy of `proto`, its weights inside it, with float32 in place of `kinds` throughout."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    widen(copy.graph, kinds)
    for function in copy.functions:
        _retype(function.node, kinds)
    return copy


def _retype(nodes: Iterable[NodeProto], kinds: Collection[int]) -> None:
    for attribute in _saying(nodes):
        if attribute.i in kinds:
            attribute.i = TensorProto.FLOAT


def widen(graph: GraphProto, kinds: Collection[int] = HALF) -> None:
    """Tensors, casts and declarations of `graph` and its bodies as float32 where they are of `kinds`, in place."""
    for tensor in _tensors(graph):
        if tensor.data_type in kinds and not uses_external_data(tensor):
            array = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    _retype(graph.node, kinds)
    for value in _values(graph):
        if value.type.tensor_type.elem_type in kinds:
            value.type.tensor_type.elem_type = TensorProto.FLOAT


def _saying(nodes: Iterable[NodeProto]) -> Iterator[AttributeProto]:
    """The attributes of nodes that name an element type, also in bodies."""
    for node in nodes:
        yield from (a for a in node.attribute if a.name in _SAYS_TYPE and a.type == AttributeProto.INT)
        for body in subgraphs(node):
            yield from _saying(body.node)


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
        for body in subgraphs(node):
            yield from _tensors(body)


def _values(graph: GraphProto) -> Iterator[ValueInfoProto]:
    yield from (*graph.input, *graph.output, *graph.value_info)
    for node in graph.node:
        for body in subgraphs(node):
            yield from _values(body)
