"""What commands print, and where their reports go."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from .. import progress
from ..errors import RequestError
from ..report.fold_report import FoldReport, save
from ..report.layers_report import LayersReport
from ..report.sweep_report import SweepReport
from ..report.tables import MessageConsole
from .wording import as_options


class _Console(MessageConsole):
    """Shows reports with the options of the command line where Python has parameters."""

    def worded(self, message: str) -> str:
        return as_options(message)

    def on_broken_pipe(self) -> None:
        """``onnxfold ... | head``: who reads has seen enough; the exit code still tells the verdict."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def announced(message: str) -> None:
    """Say `message` on standard error, only on a terminal."""
    progress.announced(as_options(message))


def _show(report: FoldReport, options: argparse.Namespace) -> int:
    if not options.quiet:
        report.print(_Console(), options.verbose)
    done = f" ({report.output} is written)" if report.check and report.check.passed and report.output else ""
    _keep_report(report, options.report, done)
    return 0 if report.check is None or report.check.passed else 1


def _keep_report(report: FoldReport | SweepReport | LayersReport, path: Path | None, done: str = "") -> None:
    if path is None:
        return
    try:
        save(report, path)
    except OSError as error:
        raise RequestError(f"cannot write the report {path}: {error.strerror or error}{done}") from error


def _check_report(path: Path | None, *models: Path | None) -> None:
    """Find out before the work whether the report can be written."""
    if path is None:
        return
    try:
        if path.is_dir() or not path.absolute().parent.is_dir():
            raise RequestError(f"cannot write the report {path}: name a file in a folder that exists")
        if any(m is not None and path.resolve() == m.resolve() for m in models):
            raise RequestError(f"the report would overwrite the model {path}: name another file")
    except OSError as error:
        raise RequestError(f"cannot write the report {path}: {error.strerror}") from error
