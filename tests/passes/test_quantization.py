"""INT8 as the last step: the file, the report on it, what it goes together with, and what is refused."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from alike import permuted_copy
from helpers import model
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper
from sklearn.datasets import load_digits
from tiny import MODELS, main, net, reshaped_inside, snapshot, write, write_external

import onnxfold
from onnxfold.analysis.costs import costs, count_parameters
from onnxfold.calibration.origin import Origin
from onnxfold.cli import main as cli
from onnxfold.errors import PlanError, QuantizationError
from onnxfold.evaluation import verdict
from onnxfold.evaluation.metrics import OutputError
from onnxfold.evaluation.verdict import Check, ProviderCheck, Status
from onnxfold.model.model import load
from onnxfold.options.budget import Aim
from onnxfold.passes.quantization import ort_quantizer as quantizer
from onnxfold.passes.quantization import quantize as chain
from onnxfold.passes.quantization.ort_quantizer import in_int8, on_integers
from onnxfold.passes.quantization.result import QuantizationReport
from onnxfold.runtime.session import Session

RESNET, MLP = MODELS / "digits_resnet_bn.onnx", MODELS / "digits_mlp.onnx"
MOBILENET = MODELS / "digits_mobilenet.onnx"
MOST_FOR_INT8 = 0.03  # error of INT8 alone on the digits networks; measured 0.018 to 0.025
LEAST_TOP1 = 0.98  # of digits: both networks have 99.6 %


def digits() -> tuple[NDArray[Any], NDArray[Any]]:
    images, labels = load_digits(return_X_y=True)
    return (images.reshape(-1, 1, 8, 8) / 8 - 1).astype(np.float32), labels


IMAGES, LABELS = digits()
GIVEN: dict[str, Any] = {"calibration": {"image": IMAGES[:128]}, "latency": False}


def operators(proto: ModelProto) -> list[str]:
    return [node.op_type for node in proto.graph.node]


def noise(proto: ModelProto, count: int = 4) -> list[dict[str, NDArray[Any]]]:
    rng = np.random.default_rng(0)
    shapes = [[d.dim_value or 2 for d in v.type.tensor_type.shape.dim] for v in proto.graph.input]
    names = [v.name for v in proto.graph.input]
    pairs = list(zip(names, shapes, strict=True))
    return [{name: rng.standard_normal(shape).astype(np.float32) for name, shape in pairs} for _ in range(count)]


# widths -------------------------------------------------------------------------------------------------------------


def depthwise(**how: Any) -> list[int]:
    """The widths of depthwise convolutions after a fold of a MobileNet."""
    report = onnxfold.fold(MOBILENET, **how, **GIVEN).report
    return [g.after for g in report.groups if "expand" in g.name]


@pytest.mark.full
def test_depthwise_convolutions_get_whole_blocks() -> None:
    """INT8 takes twice as long for those with others."""
    found = depthwise(target_macs=0.7, quantize=True)
    assert len(found) == 5 and all(width % 16 == 0 for width in found)
    assert any(width % 16 for width in depthwise(target_macs=0.75))


@pytest.mark.slow
def test_a_target_that_whole_blocks_cannot_meet_is_met_without() -> None:
    found = depthwise(target_macs=0.2, round_to=24, quantize=True)
    assert 24 in found and all(width % 24 == 0 for width in found)  # 48 is the least with whole blocks


# the file and what is said of it ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_fold_in_int8_is_what_its_report_says(tmp_path: Path) -> None:
    target = tmp_path / "out.onnx"
    report = onnxfold.fold(RESNET, target, target_macs=0.7, quantize=True, **GIVEN).report
    written, found = onnx.load(target), report.quantization
    assert (
        found is not None and report.after is not None and report.check is not None and report.check.worst is not None
    )
    assert {"QuantizeLinear", "DequantizeLinear"} <= set(operators(written))
    assert "BatchNormalization" not in operators(written)
    weights = [t for t in written.graph.initializer if len(t.dims) > 1]
    assert weights and all(t.data_type == TensorProto.INT8 for t in weights)
    assert report.after.file == found.file_after == target.stat().st_size < 0.4 * found.file_before
    assert report.after.parameters == count_parameters(written)
    assert report.after.macs == costs(load(target)).macs({}) < 0.72 * report.before.macs
    assert found.error_after == report.check.worst.relative_l2
    assert found.samples == 96  # of 128, one in four is held back
    assert found.nodes == len(operators(written)) - sum(
        "quantizeLinear" in op.replace("Q", "q") for op in operators(written)
    )
    assert not found.floats
    scores = Session(target.read_bytes()).run({"image": IMAGES})[0]
    assert (scores.argmax(1) == LABELS).mean() > LEAST_TOP1
    again = onnxfold.compare(RESNET, target, inputs={"image": IMAGES[2:128:4]}, latency=False)
    assert again.after == report.after and again.check is not None and again.check.worst is not None
    assert again.check.worst.relative_l2 == pytest.approx(found.error_after, rel=1e-3)
    assert "in INT8" in report.verdict


def test_interface_and_notes_stay(tmp_path: Path) -> None:
    proto = onnx.load(RESNET)
    proto.metadata_props.add(key="made", value="by hand")
    made = onnxfold.fold(proto, ratio=0, quantize=True, provenance=False, **GIVEN).model
    assert made.graph.input == proto.graph.input and made.graph.output == proto.graph.output
    assert made.metadata_props == proto.metadata_props and made.producer_name == proto.producer_name
    assert {o.domain for o in made.opset_import} <= {"", "ai.onnx"}


@pytest.mark.slow
def test_the_same_inputs_give_the_same_bytes_and_others_do_not() -> None:
    def made(images: NDArray[Any]) -> bytes:
        result = onnxfold.fold(RESNET, ratio=0, quantize=True, calibration={"image": images}, latency=False)
        return result.model.SerializeToString(deterministic=True)

    first = made(IMAGES[:128])
    assert made(IMAGES[:128].copy()) == first
    assert made(2 * IMAGES[:128]) != first


@pytest.mark.slow
def test_ranges_are_not_taken_from_what_is_held_back() -> None:
    """Errors are measured on every fourth sample; the others alone set the ranges."""

    def ranges(held: float, others: float = 1) -> list[bytes]:
        images = others * IMAGES[:128]
        images[2::4] = held * IMAGES[2:128:4]
        result = onnxfold.fold(RESNET, ratio=0, quantize=True, calibration={"image": images}, latency=False)
        return [t.SerializeToString() for t in result.model.graph.initializer]

    assert ranges(1) == ranges(3) != ranges(3, 3)


def test_where_nothing_is_folded_the_model_is_quantized_all_the_same() -> None:
    report = onnxfold.fold(RESNET, ratio=0, quantize=True, **GIVEN).report
    assert report.after is not None and report.quantization is not None
    assert report.after.macs == report.before.macs and report.quantization.error_before == 0
    assert 0 < report.quantization.error_after < MOST_FOR_INT8
    assert "budget" not in report.verdict and {g.note for g in report.groups} == {"no channels were to go"}


@pytest.mark.slow
def test_a_limit_on_the_error_holds_for_the_whole() -> None:
    with_int8, without = (onnxfold.fold(RESNET, max_error=0.05, quantize=q, **GIVEN).report for q in (True, False))
    assert with_int8.quantization is not None and with_int8.check is not None and with_int8.check.worst is not None
    assert with_int8.check.worst.relative_l2 < 0.055  # one batch of those that the limit was kept on together
    assert with_int8.quantization.error_before < with_int8.quantization.error_after
    assert with_int8.after is not None and without.after is not None
    assert with_int8.after.macs >= without.after.macs


class Known:
    """A Evaluator whose answers are known."""

    def __init__(self, error: float, agreement: float) -> None:
        self.error, self.agreement = (lambda _: error), (lambda _: agreement)


@pytest.mark.parametrize(
    ("aim", "asked", "left"),
    [
        (Aim.QUALITY, 0.5, 0.4),  # errors of 0.3 and 0.4, at right angles, make 0.5
        (Aim.AGREEMENT, 0.75, 0.875),
        (Aim.MACS, 0.5, 0.5),
        (Aim.RATIO, 0.1, 0.1),
        (Aim.QUALITY, 0.3, None),
        (Aim.QUALITY, 0.0, None),
        (Aim.AGREEMENT, 0.9, None),
    ],
)
def test_what_int8_costs_is_taken_off_a_limit(aim: Aim, asked: float, left: float | None) -> None:
    proto = model("(float[2,6] x) => (float[2,4] y) { y = MatMul(x, w) }", {"w": (6, 4)})
    evaluator: Any = Known(0.3, 0.875)
    if left is not None:
        assert chain.narrowed(aim, asked, evaluator, load(proto), _evidence(proto)) == pytest.approx(left)
    else:
        with pytest.raises(PlanError, match="cannot be kept with `quantize`: INT8 alone has an"):
            chain.narrowed(aim, asked, evaluator, load(proto), _evidence(proto))


def test_external_data_stays_external(tmp_path: Path) -> None:
    source = write_external(tmp_path / "in.onnx", onnx.load(RESNET))
    report = onnxfold.fold(source, tmp_path / "out.onnx", ratio=0, quantize=True, **GIVEN).report
    data = [file for file in tmp_path.iterdir() if file.name.startswith("out.onnx.") and file.suffix == ".data"]
    assert len(data) == 1 and report.after is not None
    assert report.after.file == data[0].stat().st_size + (tmp_path / "out.onnx").stat().st_size
    Session(tmp_path / "out.onnx").run({"image": IMAGES[:2]})


# the chain ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_fold_refine_and_int8_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "images.npz", image=IMAGES[:128])
    target, kept = tmp_path / "out.onnx", tmp_path / "report.json"
    arguments = ["--target-macs", "0.6", "--refine", "--steps", "5", "--quantize", "--report", str(kept)]
    assert cli.main([str(RESNET), str(target), *arguments, "--calibration", str(tmp_path / "images.npz")]) == 0
    report = json.loads(kept.read_text())
    assert report["refinement"]["losses"] and report["quantization"]["error_before"] is not None
    assert report["quantization"]["latency_after_ms"] > 0
    assert report["seconds"]["quantize"] > 0
    assert report["after"]["file"] == target.stat().st_size
    shown = " ".join(capsys.readouterr().out.split())
    assert "in floats" in shown and "quantized" in shown and "in INT8" in shown


@pytest.mark.parametrize("normalized", [True, False], ids=["BatchNormalization", "without"])
def test_shared_weights_are_stored_once_in_int8_too(normalized: bool) -> None:
    """Each convolution's own normalization is not taken into the weight that they share."""
    proto = permuted_copy()
    if not normalized:
        for node in proto.graph.node:
            if node.op_type == "BatchNormalization":
                node.CopyFrom(helper.make_node("Identity", node.input[:1], node.output))
    feeds = {"x": np.random.default_rng(0).standard_normal((64, 3, 8, 8)).astype(np.float32)}
    result = onnxfold.fuse(proto, share=0.2, quantize=True, calibration=feeds, latency=False)
    assert len(result.report.shared) == 1 and result.report.quantization is not None
    shapes = [
        tuple(t.dims) for t in result.model.graph.initializer if t.data_type == TensorProto.INT8 and len(t.dims) > 1
    ]
    assert len(shapes) == 5  # of six weights
    assert operators(result.model).count("BatchNormalization") == (2 if normalized else 0)


