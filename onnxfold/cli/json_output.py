"""--json: standard output is for one report in JSON, all else goes to standard error."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def json_alone(options: argparse.Namespace) -> Iterator[None]:
    """With --json, whatever is printed meanwhile goes to standard error; `print_json` alone reaches standard output."""
    if not getattr(options, "json", False):
        yield
        return
    options.json_stream = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        yield


def print_json(text: str, options: argparse.Namespace) -> None:
    """Print a report where --json wants it. Whoever reads may stop early: the exit code still tells the verdict."""
    try:
        print(text, file=options.json_stream, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), options.json_stream.fileno())
