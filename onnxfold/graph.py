"""A frozen, read-only view of an ONNX graph. The only module that imports onnx-graphsurgeon.

onnx-graphsurgeon reads a *skeleton* of the user's model (a copy without the weights and without what it cannot
carry), so nothing it loses or corrupts can reach the file that is written: edits are patched into the proto itself.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from .errors import ModelError

gs.logger.G_LOGGER.severity = logging.CRITICAL

Dim = int | str | None
DEFAULT_DOMAINS = ("", "ai.onnx")
HOLDERS = ("If", "Loop", "Scan")  # operators with bodies
SAME_LIST = ("Cast", "Identity")  # operators that leave the numbers of a list as they are
LONGEST = 2**24  # an axis beyond counts as open: every position of an axis takes some bytes in the analysis
_GS_ATTRIBUTES = (AttributeProto.INT, AttributeProto.FLOAT, AttributeProto.INTS, AttributeProto.FLOATS)


@dataclass(frozen=True)
class TensorInfo:
    """A tensor's name, shape (None: rank unknown; a str or None dimension: not fixed) and onnx element type."""

    name: str
    shape: tuple[Dim, ...] | None
    dtype: int


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
    """The main graph and its `opened` bodies: nodes in file order, bodies last, tensors by name, who makes and reads
    each tensor. `borders` says of a tensor why it is where a body begins or ends."""

    nodes: tuple[Node, ...]
    tensors: Mapping[str, TensorInfo]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    producer: Mapping[str, int] = field(repr=False)
    consumers: Mapping[str, tuple[int, ...]] = field(repr=False)
    borders: Mapping[str, str] = field(repr=False, default_factory=dict)

    def tensor(self, name: str) -> TensorInfo:
        """The tensor called `name`; one that shape inference could not reach has no shape."""
        return self.tensors.get(name) or TensorInfo(name, None, TensorProto.UNDEFINED)


