"""The command line: a thin layer over `onnxfold.fold`, `inspect`, `sweep` and `compare`."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shlex
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import OnnxFoldError
from ..units import readable
from .commands import COMMANDS, MODEL_FREE, Command, chosen, elsewhere
from .config import PRINTING, Config, config_of, printed
from .json_output import json_alone
from .log import logged
from .parser import names_of
from .parsing import dashes
from .signals import Identity, ending_cleanly, exit_code, identities, leave, outcome
from .streams import emptied, reopen, say
from .wording import as_options

BUG = "Please report it: run 'export ONNXFOLD_TRACEBACK=1', repeat the command, and send its output"


_SLEEP = {"OPENBLAS_THREAD_TIMEOUT": "4"}
"""For numpy, before it is imported: threads that have nothing to multiply sleep at once (2^4 cycles). By default they
spin for 2^26, a sixth of the processor time of a fold, while onnxruntime wants the same cores."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code (see `CODES`). Interrupted, a process of its own ends in here."""
    reopen()
    for name, value in _SLEEP.items():
        os.environ.setdefault(name, value)
    try:
        with ending_cleanly():
            code, interrupted = _run(arguments)
    except KeyboardInterrupt as stop:  # before the run began, or after its end
        code, interrupted = exit_code(stop), True
    if interrupted and arguments is None:
        leave(code)
    unwritten = emptied()
    return _complain(unwritten, code or 2) if unwritten else code


def _run(arguments: Sequence[str] | None) -> tuple[int, bool]:
    """(the exit code, whether something from outside ended the run)."""
    before: Mapping[Path, Identity | None] = {}
    config: Config | None = None
    given = dashes(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names that the terminal cannot show must not end the run
            stream.reconfigure(errors="backslashreplace")
    if arguments is None and not sys.warnoptions:
        warnings.simplefilter("ignore")
    try:
        config, given = config_of(given)
        command, options = _called(given, config)
        if options is None:
            return 0, False
        before = identities(options)
        if command not in MODEL_FREE:
            from ..runtime import session  # slow to import; --help, --version and wrong options end before

            session.silence()
        with json_alone(options), logged(options):
            return command.run(options), False
    except SystemExit as stop:  # --help, --version and usage errors
        return (stop.code if isinstance(stop.code, int) else 2), False
    except OnnxFoldError as error:
        message = as_options(str(error))
        return _complain(message if config is None else config.blamed(message, given), error.exit_code), False
    except MemoryError:
        return _complain("out of memory: use a machine with more memory, or a smaller --input-shape", 2), False
    except OSError as error:  # a full temporary folder, say
        where = f": {error.filename}" if error.filename else ""
        return _complain(" ".join(filter(None, (f"{error.strerror or error}{where}", outcome(before)))), 2), False
    except KeyboardInterrupt as stop:
        return _complain(f"interrupted{_done(before)}", exit_code(stop)), True
    except Exception as error:  # a bug of ours; the model is not to blame
        if "ONNXFOLD_TRACEBACK" in os.environ:
            raise
        what = f"{type(error).__name__}: {error}"
        return _complain(f"internal error{_done(before)} ({what}). {BUG}", 70), False


def _called(given: Sequence[str], config: Config | None) -> tuple[Command, argparse.Namespace | None]:
    """The command that arguments call, and the values that it has to work with; None where these were only to be
    printed."""
    command, words = chosen(given, () if config is None else config.names)
    named = given[:1] if given and given[0] in COMMANDS else []
    on_the_line = names_of(words)
    if config is not None:
        words = config.words(command.parser(), words)
    parser = command.parser()
    parser.elsewhere = elsewhere
    if PRINTING in names_of(words):
        say(printed(parser, parser.without_files().parsed(words)).rstrip("\n"))
        return command, None
    options = parser.parsed(words)
    options.given = on_the_line
    options.command = shlex.join(["onnxfold", *named, *words])
    options.config = None if config is None else config.path
    return command, options


def _done(before: Mapping[Path, Identity | None]) -> str:
    done = outcome(before)
    return f" {done}" if done else ", nothing was written"


def _complain(message: str, code: int) -> int:
    """One line on standard error, with options in place of parameters."""
    with contextlib.suppress(OSError):  # nobody reads it; the code tells
        print(f"onnxfold: {readable(as_options(message))}", file=sys.stderr)
    return code
