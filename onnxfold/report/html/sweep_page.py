"""What the page of a sweep shows: every budget as a point, and the command that makes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...evaluation.quality import Mark
from ...runtime.session import short
from ...units import in_bytes, in_percent, in_units
from ..sweep_report import SweepReport
from ..wordings import Wording
from . import charts
from .fold_page import Tile, mark_of

_SAID = {
    Mark.KEPT: "Within the limit wherever it was checked", Mark.UNSURE: "Look closer before you choose",
    Mark.FAILED: "A model failed its checks",
}  # fmt: skip


def sweep_page(report: SweepReport, wording: Wording) -> dict[str, Any]:
    """The context of the template."""
    before = report.before
    tiles = [
        Tile("File", in_bytes(before.file)), Tile("Parameters", in_units(before.parameters)),
        Tile("MACs", in_units(before.macs)),
    ]  # fmt: skip
    knee = next((row for row in report.rows if row.target == report.recommended), None)
    if knee is not None and knee.error is not None:
        tiles.insert(
            0, Tile("At the knee", f"{100 * knee.target:g} % of MACs", f"output error {in_percent(knee.error)}")
        )
    alerts = [("bad", f"{100 * row.target:g} %: {text}") for row in report.rows for text in row.problems]
    alerts += [("note", f"{100 * row.target:g} %: {row.note}") for row in report.rows if row.note]
    return {
        "tiles": tiles, "mark": (*mark_of(report.mark)[:2], _SAID[report.mark]),
        "alerts": [*alerts, *(("note", one) for one in report.notes)],
        "calls": {row.target: wording.call(report, row.target) for row in report.rows if row.usable},
        "charts": dict(_charts(report)), "short": short,
    }  # fmt: skip


def _charts(report: SweepReport) -> Iterator[tuple[str, Any]]:
    for name, title, rows in report.curves():
        if len(rows) > 1:
            yield name, charts.pareto(rows, title)
