"""Weights in fewer bits, by onnxruntime's quantizers: alone (activations stay floats), and with ranges of activations
that every run finds anew.

Matrix products get MatMulNBits, whose kernels read blocks of 4 or 8 bits; weights of other operators are dequantized by
a node of their own (DequantizeLinear). Tables that Gather reads get GatherBlockQuantized in 4 bits, and in 8 bits are
dequantized row by row after it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from ...model.leftovers import scratch_folder
from ...model.subgraphs import every_node
from .ort_quantizer import as_before, backend, nbits, prepared, quantizing, quietly, sorted_graph, temporaries_in

BLOCK = 32  # numbers of a weight that share a scale in MatMulNBits: the smallest, and the most accurate
_BY_CHANNEL = ("Conv", "ConvTranspose", "Gemm")  # whose weights get DequantizeLinear
_DYNAMIC = ("MatMul", "Gemm", "Gather", "LSTM", "Attention", "EmbedLayerNormalization")
"""What has fast kernels for ranges that are found in a run. Convolutions have none: onnxruntime's documentation wants
them static, and the same networks took several times as long with ConvInteger."""
_IR_OF_4_BITS = 10  # the first version of ONNX with tensors of 4 bits


def dynamic(proto: ModelProto) -> ModelProto:
    """`proto` (its weights inside it) with matrix products in INT8, ranges of activations from each run.

    Raises ExecutionError where onnxruntime cannot do it."""
    return _dynamic(proto, _DYNAMIC, reduced=True)


def in_weights(proto: ModelProto, bits: int) -> ModelProto:
    """`proto` (its weights inside it) with weights in `bits` bits (8 or 4), activations in floats.

    Raises ExecutionError where onnxruntime cannot do it, QuantizationError where a module is missing."""
    made = ModelProto()
    made.CopyFrom(proto)
    _without_inputs(made)
    if _multiplied(made.graph):
        made = _blockwise(made, bits)
    if bits == 8 and any(_tables(made.graph)):
        made = _dynamic(made, ("Gather",), reduced=False)
    if any(node.op_type in _BY_CHANNEL for node in made.graph.node):
        made = _by_channel(made, bits)
    if bits == 4:
        made.ir_version = max(made.ir_version, _IR_OF_4_BITS)
    return as_before(sorted_graph(made), proto)


def needs_blocks(proto: ModelProto, bits: int) -> None:
    """Raises QuantizationError where MatMulNBits is needed and its quantizer is not there."""
    if _multiplied(proto.graph):
        nbits(bits)


def dynamically(proto: ModelProto) -> int:
    """How many nodes compute on integers whose ranges they find themselves."""
    return sum("Integer" in n.op_type or n.op_type in ("DynamicQuantizeLSTM", "QAttention") for n in every_node(proto))


def of_integers(proto: ModelProto) -> int:
    """How many nodes have a weight of integers."""
    nodes = every_node(proto)
    stored = {t.name for t in proto.graph.initializer if t.data_type != TensorProto.FLOAT}
    plain = {n.output[0] for n in nodes if n.op_type == "DequantizeLinear" and n.input[0] in stored}
    rows = {n.output[0] for n in nodes if n.op_type == "Gather" and n.input[0] in stored}
    after = sum(n.op_type == "DequantizeLinear" and n.input[0] in rows for n in nodes)
    blocks = sum(n.op_type in ("MatMulNBits", "GatherBlockQuantized") for n in nodes)
    return blocks + after + sum(any(name in plain for name in n.input) for n in nodes)


def _dynamic(proto: ModelProto, operators: tuple[str, ...], reduced: bool) -> ModelProto:
    """Those `operators` whose weights are constants in 8 bits (7, where `reduced`)."""
    made = backend()
    with scratch_folder() as scratch, quietly():
        ready, target = scratch / "ready.onnx", scratch / "dynamic.onnx"
        given = prepared(made, proto, scratch) if reduced else proto
        with temporaries_in(scratch), quantizing():
            onnx.save(given, ready)
            made.quantize_dynamic(
                str(ready), str(target), op_types_to_quantize=list(operators), per_channel=True, reduce_range=reduced,
                weight_type=made.QuantType.QInt8,
            )  # fmt: skip
            found = onnx.load(target)
    return as_before(sorted_graph(found), proto)


def _blockwise(proto: ModelProto, bits: int) -> ModelProto:
    """Matrix products in blocks of `bits` bits, and tables too where there are 4."""
    quantizer = nbits(bits)
    operators = ("MatMul", "Gather") if bits == 4 else ("MatMul",)
    opset = [(one.domain, one.version) for one in proto.opset_import]
    with quietly(), quantizing():
        more = {} if bits == 4 else {"bits": bits}
        work = quantizer(
            proto, block_size=BLOCK, is_symmetric=True, op_types_to_quantize=operators,
            quant_axes=(("MatMul", 0), ("Gather", 1)), **more,
        )  # fmt: skip
        work.process()
        made = work.model.model
    for one in made.opset_import:  # raised for types that only operators of onnxruntime's own have here
        one.version = dict(opset).get(one.domain, one.version)
    return _once(made)


def _once(proto: ModelProto) -> ModelProto:
    """`proto` with every initializer once: a weight of several nodes is written for each of them."""
    seen = {tensor.name: tensor for tensor in reversed(proto.graph.initializer)}
    kept = list(reversed(seen.values()))
    if len(kept) < len(proto.graph.initializer):
        copies = [TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
        del proto.graph.initializer[:]
        proto.graph.initializer.extend(copies)
    return proto


def _by_channel(proto: ModelProto, bits: int) -> ModelProto:
    """Weights of convolutions and of Gemm in `bits` bits, a scale for every channel.

    The quantizer wants ranges of all activations and quantizes them too: it is given some, and these pairs go again.
    """
    made, qdq, calibrate = backend(), backend("qdq_quantizer"), backend("calibrate")
    kind = made.QuantType.QInt8 if bits == 8 else made.QuantType.QInt4
    with quietly(), quantizing():
        inferred = onnx.shape_inference.infer_shapes(proto)
        ranges = calibrate.TensorsData(
            made.CalibrationMethod.MinMax, dict.fromkeys(_values(inferred.graph), (np.float32(0), np.float32(1)))
        )
        work = qdq.QDQQuantizer(
            inferred, True, False, kind, made.QuantType.QUInt8, ranges, [], [], list(_BY_CHANNEL),
            {"QuantizeBias": False, "WeightSymmetric": True},
        )  # fmt: skip
        work.quantize_model()
        found = work.model.model
    return _activations_in_floats(found)


def _activations_in_floats(proto: ModelProto) -> ModelProto:
    """`proto` without the pairs of QuantizeLinear and DequantizeLinear on activations, in place."""
    graph = proto.graph
    stored = {tensor.name for tensor in graph.initializer}
    pairs = {n.output[0]: n for n in graph.node if n.op_type == "QuantizeLinear" and n.input[0] not in stored}
    source = {
        n.output[0]: pairs[n.input[0]].input[0]
        for n in graph.node
        if n.op_type == "DequantizeLinear" and n.input[0] in pairs
    }
    outputs = {source[o.name]: o.name for o in graph.output if o.name in source}
    kept = [n for n in graph.node if n.output[0] not in pairs and n.output[0] not in source]
    dropped = [n for n in graph.node if n.output[0] in pairs or n.output[0] in source]
    for node in kept:
        node.input[:] = [outputs.get(source.get(name, name), source.get(name, name)) for name in node.input]
        node.output[:] = [outputs.get(name, name) for name in node.output]
    _replace(graph, [NodeProto.FromString(node.SerializeToString()) for node in kept], dropped)
    return proto


def _replace(graph: GraphProto, kept: list[NodeProto], dropped: list[NodeProto]) -> None:
    """The nodes `kept` are those of the graph; scales that only `dropped` ones had go."""
    used = {name for node in kept for name in node.input}
    gone = {name for node in dropped for name in node.input[1:]} - used
    tensors = [TensorProto.FromString(t.SerializeToString()) for t in graph.initializer if t.name not in gone]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(tensors)


def _values(graph: GraphProto) -> set[str]:
    """Names of everything that nodes make or take."""
    return {name for node in graph.node for name in (*node.input, *node.output) if name}


def _multiplied(graph: GraphProto) -> bool:
    """Whether a MatMul has a constant matrix."""
    stored = {t.name for t in graph.initializer if len(t.dims) == 2} | _constants(graph)
    return any(node.op_type == "MatMul" and node.input[1] in stored for node in graph.node)


def _tables(graph: GraphProto) -> list[Any]:
    """The nodes that read rows of a constant of floats."""
    stored = {t.name for t in graph.initializer if t.data_type == TensorProto.FLOAT and len(t.dims) == 2}
    return [node for node in graph.node if node.op_type == "Gather" and node.input[0] in stored]


def _constants(graph: GraphProto) -> set[str]:
    return {n.output[0] for n in graph.node if n.op_type == "Constant" and any(len(a.t.dims) == 2 for a in n.attribute)}


def _without_inputs(proto: ModelProto) -> None:
    """Weights are no inputs, in place: what may be given otherwise is not quantized."""
    stored = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in stored]
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)
