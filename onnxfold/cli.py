"""The command line: a thin layer over `onnxfold.fold`, `inspect`, `sweep` and `compare`."""

from __future__ import annotations

import argparse
import io
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from . import __version__, session
from .arguments import dashes, numbers, providers, ratios, shapes
from .cluster import Clusterer
from .errors import OnnxFoldError, RequestError, ValidationError
from .features import Method
from .flow import compare, fold, inspect
from .images import Preprocess
from .layers.flow import DEFAULT_METRIC, fuse
from .layers.heat import check_plot, draw
from .layers.ranking import LayersReport, rank_layers
from .layers.similarity import Metric
from .layers.tie import Fusion
from .progress import announced, on_terminal, silent
from .recover import Recovery
from .report import FoldReport, save
from .request import DEFAULT_MAX_ERROR
from .room import size_of
from .samples import Effort
from .sweeping import SHARES, sweep
from .sweepreport import SweepReport

USAGE = """\
onnxfold IN OUT [options]      make a smaller, faster model
       onnxfold IN --inspect          show what can be folded, write nothing
       onnxfold IN OUT --fuse mean    let layers share weights (add --help for more)
       onnxfold layers IN             show which layers are alike, write no model
       onnxfold sweep IN              show what several budgets gain and cost, write no model
       onnxfold compare A B           measure two versions of a model against each other
"""
SAFE = f"{100 * DEFAULT_MAX_ERROR:.0f} %"
MAIN = f"""\
Makes a trained ONNX model smaller and faster: channels that do nearly the same job are merged.
Needs no training data. The result is measured against the original before it is written.

  onnxfold in.onnx out.onnx                     safe: outputs on probe inputs change by {SAFE} at most
  onnxfold in.onnx out.onnx --ratio 0.3         remove 30 % of the channels of every group
  onnxfold in.onnx out.onnx --target-macs 0.7   as little as needed to get to 70 % of the arithmetic
"""
COMPARE = """\
Runs two models with the same inputs and outputs on the same random inputs, and shows sizes,
latencies and how far the outputs differ. The exit code is 1 if B has another interface, does not
run or gives NaN; how large an error is good enough is for you to say.
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
FUSE = """\
Lets layers that are alike share one weight, which is stored once: the file shrinks, the arithmetic
stays. Residual blocks that do little can be dropped, which saves both. Inner channels are permuted
before so that layers match; the shared weights and what follows them are fitted to the original.

  onnxfold in.onnx out.onnx --fuse mean                outputs change by {SAFE} at most
  onnxfold in.onnx out.onnx --fuse mean --share 25     a quarter of the layers lose their weights
  onnxfold in.onnx out.onnx --drop-blocks 25%          a quarter of the residual blocks go
  onnxfold in.onnx out.onnx --ratio 0.2 --fuse mean    channels are folded first
