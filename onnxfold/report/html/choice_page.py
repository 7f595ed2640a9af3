"""What the page of a choice shows: what to take for what, every chain as a point, and the command that makes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...units import in_bytes, in_percent, in_units, less
from ..choice_report import Advice, ChoiceReport
from ..wordings import Wording
from . import charts
from .fold_page import Tile, mark_of


def choice_page(report: ChoiceReport, wording: Wording) -> dict[str, Any]:
    """The context of the template."""
    meaning = report.meaning
    made = [row for row in report.rows if row.size is not None]
    alerts = [("bad", f"{row.chain.label}: {text}") for row in report.rows for text in row.problems]
    alerts += [("note", f"{row.chain.label}: {row.note}") for row in report.rows if row.note]
    return {
        "tiles": [*_advised(report), *_original(report)],
        "mark": (*mark_of(report.mark)[:2], meaning[0].upper() + meaning[1:]),
        "alerts": [*alerts, *(("note", one) for one in report.notes)],
        "made": made,
        "worth": [report.rows[i].chain.label for i in report.worth],
        "advised": {
            label: ", ".join(one.aspect.value for one in report.advice if one.chain == label)
            for label in {one.chain for one in report.advice}
        },
        "calls": {
            row.chain.label: wording.chain(report, i)
            for i, row in enumerate(report.rows)
            if row.size is not None and row.chain.function
        },
        "left_out": [(row.chain.label, row.skipped) for row in report.rows if row.skipped],
        "timed": any(row.latency is not None for row in made),
        "charts": dict(_charts(report)),
    }


def _advised(report: ChoiceReport) -> Iterator[Tile]:
    """What to take for what."""
    for one in report.advice:
        title = one.aspect.value.capitalize()
        yield Tile(title, one.chain or "None of the measured models", _gained(report, one))


def _gained(report: ChoiceReport, advice: Advice) -> str:
    at = report.row_of(advice)
    row = None if at is None else report.rows[at]
    if row is None or row.size is None or not row.chain.function:
        return ""
    parts = [f"file {less(report.before.file, row.size.file)}"]
    parts += [] if row.latency is None else [f"{in_percent(row.latency)} of the latency"]
    parts += [str(row.measure)] if row.measure is not None else []
    return ", ".join([*parts, *([] if row.error is None else [f"output error {in_percent(row.error)}"])])


def _original(report: ChoiceReport) -> Iterator[Tile]:
    before = report.before
    yield Tile("File", in_bytes(before.file))
    yield Tile("Parameters", in_units(before.parameters))
    yield Tile("MACs", in_units(before.macs))


def _charts(report: ChoiceReport) -> Iterator[tuple[str, Any]]:
    for name, title, rows in report.curves():
        if len(rows) > 1:
            yield name, charts.chains(rows, title, report.measured)
