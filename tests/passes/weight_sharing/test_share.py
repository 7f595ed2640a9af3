"""Fusing as a stranger does it: budgets, reports, files, errors in one line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from alike import chain, permuted_copy, two_blocks, weights, with_values
from numpy.typing import NDArray
from tiny import MODELS, ROOT, snapshot, write, write_external

from onnxfold import NothingToFoldError, PlanError, RequestError, fuse
from onnxfold.api import rank_layers
from onnxfold.cli import main as cli
from onnxfold.errors import ExecutionError

Capture = pytest.CaptureFixture[str]
FAST: dict[str, Any] = {"effort": "fast", "latency": False}
EQUAL = 1e-5  # float32, sums in another order


def run(*arguments: object) -> int:
    return cli.main([str(a) for a in arguments])


def data(count: int = 64, seed: int = 1) -> dict[str, NDArray[np.float32]]:
    return {"x": np.random.default_rng(seed).standard_normal((count, 3, 8, 8), dtype=np.float32)}


# budgets ------------------------------------------------------------------------------------------------------------


def test_the_default_takes_what_is_free() -> None:
    """A permuted copy costs nothing, so it shares both weights; no other pair keeps 10 %."""
    report = fuse(permuted_copy(), **FAST).report
    assert [one.shape for one in report.shared] == [(6, 8, 3, 3), (8, 6, 3, 3)]
    assert report.check is not None and report.check.worst is not None and report.check.worst.relative_l2 <= EQUAL
    assert report.after is not None and report.after.parameters == report.before.parameters - 2 * 6 * 8 * 9
    assert report.after.macs == report.before.macs


def test_nothing_keeps_the_limit() -> None:
    with pytest.raises(NothingToFoldError, match=r"`max_error=0\.01`"):
        fuse(two_blocks(), max_error=0.01, **FAST)


@pytest.mark.parametrize(("share", "shared"), [(0.2, 1), (0.33, 2)])
def test_share(share: float, shared: int) -> None:
    """Of six layers, four have another of their shape."""
    report = fuse(two_blocks(), share=share, **FAST).report
    assert sum(len(one.layers) - 1 for one in report.shared) == shared


def test_a_limit_on_top_of_a_share() -> None:
    """One join is free, the next is not."""
    proto = permuted_copy()
    proto = with_values(proto, v2=weights(two_blocks())["v2"])
    limited = fuse(proto, share=0.33, max_error=0.01, **FAST).report
    assert [one.shape for one in limited.shared] == [(6, 8, 3, 3)]
    assert len(fuse(proto, share=0.33, **FAST).report.shared) == 2, "the control"


def test_target_size(tmp_path: Path) -> None:
    path = write(tmp_path / "in.onnx", chain(6))
    report = fuse(path, tmp_path / "out.onnx", target_size=0.6, **FAST).report
    assert 0.45 < (tmp_path / "out.onnx").stat().st_size / path.stat().st_size <= 0.6
    assert report.after is not None and report.after.file == (tmp_path / "out.onnx").stat().st_size


@pytest.mark.parametrize(("budget", "text"), [({"share": 0.9}, "at most 33 %"), ({"target_size": 0.1}, "at best")])
def test_what_cannot_be_reached(budget: dict[str, float], text: str) -> None:
    with pytest.raises(PlanError, match=text):
        fuse(two_blocks(), **budget, **FAST)


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"share": 0.0}, "`share` must"), ({"share": 1.5}, "`share` must"), ({"share": float("nan")}, "`share` must"),
        ({"target_size": 1.5}, "`target_size` must"), ({"max_error": -1.0}, "`max_error` must"),
        ({"share": 0.5, "target_size": 0.5}, "not both"), ({"how": None}, "nothing to do"),
        ({"recovery": "closed-form"}, "`recovery='closed-form'`"), ({"distance": "x"}, "`distance` must be one of"),
        ({"distance": "activations"}, "needs samples"), ({"how": "x"}, "`how` must be one of"),
    ],
)  # fmt: skip
def test_bad_requests(asked: dict[str, Any], text: str) -> None:
    with pytest.raises(RequestError, match=text):
        fuse(two_blocks(), **{**FAST, **asked})


def test_nothing_alike() -> None:
    with pytest.raises(NothingToFoldError, match="no two layers have weights of the same shape"):
        fuse(two_blocks(), exclude=["#8", "#11"], share=0.2, **FAST)
    with pytest.raises(NothingToFoldError, match="residual block"):
        fuse(chain(3), how=None, drop_blocks=1, **FAST)


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"share": 0.5}, "no two layers have weights of the same shape"),
        ({"share": 0.5, "whole": True}, "no two residual blocks"),
        ({"how": None, "drop_blocks": 1}, "residual block"),
    ],
)
def test_what_cannot_be_is_said_before_time_is_spent(
    asked: dict[str, Any], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No channels are folded and no inputs made first."""

    def spent(*_: object, **__: object) -> None:
        raise AssertionError

    for place in ("calibrate.collect_samples", "fold.Planner", "prepare.analyze"):
        monkeypatch.setattr(f"onnxfold.passes.{place}", spent)
    with pytest.raises(NothingToFoldError, match=text):
        fuse(chain(1), folding={"ratio": 0.2}, **asked)


