"""Targets that are measured: the file really is that small, and the least fold that is fast enough is taken."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import FAST, MODELS, ROOT, fold, main, net, write, write_external

import onnxfold
from onnxfold import PlanError, RequestError
from onnxfold.analysis.costs import costs, count_parameters
from onnxfold.evaluation import latency as profiler
from onnxfold.evaluation import latency as timing
from onnxfold.evaluation import verdict
from onnxfold.evaluation.latency import Profiler, latency_share
from onnxfold.model.model import load
from onnxfold.model.save import size_written, staged
from onnxfold.options.budget import Aim
from onnxfold.planning.allocation import Plan, Width, ladder
from onnxfold.planning.goal import Goal
from onnxfold.planning.measured_targets import TIMINGS, fast_enough, small_enough
from onnxfold.progress import silent

sys.path.append(str(ROOT / "models"))
import digits

NETS = ("digits_mlp", "digits_mobilenet", "digits_resnet_bn", "digits_resnet_fused", "digits_vgg")
QUICK: Mapping[str, Any] = {"latency": False}


def bytes_of(folder: Path, name: str) -> int:
    """Bytes of a model and of its data files."""
    return sum(p.stat().st_size for p in folder.iterdir() if p.name == name or p.name.startswith(f"{name}."))


def images(name: str) -> dict[str, Any]:
    return {"image": digits.load_train(name.endswith("mlp"))[0][:64]}


# size ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.9, 0.5, 0.35])
@pytest.mark.parametrize("name", NETS)
def test_the_file_is_as_small_as_asked(name: str, share: float, tmp_path: Path) -> None:
    source, out = MODELS / f"{name}.onnx", tmp_path / "out.onnx"
    result = fold(source, out, target_size=share, **QUICK)
    assert out.stat().st_size <= share * source.stat().st_size
    assert result.report.settings["budget"] == {"target-size": share}
    uniform = result.report.settings["uniform_ratio"]
    assert uniform is None or 0 < uniform < 1


@pytest.mark.parametrize("name", ["digits_mlp", "digits_vgg"])
def test_with_samples_little_is_left_over(name: str, tmp_path: Path) -> None:
    source, out = MODELS / f"{name}.onnx", tmp_path / "out.onnx"
    result = onnxfold.fold(source, out, target_size=0.5, calibration=images(name), round_to=4, **QUICK)
    assert result.report.settings["samples_used"]
    assert 0.47 < out.stat().st_size / source.stat().st_size <= 0.5


@pytest.mark.parametrize("how", ["from external data", "to external data", "both"])
@pytest.mark.parametrize("samples", [False, True])
def test_external_data_counts(how: str, samples: bool, tmp_path: Path) -> None:
    """Tensors in a data file are aligned to 4 KiB: the file that is written has more than its weights."""
    name = "digits_vgg"
    proto = load(MODELS / f"{name}.onnx").proto
    source = tmp_path / "in.onnx"
    (write if how == "to external data" else write_external)(source, proto)
    before = load(source).size
    more: dict[str, Any] = {"calibration": images(name)} if samples else {"effort": "fast"}
    out = tmp_path / "out.onnx"
    onnxfold.fold(source, out, target_size=0.5, external_data=how != "from external data", **more, **QUICK)
    assert len([p for p in tmp_path.iterdir() if p.suffix == ".data"]) == 1
    assert 0.3 * before < bytes_of(tmp_path, "out.onnx") <= 0.5 * before


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("made", [write, write_external])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_the_size_is_that_of_the_file(dtype: Any, made: Callable[..., Path], external: bool, tmp_path: Path) -> None:
    source = load(made(tmp_path / "in.onnx", load(MODELS / "digits_mlp.onnx").proto))
    target = tmp_path / "folder with ü.onnx"
    for proto in (source.proto, fold(source.path, ratio=0.5, **QUICK).model):
        expected = size_written(proto, source, target, external)
        with staged(proto, source, target, external) as written:
            assert expected == written.size
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix not in (".bin",)) == ["in.onnx"]


@pytest.mark.parametrize(("dtype", "each"), [(np.float32, 4), (np.float16, 2), (np.float64, 8)])
def test_bytes_by_element_type(dtype: Any, each: int) -> None:
    types = {np.float16: "float16", np.float32: "float", np.float64: "double"}
    text = f"""<ir_version: 8, opset_import: ["" : 17]> agraph ({types[dtype]}[N,8] x) => ({types[dtype]}[N,10] y) {{
        h = MatMul (x, a)
        r = Relu (h)
        y = MatMul (r, b)
    }}"""
    model = load(net(text, {"a": (8, 32), "b": (32, 10)}, dtype))
    prices = costs(model)
    assert prices.stored({}) == each * prices.params({}) == each * (8 * 32 + 32 * 10)
    assert prices.stored({("a", 1): 16, ("b", 0): 16}) == each * (8 * 16 + 16 * 10)


def test_a_size_out_of_reach(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.onnx"
    assert main([str(MODELS / "digits_vgg.onnx"), str(out), "--target-size", "0.01"]) == 2
    error = capsys.readouterr().err
    assert "--target-size 0.01 cannot be reached" in error and error.count("\n") == 1 and not out.exists()
    least = float(error.partition("allow ")[2].split()[0])
    assert main([str(MODELS / "digits_vgg.onnx"), str(out), "--target-size", str(least), "-q"]) in (0, 1)
    assert out.stat().st_size <= least * (MODELS / "digits_vgg.onnx").stat().st_size, "written, whatever is left of it"


@pytest.mark.parametrize("option", ["--target-size", "--target-latency"])
def test_values_that_make_no_sense(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for value in ("0", "-1", "1.5", "nan"):
        assert main([str(MODELS / "digits_mlp.onnx"), str(tmp_path / "out.onnx"), option, value]) == 2
        assert option in capsys.readouterr().err
    assert main([str(MODELS / "digits_mlp.onnx"), str(tmp_path / "out.onnx"), option, ".5", "--target-macs", ".5"]) == 2
    assert "not several" in capsys.readouterr().err
    assert main([str(MODELS / "digits_mlp.onnx"), str(tmp_path / "out.onnx"), option, "1"]) == 4
    assert "removes nothing" in capsys.readouterr().err


def test_an_estimate_that_misses_is_corrected() -> None:
    """Widths 8, 7, ... whose files are larger than expected, by more the narrower they are."""
    tried: list[int] = []

    def choose(price: Callable[[Mapping[str, int]], float]) -> Plan:
        return Plan({"g": next(k for k in range(8, 0, -1) if price({"g": k}) <= 0.5)})

    def finish(plan: Plan) -> int:
        tried.append(plan.keep["g"])
        return plan.keep["g"]

    plan, made = small_enough(
        choose, lambda keep: keep["g"] / 8, finish, lambda k: k / 8 + 0.02 * (9 - k), Goal(Aim.SIZE, 0.5)
    )
    assert made == plan.keep["g"] == tried[-1] and tried == sorted(set(tried), reverse=True) and len(tried) > 1
    assert made / 8 + 0.02 * (9 - made) <= 0.5


# latency ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [0.95, 0.8, 0.5, 0.3, 0.21])
@pytest.mark.parametrize("latency", [lambda x: x, lambda x: 0.2 + 0.8 * x, lambda x: x**3])
def test_the_least_fold_that_is_fast_enough(latency: Callable[[float], float], target: float) -> None:
    shares = np.linspace(1, 0.05, 40)
    timed: list[int] = []

    def measure(at: int) -> float:
        timed.append(at)
        return latency(float(shares[at]))

    budget = Goal(Aim.LATENCY, target)
    if latency(float(shares[-1])) > target:
        with pytest.raises(PlanError, match=r"`target_latency=.*` .* best measured here is 0\.24"):
            fast_enough(shares, measure, budget, silent)
        assert timed[-1] == len(shares) - 1
        return
    found = fast_enough(shares, measure, budget, silent)
    assert found in timed and latency(float(shares[found])) <= target
    least = next(i for i, share in enumerate(shares) if latency(float(share)) <= target)
    assert found - least <= 1 and len(timed) == len(set(timed)) <= TIMINGS


def test_a_model_with_nothing_to_shrink_is_not_timed() -> None:
    with pytest.raises(PlanError, match="best measured here is 1"):
        fast_enough([1.0], lambda _: pytest.fail("timed"), Goal(Aim.LATENCY, 0.5), silent)
    assert fast_enough([1.0, 0.5], lambda _: pytest.fail("timed"), Goal(Aim.LATENCY, 1.0), silent) == 0


def by_parameters(model: Profiler, proto: Any) -> float:
    """A made-up latency: half of it fixed, the other half by parameters."""
    return 0.5 + 0.5 * count_parameters(proto) / count_parameters(model._model.proto)


@pytest.mark.parametrize("samples", [False, True])
def test_a_fold_to_a_latency(samples: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Profiler, "latency", by_parameters)
    more: dict[str, Any] = {"calibration": images("digits_vgg")} if samples else {"effort": "fast"}
    report = onnxfold.fold(MODELS / "digits_vgg.onnx", target_latency=0.8, **more, **QUICK).report
    assert report.after is not None and report.settings["budget"] == {"target-latency": 0.8}
    share = report.after.parameters / report.before.parameters
    assert 0.4 < share <= 0.6
    assert (report.settings["uniform_ratio"] is None) == samples
    with pytest.raises(PlanError, match=r"`target_latency=0\.5` .* best measured here is 0\.5\d"):
        onnxfold.fold(MODELS / "digits_vgg.onnx", target_latency=0.5, **more, **QUICK)


def test_a_real_latency_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the target can be met is for the machine to say; the answer must be a fold or say how far it got."""
    monkeypatch.setattr(timing, "LATENCY_SECONDS", 0.05)
    try:
        report = fold(MODELS / "digits_vgg.onnx", target_latency=0.7).report
    except PlanError as error:
        assert "best measured here" in str(error)
    else:
        assert report.after is not None and report.after.macs < report.before.macs


