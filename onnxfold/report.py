"""What a run found, as data (for JSON) and as tables (for a terminal)."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from .analyse import Refusal
from .validate import Check

SCHEMA = 1
HERE_SHOWN = 24  # groups in the table without -v


@dataclass(frozen=True)
class Size:
    """Sizes before or after: file in bytes (external data included), parameters and MACs at batch 1."""

    file: int
    parameters: int
    macs: int


@dataclass(frozen=True)
class GroupReport:
    """One group: width before and after, the weights that make it and read it, the relative merge error in 0..1.

    `error` is the squared distance that the merge makes between balanced feature rows, over that of merging everything
    into one channel; `note` says why a group stays as it is.
    """

    name: str
    before: int
    after: int
    blocks: int
    clusters: int
    error: float
    makers: tuple[str, ...]
    readers: tuple[str, ...]
    note: str


@dataclass(frozen=True)
class FoldReport:
    """All of a run. `after` and `check` are None where nothing was folded (inspect)."""

    model: str
    output: str
    settings: dict[str, Any]
    before: Size
    after: Size | None
    groups: tuple[GroupReport, ...]
    refusals: tuple[Refusal, ...]
    check: Check | None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def foldable_share(self) -> float:
        """Channels in groups over all channels that some weight makes."""
        inside = sum(g.before for g in self.groups)
        return inside / max(1, inside + sum(r.channels for r in self.refusals))

    @property
    def verdict(self) -> str:
        """One line that says what came out of it."""
        if self.check is None or self.after is None:
            return f"{len(self.groups)} groups, {sum(g.before for g in self.groups)} channels can be folded"
        if not self.check.passed:
            return "failed: " + "; ".join(self.check.problems)
        parts = [f"{_share(self.after.file, self.before.file)} file"]
        if self.before.macs:
            parts.append(f"{_share(self.after.macs, self.before.macs)} MACs")
        for done in self.check.providers:
            if done.speedup is not None:
                parts.append(f"{done.speedup:.2f}x as fast on {_short(done.provider)}")
        worst = self.check.worst
        if worst is not None:
            parts.append(f"output error {worst.relative_l2:.2g}")
        return ", ".join(parts) + "".join(f"; {note}" for note in self.check.notes)

    def to_json(self) -> str:
        """The whole report (schema in docs/report.md); infinite and undefined numbers are null."""
        data = {"schema": SCHEMA, **asdict(self), "foldable_share": self.foldable_share, "verdict": self.verdict}
        data["passed"] = None if self.check is None else self.check.passed
        return json.dumps(_plain(data), indent=2, allow_nan=False)

    def print(self, console: Console, verbose: bool = False) -> None:
        """Show the tables."""
        console.print(self.render(verbose))

    def render(self, verbose: bool = False) -> RenderableType:
        """The tables as one renderable."""
        parts: list[RenderableType] = []
        if self.after is not None and self.check is not None:
            parts.append(self._summary(self.after, self.check))
        parts.append(self._groups(verbose))
        if self.refusals:
            parts.append(self._refused(verbose))
        mark = "" if self.check is None else ("[green]✔[/] " if self.check.passed else "[red]✘[/] ")
        parts.append(Text.from_markup(mark).append(self.verdict))
        return Group(*parts)

    def _summary(self, after: Size, check: Check) -> Table:
        table = Table(title=f"{self.model} → {self.output}" if self.output else self.model, title_justify="left")
        table.add_column("")
        for name in ("before", "after", "change"):
            table.add_column(name, justify="right")
        table.add_row("file", _bytes(self.before.file), _bytes(after.file), _change(self.before.file, after.file))
        table.add_row(
            "parameters", _number(self.before.parameters), _number(after.parameters),
            _change(self.before.parameters, after.parameters),
        )  # fmt: skip
        if self.before.macs:
            table.add_row(
                "MACs", _number(self.before.macs), _number(after.macs), _change(self.before.macs, after.macs)
            )
        for done in check.providers:
            name = f"latency {_short(done.provider)}"
            if done.status != "ok":
                table.add_row(name, Text(done.status, style="yellow"), Text(done.message, style="dim"), "")
            elif done.latency_before_ms is not None and done.latency_after_ms is not None:
                table.add_row(
                    name, f"{done.latency_before_ms:.2f} ms", f"{done.latency_after_ms:.2f} ms",
                    f"{done.speedup:.2f}x as fast",
                )  # fmt: skip
        for done in check.providers:
            for error in done.outputs:
                label = f"output {error.name}"
                if len(check.providers) > 1:
                    label += f" ({_short(done.provider)})"
                agree = "" if error.top1 is None else f"top-1 agrees {error.top1:.1%}"
                table.add_row(
                    label, f"relative L2 {error.relative_l2:.3g}", f"cosine {error.cosine:.4f}", agree, style="dim"
                )
                table.add_row("", f"SQNR {error.sqnr_db:.1f} dB", f"max |Δ| {error.max_abs:.3g}", "", style="dim")
        table.caption = f"measured on {check.inputs}"
        table.caption_justify = "left"
        return table

    def _groups(self, verbose: bool) -> Table:
        table = Table(title="channel groups", title_justify="left")
        table.add_column("group", overflow="fold")
        for name in ("members", "width"):
            table.add_column(name, justify="right")
        folded = self.after is not None
        if folded:
            for name in ("clusters", "merge error"):
                table.add_column(name, justify="right")
        table.add_column("note", style="dim")
        ordered = self.groups if verbose else sorted(self.groups, key=lambda g: g.after - g.before)[:HERE_SHOWN]
        names = {g.name for g in ordered}
        for group in (g for g in self.groups if g.name in names):
            width = f"{group.before} → {group.after}" if folded else str(group.before)
            row = [group.name, str(len(group.makers) + len(group.readers)), width]
            if folded:
                row += [str(group.clusters) if group.clusters else "", f"{group.error:.3f}" if group.clusters else ""]
            blocks = f"{group.blocks} equal blocks" if group.blocks > 1 else ""
            table.add_row(*row, "; ".join(filter(None, [blocks, group.note])))
        if len(self.groups) > len(ordered):
            table.caption = f"and {len(self.groups) - len(ordered)} more (-v shows all)"
            table.caption_justify = "left"
        return table

    def _refused(self, verbose: bool) -> Table:
        table = Table(title="channels kept as they are", title_justify="left")
        table.add_column("reason", overflow="fold")
        table.add_column("channels", justify="right")
        table.add_column("where", style="dim", overflow="fold")
        for refusal in self.refusals:
            shown = refusal.where if verbose else refusal.where[:3]
            more = len(refusal.where) - len(shown)
            table.add_row(refusal.kind, str(refusal.channels), ", ".join(shown) + (f" and {more} more" if more else ""))
        return table


def save(report: FoldReport, path: Path) -> None:
    """Write the JSON report."""
    path.write_text(report.to_json() + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _short(provider: str) -> str:
    name = provider.removesuffix("ExecutionProvider")
    return name.upper() if name.lower() in ("cpu", "cuda") else name


def _bytes(n: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n >= size:
            return f"{n / size:.2f} {unit}"
    return f"{n} B"


def _number(n: int) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= size:
            return f"{n / size:.2f} {unit}"
    return str(n)


def _change(before: int, after: int) -> str:
    return f"{100 * (after / before - 1):+.1f} %" if before else ""


def _share(after: int, before: int) -> str:
    return f"{100 * (after / before - 1):+.0f} %" if before else "0 %"
