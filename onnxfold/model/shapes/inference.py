"""Shape inference by onnx: of whole models, of one node, and where declared shapes contradict it."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper
from onnx.external_data_helper import uses_external_data

from ...errors import ExecutionError
from ..dimensions import Dim
from ..external_data import tensor_array
from ..graph import LONGEST, Graph, Node, dims_of, impossible, set_shape, shape_of, skeleton
from ..onnx_calls import asking_onnx
from ..quantized.detect import packed_weight
from ..subgraphs import captures, subgraphs

_LIST = 1024  # numbers: longer constants give no shapes
_schema = lru_cache(1024)(onnx.defs.get_schema)
_ENDS = (2**31 - 1, 2**31, 2**63 - 1, 2**63)
# what can leave a length below 0: a window larger than what it moves over, negative pads
_WINDOWED = (
    "Conv", "ConvInteger", "QLinearConv", "FusedConv", "ConvTranspose", "DeformConv", "AveragePool", "MaxPool",
    "LpPool", "QLinearAveragePool", "Pad",
)  # fmt: skip
_TAKE_LENGTHS = ("Reshape", "ConstantOfShape", "Expand", "Tile", "Resize", "Split", "Range", "Pad")


def with_shapes(model: ModelProto) -> ModelProto:
    """The model with the shapes that onnx infers; values are followed unless some would become lists without end.
    Raises ExecutionError where onnx refuses it."""
    with asking_onnx():
        return onnx.shape_inference.infer_shapes(model, data_prop=not _absurd_constants(model))


def infer_shapes(
    model: ModelProto, known: Mapping[str, NDArray[Any]] | None = None, follow: bool | None = None
) -> ModelProto:
    """Shape inference with data propagation; a model it cannot handle comes back as it was.

    `known` are computed constants (by tensor name): inference sees them as Constant nodes in place of their producers.
    `follow`: whether values may be propagated (None: to be found out).
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
    if follow is None:
        follow = not any(absurd(value) for value in (known or {}).values()) and not _absurd_constants(model)
    try:
        with asking_onnx():
            return onnx.shape_inference.infer_shapes(model, check_type=False, strict_mode=False, data_prop=follow)
    except ExecutionError:  # without shapes more is refused, with reasons
        return model


class Bounds:
    """Says of a skeleton `bare` whether lengths come out below 0, at any shapes of its inputs.

    Where a Slice cuts such a tensor, inference ends the whole process, onnx's and onnxruntime's: so what leads to a
    Slice is looked at without it first.
    """

    def __init__(self, bare: ModelProto) -> None:
        stages = _stages(bare)
        self._follow = None if _absurd_constants(bare) else True  # then it may of every part
        self._parts = [_until(bare, stages, last) for last in sorted(set(stages))]
        self._inputs = {value.name: value for value in bare.graph.input}

    def negative(self, shapes: Mapping[str, Sequence[int]] | None = None) -> str:
        """A tensor whose length comes out below 0 (a kernel larger than its image, a scale that is no length) at these
        `shapes` (None: those of `bare`), in words; '' if there is none, or an input has length 0."""
        for part in self._parts:
            for value in part.graph.input:
                value.CopyFrom(self._inputs[value.name])  # without the shapes of the call before
                if shapes and value.name in shapes:
                    set_shape(value, shapes[value.name])
                    for dim in impossible(value):
                        dim.ClearField("dim_value")
            if any(d.HasField("dim_value") and d.dim_value < 1 for d in _declared_dims(part.graph.input)):
                return ""
            inferred = infer_shapes(part, follow=self._follow).graph
            for value in [*inferred.value_info, *inferred.output]:
                for dim in value.type.tensor_type.shape.dim:
                    if dim.dim_value < 0:
                        return _impossible(part, value.name, dim.dim_value)
        return ""


def negative(bare: ModelProto) -> str:
    """What `Bounds` says of `bare` as it is."""
    return Bounds(bare).negative()


