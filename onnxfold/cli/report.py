"""``onnxfold report r.json r.html``."""

from __future__ import annotations

import argparse

from .arguments import add_last
from .parser import Parser
from .parsing import a_file

ABOUT = """\
Turns a JSON report, which another command wrote with --report, into one self-contained HTML page
with charts, tables and the JSON itself. The page works offline. (pip install 'onnxfold[report]')
"""


def parser() -> Parser:
    """How the command is called."""
    made = Parser("onnxfold report", "onnxfold report JSON HTML", ABOUT)
    made.add_argument("source", metavar="JSON", type=a_file, help="the report that --report wrote")
    made.add_argument("report", metavar="HTML", type=a_file, help="the .html file to write")
    add_last(made, runs=False)
    return made


def run(options: argparse.Namespace) -> int:
    """Do what is asked, and return the exit code."""
    from ..report.saved import check_page, load  # slow to import; --help comes without
    from .output import keep

    check_page(options.source, options.report)
    keep(load(options.source), options.report)
    return 0
