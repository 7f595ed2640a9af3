"""--log-level: what the library's loggers say, on standard error."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator

LEVELS = ("debug", "info", "warning", "error")
NAME = "onnxfold"  # of the logger that all others are below


@contextlib.contextmanager
def logged(options: argparse.Namespace) -> Iterator[None]:
    """Show records of at least the level that was asked for; without one, none are shown."""
    level = getattr(options, "log_level", None)
    if level is None:
        yield
        return
    import logging

    from rich.console import Console  # slow to import
    from rich.logging import RichHandler

    handler = RichHandler(console=Console(stderr=True), show_path=False, log_time_format="%H:%M:%S", markup=False)
    logger, before = logging.getLogger(NAME), logging.getLogger(NAME).level
    logger.addHandler(handler)
    logger.setLevel(level.upper())
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
