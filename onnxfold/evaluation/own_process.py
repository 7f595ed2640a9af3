"""A command in a process of its own that is ended when it takes too long, with all that it started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence

_GRACE = 3.0  # seconds between asking a process to end and ending it


def waited(command: Sequence[str], timeout: float) -> int | None:
    """The exit code of a command, or None where it took longer and was ended. What it prints goes nowhere.

    Whatever ends the wait ends the process, too. Raises OSError where it cannot be started.
    """
    nothing = subprocess.DEVNULL
    child = subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True)
    try:
        return child.wait(timeout)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if child.poll() is None:
            _end(child)


def ended(code: int) -> str:
    """How a process ended, in words: by which exit code, or which signal."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _end(child: subprocess.Popen[bytes]) -> None:
    """Ask a process and all that it started to end, and end those that do not."""
    try:
        _signal(child, "SIGTERM")
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE)
    finally:
        _signal(child, "SIGKILL")
        child.wait()


def _signal(child: subprocess.Popen[bytes], name: str) -> None:
    """Send a signal to the group of a process; where the system has no groups, end the process."""
    if not hasattr(os, "killpg"):
        child.kill()
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):  # they are gone
        os.killpg(child.pid, getattr(signal, name))