def test_which() -> None:
    report = fuse(two_blocks(), share=0.2, include=["Conv#5", "Conv#11"], **FAST).report
    assert [one.layers for one in report.shared] == [("Conv#5", "Conv#11")]


def test_whole_blocks() -> None:
    report = fuse(permuted_copy(), whole=True, **FAST).report
    assert [one.layers for one in report.shared] == [("Conv#2", "Conv#5", "Conv#8", "Conv#11")]
    assert report.after is not None and report.after.parameters == report.before.parameters - 2 * 6 * 8 * 9


# repair, composition ------------------------------------------------------------------------------------------------


def test_repair_only_improves() -> None:
    how: dict[str, Any] = {"share": 0.33, "calibration": data(), "latency": False}
    errors = []
    for recovery in ("none", "auto"):
        report = fuse(two_blocks(), recovery=recovery, **how).report
        assert report.check is not None and report.check.worst is not None
        errors.append(report.check.worst.relative_l2)
        assert report.settings["recovery"] == ("least-squares" if recovery == "auto" else "none")
    assert errors[1] < 0.5 * errors[0]


def test_shared_weights_are_refined_as_one() -> None:
    how: dict[str, Any] = {"share": 0.33, "calibration": data(), "recovery": "none", "latency": False}
    plain, refined = fuse(two_blocks(), **how), fuse(two_blocks(), **how, refine=True, steps=60)
    found = refined.report.refinement
    assert plain.report.shared and found is not None and found.kept and found.after < 0.9 * found.before
    assert [n.input for n in refined.model.graph.node] == [n.input for n in plain.model.graph.node]
    assert [t.name for t in refined.model.graph.initializer] == [t.name for t in plain.model.graph.initializer]
    assert refined.report.before.parameters > refined.report.after.parameters == plain.report.after.parameters


def test_after_folding_and_dropping() -> None:
    """Channels first, then blocks, then weights: each takes its part, and one verdict is about all."""
    result = fuse(two_blocks(), share=0.2, folding={"ratio": 0.3, "round_to": 1}, **FAST)
    report = result.report
    assert any(group.after < group.before for group in report.groups) and report.shared
    assert report.after is not None and report.after.macs < report.before.macs
    dropped = fuse(two_blocks(), share=None, how=None, drop_blocks="50%", **FAST).report
    assert len(dropped.dropped) == 1 and not dropped.shared
    assert dropped.after is not None and dropped.after.macs < dropped.before.macs


def test_same_bytes() -> None:
    one, other = (
        fuse(two_blocks(), how="mix", share=0.33, seed=3, calibration=data(), latency=False) for _ in range(2)
    )
    assert one.model.SerializeToString(deterministic=True) == other.model.SerializeToString(deterministic=True)
    assert one.model != fuse(two_blocks(), how="mix", share=0.33, seed=4, calibration=data(), latency=False).model


