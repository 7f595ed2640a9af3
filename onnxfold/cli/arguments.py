"""The options of the command line: how they are called, what they say of themselves, and what they stand for."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from .. import __version__
from ..options.budget import DEFAULT_MAX_ERROR
from ..options.choices import (
    DEFAULT_DISTANCE,
    LATENCY_TIMEOUT,
    METRIC_TIMEOUT,
    Clusterer,
    Distance,
    Effort,
    Method,
    Quantization,
    Recovery,
)
from ..options.devices import Device
from ..options.parameters import PARAMETERS
from ..progress import on_terminal, silent
from ..units import readable
from .parsing import providers, rounding, shapes

USAGE = """\
onnxfold IN OUT [options]      make a smaller, faster model
       onnxfold IN --inspect          show what can be folded, write nothing
       onnxfold IN OUT --fuse mean    let layers share weights (add --help for more)
       onnxfold layers IN             show which layers are alike, write no model
       onnxfold sweep IN              show what several budgets gain and cost, write no model
       onnxfold compare A B           measure two versions of a model against each other
       onnxfold report JSON HTML      make a page to look at of a report in JSON
       onnxfold cache show|clear      show or remove the inputs that are kept between runs
"""
SAFE = f"{100 * DEFAULT_MAX_ERROR:.0f} %"
MAIN = f"""\
Makes a trained ONNX model smaller and faster: channels that do nearly the same job are merged.
Needs no training data. The result is measured against the original before it is written.

  onnxfold in.onnx out.onnx                     safe: outputs change by {SAFE} at most
  onnxfold in.onnx out.onnx --ratio 0.3         remove 30 % of the channels of every group
  onnxfold in.onnx out.onnx --target-macs 0.7   as little as needed to get to 70 % of the arithmetic
"""
COMPARE = """\
Runs two models with the same inputs and outputs on the same inputs (yours, or such as can be
made), and shows sizes, latencies and how far the outputs differ. The exit code is 1 if B has
another interface, does not run, gives NaN, or has lost an output (over 100 % error, and zeros would
do better). Without your data errors are in units of what photographs move the outputs by, which may
be less than what a fold of the same model said: that knows inputs made from the model as well.
"""
SWEEP = """\
Folds a model to several shares of its arithmetic, and shows what each gains and costs; writes no
model. Samples and error curves are had once for all of them. The errors are measured on samples
that nothing was fitted on. Marked is the knee of the curve of errors over arithmetic removed: the
point furthest below its chord (Kneedle, Satopaa et al. 2011). Latencies are those of this machine.
"""
LAYERS = """\
Ranks all pairs of layers that could share one weight (the same operator, weights of one shape) by
how far they are apart: 0 for equal ones. Layers are brought together first, by permuting inner
channels, which changes no output.
"""
CACHE = """\
Inputs that are made from a model take minutes, so they are kept for the next run. `show` tells
where, how many, how many bytes they take and when they were used; `clear` removes them.
"""
FUSE = f"""\
Lets layers that are alike share one weight, which is stored once: the file shrinks, the arithmetic
stays. Residual blocks that do little can be dropped, which saves both. Inner channels are permuted
before so that layers match; the shared weights and what follows them are fitted to the original.

  onnxfold in.onnx out.onnx --fuse mean                outputs change by {SAFE} at most
  onnxfold in.onnx out.onnx --fuse mean --share 25     a quarter of the layers lose their weights
  onnxfold in.onnx out.onnx --drop-blocks 25%          a quarter of the residual blocks go
  onnxfold in.onnx out.onnx --ratio 0.2 --fuse mean    channels are folded first
"""
CODES = """\
exit codes: 0 done; 1 the result failed its checks and was not written, or an output is lost and it
was (only for a ratio or a target that you gave); 2 bad request; 3 unreadable model; 4 nothing to
fold; 5 not quantized; 70 a bug; 129, 130, 143 interrupted
"""


class Parser(argparse.ArgumentParser):
    """One line for what is wrong, and no guessing of options from their first letters."""

    def __init__(self, prog: str, usage: str, description: str) -> None:
        layout = partial(argparse.RawDescriptionHelpFormatter, max_help_position=27, width=100)
        super().__init__(
            prog, usage=usage, description=description, epilog=CODES, formatter_class=layout, allow_abbrev=False,
            add_help=False,
        )  # fmt: skip

    def parsed(self, given: Sequence[str]) -> argparse.Namespace:
        """The values given; options may stand between files, unless the order is meant (`--`)."""
        return self.parse_args(given) if "--" in given else self.parse_intermixed_args(given)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does, of arguments in which every kind of quantization is named."""
        return super().parse_known_args(named_kind(sys.argv[1:] if args is None else args), namespace)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"onnxfold: {readable(message)}{self._meant(message) or ' (try --help)'}\n")

    def _meant(self, message: str) -> str:
        """Which option an unknown one is close to, in words; '' where it is close to none."""
        unknown = message.removeprefix("unrecognized arguments: ").split()
        name = next((one.partition("=")[0] for one in unknown if one.startswith("--")), "") if unknown else ""
        near = get_close_matches(name, self._option_string_actions, 1) if name and unknown != message.split() else []
        return f": did you mean {near[0]}?" if near else ""


