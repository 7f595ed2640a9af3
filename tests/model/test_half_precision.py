"""Half precision: float16 as it is, bfloat16 through float32 copies where the processor runs none of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from helpers import CONTROL, EXACT_PERMUTE_RTOL, model
from onnx import ModelProto, TensorProto, helper, numpy_helper
from tiny import fold, main, with_and_without_repair

from onnxfold import RequestError, compare
from onnxfold.model.half_precision import BFLOAT16, HALF, holds, widened
from onnxfold.model.model import load
from onnxfold.model.save import inline
from onnxfold.runtime.session import Session
from onnxfold.testing import duplicate, permute

KINDS = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}
STEP = {"float16": 2e-3, "bfloat16": 2e-2}  # sums of two numbers rounded to 11 and 8 bits; measured 3e-4 and 3e-3
SHAPES = {"w": (12, 64), "b": (64,), "v": (64, 9)}


def half(name: str) -> ModelProto:
    """A small MLP whose operators onnxruntime's CPU does not run in bfloat16."""
    text = f"""({name}[N,12] x) => ({name}[N,9] y) {{
        u = Cast<to={KINDS[name]}>(x) h = Gemm(u, w, b) s = Sigmoid(h) g = Mul(h, s) y = MatMul(g, v) }}"""
    proto = model(text, SHAPES)
    for tensor in proto.graph.initializer:
        array = numpy_helper.to_array(tensor).astype(helper.tensor_dtype_to_np_dtype(KINDS[name]))
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return proto


def samples() -> dict[str, Any]:
    return {"x": np.random.default_rng(0).standard_normal((256, 12)).astype(np.float32)}


@pytest.mark.parametrize("name", KINDS)
def test_oracles(name: str) -> None:
    loaded = load(half(name))
    moved, copied = permute(loaded), duplicate(loaded)
    assert moved.error <= (EXACT_PERMUTE_RTOL if name == "bfloat16" else STEP[name]) and moved.control > CONTROL
    assert copied.error <= STEP[name] and copied.control > 2 * STEP[name]


@pytest.mark.parametrize("name", KINDS)
def test_samples_are_used_and_types_stay(name: str) -> None:
    proto = half(name)
    given = samples() if name == "bfloat16" else {"x": samples()["x"].astype(np.float16)}
    assert {t.data_type for t in proto.graph.initializer} == {KINDS[name]}
    errors, notes = with_and_without_repair(proto, ratio=0.5, calibration=given)
    for said in notes.values():
        assert any("float32 copies" in note for note in said) == (name == "bfloat16")
        assert all("\n" not in note for note in said)
    assert errors["least-squares"] < 0.8 * errors["none"], errors


def test_without_data_it_is_measured_too(tmp_path: Path) -> None:
    onnx.save(half("bfloat16"), tmp_path / "in.onnx")
    assert main([str(tmp_path / "in.onnx"), str(tmp_path / "out.onnx"), "--ratio", "0.25", "-q"]) == 0
    report = compare(tmp_path / "in.onnx", tmp_path / "out.onnx")
    assert report.check is not None and report.check.worst is not None and 0 < report.check.worst.relative_l2 < 1
    (note,) = [n for n in report.check.notes if "float32 copies" in n]
    assert note.startswith("CPU does not run this bfloat16 model")


def test_what_cannot_be_run_either_way_is_said(tmp_path: Path) -> None:
    proto = half("bfloat16")
    proto.opset_import.append(helper.make_opsetid("custom", 1))
    proto.graph.node.append(helper.make_node("Foo", ["x"], ["z"], domain="custom"))
    proto.graph.output.append(helper.make_tensor_value_info("z", BFLOAT16, ["N"]))
    result = fold(proto, tmp_path / "out.onnx", ratio=0.5, allow_unmeasured=True)
    check = result.report.check
    assert check is not None and check.passed and check.worst is None and check.mark == "unsure"
    assert "nothing was measured: no provider could run the original model" in check.notes
    with pytest.raises(RequestError, match="cannot use samples: onnxruntime cannot load this model"):
        fold(proto, ratio=0.5, calibration=samples())


def test_a_latency_that_nobody_can_measure() -> None:
    with pytest.raises(RequestError, match="`target_latency` cannot be measured: the model does not run on CPU"):
        fold(half("bfloat16"), target_latency=0.7)


def test_copies_are_float32_throughout() -> None:
    """Also in bodies, casts and declarations; the original is left alone."""
    proto = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]> g (bfloat16[N,12] x, bool c) =>
        (bfloat16[N,12] y) { u = Cast<to=16>(x)
            y = If(c) <then_branch = a () => (bfloat16[N,12] p) { p = Add(u, k) },
                       else_branch = b () => (bfloat16[N,12] q) { q = Cast<to=16>(x) }> }""")
    one = numpy_helper.from_array(np.ones(1, helper.tensor_dtype_to_np_dtype(BFLOAT16)))
    proto.graph.node[1].attribute[0].g.node.insert(0, helper.make_node("Constant", [], ["k"], value=one))
    before = proto.SerializeToString(deterministic=True)
    copy = widened(proto, HALF)
    assert holds(proto, BFLOAT16) and not holds(copy, BFLOAT16)
    assert proto.SerializeToString(deterministic=True) == before
    x = np.zeros((2, 12), np.float32)
    for c, wanted in ((True, 1.0), (False, 0.0)):
        assert Session(copy.SerializeToString()).run({"x": x, "c": np.array(c)})[0].tolist() == (x + wanted).tolist()
    assert inline(proto, None, as_is=True) is proto


def test_models_without_are_not_copied() -> None:
    proto = half("float16")
    assert inline(proto, None) is proto
