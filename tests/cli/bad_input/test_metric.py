"""The user's own measure given badly, or interrupted: one line, the exit code, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from refusals import REQUEST, Refused
from tiny import ROOT, write

CODE = """
import os, time
def f(path):
    return os.path.getsize(path) / 4e4
def hangs(path):
    time.sleep(600)
def fails(path):
    raise RuntimeError("own reason")
def only_once(path):
    return 0.5 if path.endswith("in.onnx") else open("/no/such/file").read()
"""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--max-drop", 0.1], "--max-drop limits how far your own metric may fall: pass --metric too"),
        (["--max-drop", 0.1, "--ratio", 0.3], "pass --metric too"),
        (["--metric-timeout", 5], "--metric-timeout only works with --metric"),
        (["--max-drop", -0.1, "--metric", "own.py:f"], "--max-drop must be a number of at least 0"),
        (["--metric", "own.py"], "--metric must be FILE.py:FUNCTION"),
        (["--metric", "own.py:"], "--metric must be FILE.py:FUNCTION"),
        (["--metric", "wasserstein"], "--metric must be FILE.py:FUNCTION"),
        (["--metric", "no-such.py:f"], "--metric: there is no file 'no-such.py'"),
        (["--metric", "{own}:g"], "the file has no such function"),
        (["--metric", "{own}:f", "--metric-timeout", 0], "--metric-timeout must be a number of seconds above 0"),
        (["--metric", "{own}:f", "--max-drop", 0.001, "--ratio", 0.2, "--target-macs", 0.5], "not several"),
        (["--metric", "{own}:f", "--max-drop", 0.001], "--max-drop 0.001 cannot be kept: "),
        (["--metric", "{own}:hangs", "--metric-timeout", 1], "took more than 1 seconds for one model"),
        (["--metric", "{own}:fails"], "raised RuntimeError: own reason (line "),
        (["--metric", "{own}:only_once", "--ratio", 0.3], "raised FileNotFoundError"),
        (["--metric", "{own}:f", "--report", "{own}"], "would overwrite the metric"),
    ],
)  # fmt: skip
def test_one_line_and_exit_code_2(refused: Refused, tmp_path: Path, arguments: list[Any], says: str) -> None:
    (tmp_path / "own.py").write_text(CODE)
    path, given = write(tmp_path / "in.onnx"), [str(one).format(own=tmp_path / "own.py") for one in arguments]
    refused(REQUEST, path, tmp_path / "out.onnx", *given, says=says)


def test_a_signal_ends_the_process_of_the_measure(tmp_path: Path) -> None:
    path, started = write(tmp_path / "in.onnx"), tmp_path / "started"
    code = f"    open({str(started)!r}, 'w').write(str(os.getpid()))\n    time.sleep(600)"
    (tmp_path / "own.py").write_text(f"import os, time\ndef f(path):\n{code}")
    command = [sys.executable, "-m", "onnxfold", str(path), str(tmp_path / "o.onnx"), "--metric", "own.py:f"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=env) as child:
        end = time.monotonic() + 60
        while not (started.exists() and started.read_text()) and time.monotonic() < end:
            time.sleep(0.05)
        child.send_signal(signal.SIGTERM)
        _, errors = child.communicate(timeout=30)
    assert child.returncode == 143 and errors == "onnxfold: interrupted, nothing was written\n"
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)
    assert not [p.name for p in tmp_path.iterdir() if "onnxfold" in p.name or p.name == "o.onnx"]
