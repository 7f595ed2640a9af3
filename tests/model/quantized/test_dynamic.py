"""Models as onnxruntime's quantize_dynamic leaves them: integers in MatMulInteger and ConvInteger, scales behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers import constant, model, node
from onnx import ModelProto
from onnxruntime.quantization import QuantType, quantize_dynamic
from tiny import fold

from onnxfold.analysis.analyze import analyze
from onnxfold.model.model import load
from onnxfold.testing import duplicate, permute

STEP_RTOL = 2e-2  # sums of two integers leave their range and are rounded anew; measured 9e-3
TEXT = """(float[N,3,6,6] x) => (float y) { h = Conv(x, w, b) a = Relu(h) g = Conv(a, u, c) r = Relu(g)
    p = GlobalAveragePool(r) f = Flatten(p) k = Gemm(f, v, d) t = Relu(k) y = MatMul(t, o) }"""
WEIGHTS = {
    "w": (8, 3, 3, 3), "b": (8,), "u": (12, 8, 1, 1), "c": (12,), "v": (12, 16), "d": (16,), "o": (16, 5),
}  # fmt: skip


def quantized(folder: Path, per_channel: bool, kind: QuantType) -> ModelProto:
    onnx.save(model(TEXT, WEIGHTS), folder / "float.onnx")
    quantize_dynamic(
        folder / "float.onnx", folder / "int8.onnx", ["Conv", "MatMul", "Gemm"], per_channel, weight_type=kind
    )
    return onnx.load(folder / "int8.onnx")


@pytest.mark.parametrize(("per_channel", "kind"), [(False, QuantType.QUInt8), (True, QuantType.QUInt8)], ids=str)
def test_everything_is_in_reach(tmp_path: Path, per_channel: bool, kind: QuantType) -> None:
    loaded = load(quantized(tmp_path, per_channel, kind))
    found = analyze(loaded)
    assert [group.size for group in found.groups] == [8, 12, 16]
    assert {r.kind for r in found.refusals} <= {"a graph input", "a graph output"}
    moved, copied = permute(loaded, found), duplicate(loaded, found)
    assert moved.error == 0 and moved.control > STEP_RTOL
    assert copied.error < STEP_RTOL < copied.control


def test_scales_and_zero_points_are_cut_with_their_weights(tmp_path: Path) -> None:
    before = quantized(tmp_path, True, QuantType.QUInt8)
    result = fold(before, ratio=0.25, round_to=1)
    assert [group.after for group in result.report.groups] == [6, 9, 12]
    product = node(result.model, "MatMulInteger")
    integers, zero = (constant(result.model, product.input[slot]) for slot in (1, 3))
    scale = next(t for t in result.model.graph.initializer if t.name == "v_scale")
    assert (integers.shape, integers.dtype, zero.shape, tuple(scale.dims)) == ((9, 12), np.uint8, (12,), (12,))
    assert result.report.after.file < result.report.before.file