@pytest.mark.slow
def test_a_fusion_keeps_its_limit_with_int8() -> None:
    report = onnxfold.fuse(RESNET, max_error=0.2, quantize=True, **GIVEN).report
    assert report.check is not None and report.check.worst is not None
    assert report.shared and report.settings["largest_error"] == 0.2 and report.check.worst.relative_l2 < 0.22


# what stays in floats, and what may be said of it -------------------------------------------------------------------


def test_operators_without_kernels_on_integers_are_counted() -> None:
    text = "(float[N,6] x) => (float[N,4] y) { a = Gemm(x, w, b) c = Sin(a) y = Gemm(c, v, d) }"
    proto = model(text, {"w": (6, 8), "b": (8,), "v": (8, 4), "d": (4,)})
    assert on_integers(in_int8(proto, noise(proto))) == (2, (("Sin", 1),))
    assert on_integers(proto) == (0, (("Gemm", 2), ("Sin", 1)))


def test_old_operator_sets_and_weights_among_the_inputs() -> None:
    """Without the conversion, QuantizeLinear has no axis; a weight that may be overridden is not fused."""
    text = """(float[2,3,6,6] x) => (float[2,4,4,4] y) {
        a = Conv(x, w, b)
        y = BatchNormalization(a, scale, beta, mean, var)
    }"""
    proto = model(
        text, {"w": (4, 3, 3, 3), **{n: (4,) for n in ("b", "scale", "beta", "mean", "var")}}, opset=9, ir_version=3
    )
    feeds = [{"x": feed["x"]} for feed in noise(proto)]
    made = in_int8(proto, feeds)
    assert on_integers(made) == (1, ())
    expected, found = (Session(p.SerializeToString()).run(feeds[0])[0] for p in (proto, made))
    assert np.linalg.norm(expected - found) < 0.05 * np.linalg.norm(expected)  # measured 0.013


