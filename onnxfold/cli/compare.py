"""``onnxfold compare A B``."""

from __future__ import annotations

import argparse

from .arguments import COMPARE, add_common, add_inputs, add_last, add_metric, measuring, showing
from .parser import Parser
from .parsing import a_file, providers, shapes


def parser() -> Parser:
    """How the command is called."""
    made = Parser("onnxfold compare", "onnxfold compare A B [options]", COMPARE)
    made.add_argument("before", metavar="A", type=a_file, help="the reference model")
    made.add_argument("after", metavar="B", type=a_file, help="the model to measure")
    inputs = add_inputs(made)
    inputs.add_argument("--seed", metavar="N", type=int, default=0, help="seed of the synthetic inputs (default 0)")
    add_metric(inputs)
    add_common(made)
    add_last(made)
    return made


def run(options: argparse.Namespace) -> int:
    """Do what is asked, and return the exit code."""
    from ..api import compare  # slow to import; --help comes without
    from .output import _show, check_files

    check_files(options)
    report = compare(
        options.before, options.after, input_shapes=shapes(options.input_shape),
        providers=providers(options.providers), seed=options.seed, calibration=options.calibration,
        samples=options.samples, preprocess=options.preprocess, progress=showing(options), **measuring(options),
    )  # fmt: skip
    return _show(report, options)
