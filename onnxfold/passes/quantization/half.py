"""float16, by the converter that comes with onnxruntime: the only module that calls it.

onnxruntime, "Create Float16 Models" (https://onnxruntime.ai/docs/performance/model-optimizations/float16.html).
"""

from __future__ import annotations

from typing import Any

from onnx import ModelProto, TensorProto

from ...errors import QuantizationError
from ...model.subgraphs import every_node
from ...runtime.session import brief
from .ort_quantizer import as_before, quantizing, quietly, sorted_graph


def in_half(proto: ModelProto) -> ModelProto:
    """`proto` (its weights inside it) with weights and activations in float16; inputs and outputs keep their types.

    Operators that the converter knows to need float32 keep it, between two Casts. Raises ExecutionError where the
    converter refuses the model, QuantizationError where it is missing.
    """
    copy = ModelProto()
    copy.CopyFrom(proto)
    convert = _converter()
    with quietly(), quantizing():
        made = convert(copy, keep_io_types=True)
    return as_before(sorted_graph(made), proto)


def halved(proto: ModelProto) -> int:
    """How many nodes read a constant of float16."""
    stored = {t.name for t in proto.graph.initializer if t.data_type == TensorProto.FLOAT16}
    stored |= {
        node.output[0]
        for node in every_node(proto)
        if node.op_type == "Constant" and any(a.t.data_type == TensorProto.FLOAT16 for a in node.attribute)
    }
    return sum(any(name in stored for name in node.input) for node in every_node(proto))


def _converter() -> Any:
    try:
        with quietly():
            from onnxruntime.transformers.float16 import convert_float_to_float16
    except ImportError as error:
        missing = error.name or "a module"
        raise QuantizationError(
            f"`quantize='fp16'` cannot run: it needs onnxruntime.transformers and what that imports ({brief(error)}): "
            f"pip install {missing}"
        ) from error
    return convert_float_to_float16