REPORT = QuantizationReport("int8", "uint8", 8, 3, (), "CPUExecutionProvider", 900, 300, 0.02, 0.03, 2.0, 1.0)
WORST = OutputError("y", 0.03, 1.0, 30.0, 0.1, 0.9)
VERDICT = Check((), ("before",), (ProviderCheck("CPUExecutionProvider", Status.OK, "", 2.0, 1.0, (WORST,)),), "inputs")


@pytest.mark.parametrize(
    ("change", "note"),
    [
        ({}, ""),
        ({"latency_after_ms": 2.02}, ""),
        ({"latency_after_ms": 3.0}, "with INT8 it is slower than in floats on CPU: 1.50x the latency"),
        ({"file_after": 901}, "with INT8 it is larger than in floats: 901 B against 900 B"),
        ({"error_after": 0.2}, "slightly over `max_error=0.1`"),
    ],
)
def test_what_int8_makes_worse_is_said(
    change: dict[str, Any], note: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = replace(REPORT, **change)
    step = chain.Quantized(net(), b"", report.file_before, 8, False)
    notes = step.notes(report, (Aim.QUALITY, 0.1))
    assert (len(notes) == 1 and note in notes[0]) if note else not notes
    assert ("as fast" in str(report)) == (report.speedup is not None and not report.slower)


@pytest.mark.parametrize(("ratio", "floats"), [(0.5, 2.0), (0.0, 4.0)])
def test_the_latency_of_a_file_is_one_figure(ratio: float, floats: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """All three models take turns once; where nothing is folded, the model in floats is the original."""
    calls = list[int]()

    def in_turn(old: object, new: object, feeds: object, *others: object) -> tuple[list[float], ...]:
        calls.append(len(others))
        return [4.0], [1.0], [2.0]

    monkeypatch.setattr(verdict, "briefly_in_turn", in_turn)  # that of `effort='fast'`
    proto = net()
    report = onnxfold.fold(proto, ratio=ratio, quantize=True, effort="fast", calibration=noise(proto, 8)).report
    assert report.check is not None and report.quantization is not None and calls == [1]
    (done,), found = report.check.providers, report.quantization
    assert (done.latency_before_ms, done.latency_after_ms, done.latency_floats_ms) == (4.0, 1.0, 2.0)
    assert (found.latency_before_ms, found.latency_after_ms) == (floats, 1.0)


def test_random_ranges_are_said() -> None:
    assert "random inputs" in chain.Quantized(net(), b"", 1, 8, True).notes(REPORT, None)[0]


# refusals -----------------------------------------------------------------------------------------------------------


def test_a_quantized_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, target = tmp_path / "int8.onnx", tmp_path / "out.onnx"
    write(first, in_int8(onnx.load(MLP), [{"image": IMAGES.reshape(-1, 64)[:32]}]))
    before = snapshot(tmp_path)
    assert cli.main([str(first), str(target), "--quantize"]) == 5
    assert "is quantized already (QuantizeLinear" in (said := capsys.readouterr().err) and said.count("\n") == 1
    assert snapshot(tmp_path) == before
    onnxfold.fold(first, target, ratio=0.25, effort="fast", latency=False)  # as the message says


@pytest.mark.parametrize("options", [[], ["--fuse", "mean"]], ids=["fold", "fuse"])
def test_no_inputs_no_ranges(options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(RESNET), str(tmp_path / "out.onnx"), "--quantize", *options]) == 5
    assert "--effort fast makes none: pass --calibration" in capsys.readouterr().err
    assert not snapshot(tmp_path)


def test_a_model_that_is_never_loaded_whole_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--quantize", "--ratio", "0.25", "--max-memory", "1M", "--effort", "balanced"]
    assert cli.main([str(RESNET), str(tmp_path / "out.onnx"), *arguments]) == 5
    assert "too large to be loaded and run (over 2 GiB, or over --max-memory)" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", [np.float16])
def test_half_precision_is_refused(dtype: Any) -> None:
    text = "(float16[N,6] x) => (float16[N,4] y) { y = MatMul(x, w) }"
    proto = model(text, values={"w": np.ones((6, 4), dtype)})
    with pytest.raises(QuantizationError, match="16 bits"):
        chain.check_quantizable(load(proto), False, True)


def test_nothing_that_could_be_quantized_is_refused(tmp_path: Path) -> None:
    proto = model("(float[N,6] x) => (float[N,6] y) { y = Sin(x) }")
    with pytest.raises(QuantizationError, match="no operator that onnxruntime quantizes"):
        chain._fewer_bits(load(proto), proto, _evidence(proto))


def test_what_the_quantizer_raises_ends_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise AssertionError("inside\nand more")

    monkeypatch.setattr(quantizer.backend(), "quantize_static", fails)
    np.savez(tmp_path / "images.npz", image=IMAGES[:64])
    arguments = ["--quantize", "--ratio", "0.25", "--calibration", str(tmp_path / "images.npz")]
    before = snapshot(tmp_path)
    assert cli.main([str(RESNET), str(tmp_path / "out.onnx"), *arguments]) == 5
    said = capsys.readouterr().err
    assert "onnxruntime cannot quantize" in said and "(inside): fold it without --quantize" in said
    assert said.count("\n") == 1 and snapshot(tmp_path) == before


@pytest.mark.parametrize("budget", [{"target_params": 0.9}, {"max_error": 0.2}, {"ratio": 0.25}], ids=str)
def test_a_model_that_does_not_run_on_the_inputs_is_refused(budget: dict[str, float]) -> None:
    """It says that it takes any number of images, and takes multiples of three."""
    proto = reshaped_inside(RESNET, [3, -1, 8, 8])
    given = {"image": IMAGES[:16]}
    with pytest.raises(QuantizationError, match="set those"):
        onnxfold.fold(proto, calibration=given, quantize=True, latency=False, **budget)


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime.quantization", None)
    with pytest.raises(QuantizationError, match=r"needs onnxruntime.quantization and what that imports"):
        quantizer.backend()


def _evidence(proto: ModelProto) -> Any:
    from onnxfold.calibration.judge import Judge
    from onnxfold.calibration.samples import Samples

    feeds = tuple(noise(proto))
    return Samples(feeds, Judge(feeds, "noise", True), Origin.PICTURES, "noise")
