"""The options of the command line: how they are called, what they say of themselves, and what they stand for."""

from __future__ import annotations

import argparse
from typing import Any

from .. import __core__, __version__
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
from ..options.preprocess import PRESETS
from ..progress import Progress, on_terminal, silent
from .log import LEVELS
from .parsing import a_file, file_text, providers, rounding, shapes

USAGE = """\
onnxfold IN OUT [options]      make a smaller, faster model
       onnxfold inspect IN            show what can be folded; writes nothing
       onnxfold share IN OUT          let similar layers share one weight
       onnxfold drop IN OUT           leave out residual blocks
       onnxfold quantize IN OUT       store numbers in fewer bits, fold nothing
       onnxfold layers IN             show which layers are similar; writes nothing
       onnxfold sweep IN              compare several budgets; writes no model
       onnxfold compare A B           measure model B against model A
       onnxfold report JSON HTML      turn a JSON report into an HTML page
       onnxfold cache show|clear      show or clear the cache of synthetic inputs
       onnxfold completion SHELL      make bash, zsh or fish complete all of this
"""
SAFE = f"{100 * DEFAULT_MAX_ERROR:.0f} %"
MAIN = f"""\
Makes a trained ONNX model smaller and faster by merging channels that do nearly the same job.
Needs no training data. Every result is measured against the original before it is written.

  onnxfold in.onnx out.onnx                     safe: outputs change by at most {SAFE}
  onnxfold in.onnx out.onnx --ratio 0.3         remove 30 % of the channels of every group
  onnxfold in.onnx out.onnx --target-macs 0.7   remove just enough to reach 70 % of the MACs
"""
COMPARE = """\
Runs two models on the same inputs (yours, or synthetic ones) and shows their sizes, latencies and
how far the outputs of B are from those of A. The exit code is 1 if B has other inputs or outputs,
does not run, returns NaN, or has lost an output: its error is over 100 %, and zeros would be closer
to what A returns than B is.
Without your own data, errors are relative to how much the outputs vary over photographs. The same
pair may get another error from `onnxfold IN OUT`, which also uses inputs made from the model.
"""
SWEEP = """\
Folds a model to several shares of its MACs and shows what each one saves and costs. Writes no
model. Sample inputs and error curves are computed once and shared by all targets. Errors are
measured on inputs that nothing was fitted on. The arrow marks the knee of the error curve, where
removing more MACs starts to cost more (Kneedle, Satopaa et al. 2011). Latencies are measured on
this machine.
"""
LAYERS = """\
Ranks all pairs of layers that could share one weight (same operator, same weight shape) by their
distance; 0 means equal. Layers are aligned first by permuting inner channels, which does not change
the outputs of the model.
"""
CACHE = """\
Synthetic inputs take minutes to make, so onnxfold caches them for the next run. `show` prints where
the cache is, how many entries it has, their size and when they were last used; `clear` removes them.
"""
INSPECT = """\
Shows which groups of channels of a model can be folded and how large they are, and which channels
are kept and why. Runs no samples and writes no model. By default what is alike is summed up; -v
lists every group.

  onnxfold inspect in.onnx --report groups.html     the same as a page with charts
"""
QUANTIZE = """\
Stores the numbers of a model in fewer bits, by onnxruntime's own quantizer, and folds no channels.
The result is measured against the original before it is written. Default: int8 (weights and
activations in 8 bits, ranges measured on sample inputs: yours, or synthetic ones).

  onnxfold quantize in.onnx out.onnx --calibration data.npz     int8, ranges from your inputs

To fold channels too: onnxfold IN OUT --quantize, with a budget (see onnxfold --help).
"""
SHARE = f"""\
Makes similar layers share one weight, which is stored once: the file shrinks, the MACs stay the
same. Layers are aligned first by permuting inner channels; the shared weights and the layers after
them are refitted to the original. Default: as many layers as keep the outputs within {SAFE}.

  onnxfold share in.onnx out.onnx --share 25%     a quarter of the layers lose their weights

All options of layer fusion: onnxfold --fuse mean --help.
"""
DROP = """\
Leaves out residual blocks that do little: the file and the MACs shrink. Blocks go one by one, the
least useful first, and what follows them is refitted to the original. There is no default amount.

  onnxfold drop in.onnx out.onnx --drop-blocks 25%     a quarter of the residual blocks go

All options of layer fusion: onnxfold --fuse mean --help.
"""
FUSE = f"""\
Makes similar layers share one weight, which is stored once: the file shrinks, the MACs stay the
same. Residual blocks that do little can be dropped, which saves both. Layers are aligned first by
permuting inner channels; the shared weights and the layers after them are fitted to the original.

  onnxfold share in.onnx out.onnx                      outputs change by at most {SAFE}
  onnxfold share in.onnx out.onnx --share 25%          a quarter of the layers lose their weights
  onnxfold drop in.onnx out.onnx --drop-blocks 25%     a quarter of the residual blocks go
  onnxfold in.onnx out.onnx --ratio 0.2 --fuse mean    channels are folded first
"""


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
    what = parser.add_argument_group("which channels may go")
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
        "--device",
        metavar="D",
        choices=devices,
        help="target hardware: widths follow its kernels (docs/choice.md)",
    )
    return what


