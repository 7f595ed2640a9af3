"""What came of several chains of steps: a row for each, those worth having, what to take for what, JSON and a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.text import Text

from ..analysis.costs import Size
from ..evaluation.quality import Mark
from ..passes.choice.chain import Chain
from ..passes.choice.front import Aspect, Point, best, front
from ..passes.choice.row import ChoiceRow
from ..units import in_bytes, in_percent, in_units
from .html import extra
from .json_text import SCHEMA
from .provenance import Provenance
from .render import MARKS
from .shown import Rows, Shown
from .tables import Message, Signs, Trimmed, below, named, new_table, plain


@dataclass(frozen=True)
class Advice:
    """What to take for an `aspect`: a `chain` in words (None: nothing that was measured does it), the `function` of
    onnxfold that makes it ('' where nothing is to be done) and `how`, its keywords."""

    aspect: Aspect
    chain: str | None
    function: str = ""
    how: Mapping[str, Any] = field(default_factory=dict)
    asked: str = ""

    def __str__(self) -> str:
        """In words."""
        if self.chain is None:
            return f"{self.aspect}: none of the measured models"
        return f"{self.aspect}: {self.chain}" + (f" ({self.asked})" if self.asked else "")


@dataclass(frozen=True, repr=False)
class ChoiceReport(Shown):
    """Chains of steps beside each other; the first row is the model as it is. `worth` are the numbers of the rows that
    no other one beats in bytes, latency and loss; `advice`: what to take. `samples` says what errors were measured on.
    """

    model: str
    settings: Mapping[str, Any]
    before: Size
    rows: tuple[ChoiceRow, ...]
    samples: str
    notes: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    provenance: Provenance | None = None

    @property
    def passed(self) -> bool:
        """Whether every model that was made passed its checks."""
        return not any(row.problems for row in self.rows)

    @property
    def worth(self) -> tuple[int, ...]:
        """The Pareto front: numbers of rows."""
        numbers, points = self._points
        return tuple(numbers[i] for i in front(points))

    @property
    def advice(self) -> tuple[Advice, ...]:
        """What to take for half the bytes, for half the latency (where any was measured), and without visible loss."""
        numbers, points = self._points
        timed = any(self.rows[i].latency is not None for i in numbers)
        return tuple(
            Advice(aspect, None) if at is None else _advised(aspect, self.rows[numbers[at]].chain)
            for aspect in Aspect
            if timed or aspect is not Aspect.SPEED
            for at in [best(points, aspect)]
        )

    @property
    def _points(self) -> tuple[list[int], list[Point]]:
        numbers = [i for i, row in enumerate(self.rows) if row.usable]
        return numbers, [self.rows[i].point(self.before) for i in numbers]

    @property
    def sign(self) -> str:
        """The mark, as it is printed."""
        return MARKS[self.mark][0]

    @property
    def mark(self) -> Mark:
        """What may be concluded of the models that are advised."""
        if not self.passed:
            return Mark.FAILED
        return Mark.UNSURE if any(row.mark is not Mark.KEPT for row in self._changed) else Mark.KEPT

    @property
    def _changed(self) -> list[ChoiceRow]:
        """The models that are advised, but for the original."""
        names = {one.chain for one in self.advice}
        return [row for row in self.rows if row.chain.label in names and row.chain != Chain()]

    @property
    def meaning(self) -> str:
        """What may be concluded, in words."""
        if self.mark is Mark.UNSURE:
            unsure = "; ".join(row.chain.label for row in self._changed if row.mark is not Mark.KEPT)
            return f"above the usual error limit, or judged on weak inputs: {unsure}"
        if self.mark is Mark.KEPT and not self._changed:
            return "nothing that was measured is worth more than the model as it is"
        return _MEANING[self.mark]

    @property
    def verdict(self) -> str:
        """One line that says what to do with it."""
        return "; ".join(map(str, self.advice))

    @property
    def measured(self) -> bool:
        """Whether the user's own measure says what is lost, not the errors of the outputs."""
        return any(row.measure is not None for row in self.rows)

    def row_of(self, advice: Advice) -> int | None:
        """The number of the row that is advised; None where there is none."""
        return next((i for i, row in enumerate(self.rows) if row.chain.label == advice.chain), None)

    def to_dict(self) -> dict[str, Any]:
        """The whole report as plain values (schema in docs/report.md); infinite and undefined numbers are None."""
        rows = [
            {**asdict(row), "label": row.chain.label, "function": row.chain.function, "how": dict(row.chain.how),
             "latency": row.latency, "worth": i in self.worth}
            for i, row in enumerate(self.rows)
        ]  # fmt: skip
        data = {
            "schema": SCHEMA, **asdict(self), "rows": rows, "advice": [asdict(one) for one in self.advice],
            "verdict": self.verdict, "passed": self.passed, "mark": self.mark,
        }  # fmt: skip
        return dict(plain(data))

    def figures(self) -> Rows:
        """What every chain gains and costs."""
        return [
            {
                "chain": row.chain.label, "file": "" if row.size is None else in_bytes(row.size.file),
                "latency": "" if row.latency is None else in_percent(row.latency),
                "error": row.skipped or row.note if row.error is None else in_percent(row.error),
                "worth having": "yes" if i in self.worth else "",
            }
            for i, row in enumerate(self.rows)
        ]  # fmt: skip

    def records(self) -> Rows:
        """The chains, with sizes, latency (the share that remains), error and agreement."""
        worth = self.worth
        return [
            {
                "chain": row.chain.label, **({} if row.size is None else asdict(row.size)), "latency": row.latency,
                "error": row.error, "agreement": row.agreement, "mark": None if row.mark is None else row.mark.value,
                "worth": i in worth,
            }
            for i, row in enumerate(self.rows)
        ]  # fmt: skip

    def curves(self) -> Iterator[tuple[str, str, Rows]]:
        """(name, title, points) of plots of what is lost over the bytes, and over the latency where any was measured.

        `best`: on the line of those that no other point of this plot beats; `knee`: advised."""
        numbers, points = self._points
        rows = [self.rows[i] for i in numbers]
        yield "bytes", "bytes that remain", self._curve(rows, [(p.size, p.loss) for p in points])
        if any(row.latency is not None for row in rows):
            yield "latency", "latency that remains", self._curve(rows, [(p.latency, p.loss) for p in points])

    def _curve(self, rows: Sequence[ChoiceRow], at: Sequence[tuple[float, float]]) -> Rows:
        line = set(front([Point(remaining, 1.0, loss, loss) for remaining, loss in at]))
        advised = {one.chain for one in self.advice}
        return [
            {
                "remaining": remaining, "error": loss, "label": row.chain.label, "best": i in line,
                "knee": row.chain.label in advised,
            }
            for i, (row, (remaining, loss)) in enumerate(zip(rows, at, strict=True))
        ]  # fmt: skip

    def plot(self) -> Any:
        """What is lost over the bytes that remain: a chart by Altair. Raises RequestError where the extra `report` is
        missing."""
        extra.require("a chart")
        from .html import charts

        name, title, rows = next(self.curves())
        return charts.chains(rows, title, self.measured).properties(width=420, name=name)

    def print(self, console: Console | None = None) -> None:
        """Show the table; None: on standard output."""
        (console or Console()).print(self.render())

    def render(self) -> RenderableType:
        """The table as one renderable."""
        before = self.before
        about = f"{in_bytes(before.file)}, {in_units(before.parameters)} parameters, {in_units(before.macs)} MACs"
        sign, style = MARKS[self.mark]
        parts: list[RenderableType] = [named(self.model, style="bold"), Text(about, style="dim"), ""]
        parts += [Message(str(one), style="bold") for one in self.advice]
        parts += [Message(self.meaning, mark=Signs(sign, style)), "", self._table()]
        parts += [below(f"latency on {where}") for where in self._timed_on]
        parts += [below(f"measured on {self.samples}")]
        parts += [below(f"{'; '.join(chains)}: {note}", "yellow") for note, chains in self._said.items()]
        parts += [below(note) for note in (*self._not_measured, *self.notes)]
        return Trimmed(Group(*parts))

    @property
    def _timed_on(self) -> list[str]:
        """Where latencies were measured; empty where none were."""
        return [t.where for row in self.rows for t in row.timings if t.share is not None][:1]

    @property
    def _said(self) -> Mapping[str, Sequence[str]]:
        """What went wrong, and with which chains."""
        found: dict[str, list[str]] = {}
        for row in self.rows:
            for note in [*row.problems, *([row.note] if row.note and row.size is None else [])]:
                found.setdefault(note, []).append(row.chain.label)
        return found

    @property
    def _not_measured(self) -> list[str]:
        """Which chains were left out, those that differ in their last step together."""
        found: dict[str, list[str]] = {}
        for row in self.rows:
            if row.skipped:
                kind = row.chain.quantize
                last = "in floats" if kind is None else kind.label
                found.setdefault(replace(row.chain, quantize=None).label, []).append(last)
        if not found:
            return []
        count, chains = sum(map(len, found.values())), "; ".join(f"{a} ({', '.join(b)})" for a, b in found.items())
        return [f"{count} more not measured, something above is expected to be better in every way: {chains}"]

    def _table(self) -> RenderableType:
        before, worth, advised = self.before, self.worth, {one.chain for one in self.advice}
        where = self._timed_on
        own, classes = (any(getattr(r, name) is not None for r in self.rows) for name in ("measure", "agreement"))
        judged = ["metric"] if own else ["top-1"] if classes else []
        timed = ["latency"] if where else []
        table = new_table("steps (* recommended)", right=["file", *timed, "error", *judged])
        for i, row in sorted(enumerate(self.rows), key=lambda one: -one[1].size.file if one[1].size else 0):
            if row.size is None:
                continue
            cells = [_of(row.size.file, before.file)]
            if where:
                cells.append("" if row.latency is None else f"{100 * row.latency:.0f} %")
            cells.append("" if row.error is None else in_percent(row.error))
            if own:
                cells.append("" if row.measure is None else f"{row.measure.after:.5g}")
            elif classes:
                cells.append("" if row.agreement is None else f"{100 * row.agreement:.1f} %")
            mark, failed = "* " if row.chain.label in advised else "  ", " failed" if row.problems else ""
            name = Signs(mark + row.chain.label + failed, "bold" if failed else "")
            table.add_row(name, *cells, style="" if i in worth or failed else "dim")
        return table


_MEANING = {
    Mark.KEPT: "the recommended models are within the usual error limit",
    Mark.FAILED: "one of the models failed its checks",
}


def _advised(aspect: Aspect, chain: Chain) -> Advice:
    return Advice(aspect, chain.label, chain.function, chain.how, chain.asked)


def _of(after: int, before: int) -> str:
    return f"{100 * after / before:.1f} %" if before else ""
