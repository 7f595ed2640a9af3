"""``onnxfold sweep IN``."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from ..options.choices import SHARES, Step
from .arguments import (
    SWEEP,
    Parser,
    about,
    add_common,
    add_how,
    add_last,
    add_metric,
    add_model,
    add_which,
    manner,
    measuring,
)
from .parsing import numbers, steps
from .wording import as_options

_ONLY_HERE = ("--at", "--allow", "--report")  # options that the command which makes a model does not have


def parser() -> Parser:
    """How the command is called."""
    made = Parser("onnxfold sweep", "onnxfold sweep IN [options]", SWEEP)
    add_model(made)
    default = ",".join(f"{share:g}".lstrip("0") for share in SHARES)
    made.add_argument("--at", metavar="F,F", help=f"shares of the multiply-adds to keep (default {default})")
    made.add_argument(
        "--allow", metavar="STEP,STEP",
        help=about("allow", f": all, or several of {', '.join(step.value for step in Step)} (default fold)"),
    )  # fmt: skip
    add_which(made)
    add_metric(add_how(made))
    add_last(add_common(made, verbose=False))
    return made


def run(options: argparse.Namespace) -> int:
    """Do what is asked, and return the exit code."""
    from ..api import choose, sweep  # slow to import; --help comes without
    from .output import _Console, _keep_report, check_files

    check_files(options)
    at = SHARES if options.at is None else numbers("--at", options.at)
    console = _Console()
    allow = steps(options.allow)
    if allow == [Step.FOLD.value]:
        report = sweep(options.input, at=at, **manner(options), **measuring(options))
        if not options.quiet:
            report.print(console)
        _keep_report(report, options.report)
        return 0 if report.passed else 1
    found = choose(options.input, allow=allow, at=at, **manner(options), **measuring(options))
    if not options.quiet:
        found.print(console)
        for one in found.advice:
            if one.function:
                print(f"  {one.aspect}: {command(options.input, one.asked, options.given)}")
    _keep_report(found, options.report)
    return 0 if found.passed else 1


def command(model: Path, asked: str, given: Sequence[str]) -> str:
    """The command that makes a model as `asked`, with what else was `given` to this one."""
    rest, arguments = list[str](), iter(given)
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if name in _ONLY_HERE:
            _ = argument if equals else next(arguments, "")
        elif argument not in ("-q", "--quiet") and (argument.startswith("-") or Path(argument) != model):
            rest.append(argument)
    return " ".join(["onnxfold", shlex.quote(str(model)), "OUT", as_options(asked), *map(shlex.quote, rest)])
