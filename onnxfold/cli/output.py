"""What commands print, and where their reports go."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .. import progress
from ..errors import RequestError, ValidationError
from ..report.fold_report import FoldReport
from ..report.provenance import with_command
from ..report.saved import AnyReport, check_format, save
from ..report.tables import MessageConsole
from ..report.written import check_written
from ..units import readable
from .calls import COMMAND_LINE
from .json_output import print_json
from .streams import mute, printing
from .wording import as_options


class _Console(MessageConsole):
    """Shows reports with the options of the command line where Python has parameters."""

    def worded(self, message: str) -> str:
        return as_options(message)

    def on_broken_pipe(self) -> None:
        """``onnxfold ... | head``: who reads has seen enough; the exit code still tells the verdict."""
        self.quiet = True
        mute(sys.stdout)


def announced(message: str) -> None:
    """Say `message` on standard error, only on a terminal."""
    progress.announced(as_options(message))


def _show(report: FoldReport, options: argparse.Namespace, said: bool = False) -> int:
    """Print the report, or what is bad in it; `said`: an error will say that. Returns the exit code."""
    output = getattr(options, "output", None)  # `compare` has none
    done = f" ({output} is written)" if output and report.check and report.check.passed else ""
    if not options.quiet:
        with printing(done):
            report.print(_Console(), options.verbose)
    keep_report(report, options, done)
    bad = report.check is not None and bool(report.check.problems or report.check.lost)
    if bad and options.quiet and not said:
        print(f"onnxfold: {readable(as_options(report.verdict))}", file=sys.stderr)
    return 1 if bad else 0


@contextmanager
def showing_failures(options: argparse.Namespace) -> Iterator[None]:
    """Show the report of a result that fails its checks too, before the error goes on."""
    try:
        yield
    except ValidationError as error:
        if isinstance(error.report, FoldReport):
            _show(error.report, options, said=True)
        raise


def keep_report(report: AnyReport, options: argparse.Namespace, done: str = "") -> None:
    """Write and print the report where that was asked for, with the command that it is of. Raises RequestError."""
    report = with_command(report, options.command)
    if options.report is not None:
        keep(report, options.report, done)
    if options.json:
        print_json(report.to_json(), options, done)


def keep(report: AnyReport, path: Path, done: str = "") -> None:
    """Write a report; `done`: what was done before, in words. Raises RequestError."""
    try:
        save(report, path, COMMAND_LINE)
    except OSError as error:
        raise RequestError(f"cannot write the report {path}: {error.strerror or error}{done}") from error


def check_files(options: argparse.Namespace) -> None:
    """Find out before the work whether what a command is asked to write can be written. Raises RequestError."""
    given = vars(options)
    models = [path for name in ("input", "before", "after") if (path := given.get(name)) is not None]
    others = [(given[name], f"the {name}") for name in ("plot", "report") if given.get(name) is not None]
    others += [(given["save_plan"], "the plan")] if given.get("save_plan") is not None else []
    output = None if given.get("inspect") else given.get("output")
    more = [
        (Path(path), what) for path, what in (
            (given.get("plan"), "the plan"), (given.get("config"), "the file of options"),
            (given.get("preprocess"), "the file of `preprocess`"),
        ) if path is not None and Path(path).is_file()
    ]  # fmt: skip
    check_written(models, given.get("calibration"), output, given.get("synthetic"), others, given.get("metric"), more)
    if given.get("report") is not None:
        check_format(given["report"])
