"""The tables of a fold's report, for a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..analysis.costs import Size
from ..analysis.pins import Refusal
from ..evaluation.quality import Mark
from ..evaluation.verdict import Check, Status
from ..model.kv_cache import HeadsChanged
from ..passes.quantization.result import QuantizationReport
from ..passes.weight_sharing.result import Dropped, Shared
from ..runtime.session import short
from ..units import change, in_bytes, in_ms, in_percent, in_units
from .group_report import GroupReport
from .tables import Message, named, new_table

GROUPS_SHOWN = 24  # without -v


def page(top: RenderableType, parts: Sequence[RenderableType]) -> RenderableType:
    """All parts below each other, an empty line between them."""
    return Group(top, *(line for part in parts for line in ("", part)))


def heading(model: str, output: str, size: Size | None) -> RenderableType:
    """Names of the files ('' for no output), and below them the size of a model that is only looked at."""
    names = named(model, style="bold")
    if output:
        names.append(" → ").append(named(output))
    if size is None:
        return names
    about = f"{in_bytes(size.file)}, {in_units(size.parameters)} parameters"
    about += f", {in_units(size.macs)} MACs" if size.macs else ""
    return Group(names, Text(about, style="dim"))


MARKS = {Mark.KEPT: ("✔ ", "green"), Mark.UNSURE: ("! ", "yellow"), Mark.FAILED: ("✘ ", "red")}


def closing(verdict: str, check: Check | None) -> Message:
    """The last line, with a mark that says how it went."""
    if check is None:
        return Message(verdict, style="bold")
    mark, style = MARKS[check.mark]
    return Message(verdict, style="bold" if check.passed else "red", mark=Text(mark, style=style))


def sizes(before: Size, after: Size, check: Check) -> Table:
    """Size and latency of the file before and after."""
    table = new_table("", right=("before", "after", "change"))
    table.add_row("file", in_bytes(before.file), in_bytes(after.file), change(before.file, after.file))
    table.add_row(
        "parameters", in_units(before.parameters), in_units(after.parameters),
        change(before.parameters, after.parameters),
    )  # fmt: skip
    if before.macs:
        table.add_row("MACs", in_units(before.macs), in_units(after.macs), change(before.macs, after.macs))
    if (own := check.measure) is not None:
        table.add_row("metric", f"{own.before:.5g}", f"{own.after:.5g}", f"{0.0 - own.drop:+.3g}")
    for done in check.providers:
        name = f"latency {done.where}"
        if done.status is not Status.OK:
            table.add_row(name, Text(done.status, style="yellow"), "", "")
        elif done.latency_before_ms is not None and done.latency_after_ms is not None:
            table.add_row(
                name, in_ms(done.latency_before_ms), in_ms(done.latency_after_ms),
                f"{done.speedup:.2f} x as fast",
            )  # fmt: skip
    return table


def outputs(check: Check) -> RenderableType | None:
    """Errors of every output, and on what they were measured; the provider is named where there are several. None where
    nothing ran."""
    if not any(done.outputs for done in check.providers):
        return None
    several = sum(bool(done.outputs) for done in check.providers) > 1
    classes = any(error.top1 is not None for done in check.providers for error in done.outputs)
    integers = any(error.changed is not None for done in check.providers for error in done.outputs)
    names = [
        "rel. L2",
        "cosine",
        "SQNR",
        "max |Δ|",
        *(["top-1 agrees"] if classes else []),
        *(["others"] if integers else []),
    ]
    table = new_table("output", right=names, more=["on"] if several else [])
    for done in check.providers:
        for error in done.outputs:
            sqnr = "exact" if error.sqnr_db == math.inf else f"{error.sqnr_db:.1f} dB"
            row = [in_percent(error.relative_l2), f"{error.cosine:.4f}", sqnr, f"{error.max_abs:.3g}"]
            if classes:
                row.append("" if error.top1 is None else f"{100 * error.top1:.1f} %")
            if integers:
                row.append("" if error.changed is None else in_percent(error.changed))
            table.add_row(named(error.name), *row, *([short(done.provider)] if several else []))
    return Group(table, Message(f" measured on {check.inputs}", style="dim"))


def quantization(done: QuantizationReport) -> Table:
    """Fewer bits beside floats."""
    made = new_table(done.kind.label, right=("in floats", "quantized", "change"))
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
    about = f" {done.done_on}"
    made.caption = Text(about + (f"; in floats: {left}" if left else ""), style="dim")
    return made


def shared(found: Sequence[Shared]) -> Table:
    """Layers with one weight."""
    table = new_table("layers that share a weight", right=["shape", "distance"])
    for one in found:
        table.add_row(named(*one.layers), "x".join(map(str, one.shape)), f"{one.distance:.3f}")
    return table


def dropped(found: Sequence[Dropped]) -> Table:
    """Blocks that are gone."""
    table = new_table("dropped block", right=["influence"])
    for one in found:
        table.add_row(named(one.block), f"{one.influence:.3f}")
    return table


def interface(found: Sequence[HeadsChanged], verbose: bool) -> Table:
    """Inputs and outputs that have other heads."""
    table = new_table("interface that changed", right=["heads"], more=["axis"])
    shown = found if verbose else found[:GROUPS_SHOWN]
    for one in shown:
        where = Text(f"{one.axis} of an {one.kind}", style="dim")
        table.add_row(named(one.name), f"{one.before} → {one.after}", where)
    if len(found) > len(shown):
        table.caption = Text(f" and {len(found) - len(shown)} more (-v shows all)", style="dim")
    return table


def groups(found: Sequence[GroupReport], folded: bool, verbose: bool) -> Table:
    """The groups that shrank the most, all if `verbose`; `folded`: widths changed."""
    ordered = found if verbose else sorted(found, key=lambda g: g.after - g.before)[:GROUPS_SHOWN]
    names = {g.name for g in ordered}
    shown = [g for g in found if g.name in names]
    notes = ["; ".join(filter(None, [f"{g.blocks} equal blocks" if g.blocks > 1 else "", g.note])) for g in shown]
    clustered = folded and any(g.clusters for g in shown)
    right = ["channels", "weights", *(["merged into", "merge error"] if clustered else [])]
    table = new_table("group", right=right, more=["note"] if any(notes) else [])
    for group, note in zip(shown, notes, strict=True):
        width = f"{group.before} → {group.after}" if folded and group.after < group.before else str(group.before)
        row = [width, str(sum(map(len, (group.producers, group.consumers))))]
        if clustered:
            row += [f"{group.clusters} clusters", f"{group.error:.3f}"] if group.clusters else ["", ""]
        table.add_row(named(group.name), *row, *([Message(note, style="dim")] if any(notes) else []))
    if len(found) > len(shown):
        table.caption = Text(f" and {len(found) - len(shown)} more (-v shows all)", style="dim")
    return table


def refusals(found: Sequence[Refusal], verbose: bool) -> Table:
    """Why channels stay, the reasons that cost most first."""
    table = new_table("kept as it is because of", right=["channels", "parameters"], more=["where"])
    for refusal in found:
        shown = refusal.where if verbose else refusal.where[:3]
        more = len(refusal.where) - len(shown)
        where = named(*shown, style="dim", more=f" and {more} more" if more else "")
        cost = in_units(refusal.parameters) if refusal.parameters else ""
        table.add_row(Message(refusal.kind), str(refusal.channels or ""), cost, where)
    return table
