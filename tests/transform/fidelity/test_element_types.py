"""Weights of every element type there is, which nothing folds: their bytes stay."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from bystanders import stays
from onnx import ModelProto, TensorProto, helper

from onnxfold.model.external_data import external_length

KINDS = [name for name, _ in TensorProto.DataType.items() if name not in ("UNDEFINED", "STRING")]
NOT_LOADED = {"FLOAT6E2M3", "FLOAT6E3M2"}  # by onnxruntime 1.31
NOT_READ = {*NOT_LOADED, "COMPLEX64", "COMPLEX128", "FLOAT8E8M0", "FLOAT4E2M1", "INT2", "UINT2"}  # by its Cast


def bystander(p: ModelProto, kind: str, read: bool) -> None:
    """Five elements of pseudo-random bits; `read`: cast to an output."""
    tensor = p.graph.initializer.add(name="k", data_type=TensorProto.DataType.Value(kind), dims=[5])
    rng = np.random.default_rng(1)
    tensor.raw_data = rng.integers(0, 2 if kind == "BOOL" else 64, external_length(tensor) or 5, np.uint8).tobytes()
    if read:
        p.graph.node.append(helper.make_node("Cast", ["k"], ["seen"], to=TensorProto.FLOAT))
        p.graph.output.append(helper.make_tensor_value_info("seen", TensorProto.FLOAT, [5]))


@pytest.mark.parametrize("kind", KINDS)
def test_unused(tmp_path: Path, kind: str) -> None:
    stays(tmp_path, partial(bystander, kind=kind, read=False), runs=kind not in NOT_LOADED)


@pytest.mark.parametrize("kind", KINDS)
def test_read(tmp_path: Path, kind: str) -> None:
    stays(tmp_path, partial(bystander, kind=kind, read=True), runs=kind not in NOT_READ)
