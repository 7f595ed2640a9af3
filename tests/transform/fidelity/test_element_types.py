"""Weights of every element type there is, which nothing folds: their bytes stay."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from bystanders import base, stays
from onnx import ModelProto, TensorProto, helper

from onnxfold.model.external_data import external_length

KINDS = [name for name, _ in TensorProto.DataType.items() if name not in ("UNDEFINED", "STRING")]
COMMON = ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16", "BOOL", "INT8", "UINT8", "INT16", "INT32", "INT64")


def bystander(p: ModelProto, kind: str, read: bool) -> None:
    """Five elements of pseudo-random bits; `read`: cast to an output."""
    tensor = p.graph.initializer.add(name="k", data_type=TensorProto.DataType.Value(kind), dims=[5])
    rng = np.random.default_rng(1)
    tensor.raw_data = rng.integers(0, 2 if kind == "BOOL" else 64, external_length(tensor) or 5, np.uint8).tobytes()
    if read:
        p.graph.node.append(helper.make_node("Cast", ["k"], ["seen"], to=TensorProto.FLOAT))
        p.graph.output.append(helper.make_tensor_value_info("seen", TensorProto.FLOAT, [5]))


@cache
def runs(kind: str, read: bool) -> bool:
    """Whether the installed onnxruntime runs the model: it knows more types with every version."""
    proto = base()
    bystander(proto, kind, read)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        session.run(None, {"x": np.zeros((2, 6), np.float32)})
    except Exception:  # onnxruntime's exceptions share no base class
        return False
    return True


@pytest.mark.parametrize("kind", COMMON)
def test_common_types_run(kind: str) -> None:
    """So their verdicts must be measured ones, below."""
    assert runs(kind, read=False) and runs(kind, read=True)


@pytest.mark.parametrize("kind", KINDS)
def test_unused(tmp_path: Path, kind: str) -> None:
    stays(tmp_path, partial(bystander, kind=kind, read=False), runs=runs(kind, read=False))


@pytest.mark.parametrize("kind", KINDS)
def test_read(tmp_path: Path, kind: str) -> None:
    stays(tmp_path, partial(bystander, kind=kind, read=True), runs=runs(kind, read=True))
