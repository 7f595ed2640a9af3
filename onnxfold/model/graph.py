"""A frozen, read-only view of an ONNX graph. The only module that imports onnx-graphsurgeon.

onnx-graphsurgeon reads a *skeleton* of the user's model (a copy without the weights and without what it cannot
carry), so nothing it loses or corrupts can reach the file that is written: edits are patched into the proto itself.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Protocol

import onnx
import onnx_graphsurgeon as gs
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto

from ..errors import ExecutionError, ModelError
from .dimensions import Dim, declarable
from .onnx_calls import asking_onnx
from .subgraphs import DEFAULT_DOMAINS, Body, captured_by_closed, every_initializer, every_node, opened, subgraphs

gs.logger.G_LOGGER.severity = logging.CRITICAL

MICROSOFT = "com.microsoft"
# What onnxruntime has in the default domain although onnx does not (or calls it deprecated: GroupNormalization with a
# scale per block): from which opset on, and the opset from which onnx does.
OWN_OPERATORS = {
    "SimplifiedLayerNormalization": (1, 1000), "LayerNormalization": (1, 17), "GroupNormalization": (18, 21)
}  # fmt: skip
_LARGE = 1024  # numbers: no longer list of floats gives a shape
LONGEST = 2**24  # an axis beyond counts as open: every position of an axis takes some bytes in the analysis
_GS_ATTRIBUTES = (AttributeProto.INT, AttributeProto.FLOAT, AttributeProto.INTS, AttributeProto.FLOATS)


class Names(Protocol):
    """What knows whether a tensor is one of its own, as a model's constants do."""

    def __contains__(self, name: str) -> bool: ...


@dataclass(frozen=True)
class TensorInfo:
    """A tensor's name, shape (None: rank unknown; a dimension that is no int: not fixed) and onnx element type."""

    name: str
    shape: tuple[Dim, ...] | None
    dtype: int

    @property
    def declarable(self) -> tuple[int | str | None, ...] | None:
        """The shape as a model can say it, see `dimensions.declarable`."""
        return None if self.shape is None else declarable(self.shape)


@dataclass(frozen=True)
class Node:
    """One node. `index` is its position in `every_node`; absent inputs are ''. `captures` are outer tensors that its
    bodies use, where their nodes are not in the graph themselves."""

    index: int
    op: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, Any]
    captures: tuple[str, ...]
    version: int

    @property
    def label(self) -> str:
        """The node's name, or its type and position where it has none."""
        return self.name or f"{self.op}#{self.index}"


@dataclass(frozen=True)
class Graph:
    """The main graph and its `opened` bodies: nodes in file order, bodies last (`main` of them are of the main graph),
    tensors by name, who makes and reads each tensor. `borders` says of a tensor why it is where a body begins or ends.
    """

    nodes: tuple[Node, ...]
    main: int
    tensors: Mapping[str, TensorInfo]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    producer: Mapping[str, int] = field(repr=False)
    consumers: Mapping[str, tuple[int, ...]] = field(repr=False)
    borders: Mapping[str, str] = field(repr=False, default_factory=dict)

    @property
    def main_nodes(self) -> tuple[Node, ...]:
        """The nodes of the main graph."""
        return self.nodes[: self.main]

    def in_body(self, index: int) -> bool:
        """Whether node number `index` is in the body of an If, Loop or Scan, which cannot be run alone."""
        return index >= self.main

    def tensor(self, name: str) -> TensorInfo:
        """The tensor called `name`; one that shape inference could not reach has no shape."""
        return self.tensors.get(name) or TensorInfo(name, None, TensorProto.UNDEFINED)


def skeleton(
    proto: ModelProto, input_shapes: Mapping[str, Sequence[Dim]] | None = None, keep: int = 1024
) -> ModelProto:
    """A copy of `proto` without weights: initializers over `keep` integers or 16 floats become typed inputs.

    `input_shapes` replaces the declared shapes of graph inputs. Metadata is left out; functions and nodes stay.
    """
    out = ModelProto(ir_version=max(proto.ir_version, 4))
    out.opset_import.extend(proto.opset_import)
    out.functions.extend(proto.functions)
    graph = out.graph
    graph.name = proto.graph.name or "graph"
    graph.node.extend(proto.graph.node)
    graph.output.extend(proto.graph.output)
    initialized = {t.name for t in proto.graph.initializer}
    initialized |= {t.values.name for t in proto.graph.sparse_initializer}
    graph.value_info.extend(v for v in proto.graph.value_info if v.name not in initialized)  # weights know their shape
    for value in proto.graph.input:
        if value.name in initialized:
            continue
        graph.input.append(value)
        if input_shapes and value.name in input_shapes:
            set_shape(graph.input[-1], input_shapes[value.name])
            # declared intermediate shapes may contradict the given one: let inference find them again
            del graph.value_info[:]
    for value in [*graph.input, *graph.output, *graph.value_info]:
        for dim in impossible(value):
            dim.ClearField("dim_value")
    for tensor in proto.graph.initializer:
        size = 1
        for d in tensor.dims:
            size *= d
        integer = tensor.data_type in (TensorProto.INT64, TensorProto.INT32)
        if size <= (keep if integer else 16) and tensor.data_location != TensorProto.EXTERNAL:
            graph.initializer.append(tensor)
        else:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    for sparse in proto.graph.sparse_initializer:
        graph.input.append(onnx.helper.make_tensor_value_info(sparse.values.name, sparse.values.data_type, sparse.dims))
    return plain_domains(out)


