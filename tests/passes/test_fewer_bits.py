"""The other kinds of quantization: weights alone, ranges found in every run, float16; and what is refused."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from alike import permuted_copy
from helpers import model
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto
from sklearn.datasets import load_digits
from tiny import MODELS, main, snapshot, write

import onnxfold
from onnxfold.cli.parser import with_values
from onnxfold.errors import QuantizationError
from onnxfold.options.choices import Quantization
from onnxfold.passes.quantization import ort_quantizer, quantize
from onnxfold.passes.quantization.kinds import changed, needed, stored
from onnxfold.runtime.session import Session, crashes

RESNET, MLP = MODELS / "digits_resnet_bn.onnx", MODELS / "digits_mlp.onnx"
IMAGES: NDArray[Any] = (load_digits().images.reshape(-1, 1, 8, 8)[:128] / 8 - 1).astype(np.float32)
GIVEN: dict[str, Any] = {"calibration": {"image": IMAGES}, "latency": False, "ratio": 0}
MOST = {"int8-dynamic": 0.02, "int8-weights": 0.01, "int4": 0.2, "fp16": 2e-3}
"""Error of each kind alone on both digits networks; measured up to .013, .006, .134 and .0006."""
SHARE = {"int8-dynamic": 1.0, "int8-weights": 0.31, "int4": 0.18, "fp16": 0.52}
"""Of the bytes; measured up to .99 (convolutions stay), .29, .17 and .51."""


def relative(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(a))


def run(proto: ModelProto, *feeds: NDArray[Any]) -> NDArray[Any]:
    session = Session(proto.SerializeToString())
    found: NDArray[Any] = session.run(dict(zip([i.name for i in session.inputs], feeds, strict=True)))[0]
    return found


def transformer_like() -> ModelProto:
    """A table of words, two products with one weight, and one product with another."""
    text = """(int64[N,4] ids) => (float[N,4,32] y) {
        e = Gather(table, ids) a = MatMul(e, w) r = Relu(a) b = MatMul(r, w) c = MatMul(b, v) y = Add(c, e)
    }"""
    return model(text, {"table": (64, 32), "w": (32, 32), "v": (32, 32)})


KINDS = [kind.value for kind in Quantization if kind is not Quantization.INT8]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_alone(kind: str) -> None:
    images = IMAGES.reshape(-1, 64)
    result = onnxfold.fold(MLP, quantize=kind, **{**GIVEN, "calibration": {"image": images}})
    made, found, before = result.model, result.report.quantization, onnx.load(MLP)
    assert found is not None and found.kind == kind and found.nodes > 0 and found.samples == 0
    onnx.checker.check_model(made, full_check=True)
    assert 0 < relative(run(before, images), run(made, images)) < MOST[kind]
    assert found.file_after == len(made.SerializeToString()) < SHARE[kind] * MLP.stat().st_size
    assert made.graph.input == before.graph.input and made.graph.output == before.graph.output
    assert f"in {found.kind.label}" in result.report.verdict and found.errors is not None and found.errors[0] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_with_convolutions(kind: str) -> None:
    before = onnx.load(RESNET)
    made = stored(Quantization(kind), before, [])
    onnx.checker.check_model(made, full_check=True)
    assert changed(Quantization(kind), made)[0] > 0 and made.metadata_props == before.metadata_props
    assert 0 < relative(run(before, IMAGES), run(made, IMAGES)) < MOST[kind]
    assert len(made.SerializeToString()) < SHARE[kind] * RESNET.stat().st_size


def test_weights_alone_leave_activations_as_they_are() -> None:
    made = stored(Quantization.WEIGHTS8, onnx.load(RESNET), [])
    ops = [node.op_type for node in made.graph.node]
    assert "QuantizeLinear" not in ops and ops.count("DequantizeLinear") == ops.count("Conv") + ops.count("Gemm")
    plain = {t.name for t in made.graph.initializer if t.data_type == TensorProto.INT8 and len(t.dims) > 1}
    assert {n.input[0] for n in made.graph.node if n.op_type == "DequantizeLinear"} == plain
    used = {name for node in made.graph.node for name in node.input}
    assert {t.name for t in made.graph.initializer} <= used  # nothing is left of what went


@pytest.mark.parametrize(("kind", "most"), [("int8-weights", 0.02), ("int4", 0.2)])
def test_products_and_tables_in_blocks(kind: str, most: float) -> None:
    pytest.importorskip("onnx_ir")
    proto, ids = transformer_like(), np.arange(8, dtype=np.int64).reshape(2, 4)
    made = stored(Quantization(kind), proto, [])
    ops = [node.op_type for node in made.graph.node]
    assert ops.count("MatMulNBits") == 3 and "MatMul" not in ops
    assert ("GatherBlockQuantized" in ops) == (kind == "int4")
    assert changed(Quantization(kind), made)[0] == 4
    blocks = [t.name for t in made.graph.initializer if t.data_type == TensorProto.UINT8 and len(t.dims) == 3]
    assert len(blocks) == len(set(blocks)) == 2  # the weight of two products is stored once
    assert relative(run(proto, ids), run(made, ids)) < most  # measured 0.0048 and 0.098
    assert made.opset_import[0].version == proto.opset_import[0].version


def test_the_root_logger_stays_as_it_was() -> None:
    """The quantizer of blocks gives it a handler when it is imported."""
    pytest.importorskip("onnx_ir")
    before = list(logging.root.handlers), logging.root.level, logging.root.manager.disable
    needed(Quantization.WEIGHTS4, transformer_like())
    assert before == (list(logging.root.handlers), logging.root.level, logging.root.manager.disable)


def test_no_samples_are_needed(tmp_path: Path) -> None:
    target = tmp_path / "out.onnx"
    report = onnxfold.fold(RESNET, target, ratio=0.25, quantize="fp16", effort="fast", latency=False).report
    assert report.quantization is not None and report.after is not None
    assert report.after.macs < report.before.macs and target.stat().st_size < 0.4 * RESNET.stat().st_size


def test_a_limit_holds_for_the_whole() -> None:
    given = {name: value for name, value in GIVEN.items() if name != "ratio"}
    with pytest.raises(onnxfold.PlanError, match="INT4 weights alone has an error of"):
        onnxfold.fold(RESNET, quantize="int4", max_error=0.01, **given)


def test_shared_weights_stay_one() -> None:
    feeds = {"x": np.random.default_rng(0).standard_normal((32, 3, 8, 8)).astype(np.float32)}
    result = onnxfold.fuse(permuted_copy(), share=0.2, quantize="int8-weights", calibration=feeds, latency=False)
    weights = [t for t in result.model.graph.initializer if t.data_type == TensorProto.INT8 and len(t.dims) > 1]
    assert len(result.report.shared) == 1 and len(weights) == 5  # of six


# the command line ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["a", "--quantize", "b"], ["a", "--quantize=int8", "b"]),
        (["a", "b", "--quantize"], ["a", "b", "--quantize=int8"]),
        (["a", "--quantize", "fp16", "b"], ["a", "--quantize", "fp16", "b"]),
        (["a", "--quantize=int4", "b"], ["a", "--quantize=int4", "b"]),
        (["--", "--quantize"], ["--", "--quantize"]),
    ],
)
def test_a_kind_may_be_left_out(given: Sequence[str], found: Sequence[str]) -> None:
    assert with_values(given) == found


def test_a_file_behind_quantize_is_a_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "images.npz", image=IMAGES)
    target = tmp_path / "out.onnx"
    given = ["--ratio", "0", "--calibration", str(tmp_path / "images.npz"), "-q"]
    assert main([str(RESNET), *given, "--quantize", str(target)]) == 0
    assert any(node.op_type == "QuantizeLinear" for node in onnx.load(target).graph.node)


# refusals -----------------------------------------------------------------------------------------------------------


def test_nothing_to_quantize_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "in.onnx", model("(float[N,6] x) => (float[N,6] y) { y = Sin(x) }"))
    before = snapshot(tmp_path)
    for kind in ("int8-weights", "int8-dynamic", "int4"):
        with pytest.raises(QuantizationError, match="no operator that onnxruntime quantizes to"):
            quantize._fewer_bits(onnxfold.model.model.load(source), onnx.load(source), None, Quantization(kind))
    assert snapshot(tmp_path) == before


def test_old_versions_without_blocks_of_8_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort_quantizer, "installed", lambda: "1.20.1")
    with pytest.raises(QuantizationError, match=r"onnxruntime 1\.22 or later"):
        needed(Quantization.WEIGHTS8, transformer_like())
    needed(Quantization.WEIGHTS8, onnx.load(RESNET))  # has no product that would need them


def test_what_would_end_the_process_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize, "crashes", lambda path: True)
    with pytest.raises(QuantizationError, match="crashes when it loads"):
        onnxfold.fold(MLP, ratio=0, quantize="fp16", effort="fast", latency=False)


def test_a_crash_is_told_from_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    assert not crashes(broken)  # an exception: whoever loads it sees it
    monkeypatch.setattr("onnxfold.runtime.session._LOADING", "import os; os.kill(os.getpid(), 11)")
    assert crashes(broken)


def test_half_precision_twice_is_refused(tmp_path: Path) -> None:
    half = write(tmp_path / "half.onnx", stored(Quantization.HALF, onnx.load(MLP), []))
    with pytest.raises(QuantizationError, match="16 bits already"):
        onnxfold.fold(half, ratio=0, quantize="fp16", latency=False)
