"""``onnxfold layers IN``."""

from __future__ import annotations

import argparse

from ..options.choices import Distance
from .arguments import LAYERS, add_common, add_how, add_inputs, add_last, add_likeness, add_model, sampling
from .log import warn_of_samples
from .parser import Parser
from .parsing import a_file
from .streams import printing


def parser() -> Parser:
    """How the command is called."""
    made = Parser("onnxfold layers", "onnxfold layers IN [options]", LAYERS)
    add_model(made)
    what = made.add_argument_group("how layers are compared")
    add_likeness(what)
    what.add_argument("--top", metavar="N", type=int, default=20, help="pairs to show (default 20; -v lists all)")
    how = add_how(made, channels=False, repair=False)
    how.add_argument("--no-align", action="store_true", help="do not permute channels to line layers up")
    add_inputs(made)
    output = add_common(made)
    output.add_argument(
        "--plot",
        metavar="FILE",
        type=a_file,
        help="plot the distances (.png or .svg), or write the whole report (.html)",
    )
    add_last(made)
    return made


def run(options: argparse.Namespace) -> int:
    """Do what is asked, and return the exit code."""
    from ..api import rank_layers  # slow to import; --help comes without
    from ..report.plots import check_plot, draw
    from ..report.provenance import with_command
    from .output import _Console, check_files, keep_report

    check_files(options)
    check_plot(options.plot)
    if not Distance(options.distance).sampled:
        warn_of_samples(options.given, f"--distance {options.distance} looks at weights alone")
    report = rank_layers(
        options.input, distance=options.distance, whole=options.whole_blocks, align=not options.no_align,
        **sampling(options),
    )  # fmt: skip
    if not options.quiet:
        with printing():
            report.print(_Console(), None if options.verbose else options.top)
    if options.plot is not None:
        draw(with_command(report, options.command), options.plot)
    keep_report(report, options)
    return 0
