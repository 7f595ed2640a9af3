"""What did not run is not judged: groups in bodies that no input reaches stay as they are, with that reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from helpers import model
from onnx import ModelProto
from tiny import ROOT

import onnxfold
from onnxfold import NothingToFoldError, inspect, sweep
from onnxfold.calibration.judge import Judge
from onnxfold.calibration.origin import Origin
from onnxfold.calibration.samples import Samples
from onnxfold.passes import reached
from onnxfold.report.group_report import GroupReport
from onnxfold.runtime.session import Session

CASE = ROOT.parent / "shared" / "cases" / "if_branch_not_run.onnx"
UNREACHED = "that no input reached: pass `calibration` data that reaches it"
FAST: dict[str, Any] = {"effort": "fast", "latency": False, "round_to": 1}

BRANCHES = """(float[2,3] x, int64 rate) => (float[2,5] y) {
    h = MatMul(x, w) a = Relu(h) b = MatMul(a, v)
    c = Equal(rate, fast)
    y = If(c) <then_branch = quick () => (float[2,5] r) { d = MatMul(b, u) e = Relu(d) r = MatMul(e, t) },
               else_branch = slow () => (float[2,5] q) { f = MatMul(b, k) g = Tanh(f) q = MatMul(g, m) }> }"""
SHAPES = {"w": (3, 12), "v": (12, 4), "u": (4, 8), "t": (8, 5), "k": (4, 6), "m": (6, 5)}
LOOP = """(float[2,3] x, int64 n) => (float[2,3] y) {
    h = MatMul(x, u) a = Relu(h) z = MatMul(a, t)
    y = Loop(n, go, z) <body = turn (int64 i, bool d, float[2,3] s) => (bool e, float[2,3] r) {
        e = Identity(d) f = MatMul(s, w) b = Relu(f) r = MatMul(b, v) }> }"""
LOOPED = {"u": (3, 6), "t": (6, 3), "w": (3, 8), "v": (8, 3)}


def branches(text: str = BRANCHES) -> ModelProto:
    """An MLP of 12 channels in front of an If, one of 8 at a rate of 16000, and one of 6 at others; both read 4."""
    proto = model(text, SHAPES, {"fast": np.array(16000)})
    next(node for node in proto.graph.node if node.op_type == "If").name = "rates"
    return proto


def looped() -> ModelProto:
    return model(LOOP, LOOPED, {"go": np.array(True)})


def feeds(*values: int, name: str = "rate") -> list[dict[str, Any]]:
    """Inputs with these rates (or numbers of turns)."""
    rng = np.random.default_rng(0)
    return [{"x": rng.standard_normal((2, 3)).astype(np.float32), name: np.array(value)} for value in values]


def widths(found: tuple[GroupReport, ...]) -> dict[int, int]:
    """How many channels are left, by how many there were."""
    return {group.before: group.after for group in found}


def notes(found: tuple[GroupReport, ...]) -> dict[int, str]:
    return {group.before: group.note for group in found if group.note}


@pytest.mark.parametrize(("rate", "idle"), [(16000, 6), (8000, 8)])
def test_a_branch_that_no_input_reaches_stays(rate: int, idle: int) -> None:
    proto = branches()
    result = onnxfold.fold(proto, ratio=0.5, calibration=feeds(*[rate] * 8), **FAST)
    assert widths(result.report.groups) == {12: 6, 4: 4, 8: 4, 6: 3} | {idle: idle}
    assert notes(result.report.groups) == dict.fromkeys((4, idle), f"inside a branch of If 'rates' {UNREACHED}")


def test_the_default_budget_leaves_it_alone() -> None:
    """Folded without limit it would be off by 100 %, and the error that is measured 0."""
    proto, other = branches(), feeds(8000)[0]
    result = onnxfold.fold(proto, max_error=0.5, calibration=feeds(*[16000] * 8), **FAST)
    before, after = (Session(p.SerializeToString()).run(other)[0] for p in (proto, result.model))
    assert widths(result.report.groups)[6] == 6 and min(widths(result.report.groups).values()) < 8
    assert np.linalg.norm(after - before) < np.linalg.norm(before)


@pytest.mark.parametrize("rates", [(16000, 8000) * 4, (16000, 8000, 8000, 8000), (8000, 8000, 16000, 8000, 8000)])
def test_branches_that_are_reached_fold(rates: tuple[int, ...]) -> None:
    """Also where samples held back reach one alone."""
    result = onnxfold.fold(branches(), ratio=0.5, calibration=feeds(*rates), **FAST)
    assert widths(result.report.groups) == {12: 6, 4: 2, 8: 4, 6: 3} and not notes(result.report.groups)


def test_results_are_measured_in_every_branch() -> None:
    """The branch that the sample held back takes is exact, and the verdict counts the other one too."""
    proto = branches()
    given = feeds(16000, 8000, 8000, 8000)
    result = onnxfold.fold(proto, include=["MatMul#5"], ratio=0.5, calibration=given, **FAST)
    assert widths(result.report.groups) == {12: 12, 4: 4, 8: 4, 6: 6}
    assert result.report.check is not None and result.report.check.worst is not None
    both = (given[0], given[2])
    before, after = (
        np.concatenate([Session(p.SerializeToString()).run(one)[0] for one in both]) for p in (proto, result.model)
    )
    error = np.linalg.norm(after - before) / np.linalg.norm(before)
    assert result.report.check.worst.relative_l2 == pytest.approx(error, rel=1e-3) and error > 0.01


def test_what_only_an_idle_branch_uses_stays() -> None:
    """It runs, but to no effect."""
    text = BRANCHES.replace(
        "h = MatMul(x, w) a = Relu(h) b = MatMul(a, v)", "h = MatMul(x, w) a = Relu(h) z = MatMul(a, v)"
    )
    text = text.replace("MatMul(b, u)", "MatMul(x, u)").replace("MatMul(b, k)", "MatMul(z, k)")
    proto = model(text, SHAPES | {"u": (3, 8)}, {"fast": np.array(16000)})
    found = onnxfold.fold(proto, ratio=0.5, calibration=feeds(*[16000] * 8), **FAST).report.groups
    assert widths(found) == {12: 12, 4: 4, 8: 4, 6: 6}
    assert notes(found)[12] == "used only in subgraphs that no input reached: pass `calibration` data that reaches them"
    found = onnxfold.fold(proto, ratio=0.5, calibration=feeds(*[8000] * 8), **FAST).report.groups
    assert widths(found) == {12: 6, 4: 2, 8: 8, 6: 3}


def test_a_loop_that_never_turns() -> None:
    found = onnxfold.fold(looped(), ratio=0.5, calibration=feeds(0, 0, 0, 0, name="n"), **FAST).report.groups
    assert widths(found) == {6: 3, 8: 8} and notes(found) == {8: f"inside the body of Loop {UNREACHED}"}
    found = onnxfold.fold(looped(), ratio=0.5, calibration=feeds(0, 1, 0, 0, name="n"), **FAST).report.groups
    assert widths(found) == {6: 3, 8: 4}


def test_a_branch_in_a_branch() -> None:
    text = """(float[2,3] x, bool c, bool d) => (float[2,5] y) {
        y = If(c) <then_branch = yes () => (float[2,5] r) {
            r = If(d) <then_branch = inner () => (float[2,5] p) { h = MatMul(x, w) a = Relu(h) p = MatMul(a, v) },
                       else_branch = other () => (float[2,5] o) { o = MatMul(x, k) }> },
            else_branch = no () => (float[2,5] q) { e = MatMul(x, u) f = Relu(e) q = MatMul(f, t) }> }"""
    proto = model(text, {"w": (3, 8), "v": (8, 5), "k": (3, 5), "u": (3, 6), "t": (6, 5)})

    def folded(*conditions: tuple[bool, bool]) -> dict[int, int]:
        x = np.ones((2, 3), np.float32)
        given = [{"x": x, "c": np.array(c), "d": np.array(d)} for c, d in conditions]
        return widths(onnxfold.fold(proto, ratio=0.5, calibration=given, **FAST).report.groups)

    assert folded((True, True)) == {8: 4, 6: 6} and folded((False, True)) == {8: 8, 6: 3}
    assert folded((True, True), (False, False)) == {8: 4, 6: 3}
    with pytest.raises(NothingToFoldError, match=f"inside a branch of If {UNREACHED}"):
        folded((True, False))


def test_nothing_is_left() -> None:
    with pytest.raises(NothingToFoldError, match=f"all groups are inside a branch of If 'rates' {UNREACHED}"):
        onnxfold.fold(branches(), ratio=0.5, include=["MatMul#8"], calibration=feeds(16000), **FAST)


def test_the_json_report_gives_the_reason() -> None:
    report = onnxfold.fold(branches(), ratio=0.5, calibration=feeds(8000), **FAST).report
    found = {group["before"]: group["note"] for group in json.loads(report.to_json())["groups"]}
    assert found[8] == f"inside a branch of If 'rates' {UNREACHED}" and found[6] == ""


def test_a_sweep_leaves_it_alone_too() -> None:
    given = feeds(*[8000] * 8)
    report = sweep(branches(), at=[0.8, 0.3], calibration=given, **FAST)
    met, beyond = report.rows
    assert met.size is not None and beyond.size is None, "more than that is in what stays"
    met, reached_too = sweep(branches(), at=[0.8, 0.3], calibration=[*feeds(16000), *given], **FAST).rows
    assert met.size is not None and reached_too.size is not None


def test_inspect_runs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reached, "Watch", lambda _: pytest.fail("ran"))
    assert widths(inspect(branches()).groups) == {12: 12, 4: 4, 8: 8, 6: 6} and not notes(inspect(branches()).groups)


def test_models_without_groups_in_bodies_do_not_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reached, "Watch", lambda _: pytest.fail("ran"))
    text = """(float[2,3] x, bool c) => (float[2,5] y) {
        h = MatMul(x, w) a = Relu(h) b = MatMul(a, v)
        z = If(c) <then_branch = yes () => (float[2,5] r) { r = Neg(b) },
                   else_branch = no () => (float[2,5] q) { q = Abs(b) }>
        y = Add(b, z) }"""
    proto = model(text, {"w": (3, 8), "v": (8, 5)})
    given = [{"x": np.ones((2, 3), np.float32), "c": np.array(True)}]
    assert widths(onnxfold.fold(proto, ratio=0.5, calibration=given, **FAST).report.groups) == {8: 4}


def test_a_model_that_cannot_run_folds_as_before() -> None:
    proto = branches()
    proto.graph.node.append(onnx.helper.make_node("Unknown", ["y"], ["z"], domain="nobody"))
    proto.opset_import.append(onnx.helper.make_opsetid("nobody", 1))
    proto.graph.output[0].name = "z"
    report = onnxfold.fold(proto, ratio=0.5, allow_unmeasured=True, **FAST).report
    assert widths(report.groups) == {12: 6, 4: 2, 8: 4, 6: 3} and "nothing was measured" in report.verdict


@pytest.mark.skipif(not CASE.exists(), reason="needs shared cases")
def test_the_case_it_was_found_by(tmp_path: Path) -> None:
    given = {"x": np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32), "sr": np.array(16000)}
    result = onnxfold.fold(CASE, max_error=0.9, calibration=[given], effort="fast", latency=False)
    other = given | {"sr": np.array(8000)}
    before, after = (Session(p.SerializeToString()).run(other)[0] for p in (onnx.load(CASE), result.model))
    assert (before == after).all(), "nothing that the other branch uses has changed"
    assert sum("that no input reached" in group.note for group in result.report.groups) == 3
    assert any(group.after < group.before for group in result.report.groups)


@pytest.mark.parametrize("condition", ["Equal(rate, fast)", "Less(rate, fast)", "GreaterOrEqual(rate, fast)"])
def test_inputs_that_are_made_reach_both_branches(condition: str) -> None:
    proto = branches(BRANCHES.replace("Equal(rate, fast)", condition))
    result = onnxfold.fold(proto, ratio=0.5, **FAST)
    assert widths(result.report.groups) == {12: 6, 4: 2, 8: 4, 6: 3}
    assert result.report.check is not None and result.report.check.worst is not None
    errors = []
    for rate in (16000, 3):
        given = feeds(rate)[0]
        before, after = (Session(p.SerializeToString()).run(given)[0] for p in (proto, result.model))
        errors.append(np.linalg.norm(after - before) / np.linalg.norm(before))
    assert min(errors) / 2 < result.report.check.worst.relative_l2 < 2 * max(errors)


def test_one_switch_behind_another() -> None:
    """Two of the branches are reached only where both inputs are set."""
    text = """(float[2,3] x, bool[1] c, int32 d) => (float[2,5] y) {
        y = If(c) <then_branch = yes () => (float[2,5] r) {
            big = Cast<to = 7>(d) many = Greater(big, seven)
            r = If(many) <then_branch = inner () => (float[2,5] p) { h = MatMul(x, w) a = Relu(h) p = MatMul(a, v) },
                          else_branch = other () => (float[2,5] o) { i = MatMul(x, k) j = Tanh(i) o = MatMul(j, m) }> },
            else_branch = no () => (float[2,5] q) { e = MatMul(x, u) f = Relu(e) q = MatMul(f, t) }> }"""
    shapes = {"w": (3, 8), "v": (8, 5), "k": (3, 10), "m": (10, 5), "u": (3, 6), "t": (6, 5)}
    found = onnxfold.fold(model(text, shapes, {"seven": np.array(7)}), ratio=0.5, **FAST).report.groups
    assert widths(found) == {8: 4, 10: 5, 6: 3}


def test_a_branch_that_no_input_can_reach() -> None:
    text = BRANCHES.replace("c = Equal(rate, fast)", "sum = ReduceSum<keepdims = 0>(x) c = IsNaN(sum)")
    found = onnxfold.fold(branches(text), ratio=0.5, **FAST).report.groups
    assert widths(found) == {12: 6, 4: 4, 8: 8, 6: 3}


def test_samples_that_are_made_are_dealt_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the user's own nothing is changed."""
    given = feeds(*[3] * 16)

    def made(origin: Origin) -> list[int]:
        samples = Samples(tuple(given[:12]), Judge(tuple(given[12:]), "made", True), origin, "made")
        monkeypatch.setattr("onnxfold.passes.calibrate.collect_samples", lambda *_, **__: samples)
        report = onnxfold.fold(branches(), ratio=0.5, latency=False, round_to=1).report
        assert report.settings["samples_used"]
        return [group.after for group in report.groups]

    assert made(Origin.PICTURES) == [6, 2, 4, 3] and made(Origin.OWN) == [6, 4, 8, 3]
