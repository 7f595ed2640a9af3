"""What the library's loggers say, on standard error: warnings as all else that the command line says there, and more
with the time where --log-level asks for it."""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
from collections.abc import Collection, Iterator

from ..progress.display import Display
from ..units import readable
from .wording import as_options

LEVELS = ("debug", "info", "warning", "error")
NAME = "onnxfold"  # of the logger that all others are below


class _Worded(logging.Formatter):
    """Shows options where the library names parameters."""

    def format(self, record: logging.LogRecord) -> str:
        return readable(as_options(super().format(record)))


_OF_SAMPLES = ("--calibration", "--samples", "--preprocess", "--metric")


def warn_of_samples(given: Collection[str], why: str) -> None:
    """Say which options on the command line are about samples, where `why` there are none."""
    for name in _OF_SAMPLES:
        if name in given:
            logging.getLogger(__name__).warning("%s is not used: %s", name, why)


@contextlib.contextmanager
def logged(options: argparse.Namespace) -> Iterator[None]:
    """Show records of at least the level that was asked for; without one warnings, and errors alone if all is quiet."""
    asked = getattr(options, "log_level", None)
    level = asked or ("error" if getattr(options, "quiet", False) else "warning")
    handler = _Aside() if asked is None else _handler()
    logger, before = logging.getLogger(NAME), logging.getLogger(NAME).level
    logger.addHandler(handler)
    logger.setLevel(level.upper())
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


class _Aside(logging.Handler):
    """A line that looks like errors do, above the display of a run where there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(_Worded("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Write it; who does not read standard error has no need of it."""
        line = f"onnxfold: {record.levelname.lower()}: {self.format(record)}"
        open_one = Display.current
        if open_one is not None and open_one.console is not None:
            open_one.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            with contextlib.suppress(OSError):
                print(line, file=sys.stderr, flush=True)


def _handler() -> logging.Handler:
    """On a terminal in colors, elsewhere one line for each record, however long it is."""
    if not sys.stderr.isatty():
        plain = logging.StreamHandler(sys.stderr)
        plain.setFormatter(_Worded("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
        return plain
    from rich.console import Console  # slow to import
    from rich.logging import RichHandler

    console = Console(stderr=True)
    colored = RichHandler(console=console, show_path=False, log_time_format="%H:%M:%S", omit_repeated_times=False)
    colored.setFormatter(_Worded("%(message)s"))

    def above_the_display(_: logging.LogRecord) -> bool:
        open_one = Display.current
        colored.console = (open_one.console if open_one is not None else None) or console
        return True

    colored.addFilter(above_the_display)
    return colored
