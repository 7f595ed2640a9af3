"""Interrupted runs: killed at any moment, the target is absent or whole, and --resume ends with the same bytes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gated import write_gated
from tiny import ROOT, snapshot

import onnxfold
from onnxfold import ModelError
from onnxfold.cli import main as cli
from onnxfold.planning import merge_task as groupwork
from onnxfold.planning import merger as compress
from onnxfold.planning.merge_task import MergeOutcome, MergeTask

BLOCKS = 6

# Waits to be killed before the step `argv[1]`: groups merged, outcomes renamed, pieces written, files renamed, removed.
KILLABLE = """
import os, shutil, sys
from onnxfold.cli import main as cli
from onnxfold.planning import merger as compress
count = 0
def stop(function):
    def stopped(*given, **named):
        global count
        count += 1
        if count == int(sys.argv[1]):
            print("here", flush=True)
            sys.stdin.read()
        return function(*given, **named)
    return stopped
compress.run, os.replace, os.fsync = stop(compress.run), stop(os.replace), stop(os.fsync)
shutil.rmtree = stop(shutil.rmtree)
cli.main(sys.argv[2:])
print("end")
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "given").mkdir()
    return write_gated(tmp_path / "given" / "in.onnx", BLOCKS, 32, 64)


@pytest.fixture
def merged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The groups that are merged, as they are."""
    names = list[str]()

    def run(task: MergeTask) -> MergeOutcome:
        names.append(task.name)
        return groupwork.run(task)

    monkeypatch.setattr(compress, "run", run)
    return names


def fold(source: Path, folder: Path, **how: Any) -> onnxfold.FoldResult:
    folder.mkdir(exist_ok=True)
    return onnxfold.fold(
        source, folder / "out.onnx", **{"ratio": 0.4, "effort": "fast", "latency": False, "resume": True, **how}
    )


def interrupted(source: Path, folder: Path, after: int, monkeypatch: pytest.MonkeyPatch, **how: Any) -> None:
    """A run that ends, as by Ctrl-C, after so many groups."""
    folder.mkdir(exist_ok=True)
    run, done = compress.run, list[str]()

    def stopping(task: MergeTask) -> MergeOutcome:
        if len(done) == after:
            raise KeyboardInterrupt
        done.append(task.name)
        return run(task)

    with monkeypatch.context() as patch:
        patch.setattr(compress, "run", stopping)
        with pytest.raises(KeyboardInterrupt):
            fold(source, folder, **how)
    assert [path.name for path in folder.iterdir()] == [".out.onnx.onnxfold"]


@pytest.mark.slow
def test_killed_at_every_step(tmp_path: Path, source: Path) -> None:
    source = write_gated(source, 2, 32, 64)
    fold(source, tmp_path / "whole")
    expected = snapshot(tmp_path / "whole")
    target = tmp_path / "out.onnx"
    options = [str(source), str(target), "--ratio=.4", "--effort=fast", "-q", "--resume"]
    for step in range(1, 40, 2):  # what is done stays done: a later run has fewer steps before it
        command = [sys.executable, "-c", KILLABLE, str(step), *options]
        with subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as child:  # fmt: skip
            assert child.stdout is not None
            if (said := child.stdout.readline().strip()) == "here":
                child.kill()
        found = {name: data for name, data in snapshot(tmp_path).items() if name.startswith("out.onnx")}
        if "out.onnx" in found:
            assert found == expected, "the target is there: whole, with its data"
        if said == "end":
            break
    assert said == "end" and step >= 9
    left = {path.name for path in tmp_path.iterdir()} - {"given", "whole"}
    assert left == set(expected), "nothing else is left behind"


@pytest.mark.parametrize("streams", [False, True])
def test_what_is_merged_is_not_merged_again(
    tmp_path: Path, source: Path, merged: list[str], monkeypatch: pytest.MonkeyPatch, streams: bool
) -> None:
    monkeypatch.setattr("onnxfold.passes.prepare.streamed", lambda *_: streams)
    fold(source, tmp_path / "whole")
    names = list(merged)
    assert len(names) == BLOCKS
    interrupted(source, tmp_path / "cut", 4, monkeypatch)
    merged.clear()
    fold(source, tmp_path / "cut")
    assert merged == names[4:]
    assert snapshot(tmp_path / "cut") == snapshot(tmp_path / "whole")


def test_streamed_runs_keep_what_they_merge_but_use_it_only_when_told(
    tmp_path: Path, source: Path, merged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxfold.passes.prepare.streamed", lambda *_: True)
    interrupted(source, tmp_path / "cut", 4, monkeypatch, resume=False)
    merged.clear()
    fold(source, tmp_path / "cut", resume=False)
    assert len(merged) == BLOCKS


@pytest.mark.parametrize("other", ["seed", "method", "weights", "model"])
def test_work_of_something_else_is_ignored(
    tmp_path: Path, source: Path, merged: list[str], monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    interrupted(source, tmp_path / "cut", 4, monkeypatch)
    merged.clear()
    how: dict[str, Any] = {"seed": {"seed": 1}, "method": {"method": "prune-l2"}}.get(other, {})
    if other == "weights":
        with source.with_suffix(".weights").open("r+b") as file:
            file.write(np.float32(1.5).tobytes())
    if other == "model":
        write_gated(source, BLOCKS + 1, 32, 64)
    report = fold(source, tmp_path / "cut", **how).report
    assert len(merged) == BLOCKS + (other == "model")
    assert report.verdict.count(".out.onnx.onnxfold belongs to another model or other options: ignored") == 1


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip file", None])
def test_a_broken_outcome_is_found_anew(
    tmp_path: Path, source: Path, merged: list[str], monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    interrupted(source, tmp_path / "cut", 4, monkeypatch)
    path = sorted((tmp_path / "cut" / ".out.onnx.onnxfold").glob("*.npz"))[0]
    path.write_bytes(path.read_bytes()[:-30] if content is None else content)
    merged.clear()
    report = fold(source, tmp_path / "cut").report
    assert len(merged) == BLOCKS - 4 + 1
    assert report.verdict.count("is corrupt: ") == 1 and "was merged again" in report.verdict


@pytest.mark.parametrize("folder", [False, True])
def test_a_name_that_is_taken(tmp_path: Path, source: Path, folder: bool) -> None:
    taken = tmp_path / "cut" / ".out.onnx.onnxfold"
    (taken if folder else taken.parent).mkdir(parents=True)
    mine = taken / "mine" if folder else taken
    mine.write_text("mine")
    report = fold(source, tmp_path / "cut").report
    assert "is not a work folder of onnxfold: ignored" in report.verdict
    assert mine.read_text() == "mine" and (tmp_path / "cut" / "out.onnx").exists()


def test_a_run_that_fails_leaves_nothing(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxfold.passes.prepare.streamed", lambda *_: True)

    def failing(task: MergeTask) -> MergeOutcome:
        raise ModelError("broken")

    monkeypatch.setattr(compress, "run", failing)
    with pytest.raises(ModelError):
        fold(source, tmp_path / "cut", resume=False)
    assert not list((tmp_path / "cut").iterdir())


def test_on_the_command_line(tmp_path: Path, source: Path) -> None:
    assert cli.main([str(source), str(tmp_path / "out.onnx"), "--ratio=.4", "--effort=fast", "-q", "--resume"]) == 0
    assert {path.name.split(".")[0] for path in tmp_path.iterdir()} == {"given", "out"}
