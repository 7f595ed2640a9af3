"""Folding, INT8 or both: is what `onnxfold sweep --allow all` advises truly the best of what it measured?

    python benchmarks/choice.py [--models NAME ...] [--allow STEP,STEP] [--at F,F] [--effort balanced] [--store FILE]
                                [--write] [--processor-time]
    python benchmarks/choice.py --models --store FILE --write  # measures nothing: the table of what FILE holds

Seven networks, each with 128 unlabeled inputs to calibrate on (64 texts for the language model) and with true accuracy
on others: top-1, nearest neighbors kept, words read right, next tokens predicted. The tool never sees the accuracy: it
makes, leaves out and advises by its own judged error. Its advice is right where no chain that does the same (half the
bytes, twice as fast) is truly better by more than one standard error, and where what is said to have no visible loss
loses no more than that. `--store` keeps the figures, `--write` puts the tables into docs/choice.md. On a machine with
other work `--processor-time` measures latencies as the processor time of one thread, which that hardly changes.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from figures import filled, keep
from nets import options, parsed
from tasks import LANGUAGE, LARGER, Task, task

import onnxfold
from onnxfold.analysis.costs import Size
from onnxfold.evaluation import latency
from onnxfold.passes.base import State
from onnxfold.passes.choice import explore, whole_layers
from onnxfold.passes.choice.chain import Chain
from onnxfold.passes.choice.front import HALF, NO_WORSE, VISIBLE, Aspect, Point, best
from onnxfold.passes.choice.row import ChoiceRow, row_of
from onnxfold.progress import on_terminal
from onnxfold.report.choice_report import ChoiceReport
from onnxfold.runtime.session import Session

CLASSIFIERS = ("cifar10_resnet56_bn", "imagenet_mobilenetv2_1.0_224", "cifar10_vit_d128_l6_fused")
PAGE = Path(__file__).resolve().parents[1] / "docs" / "choice.md"
SAME = 1.02  # times the bytes or the latency: less is no difference
LESS = 0.9
ALONE = ("INT8", "dynamic INT8")


@contextmanager
def one_thread() -> Iterator[None]:
    """Models run on one thread, and latencies are its processor time."""
    start = Session.__init__

    def alone(self: Session, *given: Any, **named: Any) -> None:
        if len(given) < 3:  # model, provider, threads
            named.setdefault("threads", 1)
        start(self, *given, **named)

    clock = SimpleNamespace(perf_counter=time.process_time)
    with patch.object(Session, "__init__", alone), patch.object(latency, "time", clock):
        yield


@contextmanager
def watched(work: Task) -> Iterator[dict[Chain, float]]:
    """The true accuracy of every model that the tool makes meanwhile, by its chain."""
    found = {Chain(): work.accuracy(str(work.path))}

    def noted(chain: Chain, done: State, size: Size) -> ChoiceRow:
        row = row_of(chain, done, size)
        if row.usable and done.staged is not None:
            found[chain] = work.accuracy(str(done.staged.path))
        return row

    with patch.object(explore, "row_of", noted), patch.object(whole_layers, "row_of", noted):
        yield found


def figures(report: ChoiceReport, accuracy: Mapping[Chain, float], count: int) -> list[dict[str, Any]]:
    """Every measured row: its chain, shares of bytes and latency, judged error, true accuracy and standard error."""
    found = []
    for row in report.rows:
        if row.chain in accuracy and row.usable:
            point, share = row.point(report.before), min(max(accuracy[row.chain] / 100, 0.0), 1.0)
            found.append({
                "chain": row.chain.label, "bytes": point.size, "latency": point.latency, "error": row.error,
                "accuracy": accuracy[row.chain], "noise": 100 * math.sqrt(share * (1 - share) / count),
            })  # fmt: skip
    return found


def right(aspect: str, advised: str | None, rows: Sequence[dict[str, Any]]) -> bool:
    """Whether what is advised is truly as good as anything that was measured."""
    original = rows[0]
    if aspect == Aspect.LOSS:
        one = next(row for row in rows if row["chain"] == advised)
        return bool(one["accuracy"] >= original["accuracy"] - original["noise"])
    which, other = ("bytes", "latency") if aspect == Aspect.BYTES else ("latency", "bytes")
    fits = [row for row in rows if row[which] <= HALF]
    fair = [row for row in fits if row[other] <= NO_WORSE] or fits
    if advised is None or not fair:
        return advised is None and not fair
    one = next(row for row in rows if row["chain"] == advised)
    return bool(one["accuracy"] >= max(row["accuracy"] - row["noise"] for row in fair))


def beside_int8(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """The chains of several steps that are truly better than INT8 alone, static and dynamic, in as few bytes, or as
    fast; and those that are as good (by one standard error) in a tenth less of bytes or time, and no more of the
    other."""
    alone = [row for row in rows if row["chain"] in ALONE]
    if not alone:
        return [], []
    chains = [row for row in rows if "," in row["chain"]]
    better = [row["chain"] for row in chains if all(_better(row, one) for one in alone)]
    cheaper = [row["chain"] for row in chains if all(_better(row, one) or _cheaper(row, one) for one in alone)]
    return better, [chain for chain in cheaper if chain not in better]


def _better(row: dict[str, Any], one: dict[str, Any]) -> bool:
    shares = [row[what] / one[what] for what in ("bytes", "latency")]
    return bool(row["accuracy"] - one["accuracy"] > one["noise"] and min(shares) <= SAME)


def _cheaper(row: dict[str, Any], one: dict[str, Any]) -> bool:
    shares = [row[what] / one[what] for what in ("bytes", "latency")]
    return bool(row["accuracy"] - one["accuracy"] >= -one["noise"] and min(shares) <= LESS and max(shares) <= SAME)


def measured(data: Path, name: str, asked: Any) -> dict[str, Any]:
    """One network."""
    work, begin, busy = task(data, name, asked.images), time.perf_counter(), time.process_time()
    with one_thread() if asked.processor_time else nullcontext(), watched(work) as accuracy:
        report = onnxfold.choose(
            work.path, allow="all" if asked.allow == "all" else asked.allow.split(","),
            at=[float(part) for part in asked.at.split(",")], calibration=work.calibration, effort=asked.effort,
            progress=on_terminal,
        )  # fmt: skip
    return {
        "rows": figures(report, accuracy, work.count), "at": asked.at, "processor_time": asked.processor_time,
        "skipped": [row.chain.label for row in report.rows if row.skipped],
        "refused": {row.chain.label: row.note for row in report.rows if row.note and row.size is None},
        "seconds": time.perf_counter() - begin, "cpu_seconds": time.process_time() - busy,
    }  # fmt: skip


def advised(rows: Sequence[dict[str, Any]]) -> dict[str, str | None]:
    """What the tool advises for these rows, for each aspect; it knows the judged error alone."""
    points = [Point(row["bytes"], row["latency"], *[row["error"]] * 2, row["error"] > VISIBLE) for row in rows]
    found = {str(aspect): best(points, aspect) for aspect in Aspect}
    return {aspect: None if at is None else rows[at]["chain"] for aspect, at in found.items()}


def wrong(rows: Sequence[dict[str, Any]]) -> list[str]:
    """For what the advice is not the best that was measured."""
    return [what for what, chain in advised(rows).items() if not right(what, chain, rows)]


def table(found: dict[str, Any]) -> str:
    """The rows of every network that are worth having by the truth or advised, as they stand in the page."""
    lines = ["| | file | latency | judged error | true accuracy | advised for |", "|---|---|---|---|---|---|"]
    for name, one in found.items():
        lines.append(f"| **{name}** | | | | | |")
        advice = advised(one["rows"])
        for row in one["rows"]:
            what = [aspect for aspect, chain in advice.items() if chain == row["chain"]]
            if not what and row["chain"] not in ("leave it", *ALONE) and not _worth(row, one["rows"]):
                continue
            lines.append(
                f"| {row['chain']} | {100 * row['bytes']:.0f} % | {100 * row['latency']:.0f} % | "
                f"{100 * row['error']:.1f} % | {row['accuracy']:.1f} | {', '.join(what)} |"
            )
    return "\n".join(lines)


def _worth(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> bool:
    return not any(
        other["bytes"] <= row["bytes"] and other["latency"] <= row["latency"] and other["accuracy"] >= row["accuracy"]
        for other in rows if other is not row
    )  # fmt: skip


def summary(found: dict[str, Any]) -> str:
    """Where the advice was right, and where a chain beats INT8 alone."""
    good = [name for name, one in found.items() if not wrong(one["rows"])]
    lines = [f"* The advice is right in {len(good)} of {len(found)} networks."]
    for name, one in found.items():
        lines += [f"* {name}: it is wrong for {what}." for what in wrong(one["rows"])]
        better, cheaper = beside_int8(one["rows"])
        lines += [f"* {name}: better than INT8 alone: {'; '.join(better)}."] if better else []
        lines += [f"* {name}: as good as INT8 alone in a tenth less: {'; '.join(cheaper)}."] if cheaper else []
    at = sorted({one["at"] for one in found.values()})
    lines += [f"* Folds to these shares of the MACs: {'; '.join(at)}."] if at else []
    if any(one.get("processor_time") for one in found.values()):
        lines.append("* Latencies are processor time of one thread: the machine had other work.")
    return "\n".join(lines)


def _replaced(row: Any, _: Any) -> Any:
    return row


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--models", nargs="*", default=[*LARGER, *CLASSIFIERS, LANGUAGE])
    parser.add_argument("--allow", default="all", help="steps between commas (default: all)")
    parser.add_argument("--at", default=".9,.8,.7,.6,.5", help="shares of the MACs to fold to")
    parser.add_argument("--effort", default="balanced")
    parser.add_argument("--store", type=Path, help="JSON file that keeps the figures of every network")
    parser.add_argument("--write", action="store_true", help="put the tables of --store into docs/choice.md")
    parser.add_argument("--processor-time", action="store_true", help="latencies in processor time of one thread")
    asked = parsed(parser)
    found = dict[str, Any]()
    for name in asked.models:
        found[name] = measured(asked.data, name, asked)
        keep(asked.store, name, partial(_replaced, found[name]))
        print(table({name: found[name]}), flush=True)
    print(summary(found))
    if asked.write:
        kept = json.loads(asked.store.read_text()) if asked.store else found
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), "choice", f"{table(kept)}\n\n{summary(kept)}"))


if __name__ == "__main__":
    sys.exit(main())
