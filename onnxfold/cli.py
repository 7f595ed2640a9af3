"""The command line: a thin layer over `onnxfold.fold`, `inspect`, `sweep` and `compare`."""

from __future__ import annotations

import argparse
import io
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from . import session
from .arguments import dashes, numbers, providers, ratios, shapes
from .errors import OnnxFoldError, RequestError, ValidationError
from .flow import compare, fold, inspect
from .layers.flow import fuse
from .layers.heat import check_plot, draw
from .layers.ranking import LayersReport, rank_layers
from .layers.tie import Fusion
from .options import (
    COMPARE,
    FUSE,
    LAYERS,
    MAIN,
    SAFE,
    SWEEP,
    USAGE,
    Parser,
    add_common,
    add_how,
    add_large,
    add_last,
    add_likeness,
    add_refining,
    add_which,
    manner,
    names_of,
    one_line,
    refined,
    sampling,
)
from .report import FoldReport, save
from .room import size_of
from .sweeping import SHARES, sweep
from .sweepreport import SweepReport

BUG = "Please report it with the output of the same command after 'export ONNXFOLD_TRACEBACK=1'"


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
            command, given = (_fuse if _WHOLE_LAYERS.intersection(names_of(given)) else _fold), ["", *given]
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
    parser = Parser("onnxfold", USAGE, MAIN)
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
    what = add_which(parser)
    what.add_argument("--inspect", action="store_true", help="show the groups, and what is kept and why; write nothing")
    how = add_how(parser)
    how.add_argument(
        "--synthetic", metavar="NPZ", type=Path, help="without --calibration: keep the inputs that are made"
    )
    add_refining(how)
    add_large(parser)
    output = add_common(parser)
    output.add_argument("--save-as-external-data", action="store_true", help="store the weights in a file beside OUT")
    add_last(output)
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
            **refined(options), external_data=options.save_as_external_data, group_ratios=ratios(options.group_ratio),
            max_memory=None if options.max_memory is None else size_of(options.max_memory), jobs=options.jobs,
            scheduler=options.scheduler, resume=options.resume, **manner(options),
        )  # fmt: skip
    except ValidationError as error:
        if isinstance(error.report, FoldReport):
            _show(error.report, options)
        raise
    return _show(result.report, options)


def _fuse(given: Sequence[str]) -> int:
    parser = Parser("onnxfold", "onnxfold IN OUT --fuse HOW [options]", FUSE.format(SAFE=SAFE))
    parser.add_argument("input", metavar="IN", type=Path, help="the model, an .onnx file; it is never changed")
    parser.add_argument("output", metavar="OUT", type=Path, help="the file to write")
    what = parser.add_argument_group("what")
    known = ", ".join(f.value for f in Fusion)
    what.add_argument(
        "--fuse", metavar="HOW", choices=[f.value for f in Fusion], help=f"how weights become one: {known}"
    )
    what.add_argument("--drop-blocks", metavar="N|P%", help="drop so many residual blocks, those that do the least")
    add_likeness(what)
    what.add_argument("--include", metavar="REGEX", action="append", default=[], help="only these layers or blocks")
    what.add_argument("--exclude", metavar="REGEX", action="append", default=[], help="not these layers or blocks")
    budget = parser.add_argument_group("how much (of the first two one; --max-error also as a limit to them)")
    budget.add_argument("--share", metavar="P", type=float, help="percent of the layers that lose their own weights")
    budget.add_argument("--target-size", metavar="F", type=float, help="share of the bytes of the file to keep, 0 to 1")
    budget.add_argument("--max-error", metavar="E", type=float, help="largest relative error of the outputs")
    before = parser.add_argument_group("fold channels before (one of these; see onnxfold --help)")
    before.add_argument("--ratio", metavar="R", type=float, help="share of the channels to remove, 0 to 1")
    before.add_argument("--target-macs", metavar="F", type=float, help="share of the multiply-adds to keep, 0 to 1")
    how = add_how(parser, channels=False)
    how.add_argument("--no-align", action="store_true", help="do not permute channels so that layers match")
    add_refining(how)
    output = add_common(parser)
    output.add_argument("--save-as-external-data", action="store_true", help="store the weights in a file beside OUT")
    add_last(output)
    options = parser.parse_args(given)
    _check_report(options.report, options.input, options.output)
    folding = {name: v for name in ("ratio", "target_macs") if (v := getattr(options, name)) is not None}
    try:
        result = fuse(
            options.input, options.output, how=options.fuse, metric=options.metric,
            share=None if options.share is None else options.share / 100, target_size=options.target_size,
            max_error=options.max_error, drop_blocks=options.drop_blocks, whole=options.whole_blocks,
            align=not options.no_align, folding=folding, latency=True, external_data=options.save_as_external_data,
            **sampling(options), **refined(options), include=options.include, exclude=options.exclude,
            recovery=options.recovery,
        )  # fmt: skip
    except ValidationError as error:
        if isinstance(error.report, FoldReport):
            _show(error.report, options)
        raise
    return _show(result.report, options)