@pytest.mark.parametrize("external", [False, True])
def test_external_data_of_the_input(tmp_path: Path, external: bool) -> None:
    for folder in ("in", "out"):
        (tmp_path / folder).mkdir()
    path = (write_external if external else write)(tmp_path / "in" / "m.onnx", permuted_copy())
    report = fuse(path, tmp_path / "out" / "m.onnx", provenance=False, **FAST).report
    sizes = [sum(f.stat().st_size for f in (tmp_path / folder).iterdir()) for folder in ("in", "out")]
    assert report.after is not None and report.after.file == sizes[1]
    assert len(list((tmp_path / "out").iterdir())) == 1 + external
    sessions = [
        ort.InferenceSession(tmp_path / f / "m.onnx", providers=["CPUExecutionProvider"]) for f in ("in", "out")
    ]
    before, after = (session.run(None, data(4))[0] for session in sessions)
    assert np.abs(after - before).max() <= EQUAL * np.abs(before).max()
    if not external:  # padding between the weights hides some of it
        assert sizes[0] - sizes[1] >= 2 * 6 * 8 * 9 * 4


def test_a_model_that_does_not_run_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights alone decide then, and the report says so; who insists on samples is told."""

    def broken(*_: object, **__: object) -> None:
        raise ExecutionError("no such kernel")

    monkeypatch.setattr("onnxfold.passes.weight_sharing.share.repaired", broken)
    report = fuse(two_blocks(), share=0.2, calibration=data(), latency=False).report
    assert report.check is not None and any("no such kernel" in note for note in report.check.notes)
    assert report.settings["recovery"] == "none" and not report.settings["samples_used"]
    with pytest.raises(RequestError, match="no such kernel"):
        fuse(two_blocks(), share=0.2, recovery="least-squares", calibration=data(), latency=False)
    monkeypatch.setattr("onnxfold.passes.weight_sharing.share.influence", broken)
    with pytest.raises(RequestError, match="has to run the model"):
        fuse(two_blocks(), how=None, drop_blocks=1, **FAST)


# the command line ---------------------------------------------------------------------------------------------------


def test_fuse_from_the_command_line(tmp_path: Path, capsys: Capture) -> None:
    path = write(tmp_path / "in.onnx", permuted_copy())
    options = ["--fuse", "mean", "--distance", "wasserstein", "--share", 40, "--effort", "fast"]
    assert run(path, tmp_path / "out.onnx", *options, "--report", tmp_path / "r.json") == 0
    shown = capsys.readouterr()
    assert shown.err == "" and "layers that share a weight" in shown.out and "✔ file -" in shown.out
    written = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert [one["layers"] for one in written["shared"]] == [["Conv#2", "Conv#8"], ["Conv#5", "Conv#11"]]
    assert (tmp_path / "out.onnx").stat().st_size < path.stat().st_size
    onnx.checker.check_model(tmp_path / "out.onnx", full_check=True)


def test_drop_from_the_command_line(tmp_path: Path, capsys: Capture) -> None:
    path = write(tmp_path / "in.onnx", two_blocks())
    assert run(path, tmp_path / "out.onnx", "--drop_blocks=1", "--effort", "fast") == 0
    assert "dropped block" in capsys.readouterr().out


def test_as_a_process(tmp_path: Path) -> None:
    write(tmp_path / "in.onnx", permuted_copy())
    command = [sys.executable, "-m", "onnxfold", "in.onnx", "out.onnx", "--fuse", "mean", "--effort", "fast", "-q"]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (
            ["--fuse", "mean", "--share", "200", "--effort", "fast"],
            2,
            "--share must be above 0 and at most 100 (percent), not 200",
        ),
        (["--fuse", "median"], 2, "argument --fuse"),
        (["--drop-blocks", "9", "--effort", "fast"], 2, "2 residual blocks"),
        (["--fuse", "mean", "--max-error", "1e-9", "--effort", "fast"], 4, "no two layers can share"),
    ],
)
def test_errors_are_one_line(tmp_path: Path, capsys: Capture, options: list[str], code: int, text: str) -> None:
    path = write(tmp_path / "in.onnx", two_blocks())
    before = snapshot(tmp_path)
    assert run(path, tmp_path / "out.onnx", *options) == code
    shown = capsys.readouterr()
    assert text in shown.err and shown.err.count("\n") == 1 and shown.out == ""
    assert snapshot(tmp_path) == before, "nothing is half written"


def test_a_limit_that_nothing_keeps_is_told_with_one_that_works(tmp_path: Path, capsys: Capture) -> None:
    path, out = MODELS / "digits_resnet_bn.onnx", tmp_path / "out.onnx"
    given = ["share", path, out, "--effort", "fast", "-q", "--max-error"]
    assert run(*given, "0.1") == 4
    said = capsys.readouterr().err
    found = re.search(r"costs an output error of [\d.]+ %, which --max-error ([\d.]+) allows", said)
    assert found is not None, said
    assert run(*given, found[1]) == 0 and out.exists()


def test_the_verdict_counts(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "in.onnx", permuted_copy())
    monkeypatch.setattr("onnxfold.evaluation.verdict._interface", lambda *_: ["the model's inputs changed ('x')"])
    assert run(path, tmp_path / "out.onnx", "--fuse", "mean", "--effort", "fast", "--report", tmp_path / "r.json") == 1
    assert "was not written: failed" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.onnx", "r.json"]


# onnxfold layers ----------------------------------------------------------------------------------------------------


def test_layers(tmp_path: Path, capsys: Capture) -> None:
    path = write(tmp_path / "in.onnx", permuted_copy())
    before = snapshot(tmp_path)
    assert run("layers", path) == 0
    shown = capsys.readouterr()
    assert shown.err == "" and "4 layers of 2 shapes: 2 pairs" in shown.out and "0.0000" in shown.out
    assert run("layers", path, "--no-align", "--distance", "euclidean", "-q") == 0
    assert capsys.readouterr().out == "" and snapshot(tmp_path) == before


def test_layers_as_json(tmp_path: Path, capsys: Capture) -> None:
    path = write(tmp_path / "in.onnx", two_blocks())
    assert run("layers", path, "--json", "--distance", "cosine", "--no-align") == 0
    found = json.loads(capsys.readouterr().out)
    held = weights(two_blocks())
    a, b = held["u1"].ravel().astype(float), held["u2"].ravel().astype(float)
    expected = 1 - a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
    by_name = {tuple(pair["layers"]): pair["distance"] for pair in found["pairs"]}
    assert by_name["Conv#2", "Conv#8"] == pytest.approx(expected, abs=1e-9)
    assert [pair["distance"] for pair in found["pairs"]] == sorted(by_name.values())


@pytest.mark.parametrize(
    ("name", "begins"), [("out.png", b"\x89PNG"), ("out.svg", b"<svg"), ("out.html", b"<!DOCTYPE")]
)
def test_the_picture(tmp_path: Path, name: str, begins: bytes) -> None:
    pytest.importorskip("vl_convert", reason="heat maps need the extra 'report'")
    path = write(tmp_path / "in.onnx", two_blocks())
    assert run("layers", path, "--plot", tmp_path / name, "-q") == 0
    assert (tmp_path / name).read_bytes().startswith(begins)


def test_without_what_draws(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that names the extra, before any work."""
    path = write(tmp_path / "in.onnx", two_blocks())
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    monkeypatch.setattr("onnxfold.api.rank_layers", lambda *_, **__: pytest.fail("worked before"))
    assert run("layers", path, "--plot", tmp_path / "out.png") == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1 and "vl-convert-python" in shown and "pip install 'onnxfold[report]'" in shown


@pytest.mark.parametrize("name", ["out.pdf", "no/out.html", "out"])
def test_plots_that_cannot_be(tmp_path: Path, name: str, capsys: Capture) -> None:
    assert run("layers", write(tmp_path / "in.onnx", two_blocks()), "--plot", tmp_path / name) == 2
    assert "plot" in capsys.readouterr().err


def test_whole_blocks_are_ranked() -> None:
    report = rank_layers(permuted_copy(), whole=True)
    assert [(p.one, p.other) for p in report.pairs] == [("Conv#2", "Conv#8")] and report.pairs[0].distance < EQUAL
    assert [one.names for one in report.classes()] == [("Conv#2", "Conv#8")]


def test_real_models() -> None:
    """Those that come with the project: ranked without an error, or refused with a reason."""
    ranked = 0
    for path in sorted(MODELS.glob("*.onnx")):
        try:
            ranked += bool(rank_layers(path).pairs)
        except NothingToFoldError as error:
            assert "no two layers" in str(error)
    assert ranked > 0
