"""``onnxfold IN OUT --fuse HOW`` and ``--drop-blocks``."""

from __future__ import annotations

import argparse

from ..options.choices import Fusion
from .arguments import (
    FUSE,
    SAFE,
    about,
    add_common,
    add_how,
    add_inputs,
    add_last,
    add_likeness,
    add_metric,
    add_model,
    add_refining,
    measuring,
    refined,
    sampling,
    saving,
)
from .parser import Parser
from .parsing import a_file, check_ending, percent, percentage, share


def parser() -> Parser:
    """How the command is called."""
    made = Parser("onnxfold", "onnxfold IN OUT --fuse HOW [options]", FUSE.format(SAFE=SAFE))
    add_model(made)
    made.add_argument("output", metavar="OUT", type=a_file, help=about("output"))
    what = made.add_argument_group("which layers share, and how")
    known = ", ".join(f.value for f in Fusion)
    what.add_argument("--fuse", metavar="HOW", choices=[f.value for f in Fusion], help=about("how", f": {known}"))
    what.add_argument("--drop-blocks", metavar="N|P%", help=about("drop_blocks"))
    add_likeness(what)
    what.add_argument("--include", metavar="REGEX", action="append", default=[], help="only these layers or blocks")
    what.add_argument("--exclude", metavar="REGEX", action="append", default=[], help="not these layers or blocks")
    budget = made.add_argument_group("how much (--share or --target-size, with --max-error as a limit)")
    budget.add_argument(
        "--share", metavar="P", type=percentage, help="percent of the layers that give up their weights"
    )
    budget.add_argument("--target-size", metavar="F", type=share, help=about("target_size", ", 0 to 1"))
    budget.add_argument("--max-error", metavar="E", type=share, help=about("max_error"))
    budget.add_argument("--max-drop", metavar="D", type=float, help=about("max_drop"))
    before = made.add_argument_group("fold channels first (pick one; see onnxfold --help)")
    before.add_argument("--ratio", metavar="R", type=share, help=about("ratio", ", below 1"))
    before.add_argument("--target-macs", metavar="F", type=share, help=about("target_macs", ", 0 to 1"))
    how = add_how(made, channels=False)
    how.add_argument("--no-align", action="store_true", help="do not permute channels to line layers up")
    add_refining(made)
    add_metric(add_inputs(made))
    add_common(made, writes=True)
    add_last(made)
    return made


def run(options: argparse.Namespace) -> int:
    """Do what is asked, and return the exit code."""
    from ..api import fuse  # slow to import; --help comes without
    from .output import _show, check_files, showing_failures

    check_files(options)
    check_ending(options.output)
    folding = {name: v for name in ("ratio", "target_macs") if (v := getattr(options, name)) is not None}
    with showing_failures(options):
        result = fuse(
            options.input, options.output, how=options.fuse, distance=options.distance,
            share=percent("--share", options.share), target_size=options.target_size,
            max_error=options.max_error, drop_blocks=options.drop_blocks, whole=options.whole_blocks,
            align=not options.no_align, folding=folding, latency=True, include=options.include,
            exclude=options.exclude, recovery=options.recovery, max_drop=options.max_drop,
            **sampling(options), **refined(options), **saving(options), **measuring(options),
        )  # fmt: skip
    return _show(result.report, options)


WHOLE_LAYERS = frozenset(("--fuse", "--drop-blocks"))  # options that make a run one of layer fusion
