"""Latency on another device: a command of the user's that runs a model there and prints milliseconds."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto

from ..errors import RequestError
from ..model.leftovers import scratch_folder
from ..model.save import inline

PLACE = "{model}"  # in a command: where the path of a model goes
TURNS = 5  # runs of the command for each of several models, in turn
_MILLISECONDS = re.compile(r"(\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)\s*(?:ms)?")
_LONGEST = 120  # characters of what a command printed that are shown
DEVICE = "device"  # what reports call it


@dataclass(frozen=True)
class CommandTimer:
    """Runs `command` (words as a shell would split them, without a shell) with the path of a model as one argument in
    place of {model}; it may take `timeout` seconds, and its last line is a number of milliseconds."""

    command: str
    timeout: float

    def pair(self, old: Path, new: Path) -> tuple[float, float]:
        """Medians in ms of two models, as `in_turn` has them."""
        before, after = self.in_turn(old, new)
        return float(np.median(before)), float(np.median(after))

    def in_turn(self, *models: Path) -> tuple[Sequence[float], ...]:
        """Milliseconds of `TURNS` runs of each of several models, which take turns. Raises RequestError where the
        command fails."""
        times = tuple(list[float]() for _ in models)
        for _ in range(TURNS):
            for path, taken in zip(models, times, strict=True):
                taken.append(self.once(path))
        return times

    def share(self, old: ModelProto, new: ModelProto, folder: Path | None) -> float:
        """The latency of `new` over that of `old`; external data of both is in `folder`. Raises RequestError."""
        with scratch_folder() as scratch:
            paths = [_written(proto, folder, scratch / f"{name}.onnx") for name, proto in (("old", old), ("new", new))]
            before, after = self.pair(*paths)
        return after / before

    def once(self, model: Path) -> float:
        """Milliseconds of one run."""
        words = self._words(model)
        try:
            done = _run(words, self.timeout)
        except OSError as error:
            raise RequestError(
                f"`latency_command`: '{words[0]}' cannot be started: {error.strerror or error}"
            ) from error
        except subprocess.TimeoutExpired:
            raise RequestError(
                f"`latency_command`: '{words[0]}' took more than {self.timeout:g} seconds for one model: use a larger "
                "`latency_timeout`, or make it run the model fewer times"
            ) from None
        if done.returncode != 0:
            raise RequestError(
                f"`latency_command`: '{words[0]}' ended with exit code {done.returncode}"
                + (f": {_last(done.stderr)}" if _last(done.stderr) else "")
            )
        return self._read(_last(done.stdout), words[0])

    def _words(self, model: Path) -> list[str]:
        """The command as it is started."""
        words = shlex.split(self.command)
        # ssh joins its arguments for a shell on the other side
        path = shlex.quote(str(model)) if Path(words[0]).name in ("ssh", "ssh.exe") else str(model)
        return [word.replace(PLACE, path) for word in words]

    @staticmethod
    def _read(line: str, name: str) -> float:
        found = _MILLISECONDS.fullmatch(line)
        if found is None or not 0 < float(found[1]) < float("inf"):
            raise RequestError(
                f"`latency_command`: the last line that '{name}' prints must be a number of milliseconds, like 12.5 or "
                f"12.5 ms, not '{line}'"
            )
        return float(found[1])


def _run(words: Sequence[str], timeout: float) -> subprocess.CompletedProcess[str]:
    """A command to its end. Whatever ends the wait ends the process, and what it started."""
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        text=True, errors="replace",
    ) as child, _ended(child):  # fmt: skip
        out, err = child.communicate(timeout=timeout)
        return subprocess.CompletedProcess(list(words), child.returncode, out, err)


@contextlib.contextmanager
def _ended(child: subprocess.Popen[str]) -> Iterator[None]:
    try:
        yield
    finally:
        if child.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                _end_group(child)
            child.kill()


def _end_group(child: subprocess.Popen[str]) -> None:
    """End a process and all that it started, where the system has groups of processes."""
    if hasattr(os, "killpg"):
        os.killpg(child.pid, signal.SIGKILL)


def _written(proto: ModelProto, folder: Path | None, path: Path) -> Path:
    path.write_bytes(inline(proto, folder, as_is=True).SerializeToString())
    return path


def _last(text: str) -> str:
    """The last line that says anything, not too long."""
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    return lines[-1][:_LONGEST] if lines else ""
