"""Plans on the command line: written, applied, and refused in one line with exit code 2."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tiny import MODELS, main

MLP = str(MODELS / "digits_mlp.onnx")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("plan")
    path, out = folder / "p.json", folder / "out.onnx"
    assert main([MLP, str(out), "--target-macs", "60%", "--save-plan", str(path), "-q"]) == 0
    assert main([MLP, str(folder / "again.onnx"), "--plan", str(path), "-q"]) == 0
    assert (folder / "again.onnx").read_bytes() == out.read_bytes()
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize(
    ("keep", "more", "said"),
    [
        ({}, ["--ratio", "0.3"], "pass one of --ratio, --plan, not several"),
        ({}, ["--max-error", "0.1"], "pass one of --max-error, --plan, not several"),
        ({}, ["--group-ratio", "gemm=0.1"], "--group-ratio goes with --ratio only, not with --plan"),
        ({}, ["--target-size", "0.5", "--allow", "all"], "pass one of --target-size, --plan, not several"),
        ({}, ["--exclude", "gemm0"], "look at --include and --exclude"),
        ({"gemm2": 8}, [], "the plan 'p.json' names 'gemm2', .* did you mean 'gemm1'?"),
        ({"gemm0": 200}, [], "the plan 'p.json' cannot keep 200 of the 128 channels of 'gemm0': give a number from 2"),
        ({"gemm0": None}, [], "the plan 'p.json' must keep a whole number of channels of 'gemm0', not None"),
        ({}, ["--save-plan", MLP], "the plan would overwrite the model"),
        ({}, ["--save-plan", "out.onnx"], "the plan would overwrite the model"),
        ({}, ["--save-plan", "r.json", "--report", "r.json"], "the plan would overwrite the report"),
    ],
)
def test_one_line_and_exit_2(
    plan: dict[str, Any], keep: dict[str, Any], more: list[str], said: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.json").write_text(json.dumps({**plan, "keep": {**plan["keep"], **keep}}), encoding="utf-8")
    assert main([MLP, "out.onnx", "--plan", "p.json", *more]) == 2
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1 and not shown.out
    assert re.search(said, shown.err), shown.err
    assert [path.name for path in tmp_path.iterdir()] == ["p.json"]


def test_a_plan_that_keeps_everything(plan: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "p.json"
    path.write_text(json.dumps({**plan, "keep": {}}), encoding="utf-8")
    assert main([MLP, str(tmp_path / "out.onnx"), "--plan", str(path)]) == 4
    assert "keeps all channels of all groups" in capsys.readouterr().err
