"""What a sweep found: a row for every budget, the knee, JSON and a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.text import Text

from ..analysis.costs import Size
from ..evaluation.quality import Mark
from ..passes.sweep import SweepRow
from ..units import in_bytes, in_percent, in_units, less
from .html import extra
from .json_text import SCHEMA
from .provenance import Provenance
from .render import MARKS
from .shown import Rows, Shown
from .tables import Message, Signs, Trimmed, below, named, new_table, plain


@dataclass(frozen=True, repr=False)
class SweepReport(Shown):
    """A curve of models, the largest first; `recommended` is the target of the row at the knee, if there is one.

    `samples` says what errors and agreements were measured on, `notes` what else is worth knowing.
    """

    model: str
    settings: Mapping[str, Any]
    before: Size
    rows: tuple[SweepRow, ...]
    recommended: float | None
    samples: str
    notes: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    provenance: Provenance | None = None

    @property
    def passed(self) -> bool:
        """Whether every model that was made passed its checks."""
        return not any(row.problems for row in self.rows)

    @property
    def sign(self) -> str:
        """The mark, as it is printed."""
        return MARKS[self.mark][0]

    @property
    def mark(self) -> Mark:
        """What may be concluded of the row at the knee, or of all rows where there is none."""
        if not self.passed:
            return Mark.FAILED
        found = [row.mark for row in self.rows if self.recommended in (None, row.target)]
        return Mark.KEPT if all(mark in (Mark.KEPT, None) for mark in found) else Mark.UNSURE

    @property
    def verdict(self) -> str:
        """One line that says what to do with it."""
        if self.recommended is None:
            usable = sum(row.usable for row in self.rows)
            among = "" if usable == len(self.rows) else f" among the {usable} of {len(self.rows)} that could be met"
            return f"no budget stands out{among}: choose by the error you can accept"
        row = next(row for row in self.rows if row.target == self.recommended)
        parts = [f"the knee is at `target_macs={self.recommended:g}`"]
        if row.size is not None and row.error is not None:
            parts.append(f"file {less(self.before.file, row.size.file)}")
            parts.append(f"MACs {less(self.before.macs, row.size.macs)}")
            parts.append(f"output error {in_percent(row.error)}")
        if row.measure is not None:
            parts.append(str(row.measure))
        return ", ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """The whole report as plain values (schema in docs/report.md); infinite and undefined numbers are None."""
        data = {"schema": SCHEMA, **asdict(self), "verdict": self.verdict, "passed": self.passed, "mark": self.mark}
        return dict(plain(data))

    def figures(self) -> Rows:
        """What every budget gains and costs."""
        return [
            {
                "target": _at(row.target), "file": "" if row.size is None else in_bytes(row.size.file),
                "MACs": "" if row.size is None else in_units(row.size.macs),
                "error": row.note if row.error is None else in_percent(row.error),
            }
            for row in self.rows
        ]  # fmt: skip

    def records(self) -> Rows:
        """The budgets, with sizes, error, agreement, and the latency on the first provider that was timed."""
        return [
            {
                "target": row.target, **({} if row.size is None else asdict(row.size)), "error": row.error,
                "agreement": row.agreement, "mark": None if row.mark is None else row.mark.value,
                "latency_ms": next((t.latency_after_ms for t in row.timings if t.latency_after_ms is not None), None),
                "knee": row.target == self.recommended,
            }
            for row in self.rows
        ]  # fmt: skip

    def curves(self) -> Iterator[tuple[str, str, Rows]]:
        """(name, title, points) of plots of the errors over what remains of the MACs, the latency and the bytes; the
        original is a point too."""
        before = self.before
        made = [(row, row.size, row.error) for row in self.rows if row.size is not None and row.error is not None]

        def point(target: float, error: float, remaining: float) -> Mapping[str, Any]:
            knee = target == self.recommended
            return {"remaining": remaining, "error": error, "label": _at(target), "knee": knee}

        whole = [point(1.0, 0.0, 1.0)]
        yield "macs", "MACs that remain", whole + [point(r.target, e, s.macs / max(1, before.macs)) for r, s, e in made]
        shares = [(r, e, next((t.share for t in r.timings if t.share is not None), None)) for r, _, e in made]
        yield "latency", "latency that remains", whole + [point(r.target, e, s) for r, e, s in shares if s is not None]
        sizes = [point(r.target, e, s.file / max(1, before.file)) for r, s, e in made]
        yield "bytes", "bytes that remain", whole + sizes

    def plot(self) -> Any:
        """Output errors over the MACs that remain: a chart by Altair. Raises RequestError where the extra `report` is
        missing."""
        extra.require("a chart")
        from .html import charts

        name, title, rows = next(self.curves())
        return charts.pareto(rows, title).properties(width=420, name=name)

    def print(self, console: Console | None = None) -> None:
        """Show the table; None: on standard output."""
        (console or Console()).print(self.render())

    def render(self) -> RenderableType:
        """The table as one renderable."""
        before = self.before
        about = f"{in_bytes(before.file)}, {in_units(before.parameters)} parameters, {in_units(before.macs)} MACs"
        sign, style = MARKS[self.mark]
        verdict = Message(self.verdict, style="bold", mark=Signs(sign, style))
        parts: list[RenderableType] = [named(self.model, style="bold"), Text(about, style="dim"), "", verdict, ""]
        parts += [self._curve()]
        parts += [below(f"measured on {self.samples}")]
        parts += [below(f"metric of the original: {before:.5g}") for before in self._metric_before]
        parts += [below(f"{_at(row.target)}: {note}", "yellow") for row in self.rows for note in _said(row)]
        parts += [below(note) for note in self.notes]
        return Trimmed(Group(*parts))

    @property
    def _metric_before(self) -> list[float]:
        """What the user's own measure says of the original; empty where there is none."""
        return [row.measure.before for row in self.rows if row.measure is not None][:1]

    def _curve(self) -> RenderableType:
        before = self.before
        where = next((t.where for row in self.rows for t in row.timings if t.share is not None), None)
        timed, own = [f"latency {where}"] if where else [], bool(self._metric_before)
        classes = not own and any(row.agreement is not None for row in self.rows)
        judged = ["metric"] if own else ["same top-1"] if classes else []
        right = ["file", "params", "MACs", *timed, "error", *judged]
        table = new_table("target", right=right)
        for row in self.rows:
            if row.size is None:
                table.add_row(_at(row.target), *[Text("-", style="dim")] * len(right))
                continue
            size = row.size
            cells = [_of(size.file, before.file), _of(size.parameters, before.parameters), _of(size.macs, before.macs)]
            if where:
                share = next((t.share for t in row.timings if t.where == where), None)
                cells.append("" if share is None else f"{100 * share:.0f} %")
            cells.append("" if row.error is None else in_percent(row.error))
            if classes:
                cells.append("" if row.agreement is None else f"{100 * row.agreement:.1f} %")
            if own:
                cells.append("" if row.measure is None else f"{row.measure.after:.5g}")
            mark = " ← knee" if row.target == self.recommended else " failed" if row.problems else ""
            table.add_row(Signs(_at(row.target) + mark, "bold" if mark else ""), *cells)
        return table


def _said(row: SweepRow) -> list[str]:
    return [*row.problems, *([row.note] if row.note else [])]


def _at(target: float) -> str:
    return f"{100 * target:g} %"


def _of(after: int, before: int) -> str:
    return f"{100 * after / before:.1f} %" if before else ""
