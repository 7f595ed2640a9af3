"""The command line: a thin layer over `onnxfold.fold`, `inspect`, `sweep` and `compare`."""

from __future__ import annotations

import argparse
import io
import os
import shlex
import sys
import warnings
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Protocol

from ..errors import OnnxFoldError, RequestError
from ..units import readable
from . import cache, compare, fold, fuse, layers, report, sweep
from .arguments import Parser, names_of
from .parsing import dashes
from .signals import Identity, ending_cleanly, exit_code, identities, leave, outcome
from .wording import as_options

BUG = "Please report it: run 'export ONNXFOLD_TRACEBACK=1', repeat the command, and send its output"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code (see `CODES`). Interrupted, a process of its own ends in here."""
    try:
        with ending_cleanly():
            code, interrupted = _run(arguments)
    except KeyboardInterrupt as stop:  # before the run began, or after its end
        code, interrupted = exit_code(stop), True
    if interrupted and arguments is None:
        leave(code)
    return code


def _run(arguments: Sequence[str] | None) -> tuple[int, bool]:
    """(the exit code, whether something from outside ended the run)."""
    before: Mapping[Path, Identity | None] = {}
    given = dashes(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names that the terminal cannot show must not end the run
            stream.reconfigure(errors="backslashreplace")
    if arguments is None and not sys.warnoptions:
        warnings.simplefilter("ignore")
    try:
        command, rest = chosen(given)
        options = command.parser().parsed(rest)
        options.command = shlex.join(["onnxfold", *given])
        before = identities(options)
        from ..runtime import session  # slow to import; --help, --version and wrong options end before

        session.silence()
        return command.run(options), False
    except SystemExit as stop:  # --help, --version and usage errors
        return (stop.code if isinstance(stop.code, int) else 2), False
    except OnnxFoldError as error:
        return _complain(str(error), error.exit_code), False
    except MemoryError:
        return _complain("out of memory: use a machine with more memory, or a smaller --input-shape", 2), False
    except OSError as error:  # a full temporary folder, say
        return _complain(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", 2), False
    except KeyboardInterrupt as stop:
        return _complain(f"interrupted{_done(before)}", exit_code(stop)), True
    except Exception as error:  # a bug of ours; the model is not to blame
        if "ONNXFOLD_TRACEBACK" in os.environ:
            raise
        what = f"{type(error).__name__}: {error}"
        return _complain(f"internal error{_done(before)} ({what}). {BUG}", 70), False


def _done(before: Mapping[Path, Identity | None]) -> str:
    done = outcome(before)
    return f" {done}" if done else ", nothing was written"


class Command(Protocol):
    """A module that knows how a command is called, and runs it."""

    def parser(self) -> Parser: ...
    def run(self, options: argparse.Namespace) -> int: ...


COMMANDS: Mapping[str, Command] = {
    "cache": cache,
    "compare": compare,
    "layers": layers,
    "report": report,
    "sweep": sweep,
}
SPELLED = ("fold", "inspect")  # what is done where no command is named


def chosen(given: Sequence[str]) -> tuple[Command, Sequence[str]]:
    """The command that arguments call, and the arguments that are left for it. Raises RequestError for a first one that
    is neither a command nor a file, and close to a command."""
    first = given[0] if given else ""
    if first in COMMANDS:
        return COMMANDS[first], given[1:]
    if first in SPELLED:
        given = [*(["--inspect"] if first == "inspect" else []), *given[1:]]
    elif first.isalpha() and (near := get_close_matches(first, [*COMMANDS, *SPELLED], 1)) and not Path(first).exists():
        raise RequestError(f"'{first}' is neither a command nor a file: did you mean onnxfold {near[0]}?")
    return (fuse if fuse.WHOLE_LAYERS.intersection(names_of(given)) else fold), given


def _complain(message: str, code: int) -> int:
    """One line on standard error, with options in place of parameters."""
    print(f"onnxfold: {readable(as_options(message))}", file=sys.stderr)
    return code
