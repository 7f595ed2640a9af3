"""The command line: a thin layer over `onnxfold.fold`, `inspect` and `compare`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from . import __version__
from .cluster import Clusterer
from .errors import OnnxFoldError, RequestError
from .features import Method
from .flow import DEFAULT_MAX_ERROR, compare, fold, inspect
from .progress import on_terminal, silent
from .recover import Recovery
from .report import FoldReport, save

MAIN = f"""\
Make a trained ONNX model smaller and faster: channels that do nearly the same job are merged, no data needed.

  onnxfold in.onnx out.onnx                safe default: outputs on probe inputs stay within {DEFAULT_MAX_ERROR:.0%}
  onnxfold in.onnx out.onnx --ratio 0.3    remove 30 % of the channels of every group
  onnxfold in.onnx --inspect               show what could be folded, write nothing
  onnxfold compare a.onnx b.onnx           measure any two versions of a model against each other
"""
CODES = """\
exit codes: 0 done; 1 the result failed its checks and was not written; 2 bad request; 3 unreadable model;
4 nothing to fold
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"onnxfold: {message} (try --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code (see `CODES`)."""
    given = [_dashes(a) for a in (sys.argv[1:] if arguments is None else arguments)]
    command = COMMANDS.get(given[0]) if given else None
    try:
        return command(given[1:]) if command else _fold(given)
    except OnnxFoldError as error:
        report = getattr(error, "report", None)
        if report is not None:
            report.print(Console(stderr=True))
        print(f"onnxfold: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("onnxfold: interrupted, nothing was written", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 1


def _fold(given: Sequence[str]) -> int:
    parser = _Parser("onnxfold", description=MAIN, epilog=CODES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", metavar="IN", type=Path, help="the model, an .onnx file")
    parser.add_argument("output", metavar="OUT", type=Path, nargs="?", help="the file to write")
    budget = parser.add_argument_group("how much (one of these; default: a quality budget)")
    budget.add_argument("--ratio", metavar="R", type=float, help="share of channels to remove in every group, 0..1")
    budget.add_argument("--target-params", metavar="F", type=float, help="share of the parameters that may remain")
    budget.add_argument("--target-macs", metavar="F", type=float, help="share of the MACs that may remain")
    how = parser.add_argument_group("how")
    how.add_argument("--method", choices=[m.value for m in Method], default="fold", help="merge or drop channels")
    how.add_argument("--recovery", choices=[r.value for r in Recovery], default="closed-form", help="repair")
    how.add_argument("--round-to", metavar="N", type=int, default=8, help="keep widths multiples of N (8; 1: off)")
    how.add_argument("--include", metavar="REGEX", action="append", default=[], help="only groups or nodes named so")
    how.add_argument("--exclude", metavar="REGEX", action="append", default=[], help="not groups or nodes named so")
    how.add_argument("--clusterer", choices=[c.value for c in Clusterer], default="native", help=argparse.SUPPRESS)
    how.add_argument("--seed", metavar="N", type=int, default=0, help="the same seed gives the same file")
    how.add_argument("--threads", metavar="N", type=int, default=0, help="threads for clustering (0: all)")
    how.add_argument("--save-as-external-data", action="store_true", help="store weights in a file beside OUT")
    _common(parser)
    parser.add_argument("--inspect", action="store_true", help="show groups and refusals, write nothing")
    options = parser.parse_args(given)
    shapes = _shapes(options.input_shape)
    if options.inspect:
        report = inspect(options.input, include=options.include, exclude=options.exclude, input_shapes=shapes)
        return _show(report, options)
    if options.output is None:
        raise RequestError("name the file to write: onnxfold IN OUT (or --inspect to write nothing)")
    _check_report(options.report)
    result = fold(
        options.input, options.output, method=options.method, recovery=options.recovery, ratio=options.ratio,
        target_params=options.target_params, target_macs=options.target_macs, round_to=options.round_to,
        include=options.include, exclude=options.exclude, clusterer=options.clusterer, input_shapes=shapes,
        providers=_providers(options.providers), seed=options.seed, threads=options.threads,
        external_data=options.save_as_external_data, progress=silent if options.quiet else on_terminal,
    )  # fmt: skip
    return _show(result.report, options)


def _compare(given: Sequence[str]) -> int:
    parser = _Parser("onnxfold compare", description="Measure two versions of a model.", epilog=CODES)
    parser.add_argument("before", metavar="A", type=Path)
    parser.add_argument("after", metavar="B", type=Path)
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of the probe inputs")
    _common(parser)
    options = parser.parse_args(given)
    _check_report(options.report)
    report = compare(
        options.before, options.after, input_shapes=_shapes(options.input_shape),
        providers=_providers(options.providers), seed=options.seed,
    )  # fmt: skip
    return _show(report, options)


COMMANDS: Mapping[str, Callable[[Sequence[str]], int]] = {"compare": _compare}


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--input-shape", metavar="NAME:D,D,...", action="append", default=[], help="fix an open input, x:1,3,224,224"
    )
    parser.add_argument("--providers", metavar="P,P", help="where to measure (default: cpu, and cuda if there)")
    parser.add_argument("--report", metavar="FILE", type=Path, help="write the whole report as JSON")
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    parser.add_argument("-v", "--verbose", action="store_true", help="show all groups and all places")
    parser.add_argument("--version", action="version", version=f"onnxfold {__version__}")


def _show(report: FoldReport, options: argparse.Namespace) -> int:
    if options.report is not None:
        try:
            save(report, options.report)
        except OSError as error:
            raise RequestError(f"cannot write {options.report}: {error.strerror}") from error
    if not options.quiet:
        report.print(Console(), options.verbose)
    return 0 if report.check is None or report.check.passed else 1


def _check_report(path: Path | None) -> None:
    """Find out before the work whether the report can be written."""
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise RequestError(f"cannot write {path}: name a file in a folder that exists")


def _providers(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _shapes(given: Sequence[str]) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for text in given:
        name, colon, dims = text.rpartition(":")
        try:
            shapes[name] = tuple(int(d) for d in dims.replace("x", ",").split(","))
        except ValueError:
            colon = ""
        if not colon or not name:
            raise RequestError(f"--input-shape wants NAME:D,D,... (like image:1,3,224,224), not '{text}'")
    return shapes


def _dashes(argument: str) -> str:
    """Long options may be written with underscores."""
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value if name.startswith("--") else argument
