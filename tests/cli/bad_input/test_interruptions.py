"""Interrupted, killed, out of space: the old file or the new one is there, whole, and nothing else."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from refusals import DONE, MODEL, REQUEST, Refused
from tiny import FAST, ROOT, arrays, main, write, write_external


def test_interrupted(refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    path = write(tmp_path / "in.onnx")
    for place in ("onnxfold.passes.base.load", "onnxfold.passes.verify.check", "onnxfold.model.save._write"):
        with monkeypatch.context() as patch:
            patch.setattr(place, stop)
            refused(130, path, tmp_path / "out.onnx", "--ratio", "0.5", says="interrupted")


class FullDisk:
    """A file that takes `room` bytes."""

    def __init__(self, file: Any, room: int) -> None:
        self.file, self.room = file, room

    def write(self, content: bytes) -> int:
        self.room -= len(content)
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return int(self.file.write(content))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> FullDisk:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


@pytest.mark.parametrize("external", [[], ["--save-as-external-data"]])
@pytest.mark.parametrize("room", [0, 100, 2000])
def test_full_disk(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, external: list[str]
) -> None:
    path, out = write(tmp_path / "in.onnx"), tmp_path / "out.onnx"
    assert main([str(path), str(out), "--ratio", "0.3", "-q", *external]) == DONE
    opened = Path.open

    def open_full(self: Path, mode: str = "r", *more: Any, **named: Any) -> Any:
        file = opened(self, mode, *more, **named)
        return FullDisk(file, room) if "w" in mode and self.is_relative_to(tmp_path) else file

    monkeypatch.setattr(Path, "open", open_full)
    refused(REQUEST, path, out, "--ratio", "0.5", *external, says=("cannot write", "No space left"))


def test_full_disk_for_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path, out = write(tmp_path / "in.onnx"), tmp_path / "out.onnx"
    monkeypatch.setattr("onnxfold.report.saved.write_text", full)
    assert main([str(path), str(out), "--ratio", "0.5", "-q", "--report", str(tmp_path / "r.json")]) == REQUEST
    line = capsys.readouterr().err
    assert "cannot write the report" in line and "out.onnx is written" in line and line.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.onnx", "out.onnx"]


KILL_AT = """
import os, sys, time
calls = {name: getattr(os, name) for name in ("fsync", "replace")}
count = 0
def stop(name):
    def call(*a, **k):
        global count
        count += 1
        if count == int(sys.argv[1]):
            print("here", flush=True)
            time.sleep(60)
        return calls[name](*a, **k)
    return call
for name in calls:
    setattr(os, name, stop(name))
from onnxfold.cli.main import main
code = main(sys.argv[2:])
print("end", flush=True)
"""


@pytest.mark.parametrize("external", [False, True])
def test_killed_while_writing(tmp_path: Path, external: bool) -> None:
    """At every step of writing, a killed run leaves the old model or the new one, whole."""
    path, out = (write_external if external else write)(tmp_path / "in.onnx"), tmp_path / "out.onnx"
    assert main([str(path), str(out), "--ratio", "0.3", "-q"]) == DONE
    old = arrays(out)
    assert main([str(path), str(tmp_path / "other.onnx"), "--ratio", "0.5", "-q"]) == DONE
    new = arrays(tmp_path / "other.onnx")
    for step in range(1, 12):
        command = [sys.executable, "-c", KILL_AT, str(step), str(path), str(out), "--ratio", "0.5", "-q", *FAST]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            said = child.stdout.readline().strip()
            if said == "here":
                child.kill()
        found = arrays(out)
        assert found.keys() == old.keys()
        assert any(all(np.array_equal(found[n], w[n]) for n in w) for w in (old, new))
        if said == "end":
            break
        onnx.checker.check_model(str(out))
    assert said == "end" and step > (3 if external else 2)
    assert all(np.array_equal(found[n], new[n]) for n in new)


# a real process -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["no.onnx", "out.onnx"], MODEL),
        (["in.onnx", "in.onnx"], REQUEST),
        (["in.onnx", "out.onnx", "--ratio", "2"], REQUEST),
    ],
)
def test_in_a_process(tmp_path: Path, arguments: list[str], code: int) -> None:
    write(tmp_path / "in.onnx")
    done = subprocess.run(
        [sys.executable, "-m", "onnxfold", *arguments, *FAST], cwd=tmp_path, capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert done.returncode == code and done.stdout == ""
    assert done.stderr.startswith("onnxfold: ") and done.stderr.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["in.onnx"]


def test_ctrl_c_in_a_process(tmp_path: Path) -> None:
    import signal

    write(tmp_path / "in.onnx")
    code = KILL_AT.replace("\ncode = main(sys.argv[2:])", "\nsys.exit(main(sys.argv[2:]))")
    # a shell starts what runs in its background with this signal ignored, and children inherit that
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n" + code
    with subprocess.Popen(
        [sys.executable, "-c", code, "1", "in.onnx", "out.onnx", "--ratio", "0.5", *FAST], cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as child:  # fmt: skip
        assert child.stdout is not None
        assert child.stdout.readline().strip() == "here"
        time.sleep(0.1)
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=30)
    assert child.returncode == 130 and errors == "onnxfold: interrupted, nothing was written\n"
    assert [p.name for p in tmp_path.iterdir()] == ["in.onnx"]