def named_kind(given: Sequence[str]) -> list[str]:
    """`given`, with the kind behind a --quantize that has none: what follows it may be a file."""
    end = given.index("--") if "--" in given else len(given)
    kinds, found = [kind.value for kind in Quantization], list(given)
    for at, argument in enumerate(given[:end]):
        if argument == "--quantize" and (at + 1 >= end or given[at + 1] not in kinds):
            found[at] = f"--quantize={kinds[0]}"
    return found


def names_of(given: Sequence[str]) -> set[str]:
    """The long options that are given."""
    end = given.index("--") if "--" in given else len(given)
    return {argument.partition("=")[0] for argument in given[:end]}


def about(parameter: str, more: str = "") -> str:
    """What a parameter is for, and `more`."""
    return PARAMETERS[parameter].purpose + more


def add_likeness(group: argparse._ArgumentGroup) -> None:
    """How layers are compared."""
    known = ", ".join(m.value for m in Distance)
    group.add_argument(
        "--distance", metavar="M", choices=[m.value for m in Distance], default=DEFAULT_DISTANCE.value,
        help=about("distance", f": {known} (default {DEFAULT_DISTANCE.value})"),
    )  # fmt: skip
    group.add_argument("--whole-blocks", action="store_true", help=about("whole"))


def add_metric(group: argparse._ArgumentGroup) -> None:
    """The user's own measures, of a model and of its latency."""
    group.add_argument("--metric", metavar="FILE.py:NAME", help=about("metric"))
    group.add_argument(
        "--metric-timeout", metavar="S", type=float, default=METRIC_TIMEOUT, help=argparse.SUPPRESS
    )  # docs/metric.md tells of it, and an error where it is too short
    group.add_argument(
        "--latency-command", metavar="CMD", help="a command that prints ms, on another device (docs/choice.md)"
    )
    group.add_argument(
        "--latency-timeout", metavar="S", type=float, default=LATENCY_TIMEOUT,
        help=argparse.SUPPRESS,
    )  # fmt: skip


