"""What ends a run from outside: Ctrl-C, and the signals that ask a process to end, which clean up in the same way."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType

from .streams import emptied

_ASKING = ("SIGTERM", "SIGHUP")  # where the system has them
WRITTEN = ("output", "synthetic", "plot", "report", "save_plan")  # options that name files to write
Identity = tuple[int, int, int]


class Terminated(KeyboardInterrupt):
    """A signal asked for the end of the process. Whatever cleans up after Ctrl-C does so after this."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextlib.contextmanager
def ending_cleanly() -> Iterator[None]:
    """SIGTERM and SIGHUP raise `Terminated` in the main thread, once: cleaning up is not to be interrupted by a second
    one. Signals that are ignored (by nohup, say) stay ignored. In other threads nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for name in _ASKING if (number := getattr(signal, name, None))}
    handled = [number for number, handler in before.items() if handler is signal.SIG_DFL]

    def end(number: int, _: FrameType | None) -> None:
        for one in handled:
            signal.signal(one, signal.SIG_IGN)
        raise Terminated(number)

    try:
        for number in handled:
            signal.signal(number, end)
        yield
    finally:
        for number in handled:
            signal.signal(number, before[number])


def exit_code(stop: KeyboardInterrupt) -> int:
    """128 and the number of the signal, as shells have it."""
    return 128 + (stop.number if isinstance(stop, Terminated) else signal.SIGINT)


def identities(options: argparse.Namespace) -> Mapping[Path, Identity | None]:
    """Which files are there under the names that a command writes to; None where there is none."""
    paths = [Path(path) for name in WRITTEN if (path := getattr(options, name, None)) is not None]
    return {path: _identity(path) for path in paths}


def outcome(before: Mapping[Path, Identity | None]) -> str:
    """What a run that ended early has written, in words, by what was there before it."""
    written = [str(path) for path, one in before.items() if _identity(path) != one]
    return f"after {' and '.join(written)} {'was' if len(written) == 1 else 'were'} written" if written else ""


def leave(code: int) -> None:
    """End the process at once: threads of libraries that are at work would hold up the interpreter's own end."""
    emptied()
    os._exit(code)


def _identity(path: Path) -> Identity | None:
    """Files are put in place by renaming, so another file has another number."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_dev, state.st_ino, state.st_mtime_ns
