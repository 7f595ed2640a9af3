"""A copy of the model that can be differentiated: weights inside, float32, static shapes, opset 18 or later."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, numpy_helper

from ...errors import OnnxFoldError
from ...model.half_precision import widen
from ...model.model import Model, load
from ...model.onnx_calls import asking_onnx
from ...model.quantized.detect import packed_weight
from ...model.save import inline
from ...model.shapes.inference import with_shapes
from ...model.subgraphs import DEFAULT_DOMAINS, subgraphs

Floats = NDArray[np.float32]
OPSET = 18  # before it onnx-ad refuses MaxPool (16) and Reduce takes its axes in another way
_LARGE = 1024  # numbers
_CLIP = 11  # the opset from which Clip takes its bounds as inputs


def static_copy(model: Model, shapes: Mapping[str, Sequence[int]]) -> ModelProto:
    """The model with every input of fixed shape, initializers no inputs, opset >= 18 and inferred shapes.

    Half precision becomes float32 (gradients underflow in it), and so do weights stored as integers. A pair of
    QuantizeLinear and DequantizeLinear on activations becomes the range that it clips to, often the only ReLU there is
    (the straight-through estimator; Bengio et al., arXiv 1308.3432).

    Raises:
        ExecutionError: onnx's version converter or shape inference refuses the model.
    """
    whole = inline(model.proto, model.folder)
    aside = {t.name: t for t in whole.graph.initializer if _large(t)}
    proto = _without(whole, aside)
    graph = proto.graph
    initialized = {t.name for t in whole.graph.initializer}
    kept = [v for v in graph.input if v.name not in initialized]
    for value in kept:
        if value.name in shapes:
            kind = value.type.tensor_type.elem_type
            value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, kind, list(shapes[value.name])))
    copies = [ValueInfoProto.FromString(v.SerializeToString()) for v in kept]
    del graph.input[:]
    graph.input.extend(copies)
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    _unpacked(graph, model)
    widen(graph)
    version = max((o.version for o in proto.opset_import if o.domain in DEFAULT_DOMAINS), default=1)
    _straight_through(graph, model, initialized, version)
    graph.input.extend(onnx.helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in aside.values())
    if version < OPSET:
        with asking_onnx():
            proto = onnx.version_converter.convert_version(proto, OPSET)
        del proto.graph.value_info[:]
    proto.ir_version = max(proto.ir_version, 8)
    proto = with_shapes(proto)
    _put_back(proto.graph, [t.name for t in whole.graph.initializer], aside)
    _declare_more(proto)
    return proto


def _large(tensor: TensorProto) -> bool:
    """Whether onnx need not see the numbers of a weight: it copies a model several times at every call."""
    return tensor.data_type == TensorProto.FLOAT and math.prod(tensor.dims) > _LARGE


def _without(proto: ModelProto, aside: Container[str]) -> ModelProto:
    """A copy of what a model computes, without weights of these names and without declared shapes inside."""
    copy = ModelProto(ir_version=max(proto.ir_version, 4))  # initializers need not be inputs
    copy.opset_import.extend(proto.opset_import)
    copy.functions.extend(proto.functions)
    graph = copy.graph
    graph.name = proto.graph.name
    graph.node.extend(proto.graph.node)
    graph.input.extend(proto.graph.input)
    graph.output.extend(proto.graph.output)
    graph.initializer.extend(t for t in proto.graph.initializer if t.name not in aside)
    graph.sparse_initializer.extend(proto.graph.sparse_initializer)
    return copy


def _put_back(graph: GraphProto, order: Sequence[str], aside: Mapping[str, TensorProto]) -> None:
    """Weights in place of inputs of their names, all in the old order, in place."""
    if not aside:
        return
    inputs = [ValueInfoProto.FromString(v.SerializeToString()) for v in graph.input if v.name not in aside]
    there = {t.name: TensorProto.FromString(t.SerializeToString()) for t in graph.initializer}
    weights = [found for name in order if (found := aside.get(name) or there.pop(name, None)) is not None]
    del graph.input[:], graph.initializer[:]
    graph.input.extend(inputs)
    graph.initializer.extend([*weights, *there.values()])


def _declare_more(proto: ModelProto) -> None:
    """Shapes that onnx's inference left open and our own finds (through computed Reshape targets), in place."""
    known = shapes_of(proto.graph)
    names = [name for node in proto.graph.node for name in node.output if name and name not in known]
    if not names:
        return
    try:
        graph = load(proto).graph
    except OnnxFoldError:  # a model that the checker refuses: it goes on with what there is
        return
    found = {}
    for name in names:
        info = graph.tensor(name)
        shape = info.declarable
        if info.dtype and shape is not None and all(isinstance(d, int) for d in shape):
            found[name] = onnx.helper.make_tensor_value_info(name, info.dtype, list(shape))
    kept = [v for v in proto.graph.value_info if v.name not in found]
    copies = [ValueInfoProto.FromString(v.SerializeToString()) for v in (*kept, *found.values())]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(copies)


