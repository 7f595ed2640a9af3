"""Runs the worker, restarts it when it dies or takes too long or too much, and says of which file."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

ROOT = Path(__file__).resolve().parents[2]
WORKER = Path(__file__).with_name("worker.py")
SECONDS = 180.0  # the largest graph of the corpus (4,000 nodes) takes 6 s of CPU, and 50 s on a busy machine
MEGABYTES = 2048
TIRED = 1024  # megabytes: from then on a fresh child reads the next file, so that memory is put down to one file
CLEAN = ("inspected", "folded", "refused")


@dataclass(frozen=True)
class Result:
    """How a file ended: `end` is one of CLEAN, or raised, invalid, broken, crashed, slow, large."""

    end: str
    error: str = ""
    text: str = ""
    memory: int = 0

    @property
    def clean(self) -> bool:
        return self.end in CLEAN


class Runner:
    """One child process that reads one file after the other; a context manager."""

    def __init__(self, seconds: float = SECONDS, megabytes: int = MEGABYTES) -> None:
        self.seconds, self.megabytes = seconds, megabytes
        self._child: subprocess.Popen[str] | None = None
        self._errors: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with the runner)

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop()
        self._errors.close()

    @property
    def pid(self) -> int | None:
        """Of the child that runs now."""
        return None if self._child is None else self._child.pid

    def read(self, path: Path, fold: bool) -> Result:
        """What onnxfold makes of the file at `path`; with `fold`, folded too."""
        child = self._child or self._start()
        assert child.stdin is not None and child.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it died since: reading will tell
            child.stdin.write(f"{path}\t{'fold' if fold else 'inspect'}\n")
            child.stdin.flush()
        with selectors.DefaultSelector() as wait:
            wait.register(child.stdout, selectors.EVENT_READ)
            ready = wait.select(self.seconds)
        if not ready:
            self._stop()
            return Result("slow", text=f"no answer in {self.seconds:g} s: {self._said()}")
        answer = child.stdout.readline()
        if not answer:
            child.wait()
            self._stop()
            return Result("crashed", str(child.returncode), self._said())
        found = Result(**json.loads(answer))
        if found.memory > TIRED:
            self._stop()
        if found.memory > self.megabytes and found.clean:
            return Result("large", found.error, f"{found.memory} MB: {found.text}", found.memory)
        return found

    def _start(self) -> subprocess.Popen[str]:
        self._errors.seek(0)
        self._errors.truncate()
        self._child = subprocess.Popen(
            [sys.executable, str(WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
            text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        return self._child

    def _stop(self) -> None:
        if self._child is not None:
            self._child.kill()
            with contextlib.suppress(BrokenPipeError):  # what was written to a child that died
                self._child.communicate()
            self._child.wait()
            self._child = None

    def _said(self) -> str:
        """The last that the child wrote to standard error."""
        self._errors.seek(0)
        return self._errors.read()[-2000:]