def _declared_dims(values: Iterable[onnx.ValueInfoProto]) -> Iterator[onnx.TensorShapeProto.Dimension]:
    return (dim for value in values for dim in value.type.tensor_type.shape.dim)


def _until(bare: ModelProto, stages: Sequence[int], last: int) -> ModelProto:
    """The part of `bare` up to a stage."""
    part = _undeclared(bare)
    del part.graph.node[:]
    part.graph.node.extend(n for n, stage in zip(bare.graph.node, stages, strict=True) if stage <= last)
    return part


def _impossible(bare: ModelProto, name: str, length: int) -> str:
    """Why a tensor cannot have its length, in words."""
    op = next((node.op_type for node in bare.graph.node if name in node.output), "")
    if op in ("Resize", "Upsample"):
        return f"{op} gives '{name}' an impossible length: its scales must be numbers above 0, not infinite or huge"
    why = "pads below zero that take away more than there is" if op == "Pad" else "a kernel larger than its input"
    return f"'{name}' would be {length} long ({why})"


def _stages(bare: ModelProto) -> list[int]:
    """By node of the main graph: how many times windows, and then a Slice of what they give, lie before it. (Bodies and
    functions may hold a Slice.)"""
    functions = {(f.domain, f.name) for f in bare.functions}
    stage_of, windowed, stages = dict[str, int](), set[str](), []
    for node in bare.graph.node:
        names = [*node.input, *captures(node)]
        stage = max((stage_of.get(name, 0) for name in names), default=0)
        seen = any(name in windowed and stage_of[name] == stage for name in names)
        if seen and (node.op_type == "Slice" or (node.domain, node.op_type) in functions or any(subgraphs(node))):
            stage, seen = stage + 1, False
        stage_of.update((name, stage) for name in node.output)
        windowed.update(node.output if seen or node.op_type in _WINDOWED else ())
        stages.append(stage)
    return stages


def _undeclared(bare: ModelProto) -> ModelProto:
    """A copy of `bare` that says the shapes of its inputs only."""
    free = ModelProto()
    free.CopyFrom(bare)
    del free.graph.value_info[:]
    for value in free.graph.output:
        value.type.tensor_type.ClearField("shape")
    return free


def absurd(value: NDArray[Any], ends: Container[int] = _ENDS) -> bool:
    """Whether integers are lengths that no tensor has, and none of `ends`, which stand for "to the end".

    onnx's data propagation makes lists as long as they say.
    """
    large = np.abs(value.astype(np.float64)) > LONGEST if value.dtype.kind in "iu" else np.zeros(0, bool)
    return bool(large.any()) and any(abs(int(v)) not in ends for v in value[large].ravel())


def _absurd_constants(model: ModelProto) -> bool:
    """Whether a constant of the main graph is `absurd`, or "to the end" where a length is asked for."""
    integers = (TensorProto.INT64, TensorProto.INT32)
    held = {t.name: t for t in model.graph.initializer if t.data_type in integers}
    for node in model.graph.node:
        if node.op_type == "Constant":
            held.update(
                (node.output[0], a.t) for a in node.attribute if a.name == "value" and a.t.data_type in integers
            )
    lengths = {name for node in model.graph.node if node.op_type in _TAKE_LENGTHS for name in node.input}
    inside = {name: t for name, t in held.items() if not uses_external_data(t)}  # others are read elsewhere, or refused
    short = {name: tensor_array(t, None) for name, t in inside.items() if math.prod(t.dims) <= _LIST}
    return any(absurd(value, () if name in lengths else _ENDS) for name, value in short.items())


Outcome = tuple[tuple[Dim, ...] | None, int]  # shape and element type


class NodeMemo(dict[object, list[Outcome | None]]):
    """What onnx said of the outputs of nodes, by all but the names: the layers of a model are alike."""


