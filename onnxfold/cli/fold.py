"""``onnxfold IN OUT`` and ``onnxfold IN --inspect``."""

from __future__ import annotations

import argparse
from collections.abc import Collection

from ..errors import RequestError
from .arguments import (
    MAIN,
    USAGE,
    about,
    add_common,
    add_how,
    add_inputs,
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
    showing,
)
from .log import warn_of_samples
from .parser import Parser
from .parsing import a_file, check_ending, ratios, shapes, share, size_of, steps


def parser() -> Parser:
    """How the command is called."""
    made = Parser("onnxfold", USAGE, MAIN)
    add_model(made)
    made.add_argument("output", metavar="OUT", type=a_file, nargs="?", help=about("output"))
    budget = made.add_argument_group("how much (pick one, as 0.3 or 30%; default: the safe limit above)")
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
    budget.add_argument("--plan", metavar="FILE", type=a_file, help="fold to the widths in FILE (docs/plan.md)")
    what = add_which(made)
    what.add_argument("--inspect", action="store_true", help="show what can be folded and what is kept; write nothing")
    add_how(made)
    add_refining(made)
    inputs = add_inputs(made)
    inputs.add_argument(
        "--synthetic", metavar="NPZ", type=a_file, help="without --calibration: save the synthetic inputs here"
    )
    add_metric(inputs)
    add_large(made)
    output = add_common(made, writes=True)
    output.add_argument("--save-plan", metavar="FILE", type=a_file, help=about("save_plan"))
    output.add_argument("--keep-bn", action="store_true", help=argparse.SUPPRESS)
    add_last(made)
    return made


AMOUNTS = (
    "--ratio", "--target-params", "--target-macs", "--target-size", "--target-latency", "--max-error",
    "--min-agreement", "--group-ratio", "--plan",
)  # fmt: skip
"""Options that say how much of the channels goes."""
_RESULTS = frozenset((
    *AMOUNTS, "--max-drop", "--allow", "--save-plan", "--refine", "--steps", "--quantize", "--synthetic", "--resume",
))  # fmt: skip
"""Options that ask for a result."""


def check_inspecting(given: Collection[str]) -> None:
    """Raise RequestError where options on the command line ask for a result, of which `inspect` makes none."""
    for name in sorted(_RESULTS.intersection(given)):
        raise RequestError(
            f"{name} goes with a fold, not with inspect, which shows what could be folded and makes nothing: leave one "
            "of them out"
        )


def run(options: argparse.Namespace) -> int:
    """Do what is asked, and return the exit code."""
    from ..api import fold, inspect  # slow to import; --help comes without
    from .output import _show, check_files, showing_failures

    check_files(options)
    if options.inspect:
        check_inspecting(options.given)
        warn_of_samples(options.given, "inspect runs nothing")
        report = inspect(
            options.input, include=options.include, exclude=options.exclude, fold_heads=options.fold_heads,
            fold_residual=options.fold_residual, input_shapes=shapes(options.input_shape), progress=showing(options),
        )  # fmt: skip
        return _show(report, options)
    if options.output is None:
        raise RequestError("name the output file: onnxfold IN OUT (or add --inspect to write nothing)")
    check_ending(options.output)
    with showing_failures(options):
        result = fold(
            options.input, options.output, ratio=options.ratio, target_params=options.target_params,
            target_macs=options.target_macs, target_size=options.target_size, target_latency=options.target_latency,
            max_error=options.max_error, min_agreement=options.min_agreement, synthetic=options.synthetic,
            **refined(options), group_ratios=ratios(options.group_ratio), max_drop=options.max_drop,
            allow=steps(options.allow), keep_bn=options.keep_bn, plan=options.plan, save_plan=options.save_plan,
            max_memory=None if options.max_memory is None else size_of(options.max_memory), jobs=options.jobs,
            scheduler=options.scheduler, resume=options.resume, **manner(options), **saving(options),
            **measuring(options),
        )  # fmt: skip
    return _show(result.report, options)
