"""Signals that ask a process to end clean up like Ctrl-C; what was written by then is said."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import FAST, ROOT, main, write

from onnxfold.cli.signals import Terminated, ending_cleanly, exit_code, identities, outcome

CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}

# Waits before (or after) call `argv[2]` of the function `argv[1]`, then goes on.
WAITING = """
import importlib, os, signal, sys, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what runs in its background
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and nohup this one
module, _, name = sys.argv[1].rpartition(".")
place, when, count = importlib.import_module(module), sys.argv[2], 0
real = getattr(place, name)
def waiting(*given, **named):
    global count
    count += 1
    if count > 1:
        return real(*given, **named)
    result = real(*given, **named) if when == "after" else None
    print("here", flush=True)
    time.sleep(60)
    return result
setattr(place, name, waiting)
if when == "thread":
    threading.Thread(target=time.sleep, args=(100,)).start()
from onnxfold.cli.main import main
sys.argv[1:] = sys.argv[3:]
sys.exit(main())
"""


def ended(
    folder: Path, name: str, place: str = "os.fsync", when: str = "before", more: tuple[str, ...] = ()
) -> tuple[int, str]:
    """(exit code, standard error) of a fold that gets a signal at some place."""
    (folder / "temporary").mkdir(exist_ok=True)
    given = [place, when, "in.onnx", "out.onnx", "--ratio", "0.5", "-q", *FAST, *more]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder / "temporary")}
    with subprocess.Popen(
        [sys.executable, "-c", WAITING, *given], cwd=folder, text=True, env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:  # fmt: skip
        assert child.stdout is not None
        assert child.stdout.readline().strip() == "here", child.communicate()
        time.sleep(0.1)
        child.send_signal(getattr(signal, name))
        begin = time.monotonic()
        _, errors = child.communicate(timeout=60)
    assert time.monotonic() - begin < 30
    assert {path.name for path in (folder / "temporary").iterdir()} <= {".ses"}  # onnxruntime's, and none of ours
    return child.returncode, errors


@pytest.mark.parametrize("name", CODES)
def test_before_anything_is_written(tmp_path: Path, name: str) -> None:
    write(tmp_path / "in.onnx")
    code, errors = ended(tmp_path, name)
    assert (code, errors) == (CODES[name], "onnxfold: interrupted, nothing was written\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.onnx", "temporary"]


@pytest.mark.parametrize("name", CODES)
def test_after_the_model_is_written(tmp_path: Path, name: str) -> None:
    write(tmp_path / "in.onnx")
    (tmp_path / "out.onnx").write_bytes(b"old")
    code, errors = ended(tmp_path, name, "os.replace", "after")
    assert (code, errors) == (CODES[name], "onnxfold: interrupted after out.onnx was written\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.onnx", "out.onnx", "temporary"]
    assert (tmp_path / "out.onnx").read_bytes() != b"old"


def test_while_the_report_is_written(tmp_path: Path) -> None:
    write(tmp_path / "in.onnx")
    code, errors = ended(tmp_path, "SIGTERM", "onnxfold.report.saved.write_text", more=("--report", "r.json"))
    assert (code, errors) == (143, "onnxfold: interrupted after out.onnx was written\n")
    code, errors = ended(tmp_path, "SIGTERM", "onnxfold.report.saved.write_text", "after", more=("--report", "r.json"))
    assert (code, errors) == (143, "onnxfold: interrupted after out.onnx and r.json were written\n")


def test_threads_do_not_hold_up_the_end(tmp_path: Path) -> None:
    """One that sleeps for much longer, and would be waited for at the interpreter's own end."""
    write(tmp_path / "in.onnx")
    assert ended(tmp_path, "SIGTERM", when="thread")[0] == 143


def test_a_second_signal_does_not_disturb_the_cleaning(tmp_path: Path) -> None:
    with pytest.raises(Terminated) as stop, ending_cleanly():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGHUP)
            (tmp_path / "cleaned").touch()
    assert exit_code(stop.value) == 143 and (tmp_path / "cleaned").exists()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_signal_that_is_ignored_stays_so() -> None:
    """As nohup asks for."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ending_cleanly():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_handlers_are_put_back(tmp_path: Path) -> None:
    assert main([str(write(tmp_path / "in.onnx")), "--inspect", "-q"]) == 0
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_what_was_written(tmp_path: Path) -> None:
    import argparse

    options = argparse.Namespace(output=tmp_path / "a", report=tmp_path / "b", input=tmp_path / "in", plot=None)
    (tmp_path / "b").write_text("old")
    before = identities(options)
    assert outcome(before) == ""
    (tmp_path / "new").write_text("new")
    os.replace(tmp_path / "new", tmp_path / "b")
    assert outcome(before) == f"after {tmp_path / 'b'} was written"
    (tmp_path / "a").write_text("new")
    assert outcome(before) == f"after {tmp_path / 'a'} and {tmp_path / 'b'} were written"
