"""What a run found, as data (for JSON) and as tables (for a terminal)."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..analysis.costs import Size
from ..analysis.coverage import Coverage
from ..analysis.pins import Refusal
from ..evaluation.verdict import Check, Status
from ..model.kv_cache import HeadsChanged
from ..model.save import write_text
from ..passes.distillation.result import RefinementReport
from ..passes.quantization.result import QuantizationReport
from ..passes.weight_sharing.result import Dropped, Shared
from ..runtime.session import short
from ..units import change, in_bytes, in_ms, in_percent, in_units, less
from .tables import Message, new_table, plain

SCHEMA = 1
HERE_SHOWN = 24  # groups in the table without -v


@dataclass(frozen=True)
class GroupReport:
    """One group: width before and after, the weights that produce and consume it, the relative merge error in 0..1.

    `error` is the squared distance that the merge makes between balanced feature rows, over that of merging everything
    into one channel; `note` says why a group stays as it is.
    """

    name: str
    before: int
    after: int
    blocks: int
    clusters: int
    error: float
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    note: str


@dataclass(frozen=True)
class FoldReport:
    """All of a run. `after` and `check` are None where nothing was folded (inspect), `coverage` where nothing was
    analyzed (compare), `refinement` and `quantization` where none was asked for. `shared`, `dropped`: what became of
    whole layers; `interface`: inputs and outputs that have other heads.
    """

    model: str
    output: str
    settings: dict[str, Any]
    before: Size
    after: Size | None
    groups: tuple[GroupReport, ...]
    refusals: tuple[Refusal, ...]
    check: Check | None
    seconds: dict[str, float] = field(default_factory=dict)
    coverage: Coverage | None = None
    refinement: RefinementReport | None = None
    shared: tuple[Shared, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    quantization: QuantizationReport | None = None
    interface: tuple[HeadsChanged, ...] = ()

    @property
    def verdict(self) -> str:
        """One line that says what came out of it."""
        if self.check is None or self.after is None:
            channels = sum(g.before for g in self.groups)
            text = f"{len(self.groups)} groups, {channels} channels can be folded"
            if self.coverage is None:
                return text
            macs = f" and {self.coverage.macs:.0%} of the MACs" if self.before.macs else ""
            return f"{text}: {self.coverage.parameters:.0%} of the parameters{macs} are in reach"
        if not self.check.passed:
            return "failed: " + "; ".join(self.check.problems)
        parts = [f"file {less(self.before.file, self.after.file)}"]
        if self.before.macs:
            parts.append(f"MACs {less(self.before.macs, self.after.macs)}")
        for done in self.check.providers:
            if done.speedup is not None:
                parts.append(f"{done.speedup:.2f}x as fast on {short(done.provider)}")
        worst = self.check.worst
        if worst is not None:
            parts.append(f"output error {in_percent(worst.relative_l2)}")
        if self.refinement is not None and self.refinement.kept:
            parts.append(str(self.refinement))
        if self.quantization is not None:
            parts.append(str(self.quantization))
        if self.interface:
            parts.append(f"{len(self.interface)} inputs and outputs have other heads")
        refused = [] if self.refinement is None or self.refinement.kept else [str(self.refinement)]
        lost = [f"nothing is left of '{self._lost}': fold less, or give `calibration`"] if self._lost else []
        return ", ".join(parts) + "".join(f"; {note}" for note in (*lost, *refused, *self.check.notes))

    @property
    def _lost(self) -> str:
        """An output to whose original zeros would be nearer; '' if there is none."""
        worst = None if self.check is None else self.check.worst
        return worst.name if worst is not None and worst.relative_l2 >= 1 else ""

    def to_json(self) -> str:
        """The whole report (schema in docs/report.md); infinite and undefined numbers are null."""
        data = {"schema": SCHEMA, **asdict(self), "verdict": self.verdict}
        data["passed"] = None if self.check is None else self.check.passed
        return json.dumps(plain(data), indent=2, allow_nan=False)

    def print(self, console: Console | None = None, verbose: bool = False) -> None:
        """Show the tables; None: on standard output."""
        (console or Console()).print(self.render(verbose))

    def render(self, verbose: bool = False) -> RenderableType:
        """The tables as one renderable."""
        heading = Text(self.model, style="bold")
        if self.output:
            heading.append(f" → {self.output}")
        parts: list[RenderableType] = [heading]
        if self.after is not None and self.check is not None:
            parts += ["", self._sizes(self.after, self.check)]
            if any(done.outputs for done in self.check.providers):
                parts += ["", self._outputs(self.check), Message(f" measured on {self.check.inputs}", style="dim")]
        else:
            about = f"{in_bytes(self.before.file)}, {in_units(self.before.parameters)} parameters"
            about += f", {in_units(self.before.macs)} MACs" if self.before.macs else ""
            parts.append(Text(about, style="dim"))
        if self.quantization is not None:
            parts += ["", quantization_table(self.quantization)]
        if self.shared:
            parts += ["", self._shared()]
        if self.dropped:
            parts += ["", self._dropped()]
        if self.interface:
            parts += ["", self._interface(verbose)]
        if self.groups:
            parts += ["", self._groups(verbose)]
        if self.refusals:
            parts += ["", self._refused(verbose)]
        parts += ["", self._closing()]
        return Group(*parts)

    def _closing(self) -> Message:
        if self.check is None:
            return Message(self.verdict, style="bold")
        mark, style = ("✔ ", "green") if self.check.passed else ("✘ ", "red")
        measured = any(done.status is Status.OK for done in self.check.providers)
        if self.check.passed and (self._lost or not measured):
            mark, style = "! ", "yellow"  # a sound file, but its outputs are lost, or nothing is known of them
        return Message(self.verdict, style="bold" if self.check.passed else "red", mark=Text(mark, style=style))

    def _sizes(self, after: Size, check: Check) -> Table:
        table = new_table("", right=("before", "after", "change"))
        before = self.before
        table.add_row("file", in_bytes(before.file), in_bytes(after.file), change(before.file, after.file))
        table.add_row(
            "parameters", in_units(before.parameters), in_units(after.parameters),
            change(before.parameters, after.parameters),
        )  # fmt: skip
        if before.macs:
            table.add_row("MACs", in_units(before.macs), in_units(after.macs), change(before.macs, after.macs))
        for done in check.providers:
            name = f"latency {short(done.provider)}"
            if done.status is not Status.OK:
                table.add_row(name, Text(done.status, style="yellow"), "", "")
            elif done.latency_before_ms is not None and done.latency_after_ms is not None:
                table.add_row(
                    name, in_ms(done.latency_before_ms), in_ms(done.latency_after_ms),
                    f"{done.speedup:.2f} x as fast",
                )  # fmt: skip
        return table

    def _outputs(self, check: Check) -> Table:
        """Errors of every output; the provider is named where there are several."""
        several = sum(bool(done.outputs) for done in check.providers) > 1
        classes = any(error.top1 is not None for done in check.providers for error in done.outputs)
        names = ["error", "cosine", "SQNR", "max |Δ|", *(["top-1 agrees"] if classes else [])]
        table = new_table("output", right=names, more=["on"] if several else [])
        for done in check.providers:
            for error in done.outputs:
                sqnr = "exact" if error.sqnr_db == math.inf else f"{error.sqnr_db:.1f} dB"
                row = [in_percent(error.relative_l2), f"{error.cosine:.4f}", sqnr, f"{error.max_abs:.3g}"]
                if classes:
                    row.append("" if error.top1 is None else f"{100 * error.top1:.1f} %")
                table.add_row(Text(error.name), *row, *([short(done.provider)] if several else []))
        return table

    def _groups(self, verbose: bool) -> Table:
        folded = self.after is not None
        ordered = self.groups if verbose else sorted(self.groups, key=lambda g: g.after - g.before)[:HERE_SHOWN]
        names = {g.name for g in ordered}
        shown = [g for g in self.groups if g.name in names]
        notes = ["; ".join(filter(None, [f"{g.blocks} equal blocks" if g.blocks > 1 else "", g.note])) for g in shown]
        clustered = folded and any(g.clusters for g in shown)
        right = ["channels", "weights", *(["merged into", "merge error"] if clustered else [])]
        table = new_table("group", right=right, more=["note"] if any(notes) else [])
        for group, note in zip(shown, notes, strict=True):
            width = f"{group.before} → {group.after}" if folded and group.after < group.before else str(group.before)
            row = [width, str(sum(map(len, (group.producers, group.consumers))))]
            if clustered:
                row += [f"{group.clusters} clusters", f"{group.error:.3f}"] if group.clusters else ["", ""]
            table.add_row(Text(group.name), *row, *([Message(note, style="dim")] if any(notes) else []))
        if len(self.groups) > len(shown):
            table.caption = Text(f" and {len(self.groups) - len(shown)} more (-v shows all)", style="dim")
        return table

    def _interface(self, verbose: bool) -> Table:
        table = new_table("interface that changed", right=["heads"], more=["axis"])
        shown = self.interface if verbose else self.interface[:HERE_SHOWN]
        for one in shown:
            where = Text(f"{one.axis} of an {one.kind}", style="dim")
            table.add_row(Text(one.name), f"{one.before} → {one.after}", where)
        if len(self.interface) > len(shown):
            table.caption = Text(f" and {len(self.interface) - len(shown)} more (-v shows all)", style="dim")
        return table

    def _shared(self) -> Table:
        table = new_table("layers that share a weight", right=["shape", "distance"])
        for one in self.shared:
            table.add_row(Text(", ".join(one.layers)), "x".join(map(str, one.shape)), f"{one.distance:.3f}")
        return table

    def _dropped(self) -> Table:
        table = new_table("dropped block", right=["influence"])
        for one in self.dropped:
            table.add_row(Text(one.block), f"{one.influence:.3f}")
        return table

    def _refused(self, verbose: bool) -> Table:
        table = new_table("kept as it is because of", right=["channels", "parameters"], more=["where"])
        for refusal in self.refusals:
            shown = refusal.where if verbose else refusal.where[:3]
            more = len(refusal.where) - len(shown)
            where = ", ".join(shown) + (f" and {more} more" if more else "")
            cost = in_units(refusal.parameters) if refusal.parameters else ""
            table.add_row(Message(refusal.kind), str(refusal.channels or ""), cost, Text(where, style="dim"))
        return table


def quantization_table(done: QuantizationReport) -> Table:
    """INT8 beside floats."""
    made = new_table("INT8", right=("in floats", "quantized", "change"))
    made.add_row(
        "file", in_bytes(done.file_before), in_bytes(done.file_after), change(done.file_before, done.file_after)
    )
    if done.speedup is not None:
        assert done.latency_before_ms is not None and done.latency_after_ms is not None
        made.add_row(
            "latency", in_ms(done.latency_before_ms), in_ms(done.latency_after_ms), f"{done.speedup:.2f} x as fast"
        )
    if not math.isnan(done.error_before):
        made.add_row("output error", in_percent(done.error_before), in_percent(done.error_after), "")
    left = ", ".join(f"{count} {op}" for op, count in done.floats)
    about = f" {done.nodes} nodes compute on integers; ranges from {done.samples} samples"
    made.caption = Text(about + (f"; in floats: {left}" if left else ""), style="dim")
    return made


class Written(Protocol):
    """A report that can be kept as JSON."""

    def to_json(self) -> str: ...


def save(report: Written, path: Path) -> None:
    """Write the JSON report, atomically. Raises OSError."""
    write_text(path, report.to_json() + "\n")
