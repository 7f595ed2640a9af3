"""--json: standard output is for one report in JSON, all else goes to standard error."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator

from .streams import say


@contextlib.contextmanager
def json_alone(options: argparse.Namespace) -> Iterator[None]:
    """With --json, whatever is printed meanwhile goes to standard error; `print_json` alone reaches standard output."""
    if not getattr(options, "json", False):
        yield
        return
    options.json_stream = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        yield


def print_json(text: str, options: argparse.Namespace, done: str = "") -> None:
    """Print a report where --json wants it; `done`: what was done before, in words. Raises RequestError."""
    say(text, options.json_stream, done)