def _layers(given: Sequence[str]) -> int:
    parser = Parser("onnxfold layers", "onnxfold layers IN [options]", LAYERS)
    parser.add_argument("input", metavar="IN", type=Path, help="the model, an .onnx file; it is never changed")
    what = parser.add_argument_group("what")
    add_likeness(what)
    what.add_argument("--top", metavar="N", type=int, default=20, help="show so many pairs (default 20; -v shows all)")
    how = add_how(parser, channels=False, repair=False)
    how.add_argument("--no-align", action="store_true", help="do not permute channels so that layers match")
    output = add_common(parser)
    output.add_argument("--json", action="store_true", help="print all pairs as JSON")
    output.add_argument(
        "--plot", metavar="FILE", type=Path, help="draw the distances: .html, or .png (needs matplotlib)"
    )
    add_last(output)
    options = parser.parse_args(given)
    _check_report(options.report, options.input)
    check_plot(options.plot)
    report = rank_layers(
        options.input, metric=options.metric, whole=options.whole_blocks, align=not options.no_align,
        **sampling(options),
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
    parser = Parser("onnxfold compare", "onnxfold compare A B [options]", COMPARE)
    parser.add_argument("before", metavar="A", type=Path, help="the model to measure against")
    parser.add_argument("after", metavar="B", type=Path, help="the other one")
    output = add_common(parser)
    output.add_argument("--seed", metavar="N", type=int, default=0, help="of the random inputs (default 0)")
    add_last(output)
    options = parser.parse_args(given)
    _check_report(options.report, options.before, options.after)
    report = compare(
        options.before, options.after, input_shapes=shapes(options.input_shape),
        providers=providers(options.providers), seed=options.seed,
    )  # fmt: skip
    return _show(report, options)


def _sweep(given: Sequence[str]) -> int:
    parser = Parser("onnxfold sweep", "onnxfold sweep IN [options]", SWEEP)
    parser.add_argument("input", metavar="IN", type=Path, help="the model, an .onnx file; it is never changed")
    default = ",".join(f"{share:g}".lstrip("0") for share in SHARES)
    parser.add_argument("--at", metavar="F,F", help=f"shares of the multiply-adds to keep (default {default})")
    add_which(parser)
    add_how(parser)
    add_last(add_common(parser, verbose=False))
    options = parser.parse_args(given)
    _check_report(options.report, options.input)
    at = SHARES if options.at is None else numbers("--at", options.at)
    report = sweep(options.input, at=at, **manner(options))
    if not options.quiet:
        report.print(_Console())
    _keep_report(report, options.report)
    return 0 if report.passed else 1


COMMANDS: Mapping[str, Callable[[Sequence[str]], int]] = {"compare": _compare, "layers": _layers, "sweep": _sweep}
_WHOLE_LAYERS = frozenset(("--fuse", "--drop-blocks"))  # options that make a run one of layer fusion


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
    print(f"onnxfold: {one_line(message)}", file=sys.stderr)
    return code


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
