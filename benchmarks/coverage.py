"""What onnxfold does with a folder of ONNX files: one line a file, and what keeps the rest of their parameters.

    python benchmarks/coverage.py [FILE ...] [--ratio 0.25] [--no-latency] [--write docs/coverage.md]

For every file: groups; the share of parameters and MACs in reach; size, MACs and latency after folding `--ratio` of
every group from weights alone, as shares of the original; the relative L2 errors of both oracles (permute: channels
reordered everywhere; duplicate: channels made twice redundant, then folded) beside those of their negative controls,
which leave one parameter out; and what happened. Exits with 1 if anything failed: an oracle, a result that is not
valid, an error without a reason.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nets import options, parsed
from onnx import TensorProto

import onnxfold
from onnxfold.analysis.pins import Refusal
from onnxfold.api import inspect
from onnxfold.errors import OnnxFoldError
from onnxfold.model.constants import FLOATS
from onnxfold.model.model import load
from onnxfold.testing import OracleResult, duplicate, permute

SHAPES: Mapping[str, Mapping[str, Sequence[int]]] = {
    "ppocr_mobile_v1.1_det": {"image": (1, 3, 320, 320)},
    "retinaface_mbnet0.25": {"input": (1, 3, 320, 320)},
    "yolo5face_500m": {"input": (1, 3, 320, 320)},
    "silero_vad": {"input": (1, 256), "state": (2, 1, 128)},
    "silero_vad_half": {"input": (1, 576), "state": (2, 1, 128)},
}  # inputs that leave dimensions open which the model does not take at any length
RTOL = 1e-4  # of both oracles, before a softmax
HALVES = 2e-2  # where numbers are float16
INTEGERS = 0.1  # where merged weights are rounded to integers again
CONTROL = 1e-3  # what a negative control must exceed
DEAREST = 10


@dataclass(frozen=True)
class Line:
    """One file: figures as text, in the order of `COLUMNS`, and what is wrong with it."""

    name: str
    cells: tuple[str, ...]
    wrong: tuple[str, ...]
    refusals: tuple[Refusal, ...] = field(repr=False)


COLUMNS = (
    "groups", "channels", "parameters in reach", "MACs in reach", "size", "MACs", "latency", "permute (control)",
    "duplicate (control)", "outcome",
)  # fmt: skip


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def oracle(found: OracleResult | str, rtol: float, discrete: bool, wrong: list[str], name: str) -> str:
    """An oracle's errors as text; noted in `wrong` where it fails, or is blind to outputs that are not `discrete`."""
    if isinstance(found, str):
        return found
    if not found.error <= rtol:
        wrong.append(f"{name}: error {found.error:.1e}")
    if not found.control > CONTROL and not discrete:
        wrong.append(f"{name}: blind ({found.control:.1e})")
    return f"{found.error:.0e} ({found.control:.0e})"


def tried(which: Any, path: Path, shapes: Mapping[str, Sequence[int]] | None) -> OracleResult | str:
    """An oracle; a word where onnxruntime does not run the original. Small inputs where usual ones leave it dead."""
    model = load(path, shapes)
    result: OracleResult | None = None
    for batch, scale in ((2, 1.0), (1, 1.0), (2, 0.1)):  # one sample where that is fixed inside
        try:
            result = which(model, shapes=shapes, batch=batch, scale=scale)
        except Exception as error:  # onnxruntime's share no base class
            last = error
        if result is not None and result.control > CONTROL:
            break
    if result is not None:
        return result
    return "does not run" if "ONNXRuntimeError" in str(last) else f"{type(last).__name__}: {last}"


