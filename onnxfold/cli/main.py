"""The command line: a thin layer over `onnxfold.fold`, `inspect`, `sweep` and `compare`."""

from __future__ import annotations

import argparse
import io
import os
import shlex
import sys
import warnings
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Protocol

from ..errors import OnnxFoldError, RequestError
from ..units import readable
from . import cache, compare, completion, fold, fuse, layers, report, sweep
from .config import PRINTING, Config, config_of, printed
from .json_output import json_alone
from .log import logged
from .parser import Parser, names_of
from .parsing import dashes
from .signals import Identity, ending_cleanly, exit_code, identities, leave, outcome
from .wording import as_options

BUG = "Please report it with the output of the same command after 'export ONNXFOLD_TRACEBACK=1'"


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
    config: Config | None = None
    given = dashes(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names that the terminal cannot show must not end the run
            stream.reconfigure(errors="backslashreplace")
    if arguments is None and not sys.warnoptions:
        warnings.simplefilter("ignore")
    try:
        config, given = config_of(given)
        command, rest = chosen(given, () if config is None else config.names)
        called = given[:1] if given and given[0] in COMMANDS else []
        if config is not None:
            rest = config.words(command.parser(), rest)
        parser = command.parser()
        parser.elsewhere = elsewhere
        if PRINTING in names_of(rest):
            print(printed(parser, parser.without_files().parsed(rest)), end="")
            return 0, False
        options = parser.parsed(rest)
        options.command = shlex.join(["onnxfold", *called, *rest])
        before = identities(options)
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
        return _complain("out of memory: use a machine with more, or give smaller --input-shape", 2), False
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
    "completion": completion,
    "layers": layers,
    "report": report,
    "sweep": sweep,
}
_AMOUNTS = ("--target-macs", "--target-params", "--target-size", "--target-latency", "--max-error", "--min-agreement")
SPELLED: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "fold": (), "inspect": (("--inspect",),), "share": (("--fuse=mean",),), "drop": (),
    "quantize": (("--ratio=0", *_AMOUNTS), ("--quantize=int8",)),
}  # fmt: skip
"""Commands that are spelled with options: each stands for the first of a list where none of the list is given."""


def spelled(name: str, given: Sequence[str], kept: Collection[str]) -> list[str]:
    """The arguments of a command that is spelled with options. Raises RequestError for one that lacks its amount."""
    there = {*names_of(given), *kept}
    if name == "drop" and there.intersection(("--help", "-h")):
        return ["--drop-blocks=1", *given]
    if name == "drop" and "--drop-blocks" not in there:
        raise RequestError("say how many residual blocks go, like onnxfold drop IN OUT --drop-blocks 25%")
    added = [one for one, *others in SPELLED[name] if not there.intersection((one.partition("=")[0], *others))]
    return [*added, *given]


def elsewhere(option: str) -> str:
    """The command that has an option; '' for none."""
    own = {"onnxfold IN OUT": fold, "onnxfold IN OUT --fuse HOW": fuse}
    all_of_them: Mapping[str, Command] = {**own, **{f"onnxfold {name}": command for name, command in COMMANDS.items()}}
    found = (name for name, command in all_of_them.items() if option in command.parser()._option_string_actions)
    return next(found, "")


def chosen(given: Sequence[str], kept: Collection[str] = ()) -> tuple[Command, Sequence[str]]:
    """The command that arguments call, and the arguments that are left for it; `kept`: options that a file sets. Raises
    RequestError for a first one that is neither a command nor a file, and close to a command."""
    first = given[0] if given else ""
    if first in COMMANDS:
        return COMMANDS[first], given[1:]
    if first == "help" and not Path(first).exists():
        return chosen([*given[1:], "--help"])
    if first in SPELLED:
        given = spelled(first, given[1:], kept)
    elif first.isalpha() and (near := get_close_matches(first, [*COMMANDS, *SPELLED], 1)) and not Path(first).exists():
        raise RequestError(f"'{first}' is neither a command nor a file: did you mean onnxfold {near[0]}?")
    return (fuse if fuse.WHOLE_LAYERS.intersection((*names_of(given), *kept)) else fold), given


def _complain(message: str, code: int) -> int:
    """One line on standard error, with options in place of parameters."""
    print(f"onnxfold: {readable(as_options(message))}", file=sys.stderr)
    return code