def add_how(parser: argparse.ArgumentParser, channels: bool = True, repair: bool = True) -> argparse._ArgumentGroup:
    """`channels`, `repair`: with what only means something where channels are folded, or something is repaired."""
    how = parser.add_argument_group("how channels are chosen and repaired" if channels else "how it is done")
    methods = ", ".join(m.value for m in Method).replace("auto", "auto (default)", 1)
    repairs = ", ".join(r.value for r in Recovery).replace("auto", "auto (default)", 1)
    if channels:
        how.add_argument("--method", metavar="M", choices=[m.value for m in Method], default="auto", help=methods)
    if repair:
        how.add_argument(
            "--recovery", metavar="R", choices=[r.value for r in Recovery], default="auto",
            help=f"repair: {repairs if channels else 'auto (default), none, least-squares'}",
        )  # fmt: skip
    how.add_argument(
        "--effort", metavar="E", choices=[e.value for e in Effort], default="balanced",
        help="fast (seconds, weights only), balanced (default), best",
    )  # fmt: skip
    how.add_argument("--seed", metavar="N", type=int, default=0, help=about("seed", " (default 0)"))
    if channels:
        how.add_argument("--clusterer", choices=[c.value for c in Clusterer], default="native", help=argparse.SUPPRESS)
        how.add_argument("--threads", metavar="N", type=int, default=0, help=argparse.SUPPRESS)
    return how


def add_inputs(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """The inputs that models are run on, and where."""
    group = parser.add_argument_group("inputs, and what is measured")
    group.add_argument("--calibration", metavar="DATA", type=file_text, help=about("calibration"))
    group.add_argument("--samples", metavar="N", type=int, default=128, help=about("samples", " (default 128)"))
    group.add_argument(
        "--preprocess", metavar="HOW",
        help=f"for images: {', '.join(PRESETS)}, MEAN,STD or a .json (docs/inputs.md)",
    )  # fmt: skip
    group.add_argument(
        "--input-shape", metavar="NAME:D,D", action="append", default=[],
        help=about("input_shapes", ", like image:1,3,224,224"),
    )  # fmt: skip
    group.add_argument("--providers", metavar="P,P", help=about("providers"))
    return group


def add_large(parser: argparse.ArgumentParser) -> None:
    """For models that are not loaded whole."""
    large = parser.add_argument_group("models that do not fit into memory (docs/large-models.md)")
    large.add_argument("--max-memory", metavar="SIZE", help="like 4G: " + about("max_memory"))
    large.add_argument("--resume", action="store_true", help=about("resume"))
    large.add_argument("--jobs", metavar="N", type=int, default=1, help=about("jobs", " (default 1)"))
    large.add_argument("--scheduler", metavar="ADDRESS", default="", help=about("scheduler"))


def add_refining(parser: argparse.ArgumentParser) -> None:
    """What follows a fold or a fusion."""
    how = parser.add_argument_group("what follows")
    how.add_argument("--refine", action="store_true", help=about("refine"))
    how.add_argument("--steps", metavar="N", type=int, help=about("steps"))
    kinds = [kind.value for kind in Quantization]
    how.add_argument(
        "--quantize", metavar="[KIND]", choices=kinds,
        help=f"then quantize: {', '.join(kinds)}",
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


def showing(options: argparse.Namespace) -> Progress[Any]:
    """Where progress is shown."""
    return silent if options.quiet else on_terminal


def sampling(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments that all share who look at samples."""
    return {
        "effort": options.effort, "calibration": options.calibration, "samples": options.samples,
        "preprocess": options.preprocess,
        "input_shapes": shapes(options.input_shape), "providers": providers(options.providers),
        "seed": options.seed, "progress": showing(options),
    }  # fmt: skip


def add_common(
    parser: argparse.ArgumentParser, verbose: bool = True, writes: bool = False
) -> argparse._ArgumentGroup:  # fmt: skip
    """What to print; `writes`: also how a result is written."""
    output = parser.add_argument_group("output")
    output.add_argument("--report", metavar="FILE", type=a_file, help="write a full report as .json or .html")
    output.add_argument("--json", action="store_true", help="print the figures as JSON, all else on standard error")
    if verbose:
        output.add_argument("-v", "--verbose", action="store_true", help="list every group and every layer")
    output.add_argument(
        "-q", "--quiet", action="store_true", help="print nothing but errors, and what --log-level asks for"
    )
    if writes:
        output.add_argument("--save-as-external-data", action="store_true", help=about("external_data"))
        output.add_argument("--allow-unmeasured", action="store_true", help=about("allow_unmeasured"))
        output.add_argument("--no-provenance", action="store_true", help="do not " + about("provenance"))
    return output


def add_model(parser: argparse.ArgumentParser) -> None:
    """The model that a command works on."""
    parser.add_argument("input", metavar="IN", type=a_file, help="the model, an .onnx file; it is never changed")


def saving(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of how a result is written."""
    return {
        "external_data": options.save_as_external_data, "allow_unmeasured": options.allow_unmeasured,
        "provenance": not options.no_provenance,
    }  # fmt: skip


def add_last(parser: argparse.ArgumentParser, runs: bool = True) -> None:
    """Help and version; what `runs` long has more."""
    output = parser.add_argument_group("about the command itself")
    if runs:
        output.add_argument("--config", metavar="FILE", help="also take options from a .yaml or .json file")
        output.add_argument("--print-config", action="store_true", help="print all options as such a file, do no more")
        output.add_argument("--log-level", metavar="LEVEL", choices=LEVELS, help=f"tell more: {', '.join(LEVELS)}")
    output.add_argument("-h", "--help", action="help", help="show this help and exit")
    version = f"onnxfold {__version__} (core: {__core__})"
    output.add_argument("--version", action="version", version=version, help="show it and exit")
