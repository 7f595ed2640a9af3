"""Standard output and standard error. Who reads them may stop early (``onnxfold ... | head``): then nothing more is
shown, and the exit code tells how the work went. What cannot be written for another reason is an error."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TextIO

from ..errors import RequestError


@contextlib.contextmanager
def printing(done: str = "", stream: TextIO | None = None) -> Iterator[None]:
    """For what prints on standard output, or on `stream`; `done`: what was done before, in words.

    Raises RequestError where it cannot be written, but not where nobody reads any more.
    """
    into = sys.stdout if stream is None else stream
    try:
        yield
        into.flush()
    except BrokenPipeError:
        mute(into)
    except OSError as error:
        mute(into)
        raise RequestError(f"cannot write to standard output: {error.strerror or error}{done}") from error


def say(text: str, stream: TextIO | None = None, done: str = "") -> None:
    """Print `text` as in `printing`."""
    with printing(done, stream):
        print(text, file=stream)


def reopen() -> None:
    """Open streams that were closed when the process began (``>&-``) into nothing: Python has None in their place, and
    the next file to be opened would be what others print to."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"))


def mute(stream: TextIO) -> None:
    """Send what is still to be written to a stream nowhere: the interpreter would try to write it when it ends."""
    with contextlib.suppress(OSError, ValueError):  # one that is no file, or is closed
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def emptied() -> str:
    """Write what standard output and standard error still hold. What went wrong with the first, in words; else ''."""
    said = ""
    for stream in (sys.stderr, sys.stdout):
        try:
            stream.flush()
        except BrokenPipeError:
            mute(stream)
        except (OSError, ValueError) as error:
            mute(stream)
            said = f"cannot write to standard output: {error}" if stream is sys.stdout else ""
    return said