def line(path: Path, ratio: float, latency: bool) -> Line:
    """All figures of one file."""
    shapes, wrong = SHAPES.get(path.stem), list[str]()
    seen = inspect(path, input_shapes=shapes)
    assert seen.coverage is not None
    channels = sum(group.before for group in seen.groups)
    cells = [str(len(seen.groups)), str(channels), percent(seen.coverage.parameters), percent(seen.coverage.macs)]
    if not seen.groups:
        return Line(path.stem, (*cells, *("",) * 5, "nothing to fold"), (), seen.refusals)
    model = load(path, shapes)
    graph = model.graph
    discrete = all(graph.tensor(name).dtype not in FLOATS for name in graph.outputs)
    halves = any(info.dtype == TensorProto.FLOAT16 for info in graph.tensors.values())
    rtol = INTEGERS if model.constants.stored else HALVES if halves else RTOL
    oracles = [
        oracle(tried(which, path, shapes), rtol, discrete, wrong, which.__name__) for which in (permute, duplicate)
    ]
    with tempfile.TemporaryDirectory() as folder:
        try:
            result = onnxfold.fold(
                path, Path(folder) / "out.onnx", ratio=ratio, effort="fast", latency=latency, input_shapes=shapes
            )
        except OnnxFoldError as error:
            if error.exit_code != 4:
                wrong.append(str(error))
            return Line(path.stem, (*cells, "", "", "", *oracles, str(error)), tuple(wrong), seen.refusals)
    before, after, check = result.report.before, result.report.after, result.report.check
    assert after is not None and check is not None
    sizes = [f"{after.file / before.file:.2f}", f"{after.macs / before.macs:.2f}" if before.macs else ""]
    speed = next((done.speedup for done in check.providers if done.speedup), None)
    if after.file > before.file:
        wrong.append("the file grew")
    outcome = "; ".join(check.notes) if speed is None or check.notes else ""
    return Line(
        path.stem, (*cells, *sizes, f"{1 / speed:.2f}" if speed else "", *oracles, outcome), tuple(wrong), seen.refusals
    )


def dearest(lines: Sequence[Line]) -> list[tuple[str, int, int]]:
    """The reasons that keep most parameters over all files, as (reason, parameters, files)."""
    cost, files = Counter[str](), Counter[str]()
    for found in lines:
        for refusal in found.refusals:
            cost[refusal.kind] += refusal.parameters
            files[refusal.kind] += bool(refusal.parameters)
    return [(kind, total, files[kind]) for kind, total in cost.most_common(DEAREST) if total]


def table(lines: Sequence[Line]) -> str:
    """All lines as a Markdown table, and the dearest reasons as another."""
    rows = [f"| {' | '.join(('file', *COLUMNS))} |", f"|{'---|' * (len(COLUMNS) + 1)}"]
    rows += [f"| {' | '.join((found.name, *found.cells))} |" for found in lines]
    rows += ["", "| kept because of | parameters | files |", "|---|---|---|"]
    rows += [f"| {kind} | {total:,} | {files} |" for kind, total, files in dearest(lines)]
    return "\n".join(rows) + "\n"


def write(text: str, page: Path) -> None:
    """Replace what stands between the two marks of `page`."""
    begin, end = "<!-- generated: coverage -->\n", "<!-- end -->\n"
    before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    page.write_text(before + begin + text + end + rest.partition(end)[2], encoding="utf-8")


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("files", nargs="*", type=Path, help="ONNX files (default: all beside the project)")
    parser.add_argument("--ratio", type=float, default=0.25)
    parser.add_argument("--no-latency", action="store_true")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the tables into this Markdown page")
    asked = parsed(parser)
    lines = []
    for path in asked.files or sorted((asked.data / "models").glob("*.onnx")):
        begin = time.perf_counter()
        found = line(path, asked.ratio, not asked.no_latency)
        lines.append(found)
        wrong = [f"WRONG: {text}" for text in found.wrong]
        print(f"{found.name:34}", *found.cells, *wrong, f"{time.perf_counter() - begin:.0f} s", sep="  ", flush=True)
    print()
    for kind, total, files in dearest(lines):
        print(f"{total:>10,}  {files:>3} files  {kind}")
    if asked.write:
        write(table(lines), asked.write)
    sys.exit(any(found.wrong for found in lines))


if __name__ == "__main__":
    main()