def hollow(proto: ModelProto) -> ModelProto:
    """The skeleton of `proto`, in which Constant nodes and bodies hold no large floats either, only their shapes: all
    that inference looks at."""
    out = skeleton(proto)
    for node in _all_nodes(out):
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                _empty(attribute.t)
        for tensor in (tensor for body in subgraphs(node) for tensor in body.initializer):
            _empty(tensor)
    return out


def _empty(tensor: TensorProto) -> None:
    """Take the values out of a tensor of many floats: it says that they are elsewhere."""
    if (
        tensor.data_type in (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)
        and math.prod(tensor.dims) > _LARGE
    ):
        stub = TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
        stub.data_location = TensorProto.EXTERNAL
        tensor.CopyFrom(stub)


def plain_domains(proto: ModelProto) -> ModelProto:
    """`proto`, or a copy that onnx's checker and inference take too, where onnxruntime is more generous: without
    "ai.onnx" spelled out in nodes, and with onnxruntime's own operators of the default domain in com.microsoft."""
    opset = max((o.version for o in proto.opset_import if o.domain in DEFAULT_DOMAINS), default=1)
    if not any(node.domain == "ai.onnx" or _is_own(node, opset) for node in _all_nodes(proto)):
        return proto
    copy = ModelProto()
    copy.CopyFrom(proto)
    for node in _all_nodes(copy):
        if _is_own(node, opset):
            node.domain = MICROSOFT
        elif node.domain == "ai.onnx":
            node.ClearField("domain")
    if all(o.domain != MICROSOFT for o in copy.opset_import):
        copy.opset_import.append(onnx.helper.make_opsetid(MICROSOFT, 1))
    return copy


def deprecated(proto: ModelProto) -> str:
    """The operator of `proto` that onnx calls deprecated, though onnxruntime runs it, in words; '' if there is none."""
    opset = max((o.version for o in proto.opset_import if o.domain in DEFAULT_DOMAINS), default=1)
    old = any(node.op_type == "GroupNormalization" and _is_own(node, opset) for node in _all_nodes(proto))
    return f"GroupNormalization of opset {opset}" if old else ""


def _is_own(node: NodeProto, opset: int) -> bool:
    first, end = OWN_OPERATORS.get(node.op_type, (0, 0))
    return node.domain in DEFAULT_DOMAINS and first <= opset < end


def _all_nodes(proto: ModelProto) -> Iterator[NodeProto]:
    """Nodes of the graph and of functions, and those of bodies at any depth."""
    waiting = [*proto.graph.node, *(node for function in proto.functions for node in function.node)]
    while waiting:
        yield (node := waiting.pop())
        waiting.extend(inner for body in subgraphs(node) for inner in body.node)


def impossible(value: onnx.ValueInfoProto) -> list[onnx.TensorShapeProto.Dimension]:
    """Declared lengths that no tensor has: -1, which some exporters write for open ones, and absurdly large ones.

    onnx's own inference ends the whole process where a Slice meets the former, and may count up to the latter.
    """
    return [d for d in value.type.tensor_type.shape.dim if not 0 <= d.dim_value <= LONGEST]


def read_graph(model: ModelProto, whole: Sequence[NodeProto] | None = None) -> Graph:
    """The view of `model`, a skeleton; attributes from `whole`, the nodes of the model that it is of."""
    versions = {("" if o.domain == "ai.onnx" else o.domain): o.version for o in model.opset_import}
    nodes, producer, consumers = list[Node](), dict[str, int](), dict[str, list[int]]()
    bodies = opened(model)
    borders: dict[str, str] = {}
    for body in bodies:
        op = body.owner.op_type
        borders.update((v.name, f"values that {op} passes into its body") for v in body.graph.input)
        borders.update((v.name, f"values that {op} returns from its body") for v in body.graph.output)
    protos = every_node(model, bodies)
    for node, proto, full in zip(_import(model, protos).nodes, protos, whole or protos, strict=True):
        index = len(nodes)
        inputs, outputs = tuple(t.name for t in node.inputs), tuple(t.name for t in node.outputs)
        domain = "" if proto.domain in DEFAULT_DOMAINS else proto.domain
        nodes.append(
            Node(
                index, node.op, domain, node.name, inputs, outputs, MappingProxyType(_attributes(full)),
                tuple(sorted(set(captured_by_closed(proto, bodies)))), versions.get(domain, 1),
            )
        )  # fmt: skip
        producer.update(dict.fromkeys(filter(None, outputs), index))
        for name in filter(None, dict.fromkeys(inputs)):
            consumers.setdefault(name, []).append(index)
    return Graph(
        tuple(nodes), len(model.graph.node), _tensors(model, model, bodies),
        tuple(v.name for v in model.graph.input), tuple(v.name for v in model.graph.output), MappingProxyType(producer),
        MappingProxyType({name: tuple(at) for name, at in consumers.items()}), MappingProxyType(borders),
    )  # fmt: skip


