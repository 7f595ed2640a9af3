"""The user's own measure in every command: as a budget, as a limit, and told."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gated import write_gated
from refusals import DONE, FAILED
from tiny import MODELS, ROOT, main, write

import onnxfold
from onnxfold import CompareOptions, FoldOptions, FuseOptions, MeasureOptions, PlanError, RequestError, SweepOptions
from onnxfold.evaluation.quality import Mark
from onnxfold.model.model import load

sys.path.append(str(ROOT / "models"))
import digits

VGG, MLP = MODELS / "digits_vgg.onnx", MODELS / "digits_mlp.onnx"
FAST: dict[str, Any] = {"effort": "fast", "latency": False}
IMAGES = {"image": digits.load_train()[0][:64]}
# More channels are worse, by 1 for every 10,000 parameters less: exact, and quick.
SIZE = "import os\ndef f(path):\n    return os.path.getsize(path) / 4e4\n"


class Calls:
    """A measure that notes what it was called with."""

    def __init__(self, measure: Any = digits.accuracy) -> None:
        self.paths, self.values, self.measure = list[str](), list[float](), measure

    def __call__(self, path: str) -> float:
        self.paths.append(path)
        self.values.append(float(self.measure(path)))
        return self.values[-1]


def size_of(path: str) -> float:
    return os.path.getsize(path) / 4e4


def run(*arguments: object) -> int:
    return main([str(a) for a in arguments])


def parameters(model: Any) -> int:
    return sum(int(np.prod(t.dims)) for t in model.graph.initializer)


# a budget -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how", [{}, {"calibration": {"image": digits.load_train()[0][:64]}}], ids=["weights", "samples"]
)
def test_as_small_as_it_gets(tmp_path: Path, how: dict[str, Any]) -> None:
    calls, out = Calls(), tmp_path / "out.onnx"
    found = onnxfold.fold(VGG, out, metric=calls, max_drop=1.0, **FAST, **how)
    assert calls.paths[0] == str(VGG) and all(path.endswith(".onnx") for path in calls.paths)
    assert len(calls.paths) <= 8 + 2, "the original, eight folds, the result"
    check = found.report.check
    assert check is not None and check.measure is not None and check.mark is Mark.KEPT
    assert check.measure.before == digits.accuracy(VGG) and check.measure.after == digits.accuracy(out)
    assert check.measure.drop <= 1.0 + 1e-9 and parameters(found.model) < 0.7 * parameters(load(VGG).proto)
    broken = [value for value in calls.values if value < calls.values[0] - 1.0]
    assert broken, "nothing smaller was tried"
    assert [p.name for p in tmp_path.iterdir()] == ["out.onnx"]


def test_a_larger_drop_removes_more() -> None:
    given = {**FAST, "metric": size_of, "calibration": IMAGES, "round_to": 8}  # whole blocks are too coarse to be near
    sizes = [parameters(onnxfold.fold(VGG, max_drop=drop, **given).model) for drop in (0.5, 2.0, 6.0)]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 3
    whole = parameters(load(VGG).proto)
    for size, drop in zip(sizes, (0.5, 2.0, 6.0), strict=True):
        assert 0.7 * drop < (whole - size) * 4 / 4e4 <= drop, "about the drop that is allowed"


def test_the_same_bytes_again(tmp_path: Path) -> None:
    made = [tmp_path / f"{name}.onnx" for name in "ab"]
    for out in made:
        onnxfold.fold(VGG, out, metric=digits.accuracy, max_drop=0.5, seed=3, **FAST)
    assert made[0].read_bytes() == made[1].read_bytes()


def test_a_model_in_memory() -> None:
    found = onnxfold.fold(load(MLP).proto, metric=digits.accuracy, max_drop=2.0, **FAST)
    assert found.report.check is not None and found.report.check.measure is not None
    assert found.report.check.measure.before == digits.accuracy(MLP)


def test_out_of_reach(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"`max_drop=0.01` cannot be kept: .* drops by "):
        onnxfold.fold(VGG, tmp_path / "out.onnx", metric=size_of, max_drop=0.01, **FAST)
    assert not list(tmp_path.iterdir())


def test_a_model_too_large_to_run_has_no_such_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, path = Calls(size_of), write_gated(tmp_path / "in.onnx", 3, 24, 64, np.float32)
    monkeypatch.setattr("onnxfold.passes.prepare.streamed", lambda *_: True)
    monkeypatch.setattr("onnxfold.passes.verify.comparable", lambda *_: False)
    with pytest.raises(RequestError, match="`max_drop` needs the model to run"):
        onnxfold.fold(path, metric=calls, max_drop=1.0, **FAST)
    assert not calls.paths
    found = onnxfold.fold(path, metric=calls, ratio=0.4, **FAST)
    assert len(calls.paths) == 2 and found.report.check is not None and found.report.check.measure is not None


def test_with_int8_the_whole_keeps_it(tmp_path: Path) -> None:
    given = {"metric": digits.accuracy, "max_drop": 1.5, "latency": False, "quantize": True}
    found = onnxfold.fold(VGG, tmp_path / "out.onnx", calibration=IMAGES, **given)
    check = found.report.check
    assert check is not None and check.measure is not None and check.measure.drop <= 1.5 + 1e-9
    assert found.report.quantization is not None
    with pytest.raises(PlanError, match="`max_drop=0` cannot be kept with `quantize`: INT8 alone drops the metric by"):
        smaller = {**given, "max_drop": 0, "metric": lambda path: "QLinear" not in str(_ops(path)) and size_of(path)}
        onnxfold.fold(VGG, calibration=IMAGES, **smaller)


def _ops(path: str) -> list[str]:
    return [node.op_type for node in load(Path(path)).proto.graph.node]


# a limit --------------------------------------------------------------------------------------------------------------


def test_a_limit_beside_a_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own, report = tmp_path / "own.py", tmp_path / "report.json"
    own.write_text(SIZE)
    asked = [VGG, tmp_path / "out.onnx", "--target-params", 0.7, "--metric", f"{own}:f", "--report", report]
    assert run(*asked, "--max-drop", 1) == FAILED
    shown = capsys.readouterr()
    assert "breaks --max-drop 1" in shown.err and "metric" in shown.out
    assert json.loads(report.read_text())["mark"] == "failed" and not (tmp_path / "out.onnx").exists()
    assert run(*asked, "--max-drop", 5) == DONE
    found = json.loads(report.read_text())
    assert (tmp_path / "out.onnx").exists() and found["mark"] == "kept"
    measure = found["check"]["measure"]
    assert measure["drop"] == measure["before"] - measure["after"] and 1 < measure["drop"] < measure["max_drop"] == 5
    assert found["after"]["parameters"] > 0.65 * found["before"]["parameters"], "the target decides, not the drop"


def test_a_metric_alone_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, own = tmp_path / "out.onnx", tmp_path / "own.py"
    own.write_text(SIZE)
    assert run(VGG, out, "--ratio", 0.1, "--metric", f"{own}:f") == DONE
    shown = capsys.readouterr().out
    before, after = size_of(str(VGG)), size_of(str(out))
    assert f"metric {after:.5g} (was {before:.5g})" in " ".join(shown.split())
    assert f"{after - before:+.3g}" in next(line for line in shown.splitlines() if line.strip().startswith("metric"))


def test_fusion(tmp_path: Path) -> None:
    from alike import permuted_copy

    path, calls = write(tmp_path / "in.onnx", permuted_copy()), Calls(size_of)
    found = onnxfold.fuse(path, share=0.3, metric=calls, max_drop=9.0, **FAST)
    assert calls.paths[0] == str(path) and len(calls.paths) == 2
    assert found.report.check is not None and found.report.check.measure is not None
    assert found.report.check.measure.kept
    with pytest.raises(onnxfold.ValidationError, match="`max_drop=0`"):
        onnxfold.fuse(path, share=0.3, metric=size_of, max_drop=0, **FAST)
    (tmp_path / "own.py").write_text(SIZE)
    asked = [path, tmp_path / "out.onnx", "--fuse", "mean", "--share", 30, "--metric", f"{tmp_path / 'own.py'}:f", "-q"]
    assert run(*asked, "--max-drop", 0) == FAILED and run(*asked, "--max-drop", 9) == DONE
    with pytest.raises(RequestError, match="`folding` says how"):
        onnxfold.fuse(path, folding={"ratio": 0.3, "metric": size_of}, **FAST)


# sweep and compare ----------------------------------------------------------------------------------------------------


def test_every_row_of_a_sweep(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    calls, own = Calls(size_of), tmp_path / "own.py"
    own.write_text(SIZE)
    found = onnxfold.sweep(MLP, at=[0.9, 0.6, 0.01], metric=calls, **FAST)
    assert calls.paths[0] == str(MLP) and len(calls.paths) == 3
    assert [row.measure and row.measure.after for row in found.rows] == [*calls.values[1:], None]
    data = json.loads(found.to_json())
    assert data["rows"][0]["measure"]["before"] == size_of(str(MLP))
    assert run("sweep", MLP, "--at", ".6", "--metric", f"{own}:f") == DONE
    shown = capsys.readouterr().out
    assert f"metric of the original: {size_of(str(MLP)):.5g}" in shown and f"{found.rows[1].measure.after:.5g}" in shown  # type: ignore[union-attr]
    head = next(line for line in shown.splitlines() if "target" in line)
    assert head.split()[-1] == "metric"
    with pytest.raises(RequestError, match="sweep has no `max_drop`"):
        onnxfold.sweep(MLP, metric=calls, max_drop=1.0)  # type: ignore[call-arg]


def test_comparing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, data, report = tmp_path / "out.onnx", tmp_path / "data.npz", tmp_path / "report.json"
    onnxfold.fold(VGG, out, ratio=0.1, **FAST)
    np.savez(data, image=digits.load_train()[0][:40])
    (tmp_path / "own.py").write_text(SIZE)
    metric = f"{tmp_path / 'own.py'}:f"
    asked = [VGG, out, "--calibration", data, "--samples", 32, "--metric", metric, "--report", report]
    assert run("compare", *asked) == DONE
    found = json.loads(report.read_text())["check"]
    assert found["measure"]["after"] == size_of(str(out)) and found["measure"]["max_drop"] is None
    assert found["quality"]["samples"] == 32 and found["quality"]["independent"] and "data.npz" in found["inputs"]
    calls = Calls(size_of)
    onnxfold.compare(VGG, out, metric=calls, latency=False)
    assert calls.paths == [str(VGG), str(out)]


def test_a_comparison_measures_on_all_samples() -> None:
    for count in (2, 24, 64):
        images = {"image": IMAGES["image"][:count]}
        found = onnxfold.compare(VGG, VGG, calibration=images, latency=False).check
        assert found is not None and found.quality is not None
        assert found.quality.samples == count and found.mark is Mark.KEPT and found.quality.error == 0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"inputs": {}, "calibration": "x.npz"}, "`inputs` or `calibration`"), ({"max_drop": 1}, "no `max_drop`"),
        ({"calibration": "no-such-file.npz"}, "no-such-file"), ({"effort": "fast"}, "compare has no `effort`"),
        ({"metric": size_of, "options": CompareOptions()}, "not both"),
    ],
)  # fmt: skip
def test_what_a_comparison_refuses(given: dict[str, Any], says: str) -> None:
    with pytest.raises(RequestError, match=says):
        onnxfold.compare(VGG, VGG, **given)


# what is refused ------------------------------------------------------------------------------------------------------


def test_the_measure_is_asked_before_anything_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("samples were made before the measure failed")

    monkeypatch.setattr("onnxfold.passes.calibrate.collect_samples", never)
    for call in (onnxfold.fold, onnxfold.sweep):
        with pytest.raises(RequestError, match="raised ZeroDivisionError"):
            call(VGG, metric=lambda _: 1 / 0)


# options --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [FoldOptions, FuseOptions, SweepOptions, CompareOptions])
def test_options_to_a_dict_and_back(kind: Any) -> None:
    made = kind.of(metric="own.py:f", metric_timeout=5)
    plain = made.to_dict()
    assert plain["measure"] == {"metric": "own.py:f", "max_drop": None, "timeout": 5.0}
    assert kind.from_dict(json.loads(json.dumps(plain))) == made
    with pytest.raises(RequestError, match=r"`metric` holds a function, which cannot be written down: give 'FILE.py:F"):
        kind.of(metric=size_of).to_dict()


def test_the_budget_and_the_limit() -> None:
    alone = FoldOptions.of(metric="own.py:f", max_drop=0.1)
    beside = FoldOptions.of(metric="own.py:f", max_drop=0.1, max_error=0.1)
    assert alone.budget == onnxfold.Budget.max_drop(0.1) and alone.measure.max_drop == 0.1
    assert beside.budget == onnxfold.Budget.max_error(0.1) and beside.measure.max_drop == 0.1
    assert FoldOptions.of(metric="own.py:f", max_drop=0.1, group_ratios={}).budget == alone.budget
    ratios = FoldOptions.of(metric="own.py:f", max_drop=0.1, group_ratios={"a": 0.5})
    assert ratios.budget.group_ratios == {"a": 0.5} and ratios.measure.max_drop == 0.1
    measure = MeasureOptions(metric="own.py:f")
    assert FoldOptions(budget=onnxfold.Budget.max_drop(0.1), measure=measure) == alone
    with pytest.raises(RequestError, match="one value in `budget`"):
        FoldOptions(budget=onnxfold.Budget.max_drop(0.1), measure=MeasureOptions(metric="own.py:f", max_drop=0.2))
