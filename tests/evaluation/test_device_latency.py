"""Latency by a command of the user's: how it is started, what it may print, and where its figures go."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import main, net, write

import onnxfold
from onnxfold import RequestError
from onnxfold.evaluation import device_latency
from onnxfold.evaluation.device_latency import CommandTimer
from onnxfold.options.parts import RuntimeOptions

FAST: dict[str, Any] = {"effort": "fast"}
BY_SIZE = "import os, sys; print('warming up'); print(os.path.getsize(sys.argv[-1]) / 1000, 'ms')"
"""A device on which a byte takes a microsecond."""


def command(code: str, *more: str) -> str:
    return shlex.join([sys.executable, "-c", code, *more, "{model}"])


def timer(code: str, timeout: float = 30.0) -> CommandTimer:
    return CommandTimer(command(code), timeout)


def test_the_path_is_one_argument_and_no_shell_sees_it(tmp_path: Path) -> None:
    hostile = tmp_path / "a b; touch $(echo injected) 'x'.onnx"
    hostile.write_bytes(b"12345")
    seen = timer("import sys, os; assert len(sys.argv) == 2; print(os.path.getsize(sys.argv[1]))").once(hostile)
    assert seen == 5.0 and sorted(p.name for p in tmp_path.iterdir()) == [hostile.name]


def test_ssh_gets_a_path_that_the_other_shell_leaves_alone() -> None:
    words = CommandTimer("ssh pi bench {model}", 1)._words(Path("/tmp/a b;c.onnx"))
    assert words == ["ssh", "pi", "bench", "'/tmp/a b;c.onnx'"]
    assert CommandTimer("bench --model={model}", 1)._words(Path("/a b")) == ["bench", "--model=/a b"]


def test_models_take_turns_and_the_median_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answers = list[str](), iter([10, 4, 1000, 5, 11, 6, 12, 2000, 9, 5])

    def once(_: CommandTimer, model: Path) -> float:
        asked.append(model.name)
        return float(next(answers))

    monkeypatch.setattr(CommandTimer, "once", once)
    assert timer("").pair(tmp_path / "old", tmp_path / "new") == (11.0, 5.0)
    assert asked == ["old", "new"] * device_latency.TURNS


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("print('fast')", "must be a number of milliseconds, like 12.5 or 12.5 ms, not 'fast'"),
        ("print(-1)", "not '-1'"),
        ("print('1e999')", "not '1e999'"),
        ("pass", "not ''"),
        ("import sys; print('no such board', file=sys.stderr); sys.exit(3)", "exit code 3: no such board"),
    ],
)
def test_what_it_prints_is_checked(code: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="`latency_command`") as caught:
        timer(code).once(tmp_path / "m.onnx")
    assert said in str(caught.value)


def test_one_that_takes_too_long_is_ended_and_one_that_is_not_there_said(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"took more than 0\.5 seconds"):
        timer("import time; time.sleep(60)", 0.5).once(tmp_path)
    with pytest.raises(RequestError, match="'no-such-program' cannot be started"):
        CommandTimer("no-such-program {model}", 5).once(tmp_path)


@pytest.mark.parametrize("value", ["bench", "{model}", "bench '{model}", 3, ""])
def test_commands_that_name_no_model(value: Any) -> None:
    with pytest.raises(RequestError, match="`latency_command` must be a command like"):
        RuntimeOptions(latency_command=value)


def test_what_does_not_go_together() -> None:
    with pytest.raises(RequestError, match="pass both, or neither"):
        RuntimeOptions(latency_timeout=5)
    with pytest.raises(RequestError, match="`latency_command` measures latency"):
        RuntimeOptions(latency_command="bench {model}", latency=False)


def test_reports_say_that_it_was_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_latency, "TURNS", 1)
    source, target = write(tmp_path / "in.onnx"), tmp_path / "out.onnx"
    report = onnxfold.fold(source, target, ratio=0.5, latency_command=command(BY_SIZE), **FAST).report
    done = report.check.providers[0] if report.check is not None else None
    assert done is not None and done.timed_on == "device" and report.after is not None
    assert done.latency_before_ms == source.stat().st_size / 1000
    assert done.latency_after_ms == target.stat().st_size / 1000
    assert (done.p90_before_ms, done.p90_after_ms) == (done.latency_before_ms, done.latency_after_ms)
    assert done.operators == ()  # where the time goes is known of this machine alone
    assert f"{done.speedup:.2f}x as fast on device" in report.verdict
    swept = onnxfold.sweep(source, at=[0.5], latency_command=command(BY_SIZE), **FAST)
    assert swept.rows[0].timings[0].where == "device" and swept.rows[0].size is not None
    assert swept.rows[0].timings[0].share == pytest.approx(swept.rows[0].size.file / source.stat().st_size)


def test_a_quantized_model_is_timed_in_floats_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_latency, "TURNS", 1)
    x = np.random.default_rng(0).standard_normal((8, 3, 8, 8)).astype(np.float32)
    source, how = write(tmp_path / "in.onnx"), {"calibration": {"x": x}, "latency_command": command(BY_SIZE), **FAST}
    report = onnxfold.fold(source, tmp_path / "out.onnx", ratio=0.5, quantize="int8", **how).report
    assert report.check is not None and report.quantization is not None
    found, done = report.quantization, report.check.providers[0]
    assert (found.latency_before_ms, found.latency_after_ms) == (done.latency_floats_ms, done.latency_after_ms)
    assert found.latency_before_ms == pytest.approx(found.file_before / 1000, rel=0.1)


def test_a_target_is_met_on_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a byte takes a microsecond, two thirds of the latency are two thirds of the bytes."""
    monkeypatch.setattr(device_latency, "TURNS", 1)
    source, target = write(tmp_path / "in.onnx", net(seed=3)), tmp_path / "out.onnx"
    onnxfold.fold(source, target, target_latency=0.67, round_to=1, latency_command=command(BY_SIZE), **FAST)
    assert 0.4 < target.stat().st_size / source.stat().st_size < 0.68


def test_quantization_is_timed_there_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_latency, "TURNS", 1)
    report = onnxfold.fold(net(), ratio=0, quantize="fp16", latency_command=command(BY_SIZE), **FAST).report
    found = report.quantization
    assert found is not None and found.latency_after_ms == found.file_after / 1000
    assert found.latency_before_ms is not None and found.latency_before_ms > 1.8 * found.latency_after_ms


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = write(tmp_path / "in.onnx"), tmp_path / "out.onnx"
    given = [str(source), str(target), "--ratio", "0.5", "--latency-command", command("print('x')")]
    assert main(given) == 2
    said = capsys.readouterr().err
    assert "--latency-command: the last line that" in said and said.count("\n") == 1 and not target.exists()