def skeleton(
    proto: ModelProto, input_shapes: Mapping[str, Sequence[int]] | None = None, keep: int = 1024
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
    initialised = {t.name for t in proto.graph.initializer}
    initialised |= {t.values.name for t in proto.graph.sparse_initializer}
    graph.value_info.extend(v for v in proto.graph.value_info if v.name not in initialised)  # weights know their shape
    for value in proto.graph.input:
        if value.name in initialised:
            continue
        graph.input.append(value)
        if input_shapes and value.name in input_shapes:
            _set_shape(graph.input[-1], input_shapes[value.name])
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


def plain_domains(proto: ModelProto) -> ModelProto:
    """`proto`, or a copy without "ai.onnx" spelled out in nodes: onnxruntime takes it, checker and inference do not."""
    if not any(node.domain == "ai.onnx" for node in _all_nodes(proto)):
        return proto
    copy = ModelProto()
    copy.CopyFrom(proto)
    for node in _all_nodes(copy):
        if node.domain == "ai.onnx":
            node.ClearField("domain")
    return copy


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


def consistent(bare: ModelProto) -> ModelProto:
    """`bare` (a skeleton) without declared shapes that contradict what its operators give; the rest fill gaps."""
    graph = bare.graph
    free = ModelProto()
    free.CopyFrom(bare)
    del free.graph.value_info[:]
    for value in free.graph.output:
        value.type.tensor_type.ClearField("shape")
    found = infer_shapes(free).graph
    inferred = {v.name: _shape(v) for v in [*found.value_info, *found.output]}
    kept = [v for v in graph.value_info if _agree(_shape(v), inferred.get(v.name))]
    if len(kept) < len(graph.value_info):
        kept = [onnx.ValueInfoProto.FromString(v.SerializeToString()) for v in kept]
        del graph.value_info[:]
        graph.value_info.extend(kept)
    for value in graph.output:
        if not _agree(_shape(value), inferred.get(value.name)):
            value.type.tensor_type.ClearField("shape")
    return bare


def _agree(declared: tuple[Dim, ...] | None, inferred: tuple[Dim, ...] | None) -> bool:
    if declared is None or inferred is None:
        return True
    fits = all(
        a == b or not (isinstance(a, int) and isinstance(b, int)) for a, b in zip(declared, inferred, strict=False)
    )
    return fits and len(declared) == len(inferred)


def infer_shapes(model: ModelProto, known: Mapping[str, NDArray[Any]] | None = None) -> ModelProto:
    """Shape inference with data propagation; a model it cannot handle comes back as it was.

    `known` are computed constants (by tensor name): inference sees them as Constant nodes in place of their makers.
    """
    if known:
        nodes = [n for n in model.graph.node if not (n.output and all(not o or o in known for o in n.output))]
        named = {name for n in nodes for name in n.output}
        values = [(name, numpy_helper.from_array(np.asarray(value, order="C"))) for name, value in known.items()]
        front = [onnx.helper.make_node("Constant", [], [name], value=v) for name, v in values if name not in named]
        copy = ModelProto()
        copy.CopyFrom(model)
        del copy.graph.node[:]
        copy.graph.node.extend([*front, *nodes])
        model = copy
    try:
        return onnx.shape_inference.infer_shapes(model, check_type=False, strict_mode=False, data_prop=True)
    except Exception:  # inference raises bare RuntimeErrors; without shapes more is refused, with reasons
        return model


def infer_node(
    graph: Graph, node: Node, proto: NodeProto, data: Mapping[str, TensorProto]
) -> dict[str, tuple[tuple[Dim, ...] | None, int]]:
    """Shapes and element types of the outputs of one node, from those of its inputs and the values in `data`.

    Empty where there is no schema for it, or inference fails.
    """
    types = {}
    for name in filter(None, node.inputs):
        info = graph.tensor(name)
        types[name] = onnx.helper.make_tensor_type_proto(info.dtype, info.shape)
    try:
        schema = onnx.defs.get_schema(node.op, node.version, node.domain)
        found = onnx.shape_inference.infer_node_outputs(schema, proto, types, dict(data))
    except Exception:  # SchemaError, InferenceError, bare RuntimeErrors
        return {}
    return {
        name: (_dims(kind.tensor_type), kind.tensor_type.elem_type)
        for name, kind in found.items()
        if kind.HasField("tensor_type")
    }


def contradiction(proto: ModelProto) -> str:
    """Why strict shape inference refuses `proto`, in one line; '' if it does not."""
    try:
        onnx.shape_inference.infer_shapes(skeleton(proto), check_type=True, strict_mode=True, data_prop=True)
    except Exception as error:  # InferenceError and bare RuntimeErrors alike
        return " ".join(str(error).split())[:300] or type(error).__name__
    return ""


def read_graph(model: ModelProto, inferred: ModelProto | None = None) -> Graph:
    """The view of `model`, a skeleton; shapes from `inferred`, the same model after shape inference."""
    versions = {("" if o.domain == "ai.onnx" else o.domain): o.version for o in model.opset_import}
    nodes, producer, readers = [], {}, dict[str, list[int]]()
    bodies = opened(model)
    borders: dict[str, str] = {}
    for body in bodies:
        op = body.holder.op_type
        borders.update((v.name, f"what {op} gives to its body") for v in body.graph.input)
        borders.update((v.name, f"what {op} takes from its body") for v in body.graph.output)
    for index, (node, proto) in enumerate(zip(_import(model).nodes, every_node(model), strict=True)):
        inputs, outputs = tuple(t.name for t in node.inputs), tuple(t.name for t in node.outputs)
        domain = "" if proto.domain in DEFAULT_DOMAINS else proto.domain
        nodes.append(
            Node(
                index, node.op, domain, node.name, inputs, outputs, MappingProxyType(_attributes(proto)),
                tuple(sorted(set(_captured(proto, bodies)))), versions.get(domain, 1),
            )
        )  # fmt: skip
        producer.update(dict.fromkeys(filter(None, outputs), index))
        for name in filter(None, dict.fromkeys(inputs)):
            readers.setdefault(name, []).append(index)
    return Graph(
        tuple(nodes), _tensors(model, inferred or model), tuple(v.name for v in model.graph.input),
        tuple(v.name for v in model.graph.output), MappingProxyType(producer),
        MappingProxyType({name: tuple(at) for name, at in readers.items()}), MappingProxyType(borders),
    )  # fmt: skip


def reshaped(graph: Graph, model: ModelProto, inferred: ModelProto) -> Graph:
    """The same view of `model`, a skeleton, with shapes from another inference."""
    return replace(graph, tensors=_tensors(model, inferred))


def _tensors(model: ModelProto, inferred: ModelProto) -> Mapping[str, TensorInfo]:
    tensors = {}
    shapes = inferred.graph
    for value in [*shapes.input, *shapes.value_info, *shapes.output]:
        if value.type.HasField("tensor_type"):
            tensors[value.name] = TensorInfo(value.name, _shape(value), value.type.tensor_type.elem_type)
    for body in opened(model):
        for value in [*body.graph.input, *body.graph.value_info, *body.graph.output]:
            if value.type.HasField("tensor_type"):
                tensors.setdefault(value.name, TensorInfo(value.name, _shape(value), value.type.tensor_type.elem_type))
    for tensor in every_initializer(model):
        tensors[tensor.name] = TensorInfo(tensor.name, tuple(tensor.dims), tensor.data_type)
    return MappingProxyType(tensors)


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The bodies (If branches, Loop and Scan bodies) that `node` holds."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from attribute.graphs


@dataclass(frozen=True)
class Body:
    """A body (`graph`) of an If, Loop or Scan (`holder`)."""

    graph: GraphProto
    holder: NodeProto


def opened(proto: ModelProto) -> list[Body]:
    """The bodies that are seen as parts of the main graph, outer ones first: nothing else has a name that is theirs."""
    if not any(True for node in proto.graph.node for _ in subgraphs(node)):
        return []
    names = Counter(_defined(proto.graph))
    waiting = [(node, body) for node in proto.graph.node for body in subgraphs(node)]
    everything = list(waiting)
    while everything:
        _, body = everything.pop()
        names.update(_defined(body))
        everything += [(node, inner) for node in body.node for inner in subgraphs(node)]
    found = list[Body]()
    while waiting:
        holder, body = waiting.pop(0)
        mine = holder.domain in DEFAULT_DOMAINS and holder.op_type in HOLDERS and not body.sparse_initializer
        if mine and all(names[name] == 1 for name in _defined(body)):
            found.append(Body(body, holder))
            waiting += [(node, inner) for node in body.node for inner in subgraphs(node)]
    return found


def _defined(graph: GraphProto) -> list[str]:
    """The names that a graph gives to tensors; an initializer that is also an input counts once."""
    given = {v.name for v in graph.input} | {t.name for t in graph.initializer}
    return [*given, *(name for node in graph.node for name in node.output if name)]


def every_node(proto: ModelProto) -> list[NodeProto]:
    """The nodes of the main graph, then those of `opened` bodies."""
    return [*proto.graph.node, *(node for body in opened(proto) for node in body.graph.node)]


def every_initializer(proto: ModelProto) -> list[TensorProto]:
    """The initializers of the main graph, then those of `opened` bodies."""
    return [*proto.graph.initializer, *(tensor for body in opened(proto) for tensor in body.graph.initializer)]


def _captured(node: NodeProto, bodies: Sequence[Body]) -> Iterator[str]:
    """What the bodies of `node` that are not opened use of outer tensors."""
    for body in subgraphs(node):
        if not any(body is one.graph for one in bodies):  # protobuf gives the same object as long as it is held
            yield from _used_outside(body)


def captures(node: NodeProto) -> Iterator[str]:
    """Names of outer tensors that the bodies of `node` use."""
    for body in subgraphs(node):
        yield from _used_outside(body)


def _used_outside(body: GraphProto) -> Iterator[str]:
    own = {t.name for t in body.initializer} | {v.name for v in body.input}
    own |= {name for inner in body.node for name in inner.output}
    for inner in body.node:
        yield from (name for name in [*inner.input, *captures(inner)] if name and name not in own)
    yield from (v.name for v in body.output if v.name not in own)


def _import(model: ModelProto) -> Any:
    """onnx-graphsurgeon's graph of a sanitised copy: only attributes and types that it is known to read faithfully."""
    copy = ModelProto(ir_version=model.ir_version)
    copy.opset_import.extend(o for o in model.opset_import if o.domain != "ai.onnx")
    if len(copy.opset_import) < len(model.opset_import):
        copy.opset_import.append(onnx.helper.make_opsetid("", max(o.version for o in model.opset_import)))
    copy.graph.name = model.graph.name
    for values, shown in ((model.graph.input, copy.graph.input), (model.graph.output, copy.graph.output)):
        for value in values:
            shown.add(name=value.name).type.tensor_type.elem_type = TensorProto.FLOAT
    for node in every_node(model):
        clean = copy.graph.node.add(op_type=node.op_type, name=node.name)
        clean.input.extend(node.input)
        clean.output.extend(node.output)
        clean.attribute.extend(a for a in node.attribute if _readable(a))
    try:
        return gs.import_onnx(copy)
    except Exception as error:
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


def _shape(value: onnx.ValueInfoProto) -> tuple[Dim, ...] | None:
    return _dims(value.type.tensor_type) if value.type.HasField("tensor_type") else None


def _dims(kind: onnx.TypeProto.Tensor) -> tuple[Dim, ...] | None:
    if not kind.HasField("shape"):
        return None
    dims: list[Dim] = []
    for d in kind.shape.dim:
        if d.HasField("dim_value") and 0 <= d.dim_value <= LONGEST:
            dims.append(d.dim_value)
        else:
            dims.append(d.dim_param or None)
    return tuple(dims)


def _set_shape(value: onnx.ValueInfoProto, shape: Sequence[int]) -> None:
    kind = value.type.tensor_type.elem_type
    value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, kind, list(shape)))
