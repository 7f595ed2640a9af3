"""``onnxfold sweep IN``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..options.choices import SHARES, Step
from .arguments import (
    SWEEP,
    about,
    add_common,
    add_how,
    add_inputs,
    add_last,
    add_metric,
    add_model,
    add_which,
    manner,
    measuring,
)
from .parser import Parser
from .parsing import numbers, steps
from .streams import printing, say

if TYPE_CHECKING:
    from ..report.choice_report import ChoiceReport


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
    add_how(made)
    add_metric(add_inputs(made))
    add_common(made, verbose=False)
    add_last(made)
    return made


def run(options: argparse.Namespace) -> int:
    """Do what is asked, and return the exit code."""
    from ..api import choose, sweep  # slow to import; --help comes without
    from ..report.provenance import with_command
    from .output import _Console, check_files, keep_report

    check_files(options)
    at = SHARES if options.at is None else numbers("--at", options.at)
    console, allow = _Console(), steps(options.allow)
    if allow == [Step.FOLD.value]:
        report = sweep(options.input, at=at, **manner(options), **measuring(options))
        if not options.quiet:
            with printing():
                report.print(console)
        keep_report(report, options)
        return 0 if report.passed else 1
    found = choose(options.input, allow=allow, at=at, **manner(options), **measuring(options))
    if not options.quiet:
        with printing():
            found.print(console)
        for line in _commands(with_command(found, options.command)):
            say(f"  {line}")
    keep_report(found, options)
    return 0 if found.passed else 1


def _commands(found: ChoiceReport) -> Iterator[str]:
    """What makes what is advised."""
    from .calls import chain_call

    for one in found.advice:
        row = found.row_of(one)
        if row is not None and one.function:
            yield f"{one.aspect}: {chain_call(found, row)}"
