"""What the page of a fold shows: figures, charts, tables."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ...analysis.costs import Size
from ...evaluation.quality import Mark
from ...evaluation.verdict import Check
from ...runtime.session import short
from ...units import change, in_bytes, in_ms, in_percent, in_units, visible
from .. import wording
from ..fold_report import FoldReport
from . import charts
from .curves import spark
from .reasons import topic
from .treemap import treemap

MOST_GROUPS, MOST_LAYERS = 500, 400  # rows of tables
_MARKS = {
    Mark.KEPT: ("kept", "✔", "Passed: within the limit"), Mark.UNSURE: ("unsure", "!", "Written: look closer"),
    Mark.FAILED: ("failed", "✘", "Failed: not written"),
}  # fmt: skip

_COMPARED = {
    "kept": "Similar: within the usual limit", "unsure": "Look closer", "failed": "The second model is not sound",
}  # fmt: skip


@dataclass(frozen=True)
class Tile:
    """One figure of the verdict card: what it is, its value, and what more there is to say."""

    title: str
    value: str
    more: str = ""


def mark_of(mark: Mark | None) -> tuple[str, str, str]:
    """(class in the style sheet, sign, words) of a mark; None for a model that was only looked at."""
    return ("plain", "i", "What can be folded") if mark is None else _MARKS[mark]


def _mark(report: FoldReport) -> tuple[str, str, str]:
    """That of a fold, a fusion, a comparison (which writes nothing), or an inspection."""
    found = mark_of(None if report.check is None else report.check.mark)
    compared = report.check is not None and report.coverage is None and "budget" not in report.settings
    return (*found[:2], _COMPARED[found[0]]) if compared and "fuse" not in report.settings else found


def fold_page(report: FoldReport, share: float = 1.0) -> dict[str, Any]:
    """The context of the template; with this `share` of the usual rows."""
    shown = sorted(report.groups, key=lambda one: one.after - one.before)[: int(share * MOST_GROUPS)]
    names = {one.name for one in shown}
    groups = [one for one in report.groups if one.name in names]
    reasons = [(one, topic(one.kind)) for one in report.refusals]
    return {
        "tiles": [*_quality(report), *_sizes(report), *_latencies(report)],
        "mark": _mark(report),
        "alerts": _alerts(report),
        "groups": [(one, spark(one)) for one in groups],
        "curved": any(one.curve for one in groups),
        "merged": any(one.clusters for one in groups),
        "layers": report.layers[: int(share * MOST_LAYERS)],
        "left_out": len(report.groups) - len(groups),
        "widest": max((one.before for one in groups), default=1),
        "reasons": reasons,
        "documented": all(one.address for _, one in reasons),
        "topics": list({one.anchor: one for _, one in reasons}.values()),
        "timed": [] if report.check is None else [one for one in report.check.providers if one.latency_after_ms],
        "short": short,
        "compared": "" if report.check is None else wording.compared_on(report.check),
        "finite": math.isfinite,
        "charts": dict(_charts(report)),
    }


def _quality(report: FoldReport) -> Iterator[Tile]:
    """What the outputs lose, or what the user's own measure says."""
    check = report.check
    if check is None:
        if report.coverage is not None:
            yield Tile("Parameters in reach", in_percent(report.coverage.parameters), "of those of the model")
            yield Tile("MACs in reach", in_percent(report.coverage.macs))
        return
    if check.measure is not None:
        own = check.measure
        yield Tile("Your metric", f"{own.after:.5g}", f"was {own.before:.5g}")
    yield from _measured(check)


def _measured(check: Check) -> Iterator[Tile]:
    found = check.quality
    if found is None:
        if check.worst is not None:
            yield Tile("Output error", in_percent(check.worst.relative_l2), f"on {check.inputs}")
        return
    limit = f"limit {in_percent(check.limit.error)}; " if math.isfinite(check.limit.error) else ""
    yield Tile("Output error", in_percent(found.error), f"{limit}{found.samples} samples: {found.inputs}")
    if found.agreement is not None and found.interval is not None:
        low, high = (f"{100 * end:.0f}" for end in found.interval)
        yield Tile("Same top class", in_percent(found.agreement), f"{low} to {high} % (95 %), {found.samples} samples")


def _sizes(report: FoldReport) -> Iterator[Tile]:
    before, after = report.before, report.after
    rows = [("File", before.file, None if after is None else after.file, in_bytes)]
    rows += [("Parameters", before.parameters, None if after is None else after.parameters, in_units)]
    rows += [("MACs", before.macs, None if after is None else after.macs, in_units)] if before.macs else []
    for title, old, new, shown in rows:
        if new is None:
            yield Tile(title, shown(old))
        else:
            yield Tile(title, shown(new), f"was {shown(old)} ({change(old, new)})")
    yield _peak(before, after)


def _peak(before: Size, after: Size | None) -> Tile:
    """The memory of activations; weights come on top."""
    old, new, less = wording.peak(before, after or before)
    was = "" if after is None else f"was {old}; " if less == "-" else f"was {old} ({less}); "
    return Tile("Peak memory", new, f"{was}activations without weights, estimated")


def _latencies(report: FoldReport) -> Iterator[Tile]:
    for done in () if report.check is None else report.check.providers:
        if done.latency_before_ms is None or done.latency_after_ms is None:
            continue
        p90 = ""
        if done.p90_before_ms is not None and done.p90_after_ms is not None:
            p90 = f"; p90 {in_ms(done.p90_after_ms)}, was {in_ms(done.p90_before_ms)}"
        title = f"Latency, {done.where}"
        yield Tile(title, in_ms(done.latency_after_ms), f"median; was {in_ms(done.latency_before_ms)}{p90}")


def _alerts(report: FoldReport) -> list[tuple[str, str]]:
    """(class, words) of all that is wrong or worth knowing."""
    check = report.check
    bad = [] if check is None else list(check.problems)
    notes = [*([] if check is None else check.notes), *report.notes]
    if report.refinement is not None and not report.refinement.kept:
        notes.append(str(report.refinement))
    if check is not None and (more := wording.advice(check)):
        notes.append(f"the test inputs say little about real ones: {more}")
    return [("bad", text) for text in bad] + [("note", text) for text in dict.fromkeys(notes)]


def _charts(report: FoldReport) -> Iterator[tuple[str, Any]]:
    if report.layers:
        yield "treemap-before", treemap(report.layers, "before")
        if report.after is not None:
            yield "treemap-after", treemap(report.layers, "after")
    quality = None if report.check is None else report.check.quality
    for number, one in enumerate(() if quality is None else quality.seen):
        yield f"scatter-{number}", charts.scatter(one.before, one.after)
        yield f"histogram-{number}", charts.histogram(one.edges, one.counts)
    if report.refinement is not None and (report.refinement.losses or report.refinement.errors):
        yield "distillation", charts.distillation(report.refinement.losses, report.refinement.errors)
    if rows := operators(report):
        yield "operators", charts.times(rows)


def operators(report: FoldReport) -> list[dict[str, Any]]:
    """A row for every operator and model, on the first provider that was looked into."""
    found = next((one.operators for one in (report.check.providers if report.check else ()) if one.operators), ())
    return [
        {"name": visible(one.op), "ms": ms, "model": model}
        for one in found for model, ms in (("original", one.before_ms), ("result", one.after_ms))
    ]  # fmt: skip
