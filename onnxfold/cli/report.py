"""``onnxfold report r.json r.html``."""

from __future__ import annotations

import argparse
from pathlib import Path

from .arguments import add_last
from .parser import Parser

ABOUT = """\
Makes one HTML file of the JSON report that another command wrote with --report: figures, charts and
tables, and the JSON inside. It needs no network and no other file. (pip install 'onnxfold[report]')
"""


def parser() -> Parser:
    """How the command is called."""
    made = Parser("onnxfold report", "onnxfold report JSON HTML", ABOUT)
    made.add_argument("source", metavar="JSON", type=Path, help="the report to show, as --report wrote it")
    made.add_argument("report", metavar="HTML", type=Path, help="the page to write, an .html file")
    add_last(made, runs=False)
    return made


def run(options: argparse.Namespace) -> int:
    """Do what is asked, and return the exit code."""
    from ..report.saved import check_page, load  # slow to import; --help comes without
    from .output import keep

    check_page(options.source, options.report)
    keep(load(options.source), options.report)
    return 0