"""
CODES = """\
exit codes: 0 done; 1 the result failed its checks and was not written; 2 bad request;
3 unreadable model; 4 nothing to fold; 5 not quantised; 70 a bug in onnxfold; 130 interrupted
"""
BUG = "Please report it with the output of the same command after 'export ONNXFOLD_TRACEBACK=1'"


class _Parser(argparse.ArgumentParser):
    def __init__(self, prog: str, usage: str, description: str) -> None:
        layout = partial(argparse.RawDescriptionHelpFormatter, max_help_position=27, width=100)
        super().__init__(
            prog, usage=usage, description=description, epilog=CODES, formatter_class=layout, allow_abbrev=False,
            add_help=False,
        )  # fmt: skip

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"onnxfold: {_line(message)} (try --help)\n")


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """``onnxfold ... | head``: who reads has seen enough; the exit code still tells the verdict."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code (see `CODES`)."""
    given = dashes(sys.argv[1:] if arguments is None else arguments)
    command = COMMANDS.get(given[0]) if given else None
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names that the terminal cannot show must not end the run
            stream.reconfigure(errors="backslashreplace")
    if arguments is None and not sys.warnoptions:
        warnings.simplefilter("ignore")
    session.silence()
    try:
        if command is None:
            command, given = (_fuse if _WHOLE_LAYERS.intersection(_names(given)) else _fold), ["", *given]
        return command(given[1:])
    except SystemExit as stop:  # --help, --version and usage errors
        return stop.code if isinstance(stop.code, int) else 2
    except OnnxFoldError as error:
        return _complain(str(error), error.exit_code)
    except MemoryError:
        return _complain("out of memory: use a machine with more, or give smaller --input-shape", 2)
    except OSError as error:  # a full temporary folder, say
        return _complain(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", 2)
    except KeyboardInterrupt:
        return _complain("interrupted, nothing was written", 130)
    except Exception as error:  # a bug of ours; the model is not to blame, and nothing was written
        if "ONNXFOLD_TRACEBACK" in os.environ:
            raise
        what = f"{type(error).__name__}: {error}"
        return _complain(f"internal error, nothing was written ({what}). {BUG}", 70)


def _fold(given: Sequence[str]) -> int:
    parser = _Parser("onnxfold", USAGE, MAIN)
    parser.add_argument("input", metavar="IN", type=Path, help="the model, an .onnx file; it is never changed")
    parser.add_argument("output", metavar="OUT", type=Path, nargs="?", help="the file to write")
    budget = parser.add_argument_group("how much (one of these; none: the safe default above)")
    budget.add_argument("--ratio", metavar="R", type=float, help="share of the channels to remove, 0 to 1")
    budget.add_argument("--target-params", metavar="F", type=float, help="share of the parameters to keep, 0 to 1")
    budget.add_argument("--target-macs", metavar="F", type=float, help="share of the multiply-adds to keep, 0 to 1")
    budget.add_argument("--target-size", metavar="F", type=float, help="share of the bytes of the file to keep, 0 to 1")
    budget.add_argument(
        "--target-latency", metavar="F", type=float,
        help="share of the latency to keep, measured here: it depends on the machine",
    )  # fmt: skip
    budget.add_argument(
        "--max-error", metavar="E", type=float, help="largest relative error of the outputs (default 0.1)"
    )
    budget.add_argument("--min-agreement", metavar="A", type=float, help="share of samples that keep their top class")
    budget.add_argument(
        "--group-ratio", metavar="REGEX=R", action="append", default=[],
        help="another --ratio for these groups; without --ratio, only they shrink",
    )  # fmt: skip
    what = _which(parser)
    what.add_argument("--inspect", action="store_true", help="show the groups, and what is kept and why; write nothing")
    how = _how(parser)
    how.add_argument(
        "--synthetic", metavar="NPZ", type=Path, help="without --calibration: keep the inputs that are made"
    )
    _refining(how)
    _large(parser)
    output = _common(parser)
    output.add_argument("--save-as-external-data", action="store_true", help="store the weights in a file beside OUT")
    _last(output)
    options = parser.parse_args(given)
    _check_report(options.report, options.input, options.output)
    if options.inspect:
        report = inspect(
            options.input, include=options.include, exclude=options.exclude, fold_heads=options.fold_heads,
            input_shapes=shapes(options.input_shape),
        )  # fmt: skip
        return _show(report, options)
    if options.output is None:
        raise RequestError("name the file to write: onnxfold IN OUT (or --inspect to write nothing)")
    try:
        result = fold(
            options.input, options.output, ratio=options.ratio, target_params=options.target_params,
            target_macs=options.target_macs, target_size=options.target_size, target_latency=options.target_latency,
            max_error=options.max_error, min_agreement=options.min_agreement, synthetic=options.synthetic,
            **_refined(options), external_data=options.save_as_external_data, group_ratios=ratios(options.group_ratio),
            max_memory=None if options.max_memory is None else size_of(options.max_memory), jobs=options.jobs,
            scheduler=options.scheduler, resume=options.resume, **_manner(options),
        )  # fmt: skip
    except ValidationError as error:
        if isinstance(error.report, FoldReport):
            _show(error.report, options)
        raise
    return _show(result.report, options)


def _fuse(given: Sequence[str]) -> int:
    parser = _Parser("onnxfold", "onnxfold IN OUT --fuse HOW [options]", FUSE.format(SAFE=SAFE))
    parser.add_argument("input", metavar="IN", type=Path, help="the model, an .onnx file; it is never changed")
    parser.add_argument("output", metavar="OUT", type=Path, help="the file to write")
    what = parser.add_argument_group("what")
    known = ", ".join(f.value for f in Fusion)
    what.add_argument(
        "--fuse", metavar="HOW", choices=[f.value for f in Fusion], help=f"how weights become one: {known}"
    )
    what.add_argument("--drop-blocks", metavar="N|P%", help="drop so many residual blocks, those that do the least")
    _likeness(what)
    what.add_argument("--include", metavar="REGEX", action="append", default=[], help="only these layers or blocks")
    what.add_argument("--exclude", metavar="REGEX", action="append", default=[], help="not these layers or blocks")
    budget = parser.add_argument_group("how much (of the first two one; --max-error also as a limit to them)")
    budget.add_argument("--share", metavar="P", type=float, help="percent of the layers that lose their own weights")
    budget.add_argument("--target-size", metavar="F", type=float, help="share of the bytes of the file to keep, 0 to 1")
    budget.add_argument("--max-error", metavar="E", type=float, help="largest relative error of the outputs")
    before = parser.add_argument_group("fold channels before (one of these; see onnxfold --help)")
    before.add_argument("--ratio", metavar="R", type=float, help="share of the channels to remove, 0 to 1")
    before.add_argument("--target-macs", metavar="F", type=float, help="share of the multiply-adds to keep, 0 to 1")
    how = _how(parser, channels=False)
    how.add_argument("--no-align", action="store_true", help="do not permute channels so that layers match")
    _refining(how)
    output = _common(parser)
    output.add_argument("--save-as-external-data", action="store_true", help="store the weights in a file beside OUT")
    _last(output)
    options = parser.parse_args(given)
    _check_report(options.report, options.input, options.output)
    folding = {name: v for name in ("ratio", "target_macs") if (v := getattr(options, name)) is not None}
    try:
        result = fuse(
            options.input, options.output, how=options.fuse, metric=options.metric,
            share=None if options.share is None else options.share / 100, target_size=options.target_size,
            max_error=options.max_error, drop_blocks=options.drop_blocks, whole=options.whole_blocks,
            align=not options.no_align, folding=folding, latency=True, external_data=options.save_as_external_data,
            **_samples(options), **_refined(options), include=options.include, exclude=options.exclude,
            recovery=options.recovery,
        )  # fmt: skip
    except ValidationError as error:
        if isinstance(error.report, FoldReport):
            _show(error.report, options)
        raise
    return _show(result.report, options)


def _layers(given: Sequence[str]) -> int:
    parser = _Parser("onnxfold layers", "onnxfold layers IN [options]", LAYERS)
    parser.add_argument("input", metavar="IN", type=Path, help="the model, an .onnx file; it is never changed")
    what = parser.add_argument_group("what")
    _likeness(what)
    what.add_argument("--top", metavar="N", type=int, default=20, help="show so many pairs (default 20; -v shows all)")
    how = _how(parser, channels=False, repair=False)
    how.add_argument("--no-align", action="store_true", help="do not permute channels so that layers match")
    output = _common(parser)
    output.add_argument("--json", action="store_true", help="print all pairs as JSON")
    output.add_argument(
        "--plot", metavar="FILE", type=Path, help="draw the distances: .html, or .png (needs matplotlib)"
    )
    _last(output)
    options = parser.parse_args(given)
    _check_report(options.report, options.input)
    check_plot(options.plot)
    report = rank_layers(
        options.input, metric=options.metric, whole=options.whole_blocks, align=not options.no_align,
        **_samples(options),
    )  # fmt: skip
    if options.json:
        print(report.to_json())
    elif not options.quiet:
        report.print(_Console(), None if options.verbose else options.top)
    if options.plot is not None:
        draw(report, options.plot)
    _keep_report(report, options.report)
    return 0


def _compare(given: Sequence[str]) -> int:
    parser = _Parser("onnxfold compare", "onnxfold compare A B [options]", COMPARE)
    parser.add_argument("before", metavar="A", type=Path, help="the model to measure against")
    parser.add_argument("after", metavar="B", type=Path, help="the other one")
    output = _common(parser)
    output.add_argument("--seed", metavar="N", type=int, default=0, help="of the random inputs (default 0)")
    _last(output)
    options = parser.parse_args(given)
    _check_report(options.report, options.before, options.after)
    report = compare(
        options.before, options.after, input_shapes=shapes(options.input_shape),
        providers=providers(options.providers), seed=options.seed,
    )  # fmt: skip
    return _show(report, options)


def _sweep(given: Sequence[str]) -> int:
    parser = _Parser("onnxfold sweep", "onnxfold sweep IN [options]", SWEEP)
    parser.add_argument("input", metavar="IN", type=Path, help="the model, an .onnx file; it is never changed")
    default = ",".join(f"{share:g}".lstrip("0") for share in SHARES)
    parser.add_argument("--at", metavar="F,F", help=f"shares of the multiply-adds to keep (default {default})")
    _which(parser)
    _how(parser)
    _last(_common(parser, verbose=False))
    options = parser.parse_args(given)
    _check_report(options.report, options.input)
    at = SHARES if options.at is None else numbers("--at", options.at)
    report = sweep(options.input, at=at, **_manner(options))
    if not options.quiet:
        report.print(_Console())
    _keep_report(report, options.report)
    return 0 if report.passed else 1


COMMANDS: Mapping[str, Callable[[Sequence[str]], int]] = {"compare": _compare, "layers": _layers, "sweep": _sweep}
_WHOLE_LAYERS = frozenset(("--fuse", "--drop-blocks"))  # options that make a run one of layer fusion


def _names(given: Sequence[str]) -> set[str]:
    """The long options that are given."""
    end = given.index("--") if "--" in given else len(given)
    return {argument.partition("=")[0] for argument in given[:end]}


def _likeness(group: argparse._ArgumentGroup) -> None:
    known = ", ".join(m.value for m in Metric)
    group.add_argument(
        "--metric", metavar="M", choices=[m.value for m in Metric], default=DEFAULT_METRIC.value,
        help=f"how alike layers are: {known} (default {DEFAULT_METRIC.value})",
    )  # fmt: skip
    group.add_argument("--whole-blocks", action="store_true", help="whole residual blocks, not single layers")


def _which(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    what = parser.add_argument_group("which channels")
    what.add_argument("--include", metavar="REGEX", action="append", default=[], help="only these groups or nodes")
    what.add_argument("--exclude", metavar="REGEX", action="append", default=[], help="not these groups or nodes")
    what.add_argument(
        "--fold-heads", action="store_true", help="also heads of key-value caches: inputs and outputs change shape"
    )
    what.add_argument("--round-to", metavar="N", type=int, default=8, help="keep multiples of N channels (default 8)")
    return what


def _how(parser: argparse.ArgumentParser, channels: bool = True, repair: bool = True) -> argparse._ArgumentGroup:
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
    how.add_argument("--calibration", metavar="DATA", help="your inputs: npz, npy, folder of them or of images")
    how.add_argument("--samples", metavar="N", type=int, default=128, help="use so many of them (default 128)")
    how.add_argument("--preprocess", metavar="MEAN,STD,L", help="for images, like 0.485:0.456:0.406,0.25,nchw")
    how.add_argument("--seed", metavar="N", type=int, default=0, help="same seed, same file (default 0)")
    if channels:
        how.add_argument("--clusterer", choices=[c.value for c in Clusterer], default="native", help=argparse.SUPPRESS)
        how.add_argument("--threads", metavar="N", type=int, default=0, help="for clustering (default: all)")
    return how


def _large(parser: argparse.ArgumentParser) -> None:
    large = parser.add_argument_group("large models (docs/large-models.md)")
    large.add_argument("--max-memory", metavar="SIZE", help="like 4G: what takes more to run is never loaded whole")
    large.add_argument("--resume", action="store_true", help="go on from what an interrupted run has merged")
    large.add_argument("--jobs", metavar="N", type=int, default=1, help="merge N groups at a time (default 1)")
    large.add_argument("--scheduler", metavar="ADDRESS", default="", help="a Dask cluster: its workers merge groups")


def _refining(how: argparse._ArgumentGroup) -> None:
    how.add_argument("--refine", action="store_true", help="train the weights on what the original says; no labels")
    how.add_argument("--steps", metavar="N", type=int, help="of --refine (default: by effort and size; 800 at most)")
    how.add_argument("--quantize", action="store_true", help="then INT8, by onnxruntime, with the same inputs")


def _refined(options: argparse.Namespace) -> dict[str, Any]:
    if options.steps is not None and not options.refine:
        raise RequestError("--steps is for --refine: give both, or neither")
    return {"refine": options.refine, "steps": options.steps, "quantize": options.quantize}


def _manner(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments that `fold` and `sweep` share."""
    return {
        **_samples(options), "method": options.method, "recovery": options.recovery, "round_to": options.round_to,
        "include": options.include, "exclude": options.exclude, "clusterer": options.clusterer,
        "threads": options.threads, "fold_heads": options.fold_heads, "announce": None if options.quiet else announced,
    }  # fmt: skip


def _samples(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments that all share who look at samples."""
    return {
        "effort": options.effort, "calibration": options.calibration, "samples": options.samples,
        "preprocess": None if options.preprocess is None else Preprocess.parse(options.preprocess),
        "input_shapes": shapes(options.input_shape), "providers": providers(options.providers),
        "seed": options.seed, "progress": silent if options.quiet else on_terminal,
    }  # fmt: skip


def _common(parser: argparse.ArgumentParser, verbose: bool = True) -> argparse._ArgumentGroup:
    measure = parser.add_argument_group("measuring")
    measure.add_argument(
        "--input-shape", metavar="NAME:D,D,...", action="append", default=[],
        help="shape of an input that the model leaves open, like image:1,3,224,224",
    )  # fmt: skip
    measure.add_argument("--providers", metavar="P,P", help="where to run: cpu,cuda (default: cpu, and cuda if there)")
    output = parser.add_argument_group("output")
    output.add_argument("--report", metavar="FILE", type=Path, help="write all figures as JSON (docs/report.md)")
    if verbose:
        output.add_argument("-v", "--verbose", action="store_true", help="show all groups and all places")
    output.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    return output


def _last(output: argparse._ArgumentGroup) -> None:
    output.add_argument("-h", "--help", action="help", help="show this help and exit")
    output.add_argument("--version", action="version", version=f"onnxfold {__version__}", help="show it and exit")


def _show(report: FoldReport, options: argparse.Namespace) -> int:
    if not options.quiet:
        report.print(_Console(), options.verbose)
    done = f" ({report.output} is written)" if report.check and report.check.passed and report.output else ""
    _keep_report(report, options.report, done)
    return 0 if report.check is None or report.check.passed else 1


def _keep_report(report: FoldReport | SweepReport | LayersReport, path: Path | None, done: str = "") -> None:
    if path is None:
        return
    try:
        save(report, path)
    except OSError as error:
        raise RequestError(f"cannot write the report {path}: {error.strerror or error}{done}") from error


def _complain(message: str, code: int) -> int:
    """One line on standard error."""
    print(f"onnxfold: {_line(message)}", file=sys.stderr)
    return code


def _line(text: str) -> str:
    """`text` in one line that cannot steer a terminal (names in a model may hold anything)."""
    joined = " ".join(text.splitlines())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in joined)


def _check_report(path: Path | None, *models: Path | None) -> None:
    """Find out before the work whether the report can be written."""
    if path is None:
        return
    try:
        if path.is_dir() or not path.absolute().parent.is_dir():
            raise RequestError(f"cannot write the report {path}: name a file in a folder that exists")
        if any(m is not None and path.resolve() == m.resolve() for m in models):
            raise RequestError(f"the report would overwrite the model {path}: name another file")
    except OSError as error:
        raise RequestError(f"cannot write the report {path}: {error.strerror}") from error
