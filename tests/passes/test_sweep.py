"""The sweep: a row per budget, one sensitivity analysis for all of them, and the knee of the curve."""

from __future__ import annotations

import io
import json
import math
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from tiny import MODELS, ROOT, main, net, snapshot, write, write_external

import onnxfold
from onnxfold import ModelError, NothingToFoldError, PlanError, RequestError, SweepReport, sweep
from onnxfold.analysis.costs import Size
from onnxfold.errors import ExecutionError
from onnxfold.evaluation.verdict import Status
from onnxfold.options.choices import SHARES
from onnxfold.passes import calibrate, prepare
from onnxfold.passes.sweep import SweepRow, Timing, recommended
from onnxfold.planning import planner, sampled
from onnxfold.planning.error_curves import ErrorCurves
from onnxfold.planning.knee import knee
from onnxfold.planning.sampled import SampledMerger

sys.path.append(str(ROOT / "models"))
import digits

Capture = pytest.CaptureFixture[str]
VGG, MLP = MODELS / "digits_vgg.onnx", MODELS / "digits_mlp.onnx"
FAST: dict[str, Any] = {"effort": "fast", "latency": False}


def images(flat: bool = False) -> dict[str, Any]:
    return {"image": digits.load_train(flat)[0][:64]}


def shown(report: SweepReport, width: int = 80) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    report.print(console)
    return console.export_text()


# the knee -----------------------------------------------------------------------------------------------------------


def test_the_knee_of_a_bend() -> None:
    x = np.linspace(0, 1, 11)
    assert knee(x, np.maximum(0, x - 0.6)) == 6
    assert knee(x, np.where(x < 0.35, 0.1 * x, 2 * x)) == 3


@pytest.mark.parametrize("power", [2, 3, 5])
def test_the_knee_of_a_power(power: int) -> None:
    """x - x^p is largest where its slope is 0: at p^(-1 / (p - 1))."""
    x = np.linspace(0, 1, 1001)
    at = knee(x, x**power)
    assert at is not None and x[at] == pytest.approx(power ** (-1 / (power - 1)), abs=1e-3)


def test_the_knee_does_not_depend_on_scale_or_order() -> None:
    gained, cost = [0.0, 0.1, 0.2, 0.3, 0.4], [0.0, 0.01, 0.02, 0.2, 0.5]
    assert knee(gained, cost) == 2
    assert knee([5 + 100 * g for g in gained], [7 + 1e-6 * c for c in cost]) == 2
    assert knee(gained[::-1], cost[::-1]) == 2


@pytest.mark.parametrize(
    "cost", [[0, 1, 2, 3], [0, 2, 3, 3.5], [0, 0, 0, 0], [1, 0.5, 0.2, 0], [0, math.nan, math.inf, 1]]
)
def test_curves_without_a_knee(cost: Sequence[float]) -> None:
    """A line, a concave curve, a flat one, one that falls, one with two points that count."""
    assert knee([0, 1, 2, 3], cost) is None


def test_the_same_model_twice_is_recommended_once() -> None:
    assert knee([0, 1, 1, 2], [0, 0.1, 0.1, 1]) == 1


def row(target: float, macs: int, error: float, problems: tuple[str, ...] = ()) -> SweepRow:
    return SweepRow(target, Size(100, 100, macs), error, 0.9, (), problems, "")


def test_rows_that_failed_are_not_recommended() -> None:
    before = Size(1000, 1000, 100)
    rows = [row(0.9, 90, 0.01), row(0.7, 70, 0.02), row(0.5, 50, 0.5)]
    assert recommended(rows, before) == 0.7
    assert recommended([rows[0], row(0.7, 70, 0.0, ("NaN",)), rows[2]], before) == 0.9
    assert recommended([rows[0], SweepRow(0.7, None, None, None, (), (), "no"), rows[2]], before) == 0.9
    assert recommended(rows[:1], before) is None


# the sweep ----------------------------------------------------------------------------------------------------------


def test_a_sweep_from_weights_alone() -> None:
    report = sweep(VGG, effort="fast")
    assert [r.target for r in report.rows] == list(SHARES)
    sizes = [r.size for r in report.rows if r.size]
    assert len(sizes) == len(SHARES) and report.passed
    for r, size in zip(report.rows, sizes, strict=True):
        assert size.macs <= r.target * report.before.macs and 0 < size.file < report.before.file
        assert r.error is not None and r.error > 0 and r.agreement is not None
        assert r.timings[0].status == "ok" and r.timings[0].share
    assert [s.macs for s in sizes] == sorted((s.macs for s in sizes), reverse=True)
    assert not report.settings["samples_used"] and report.settings["recovery"] == "closed-form"


def test_a_row_is_what_a_fold_makes() -> None:
    report = sweep(VGG, at=[0.6], **FAST)
    after = onnxfold.fold(VGG, target_macs=0.6, provenance=False, **FAST).report.after
    assert report.rows[0].size == after