def reshaped(graph: Graph, model: ModelProto, inferred: ModelProto, bodies: Sequence[Body]) -> Graph:
    """The same view of `model`, a skeleton with these `opened` bodies, with shapes from another inference."""
    return replace(graph, tensors=_tensors(model, inferred, bodies))


def _tensors(model: ModelProto, inferred: ModelProto, bodies: Sequence[Body]) -> Mapping[str, TensorInfo]:
    tensors = {}
    shapes = inferred.graph
    for value in [*shapes.input, *shapes.value_info, *shapes.output]:
        if value.type.HasField("tensor_type"):
            tensors[value.name] = TensorInfo(value.name, shape_of(value), value.type.tensor_type.elem_type)
    for body in bodies:
        for value in [*body.graph.input, *body.graph.value_info, *body.graph.output]:
            if value.type.HasField("tensor_type"):
                info = TensorInfo(value.name, shape_of(value), value.type.tensor_type.elem_type)
                tensors.setdefault(value.name, info)
    for tensor in every_initializer(model, bodies):
        tensors[tensor.name] = TensorInfo(tensor.name, tuple(tensor.dims), tensor.data_type)
    return MappingProxyType(tensors)


def _import(model: ModelProto, nodes: Sequence[NodeProto]) -> Any:
    """onnx-graphsurgeon's graph of a sanitised copy with these `nodes`: only attributes and types that it is known to
    read faithfully."""
    copy = ModelProto(ir_version=model.ir_version)
    copy.opset_import.extend(o for o in model.opset_import if o.domain != "ai.onnx")
    if len(copy.opset_import) < len(model.opset_import):
        copy.opset_import.append(onnx.helper.make_opsetid("", max(o.version for o in model.opset_import)))
    copy.graph.name = model.graph.name
    for values, shown in ((model.graph.input, copy.graph.input), (model.graph.output, copy.graph.output)):
        for value in values:
            shown.add(name=value.name).type.tensor_type.elem_type = TensorProto.FLOAT
    for node in nodes:
        clean = copy.graph.node.add(op_type=node.op_type, name=node.name)
        clean.input.extend(node.input)
        clean.output.extend(node.output)
        clean.attribute.extend(a for a in node.attribute if _readable(a))
    try:
        with asking_onnx():
            return gs.import_onnx(copy)
    except (ExecutionError, gs.util.exception.OnnxGraphSurgeonException) as error:
        raise ModelError(f"onnx-graphsurgeon cannot read this graph: {error}") from error


def _readable(attribute: AttributeProto) -> bool:
    if attribute.ref_attr_name or attribute.type not in _GS_ATTRIBUTES:
        return False
    return attribute.type in (AttributeProto.INT, AttributeProto.FLOAT) or bool(attribute.ints or attribute.floats)


def _attributes(node: NodeProto) -> dict[str, Any]:
    """Attribute values as Python ones (strings decoded); graphs, tensors and references stay protos."""
    values: dict[str, Any] = {}
    for attribute in node.attribute:
        if attribute.ref_attr_name:
            continue
        value = onnx.helper.get_attribute_value(attribute)
        values[attribute.name] = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return values


def shape_of(value: onnx.ValueInfoProto) -> tuple[Dim, ...] | None:
    """The declared shape of a tensor; None if it has none."""
    return dims_of(value.type.tensor_type) if value.type.HasField("tensor_type") else None


def dims_of(kind: onnx.TypeProto.Tensor) -> tuple[Dim, ...] | None:
    """The dimensions of a tensor type; lengths that no tensor has count as open."""
    if not kind.HasField("shape"):
        return None
    dims: list[Dim] = []
    for d in kind.shape.dim:
        if d.HasField("dim_value") and 0 <= d.dim_value <= LONGEST:
            dims.append(d.dim_value)
        else:
            name: str | bytes = d.dim_param  # protobuf gives bytes where it is no UTF-8 text
            dims.append((name.decode() if isinstance(name, bytes) else name) or None)
    return tuple(dims)


def set_shape(value: onnx.ValueInfoProto, shape: Sequence[Dim]) -> None:
    """Declare a tensor's shape."""
    kind = value.type.tensor_type.elem_type
    value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, kind, declarable(shape)))