def infer_node(
    graph: Graph, node: Node, proto: NodeProto, data: Mapping[str, TensorProto], memo: NodeMemo | None = None
) -> dict[str, Outcome]:
    """Shapes and element types of the outputs of one node, from those of its inputs and the values in `data`.

    Empty where there is no schema for it, or inference fails. `memo`: what was found before.
    """
    if packed_weight(node) is not None:  # no operator of onnx, but like one
        a = graph.tensor(node.inputs[0])
        return {node.outputs[0]: (None if not a.shape else (*a.shape[:-1], node.attrs["N"]), a.dtype)}
    if memo is None:
        return _inferred(graph, node, proto, data)
    if (key := _memo_key(graph, node, proto, data)) not in memo:
        found = _inferred(graph, node, proto, data)
        memo[key] = [found.get(name) for name in node.outputs]
    return {name: one for name, one in zip(node.outputs, memo[key], strict=True) if one is not None}


def _memo_key(graph: Graph, node: Node, proto: NodeProto, data: Mapping[str, TensorProto]) -> object:
    """All that the shapes of a node's outputs depend on."""
    inputs = [
        (info.dtype, info.declarable, _content(data.get(info.name))) if info.name else None
        for info in map(graph.tensor, node.inputs)
    ]
    attributes = (attribute.SerializeToString(deterministic=True) for attribute in proto.attribute)
    return node.domain, node.op, node.version, *attributes, *inputs, *map(bool, node.outputs)


def _content(tensor: TensorProto | None) -> object:
    if tensor is None:
        return None
    return tensor.data_type, *tensor.dims, tensor.raw_data or tensor.SerializeToString()


def _inferred(graph: Graph, node: Node, proto: NodeProto, data: Mapping[str, TensorProto]) -> dict[str, Outcome]:
    types = {}
    for name in filter(None, node.inputs):
        info = graph.tensor(name)
        types[name] = onnx.helper.make_tensor_type_proto(info.dtype, info.declarable)
    try:
        with asking_onnx():
            schema = _schema(node.op, node.version, node.domain)
            found = onnx.shape_inference.infer_node_outputs(schema, proto, types, dict(data))
    except ExecutionError:
        return {}
    return {
        name: (dims_of(kind.tensor_type), kind.tensor_type.elem_type)
        for name, kind in found.items()
        if kind.HasField("tensor_type")
    }


def consistent(bare: ModelProto) -> ModelProto:
    """`bare` (a skeleton) without declared shapes that contradict what its operators give; the rest fill gaps."""
    graph = bare.graph
    found = infer_shapes(_undeclared(bare)).graph
    inferred = {v.name: shape_of(v) for v in [*found.value_info, *found.output]}
    kept = [v for v in graph.value_info if _agree(shape_of(v), inferred.get(v.name))]
    if len(kept) < len(graph.value_info):
        kept = [onnx.ValueInfoProto.FromString(v.SerializeToString()) for v in kept]
        del graph.value_info[:]
        graph.value_info.extend(kept)
    for value in graph.output:
        if not _agree(shape_of(value), inferred.get(value.name)):
            value.type.tensor_type.ClearField("shape")
    return bare


def _agree(declared: tuple[Dim, ...] | None, inferred: tuple[Dim, ...] | None) -> bool:
    if declared is None or inferred is None:
        return True
    fits = all(
        a == b or not (isinstance(a, int) and isinstance(b, int)) for a, b in zip(declared, inferred, strict=False)
    )
    return fits and len(declared) == len(inferred)


def contradiction(proto: ModelProto) -> str:
    """Why strict shape inference refuses `proto`, in one line; '' if it does not."""
    bare = skeleton(proto)
    try:
        with asking_onnx():
            onnx.shape_inference.infer_shapes(bare, check_type=True, strict_mode=True, data_prop=True)
    except ExecutionError as error:
        return " ".join(str(error).split())[:300]
    return ""
