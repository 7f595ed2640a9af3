"""The only module that imports onnxruntime's quantizer, and its static part: QDQ, weights channel by channel.

onnxruntime, "Quantize ONNX Models" (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html).
"""

from __future__ import annotations

import logging
import sys
import tempfile
import threading
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, helper

from ...errors import ExecutionError, QuantizationError, RuleError
from ...model.leftovers import scratch_folder
from ...model.linear import WEIGHTS
from ...model.onnx_calls import asking_onnx
from ...model.subgraphs import DEFAULT_DOMAINS, every_node
from ...runtime.session import Feeds, brief
from ...runtime.session import version as installed

WEIGHTS_AS, ACTIVATIONS_AS = "int8, 7 bits", "uint8"
"""Sums of two 8-bit products overflow on x86 processors without VNNI; with 7 bits in the weights they cannot. Measured
on ResNet-56: as accurate, as fast, and int8 activations took three times as long."""
_OPSET, _IR = 13, 7  # the first whose QuantizeLinear knows an axis, and the version of ONNX that goes with it
_NEEDS = "it needs onnxruntime.quantization and what that imports"
_MOVING = ("Slice",)  # numbers from place to place: also on integers, though not in that list
_WEIGHTED = ("ConvTranspose",)  # computed in floats, but with weights of 8 bits
_ARITHMETIC = (
    "Add", "Mul", "Where", "Sigmoid", "LeakyRelu", "Softmax", "ArgMax", "EmbedLayerNormalization",
)  # fmt: skip
_MOVED = ("DequantizeLinear", "QuantizeLinear")
_BLOCKS_OF_8 = (1, 22)  # the first version of onnxruntime that has them
_ONE_AT_A_TIME = threading.Lock()


def backend(part: str = "") -> Any:
    """onnxruntime.quantization, or a `part` of it, imported when it is asked for: that takes half a second.

    Raises QuantizationError where something that it imports is missing."""
    try:
        with quietly():
            import onnxruntime.quantization as made

            return import_module(f"{made.__name__}.{part}") if part else made
    except ImportError as error:
        missing = (error.name or "a module").replace("_", "-")
        raise QuantizationError(f"`quantize` cannot run: {_NEEDS} ({brief(error)}): pip install {missing}") from error


def nbits(bits: int) -> Any:
    """What quantizes matrix products in blocks of `bits` bits. Raises QuantizationError where it is missing."""
    if tuple(map(int, installed().split(".")[:2])) >= _BLOCKS_OF_8:
        return backend("matmul_nbits_quantizer").MatMulNBitsQuantizer
    if bits != 4:
        raise QuantizationError(
            "`quantize='int8-weights'` needs onnxruntime 1.22 or later for matrix products: install one, or take "
            "`quantize='int8-dynamic'`"
        )
    return backend("matmul_4bits_quantizer").MatMul4BitsQuantizer


def sorted_graph(proto: ModelProto) -> ModelProto:
    """`proto` with every node after those whose outputs it takes, which quantizers do not all leave so."""
    work = backend("onnx_model").ONNXModel(proto)
    with quietly(), quantizing():
        work.topological_sort()
    made: ModelProto = work.model
    return made


class Reader:
    """Feeds, one after the other, as onnxruntime's CalibrationDataReader."""

    def __init__(self, feeds: Sequence[Feeds]) -> None:
        self._left = iter(feeds)

    def get_next(self) -> dict[str, Any] | None:
        """The next one; None at the end."""
        found = next(self._left, None)
        return None if found is None else dict(found)


def on_cpu() -> set[str]:
    """The operators that onnxruntime's quantizer knows and has kernels on integers for, on the CPU."""
    backend()
    from onnxruntime.quantization.registry import QLinearOpsRegistry

    return {*QLinearOpsRegistry, *_MOVING}


def in_int8(proto: ModelProto, feeds: Sequence[Feeds]) -> ModelProto:
    """`proto` (its weights inside it) in INT8, ranges of activations from `feeds`: their least and largest values.

    BatchNormalization is taken into the convolution before it, but for one whose weight other nodes read too: that
    stays stored once. Interface and metadata stay; weights that could be given as inputs cannot be
    any more. Raises ExecutionError where onnxruntime cannot quantize it.
    """
    made = backend()
    with scratch_folder() as scratch, quietly():
        ready, target = scratch / "ready.onnx", scratch / "int8.onnx"
        given, reader, taken = prepared(made, proto, scratch), Reader(feeds), sorted(_taken(proto))
        with temporaries_in(scratch), quantizing():
            onnx.save(given, ready)
            made.quantize_static(
                str(ready), str(target), reader, quant_format=made.QuantFormat.QDQ, per_channel=True,
                reduce_range=True, activation_type=made.QuantType.QUInt8, weight_type=made.QuantType.QInt8,
                calibrate_method=made.CalibrationMethod.MinMax, op_types_to_quantize=taken,
            )  # fmt: skip
            found = onnx.load(target)
        return as_before(found, proto)


def _temporaries(scratch: Path) -> ModuleType:
    """The module `tempfile` with folders inside a `scratch` folder, which goes even where a run is killed."""
    made = ModuleType(tempfile.__name__)
    vars(made).update(vars(tempfile), TemporaryDirectory=partial(tempfile.TemporaryDirectory, dir=scratch))
    return made


@contextmanager
def temporaries_in(scratch: Path) -> Iterator[None]:
    """The quantizer's own temporary folders are made in `scratch`; for one thread at a time."""
    from onnxruntime.quantization import quant_utils, quantize

    places: list[Any] = [sys.modules[quantize.__module__], quant_utils]
    with _ONE_AT_A_TIME:
        for module in places:
            module.tempfile = _temporaries(scratch)
        try:
            yield
        finally:
            for module in places:
                module.tempfile = tempfile