def measuring(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of the user's own measure, and of latency on another device."""
    return {
        "metric": options.metric, "metric_timeout": options.metric_timeout, "latency_command": options.latency_command,
        "latency_timeout": options.latency_timeout,
    }  # fmt: skip


def add_which(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Which channels may be folded."""
    what = parser.add_argument_group("which channels")
    what.add_argument("--include", metavar="REGEX", action="append", default=[], help=about("include"))
    what.add_argument("--exclude", metavar="REGEX", action="append", default=[], help=about("exclude"))
    what.add_argument("--fold-heads", action="store_true", help=about("fold_heads"))
    what.add_argument("--fold-residual", action="store_true", help=about("fold_residual"))
    what.add_argument(
        "--round-to", metavar="N", type=rounding, default=8,
        help="keep multiples of N channels (default 8; auto: kernel blocks)",
    )  # fmt: skip
    devices = [device.value for device in Device]
    what.add_argument(
        "--device", metavar="D", choices=devices, help="where it will run (docs/choice.md): sets what auto rounds to"
    )
    return what


def add_how(parser: argparse.ArgumentParser, channels: bool = True, repair: bool = True) -> argparse._ArgumentGroup:
    """`channels`, `repair`: with what only means something where channels are folded, or something is repaired."""
    how = parser.add_argument_group("how")
    methods, repairs = ", ".join(m.value for m in Method), ", ".join(r.value for r in Recovery)
    if channels:
        how.add_argument("--method", metavar="M", choices=[m.value for m in Method], default="auto", help=methods)
    if repair:
        how.add_argument(
            "--recovery", metavar="R", choices=[r.value for r in Recovery], default="auto",
            help=f"repair: {repairs if channels else 'auto, none, least-squares'}",
        )  # fmt: skip
    how.add_argument(
        "--effort", metavar="E", choices=[e.value for e in Effort], default="balanced",
        help="fast (seconds, from weights alone), balanced, best",
    )  # fmt: skip
    add_inputs(how)
    how.add_argument("--seed", metavar="N", type=int, default=0, help=about("seed", " (default 0)"))
    if channels:
        how.add_argument("--clusterer", choices=[c.value for c in Clusterer], default="native", help=argparse.SUPPRESS)
        how.add_argument("--threads", metavar="N", type=int, default=0, help=argparse.SUPPRESS)
    return how


def add_inputs(group: argparse._ArgumentGroup) -> None:
    """The user's own inputs."""
    group.add_argument("--calibration", metavar="DATA", help=about("calibration"))
    group.add_argument("--samples", metavar="N", type=int, default=128, help=about("samples", " (default 128)"))
    group.add_argument("--preprocess", metavar="MEAN,STD,L", help="for images, like 0.485:0.456:0.406,0.25,nchw")


def add_large(parser: argparse.ArgumentParser) -> None:
    """For models that are not loaded whole."""
    large = parser.add_argument_group("large models (docs/large-models.md)")
    large.add_argument("--max-memory", metavar="SIZE", help="like 4G: " + about("max_memory"))
    large.add_argument("--resume", action="store_true", help=about("resume"))
    large.add_argument("--jobs", metavar="N", type=int, default=1, help=about("jobs", " (default 1)"))
    large.add_argument("--scheduler", metavar="ADDRESS", default="", help=about("scheduler"))


def add_refining(how: argparse._ArgumentGroup) -> None:
    """What follows a fold or a fusion."""
    how.add_argument("--refine", action="store_true", help=about("refine"))
    how.add_argument("--steps", metavar="N", type=int, help=about("steps"))
    kinds = [kind.value for kind in Quantization]
    how.add_argument(
        "--quantize", metavar="[KIND]", choices=kinds,
        help=f"then fewer bits: {', '.join(kinds)}",
    )  # fmt: skip


def refined(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of what follows a fold or a fusion."""
    return {"refine": options.refine, "steps": options.steps, "quantize": options.quantize or False}


def manner(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments that `fold` and `sweep` share."""
    from .output import announced  # with the reports, which are slow to import

    return {
        **sampling(options), "method": options.method, "recovery": options.recovery, "round_to": options.round_to,
        "device": options.device,
        "include": options.include, "exclude": options.exclude, "clusterer": options.clusterer,
        "threads": options.threads, "fold_heads": options.fold_heads,
        "fold_residual": options.fold_residual, "announce": None if options.quiet else announced,
    }  # fmt: skip


def sampling(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments that all share who look at samples."""
    return {
        "effort": options.effort, "calibration": options.calibration, "samples": options.samples,
        "preprocess": options.preprocess,
        "input_shapes": shapes(options.input_shape), "providers": providers(options.providers),
        "seed": options.seed, "progress": silent if options.quiet else on_terminal,
    }  # fmt: skip


def add_common(
    parser: argparse.ArgumentParser, verbose: bool = True, writes: bool = False
) -> argparse._ArgumentGroup:  # fmt: skip
    """Where to measure, and what to print; `writes`: also how a result is written."""
    measure = parser.add_argument_group("measuring")
    measure.add_argument(
        "--input-shape", metavar="NAME:D,D", action="append", default=[],
        help=about("input_shapes", ", like image:1,3,224,224"),
    )  # fmt: skip
    measure.add_argument("--providers", metavar="P,P", help=about("providers"))
    output = parser.add_argument_group("output")
    output.add_argument("--report", metavar="FILE", type=Path, help="write all figures: .json, or .html to look at")
    if verbose:
        output.add_argument("-v", "--verbose", action="store_true", help="show all groups and all places")
    output.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    if writes:
        output.add_argument("--save-as-external-data", action="store_true", help=about("external_data"))
        output.add_argument("--allow-unmeasured", action="store_true", help=about("allow_unmeasured"))
        output.add_argument("--no-provenance", action="store_true", help="do not " + about("provenance"))
    return output


def add_model(parser: argparse.ArgumentParser) -> None:
    """The model that a command works on."""
    parser.add_argument("input", metavar="IN", type=Path, help="the model, an .onnx file; it is never changed")


def saving(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of how a result is written."""
    return {
        "external_data": options.save_as_external_data, "allow_unmeasured": options.allow_unmeasured,
        "provenance": not options.no_provenance,
    }  # fmt: skip


def add_last(output: argparse._ArgumentGroup) -> None:
    """Help and version."""
    output.add_argument("-h", "--help", action="help", help="show this help and exit")
    output.add_argument("--version", action="version", version=f"onnxfold {__version__}", help="show it and exit")