def test_a_final_check_that_is_off_the_target_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Profiler, "latency", lambda *_: 0.5)
    for name in ("in_turn", "briefly_in_turn"):
        monkeypatch.setattr(verdict, name, lambda *_: ([1.0], [0.75]))
    for target, said in ((0.6, "above `target_latency=0.6`"), (0.76, ""), (0.9, "below `target_latency=0.9`")):
        (note,) = [n for n in fold(net(), target_latency=target).report.remarks if "the latency is" in n] or [""]
        assert note.startswith(f"the latency is 75 % of the original's, {said}") if said else not note


def test_nothing_to_measure_on() -> None:
    with pytest.raises(RequestError, match="has no TensorrtExecutionProvider"):
        fold(net(), target_latency=0.5, providers=["TensorrtExecutionProvider"])


class Clocked:
    """A session on a machine that gets slower with every run."""

    now, runs = 0.0, 0

    def __init__(self, cost: float) -> None:
        self._cost = cost

    def fitted(self, feeds: object) -> object:
        return feeds

    def run(self, feeds: object) -> list[Any]:
        Clocked.runs += 1
        Clocked.now += self._cost * (1 + Clocked.runs / 50)
        return []


def test_who_runs_first_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing.time, "perf_counter", lambda: Clocked.now)
    monkeypatch.setattr(timing, "LATENCY_SECONDS", 30.0)
    old: Any = Clocked(0.01)
    new: Any = Clocked(0.01)
    monkeypatch.setattr(Clocked, "now", 0.0)
    monkeypatch.setattr(Clocked, "runs", 0)
    before, after = timing.interleaved(old, new, {})
    monkeypatch.setattr(Clocked, "runs", 0)
    assert after / before > 1.02
    assert latency_share(old, new, {}) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(("found", "runs"), [((2.0, 1.0), 2), ((2.0, 1.0, 2.0, 1.5), 4)])