@contextmanager
def quantizing() -> Iterator[None]:
    """To be put around calls into onnxruntime's quantizer, with none of ours inside. Raises ExecutionError for whatever
    they raise, but for MemoryError and a RuleError of a step that was given to them."""
    try:
        yield
    except (MemoryError, RuleError):
        raise
    except Exception as error:
        raise ExecutionError(str(error) or type(error).__name__) from error


def _taken(proto: ModelProto) -> set[str]:
    """The operators to quantize. Arithmetic between matrix products is left in floats: four models with attention had
    0.4 to 0.8 of the error so, and none was slower. Residual sums of convolutions gain by integers."""
    ops = Counter(node.op_type for node in every_node(proto))
    known = {*on_cpu(), *_WEIGHTED}
    return known if ops["Conv"] >= ops["MatMul"] + ops["Gemm"] else known.difference(_ARITHMETIC)


def on_integers(proto: ModelProto) -> tuple[int, tuple[tuple[str, int], ...]]:
    """(nodes that take integers in place of floats, the operators of the others with their number), Constants left out.

    A node does if the quantizer knows its operator and all its inputs that are no constants of other types come from
    DequantizeLinear; whether a processor's kernels do is for onnxruntime to say."""
    nodes, known = every_node(proto), on_cpu()
    plain = {name for node in nodes if node.op_type == "DequantizeLinear" for name in node.output}
    stored = {tensor.name for tensor in proto.graph.initializer if tensor.data_type != onnx.TensorProto.FLOAT}
    constants = {name for node in nodes if node.op_type == "Constant" for name in node.output}
    taken, left = 0, Counter[str]()
    for node in (n for n in nodes if n.op_type not in (*_MOVED, "Constant")):
        needed = [name for name in node.input if name and name not in stored and name not in constants]
        if node.op_type in known and needed and all(name in plain for name in needed):
            taken += 1
        else:
            left[node.op_type] += 1
    return taken, tuple(sorted(left.items()))


def prepared(made: Any, proto: ModelProto, scratch: Path) -> ModelProto:
    """`proto` with normalizations fused and shapes inferred, as the quantizer wants it."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    version = next((o.version for o in copy.opset_import if o.domain in DEFAULT_DOMAINS), _OPSET)
    stored = {tensor.name for tensor in copy.graph.initializer}
    inputs = [value for value in copy.graph.input if value.name not in stored]  # what may be overridden is not fused
    del copy.graph.input[:]
    copy.graph.input.extend(inputs)
    if version < _OPSET:
        copy.ir_version = max(copy.ir_version, _IR)
        with asking_onnx():
            copy = onnx.version_converter.convert_version(copy, _OPSET)
    kept = _of_shared_weights(copy)
    copy.graph.output.extend(helper.make_tensor_value_info(name, kind, None) for name, kind in kept.items())
    given, ready = scratch / "given.onnx", scratch / "prepared.onnx"
    with quantizing():
        onnx.save(copy, given)
        made.quant_pre_process(str(given), str(ready), skip_symbolic_shape=True)  # sympy, which gains CNNs nothing
        found = onnx.load(ready)
    outputs = [value for value in found.graph.output if value.name not in kept]
    del found.graph.output[:]
    found.graph.output.extend(outputs)
    return found


def _of_shared_weights(proto: ModelProto) -> Mapping[str, int]:
    """What nodes make whose weight is that of others too, with its element type; no output of the graph.

    As outputs of the graph they keep what follows from being fused into a weight of their own.
    """
    kinds = {t.name: t.data_type for t in proto.graph.initializer if len(t.dims) > 1}
    weights = [
        (node.input[WEIGHTS[node.op_type][0]], node.output[0])
        for node in proto.graph.node
        if node.op_type in WEIGHTS and len(node.input) > WEIGHTS[node.op_type][0]
    ]
    readers = Counter(weight for weight, _ in weights)
    known = {value.name for value in proto.graph.output}
    return {made: kinds[w] for w, made in weights if w in kinds and readers[w] > 1 and made not in known}


def as_before(made: ModelProto, proto: ModelProto) -> ModelProto:
    """`made` with the notes and the interface of `proto`, and without declarations that nothing needs."""
    for field in ("producer_name", "producer_version", "domain", "model_version", "doc_string"):
        setattr(made, field, getattr(proto, field))
    del made.metadata_props[:]
    made.metadata_props.extend(proto.metadata_props)
    for mine, given in ((made.graph.input, proto.graph.input), (made.graph.output, proto.graph.output)):
        types = {value.name: value for value in given}
        for value in mine:
            value.CopyFrom(types[value.name])
    declared = {value.name for value in proto.graph.value_info}
    values = [value for value in made.graph.value_info if value.name in declared]
    del made.graph.value_info[:]
    made.graph.value_info.extend(values)
    used = {node.domain for node in [*every_node(made), *(n for f in made.functions for n in f.node)]}
    used |= {o.domain for o in proto.opset_import} | {"", "ai.onnx"}
    opsets = [opset for opset in made.opset_import if opset.domain in used]
    del made.opset_import[:]
    made.opset_import.extend(opsets)
    return made


@contextmanager
def quietly() -> Iterator[None]:
    """Without log messages and warnings of libraries; errors come as exceptions all the same. Handlers that they give
    to the root logger go again."""
    level, handlers, least = logging.root.manager.disable, list(logging.root.handlers), logging.root.level
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        logging.root.handlers[:] = handlers
        logging.root.setLevel(least)
