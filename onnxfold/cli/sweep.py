"""``onnxfold sweep IN``."""

from __future__ import annotations

import argparse

from ..options.choices import SHARES
from .arguments import SWEEP, Parser, add_common, add_how, add_last, add_metric, add_model, add_which, manner, measuring
from .parsing import numbers


def parser() -> Parser:
    """How the command is called."""
    made = Parser("onnxfold sweep", "onnxfold sweep IN [options]", SWEEP)
    add_model(made)
    default = ",".join(f"{share:g}".lstrip("0") for share in SHARES)
    made.add_argument("--at", metavar="F,F", help=f"shares of the multiply-adds to keep (default {default})")
    add_which(made)
    add_metric(add_how(made))
    add_last(add_common(made, verbose=False))
    return made


def run(options: argparse.Namespace) -> int:
    """Do what is asked, and return the exit code."""
    from ..api import sweep  # slow to import; --help comes without
    from .output import _Console, check_files, keep_report

    check_files(options)
    at = SHARES if options.at is None else numbers("--at", options.at)
    report = sweep(options.input, at=at, **manner(options), **measuring(options))
    if not options.quiet:
        report.print(_Console())
    keep_report(report, options)
    return 0 if report.passed else 1
