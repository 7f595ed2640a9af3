"""``onnxfold IN OUT`` and ``onnxfold IN --inspect``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import RequestError
from .arguments import (
    MAIN,
    USAGE,
    Parser,
    about,
    add_common,
    add_how,
    add_large,
    add_last,
    add_metric,
    add_model,
    add_refining,
    add_which,
    manner,
    measuring,
    refined,
    saving,
)
from .parsing import ratios, shapes, share, size_of, steps


def parser() -> Parser:
    """How the command is called."""
    made = Parser("onnxfold", USAGE, MAIN)
    add_model(made)
    made.add_argument("output", metavar="OUT", type=Path, nargs="?", help=about("output"))
    budget = made.add_argument_group("how much (one of these, as 0.3 or 30%; none: the safe default above)")
    budget.add_argument("--ratio", metavar="R", type=share, help=about("ratio", ", below 1"))
    budget.add_argument("--target-params", metavar="F", type=share, help=about("target_params", ", 0 to 1"))
    budget.add_argument("--target-macs", metavar="F", type=share, help=about("target_macs", ", 0 to 1"))
    budget.add_argument("--target-size", metavar="F", type=share, help=about("target_size", ", 0 to 1"))
    budget.add_argument(
        "--target-latency", metavar="F", type=share,
        help=about("target_latency"),
    )  # fmt: skip
    budget.add_argument("--allow", metavar="STEP,STEP", help="meet a size or latency by these steps (default fold)")
    budget.add_argument("--max-error", metavar="E", type=share, help=about("max_error", " (default 0.1)"))
    budget.add_argument("--min-agreement", metavar="A", type=share, help=about("min_agreement"))
    budget.add_argument("--max-drop", metavar="D", type=float, help=about("max_drop"))
    budget.add_argument(
        "--group-ratio", metavar="REGEX=R", action="append", default=[],
        help=about("group_ratios"),
    )  # fmt: skip
    what = add_which(made)
    what.add_argument("--inspect", action="store_true", help="show the groups, and what is kept and why; write nothing")
    how = add_how(made)
    how.add_argument(
        "--synthetic", metavar="NPZ", type=Path, help="without --calibration: keep the inputs that are made"
    )
    add_refining(how)
    add_metric(how)
    add_large(made)
    output = add_common(made, writes=True)
    output.add_argument("--keep-bn", action="store_true", help=argparse.SUPPRESS)
    add_last(output)
    return made


def run(options: argparse.Namespace) -> int:
    """Do what is asked, and return the exit code."""
    from ..api import fold, inspect  # slow to import; --help comes without
    from .output import _show, check_files, showing_failures

    check_files(options)
    if options.inspect:
        report = inspect(
            options.input, include=options.include, exclude=options.exclude, fold_heads=options.fold_heads,
            fold_residual=options.fold_residual,            input_shapes=shapes(options.input_shape),
        )  # fmt: skip
        return _show(report, options)
    if options.output is None:
        raise RequestError("name the file to write: onnxfold IN OUT (or --inspect to write nothing)")
    with showing_failures(options):
        result = fold(
            options.input, options.output, ratio=options.ratio, target_params=options.target_params,
            target_macs=options.target_macs, target_size=options.target_size, target_latency=options.target_latency,
            max_error=options.max_error, min_agreement=options.min_agreement, synthetic=options.synthetic,
            **refined(options), group_ratios=ratios(options.group_ratio), max_drop=options.max_drop,
            allow=steps(options.allow), keep_bn=options.keep_bn,
            max_memory=None if options.max_memory is None else size_of(options.max_memory), jobs=options.jobs,
            scheduler=options.scheduler, resume=options.resume, **manner(options), **saving(options),
            **measuring(options),
        )  # fmt: skip
    return _show(result.report, options)