def test_measurements_that_disagree_are_repeated(
    found: Sequence[float], runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []

    def fake(first: object, second: object, _: object) -> tuple[float, float]:
        calls.append(first)
        slow = 2.0 if runs == 2 or len(calls) != 1 else 1.5
        return (slow, 1.0) if first == "old" else (1.0, slow)

    monkeypatch.setattr(profiler, "interleaved", fake)
    assert latency_share("old", "new", {}) == pytest.approx(0.5)  # type: ignore[arg-type]
    assert calls == ["old", "new"] * (runs // 2)


def test_the_ladder_has_every_uniform_plan_once() -> None:
    widths = [Width("a", 64, 1), Width("b", 32, 4), Width("narrow", 8, 1)]
    plans = ladder(widths, 8)
    assert plans[0].keep == {} and plans[-1].keep == {"a": 8, "b": 8}
    kept = [(p.keep.get("a", 64), p.keep.get("b", 32)) for p in plans]
    assert kept == sorted(set(kept), reverse=True)


def test_the_command_line_takes_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Profiler, "latency", by_parameters)
    for option in ("--target-size", "--target-latency"):
        out = tmp_path / f"{option}.onnx"
        assert main([str(MODELS / "digits_mlp.onnx"), str(out), option, "0.8", *FAST, "-q"]) == 0
        assert out.stat().st_size < (MODELS / "digits_mlp.onnx").stat().st_size