def shapes_of(graph: GraphProto) -> dict[str, tuple[int, ...]]:
    """Every static shape that `graph` declares."""
    found = {}
    for value in [*graph.input, *graph.value_info, *graph.output]:
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(d.HasField("dim_value") for d in dims):
            found[value.name] = tuple(d.dim_value for d in dims)
    return found


def activation_bytes(proto: ModelProto) -> int:
    """Bytes of all intermediate tensors of known shape, at 4 bytes each."""
    constant = {t.name for t in proto.graph.initializer}
    return 4 * sum(math.prod(s) for name, s in shapes_of(proto.graph).items() if name not in constant)


def prune(graph: GraphProto) -> None:
    """Keep only what the outputs of `graph` need."""
    needed = {v.name for v in graph.output}
    kept: list[NodeProto] = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
            for body in subgraphs(node):
                needed.update(name for inner in body.node for name in inner.input)
                needed.update(v.name for v in body.output)
    nodes = [NodeProto.FromString(n.SerializeToString()) for n in reversed(kept)]
    tensors = [TensorProto.FromString(t.SerializeToString()) for t in graph.initializer if t.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tensors)


def _unpacked(graph: GraphProto, model: Model) -> None:
    """Weights that DequantizeLinear makes, in the form in which they are used, and those that MatMulNBits packs, as
    float32 initializers of their names, in place."""
    nodes, weights = list[NodeProto](), dict[str, TensorProto]()

    def put(name: str) -> None:
        array = np.ascontiguousarray(model.constants.array(name).astype(np.float32))
        weights[name] = numpy_helper.from_array(array, name)

    for node, seen in zip(graph.node, model.graph.main_nodes, strict=True):
        packed = packed_weight(seen)
        made = seen.outputs[0] if seen.outputs else ""
        if made in model.constants.formed and model.constants.numbers(made) is None:
            if made not in model.constants.between:
                put(made)
        elif packed is not None and packed[0] in model.constants.stored:
            put(packed[0])
            y, bias = seen.outputs[0], [name for name in seen.inputs[5:6] if name]
            turned, product = f"{y}_onnxfold_turned", f"{y}_onnxfold_product" if bias else y
            nodes.append(onnx.helper.make_node("Transpose", [packed[0]], [turned], perm=[1, 0]))
            nodes.append(onnx.helper.make_node("MatMul", [seen.inputs[0], turned], [product], name=seen.name))
            nodes += [onnx.helper.make_node("Add", [product, *bias], [y])] if bias else []
        else:
            nodes.append(NodeProto.FromString(node.SerializeToString()))
    if not weights:
        return
    kept = [TensorProto.FromString(t.SerializeToString()) for t in graph.initializer if t.name not in weights]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(node for node in nodes if node.op_type != "Constant" or node.output[0] not in weights)
    graph.initializer.extend([*kept, *weights.values()])


def _straight_through(graph: GraphProto, model: Model, constants: set[str], version: int) -> None:
    """Clip, or Identity where the range is not known, in place of DequantizeLinear(QuantizeLinear(x)), in place."""
    quantized = {n.output[0]: n for n in graph.node if n.op_type == "QuantizeLinear" and n.input[0] not in constants}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in quantized:
            source, out, name = quantized[node.input[0]].input[0], node.output[0], node.name
            bounds = _range(list(quantized[node.input[0]].input[1:3]), model)
            if bounds is None or version < _CLIP:
                node.CopyFrom(onnx.helper.make_node("Identity", [source], [out], name=name))
                continue
            names = [f"{out}_onnxfold_{end}" for end in ("low", "high")]
            graph.initializer.extend(numpy_helper.from_array(b, n) for b, n in zip(bounds, names, strict=True))
            node.CopyFrom(onnx.helper.make_node("Clip", [source, *names], [out], name=name))


def _range(settings: Sequence[str], model: Model) -> tuple[Floats, Floats] | None:
    """The least and the largest number that a pair with this scale and zero point, constants of one number, gives."""
    if len(settings) < 2 or not all(name in model.constants for name in settings):
        return None
    scale, zero = (model.constants.array(name) for name in settings)
    if scale.size != 1 or zero.size != 1 or zero.dtype not in (np.int8, np.uint8, np.int16, np.uint16):
        return None
    ends = np.iinfo(zero.dtype)
    shift, step = float(zero.reshape(())), float(scale.reshape(()))
    return np.array((ends.min - shift) * step, np.float32), np.array((ends.max - shift) * step, np.float32)