def test_stages_happen_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Counter[str]()

    def counted(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def wrapper(*given: Any, **more: Any) -> Any:
            calls[name] += 1
            return original(*given, **more)

        monkeypatch.setattr(owner, name, wrapper)

    counted(prepare, "analyze")
    counted(calibrate, "collect_samples")
    counted(sampled, "measure_sensitivity")
    counted(ErrorCurves, "measure")
    counted(SampledMerger, "finish")
    report = sweep(VGG, at=[0.8, 0.6, 0.4], calibration=images(), latency=False)
    once = {"analyze": 1, "collect_samples": 1, "measure_sensitivity": 1, "measure": 1}
    assert calls == {**once, "finish": 4}  # what is recommended is made again, with all plans
    assert report.settings["samples_used"]
    errors = [r.error for r in report.rows if r.error is not None]
    assert len(errors) == 3 and errors == sorted(errors) and errors[0] < 0.4


def test_a_model_that_does_not_run_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """All rows are decided the same way, also where the samples prove useless at the second budget."""
    calls: list[float] = []

    def refuse(sampled: Any, prices: Any, budget: Any, *given: Any, **more: Any) -> Any:
        calls.append(budget.value)
        if len(calls) > 1:
            raise ExecutionError("cut")
        return original(sampled, prices, budget, *given, **more)

    original = planner.decide_sampled
    monkeypatch.setattr(planner, "decide_sampled", refuse)
    report = sweep(MLP, at=[0.8, 0.6, 0.4], calibration=images(True), latency=False)
    weights = sweep(MLP, at=[0.8, 0.6, 0.4], **FAST)
    assert calls == [0.8, 0.6] and any("decided from the weights alone" in note for note in report.notes)
    assert [r.size for r in report.rows] == [r.size for r in weights.rows]


def test_budgets_that_cannot_be_met_are_rows() -> None:
    report = sweep(VGG, at=[1.0, 0.7, 0.001], **FAST)
    nothing, met, beyond = report.rows
    assert nothing.size is None and "removes nothing" in nothing.note
    assert beyond.size is None and "cannot be reached" in beyond.note and beyond.error is None
    assert met.size is not None and report.passed
    text = shown(report)
    assert "0.1 %: `target_macs=0.001` cannot be reached" in " ".join(text.split())


def test_no_budget_that_can_be_met() -> None:
    with pytest.raises(PlanError, match=r"`target_macs=0\.002` cannot"):
        sweep(VGG, at=[0.001, 0.002], **FAST)
    with pytest.raises(PlanError, match="cannot be reached"):
        sweep(VGG, at=[1.0, 0.001], **FAST)
    with pytest.raises(NothingToFoldError):
        sweep(VGG, at=[1.0], **FAST)
    with pytest.raises(NothingToFoldError):
        sweep(VGG, exclude=["."], **FAST)
    with pytest.raises(ModelError):
        sweep("no such file.onnx", **FAST)


@pytest.mark.parametrize("at", [[], [0.0], [1.1], [math.nan], [-0.5, 0.5]])
def test_shares_that_make_no_sense(at: Sequence[float]) -> None:
    with pytest.raises(RequestError, match="`at`"):
        sweep(net(), at=at, **FAST)


def test_shares_are_sorted_and_taken_once() -> None:
    report = sweep(net(), at=(0.5, 0.9, 0.5), round_to=1, **FAST)
    assert [r.target for r in report.rows] == report.settings["at"] == [0.9, 0.5]


def test_models_in_memory_and_with_external_data(tmp_path: Path) -> None:
    proto = net()
    inside = sweep(proto, at=[0.5], **FAST)
    path = write_external(tmp_path / "in.onnx", net())
    before = snapshot(tmp_path)
    outside = sweep(path, at=[0.5], **FAST)
    assert snapshot(tmp_path) == before
    assert inside.model == "model" and inside.rows[0].error == outside.rows[0].error
    assert proto == net()


def test_outputs_without_classes_have_no_agreement() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> agraph (float[N,3,8,8] x) => (float[N,1,6,6] y) {
        a = Conv <kernel_shape: ints = [3,3]> (x, w1)
        r = Relu (a)
        y = Conv <kernel_shape: ints = [1,1]> (r, w2)
    }"""
    report = sweep(net(text, {"w1": (16, 3, 3, 3), "w2": (1, 16, 1, 1)}), at=[0.6], **FAST)
    assert report.rows[0].error is not None and report.rows[0].agreement is None
    assert "top-1" not in shown(report)


# what it shows ------------------------------------------------------------------------------------------------------


def example(**change: Any) -> SweepReport:
    timings = (
        Timing("CUDAExecutionProvider", Status.FAILED, "no device", None, None),
        Timing("CPUExecutionProvider", Status.OK, "", 2.0, 1.5),
    )
    rows = (
        SweepRow(0.9, Size(900, 90, 900), 0.01, 0.999, timings, (), ""),
        SweepRow(0.5, Size(500, 50, 499), math.inf, None, timings, ("NaN in 'y'",), ""),
        SweepRow(0.1, None, None, None, (), (), "`target_macs=0.1` cannot be reached"),
    )
    given = {"model": "in[0].onnx", "settings": {"seed": 0}, "before": Size(1000, 100, 1000), "rows": rows,
             "recommended": 0.9, "samples": "your inputs", **change}  # fmt: skip
    return SweepReport(**given)


def test_the_table() -> None:
    text = shown(example())
    assert max(map(len, text.splitlines())) <= 80 and "…" not in text
    cells = [" ".join(line.split()) for line in text.splitlines()]
    assert "90 % ← knee 90.0 % 90.0 % 90.0 % 75 % 1 % 99.9 %" in cells
    assert "50 % failed 50.0 % 50.0 % 49.9 % 75 % not finite" in cells
    assert "10 % - - - - - -" in cells and "50 %: NaN in 'y'" in cells
    assert "latency CPU" in text and "in[0].onnx" in text
    assert cells[3].startswith("✘ the knee is at `target_macs=0.9`, file -10 %, MACs -10 %, output error 1 %")
    assert "no budget stands out among the 1 of 3 that could be met" in shown(example(recommended=None))


def test_json_is_plain() -> None:
    def refuse(text: str) -> None:
        raise AssertionError(text)

    data = json.loads(example().to_json(), parse_constant=refuse)
    assert data["schema"] == 1 and data["recommended"] == 0.9 and data["passed"] is False
    assert data["rows"][1]["error"] is None and data["rows"][2]["size"] is None


def run(*arguments: object) -> int:
    return main(["sweep", *map(str, arguments)])


def test_command_line(tmp_path: Path, capsys: Capture) -> None:
    path = write(tmp_path / "in.onnx")
    assert run(path, "--at", ".8,.5", "--report", tmp_path / "r.json", "--round-to", 4) == 0
    out, err = capsys.readouterr()
    assert err == "" and "80 %" in out and "latency CPU" in out and max(map(len, out.splitlines())) <= 80
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.onnx", "r.json"]
    data = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert [r["target"] for r in data["rows"]] == [0.8, 0.5] and data["settings"]["round_to"] == 4
    assert data["settings"]["effort"] == "fast" and data["settings"]["seed"] == 0
    assert run(path, "--at", "0.5", "-q") == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("at", ["", "x", ".5,", "0", "1.5", "-1", "nan", ".9;.5"])
def test_bad_values_of_at(at: str, tmp_path: Path, capsys: Capture) -> None:
    assert run(write(tmp_path / "in.onnx"), f"--at={at}") == 2
    shown = capsys.readouterr()
    assert "--at" in shown.err and shown.err.count("\n") == 1 and shown.out == ""


def test_exit_codes(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "in.onnx")
    assert run(tmp_path / "none.onnx") == 3
    assert run(path, "--exclude", ".") == 4
    assert run(path, "--at", "0.001") == 2
    assert run(path, "--target-macs", "0.5") == 2
    assert run(path, "--report", tmp_path / "no folder" / "r.json") == 2
    assert run(path, "--report", path) == 2
    assert run() == 2
    capsys.readouterr()
    monkeypatch.setattr("onnxfold.evaluation.verdict._interface", lambda *_: ["the model's inputs changed ('x')"])
    assert run(path, "--at", "0.5") == 1
    assert "50 %: the model's inputs changed" in capsys.readouterr().out


def test_options_reach_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def fake(model: object, **given: Any) -> SweepReport:
        seen.update(given)
        return example()

    monkeypatch.setattr("onnxfold.api.sweep", fake)
    options = ["--method", "fold", "--recovery", "none", "--effort", "best", "--calibration", "c.npz", "--samples", "9",
               "--include", "a", "--exclude", "b", "--input-shape", "x:1,2", "--providers", "cpu", "--seed", "3",
               "--threads", "2", "--round-to", "4", "--preprocess", "0.5,0.25,nchw"]  # fmt: skip
    assert run("in.onnx", *options, "-q") == 1
    assert (seen["method"], seen["recovery"], seen["effort"], seen["samples"]) == ("fold", "none", "best", 9)
    assert (seen["include"], seen["exclude"], seen["input_shapes"]) == (["a"], ["b"], {"x": (1, 2)})
    assert (seen["providers"], seen["seed"], seen["threads"], seen["round_to"]) == (["cpu"], 3, 2, 4)
    assert seen["calibration"] == "c.npz" and seen["preprocess"] is not None and seen["at"] == SHARES
