"""The tables of a fold's report, for a terminal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
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
from . import wording
from .group_report import GroupReport
from .tables import Message, Name, Names, Signs, Trimmed, below, named, new_table, prefix_of

GROUPS_SHOWN = 24  # without -v
WIDE = 120  # columns from which there is room beside a table


def page(top: RenderableType, parts: Sequence[RenderableType]) -> RenderableType:
    """All parts below each other, an empty line between them."""
    return Trimmed(Group(top, *(line for part in parts for line in ("", part))))


def heading(model: str, output: str, size: Size | None) -> RenderableType:
    """Names of the files ('' for no output), and below them the size of a model that is only looked at."""
    names: list[RenderableType] = [named(model, style="bold")]
    if output:
        names = [_Files(model, output)]
    if size is None:
        return Group(*names)
    about = f"{in_bytes(size.file)}, {in_units(size.parameters)} parameters"
    about += f", {in_units(size.macs)} MACs" if size.macs else ""
    return Group(*names, Text(about, style="dim"))


@dataclass(frozen=True)
class _Files:
    """The model and the file that was made of it."""

    model: str
    output: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        arrow = Signs(" → ").shown(options)
        yield Text.assemble(named(self.model, style="bold"), arrow, named(self.output))


MARKS = {Mark.KEPT: ("✔ ", "green"), Mark.UNSURE: ("! ", "yellow"), Mark.FAILED: ("✘ ", "red")}


def verdict(headline: str, remarks: Sequence[str], check: Check | None) -> RenderableType:
    """What came out, with a mark that says how it went, and below it what else is worth knowing."""
    if check is None:
        first = Message(headline, style="bold")
    else:
        sign, style = MARKS[check.mark]
        first = Message(headline, style="bold" if check.passed else "red", mark=Signs(sign, style))
    return Group(first, *(Padding(Message(_sentence(remark)), (0, 0, 0, 2)) for remark in remarks))


def _sentence(remark: str) -> str:
    """A remark as one, unless a name begins it."""
    first = remark[:1].upper() if remark.split(" ")[0].isalpha() else remark[:1]
    return f"{first}{remark[1:]}."


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
    table.add_row(wording.PEAK, *wording.peak(before, after))
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
            table.add_row(Name(error.name), *row, *([short(done.provider)] if several else []))
    other = "; the output error above is another measure" if check.quality is not None else ""
    return Group(table, below(f"{wording.compared_on(check)}{other}"))


def quantization(done: QuantizationReport) -> RenderableType:
    """Fewer bits beside floats; where these are the original, other tables have said all of it but how it was done."""
    left = ", ".join(f"{count} {op}" for op, count in done.floats)
    about = below(done.done_on + (f"; in floats: {left}" if left else ""))
    if done.alone:
        return about
    made = new_table(done.kind.label, right=("in floats", "quantized", "change"))
    made.add_row(
        "file", in_bytes(done.file_before), in_bytes(done.file_after), change(done.file_before, done.file_after)
    )
    if done.speedup is not None:
        assert done.latency_before_ms is not None and done.latency_after_ms is not None
        made.add_row(
            "latency", in_ms(done.latency_before_ms), in_ms(done.latency_after_ms), f"{done.speedup:.2f} x as fast"
        )
    if (errors := done.errors) is not None:
        made.add_row(done.measure, *map(in_percent, errors), "")
    return Group(made, about)


def shared(found: Sequence[Shared]) -> Table:
    """Layers with one weight."""
    prefix = prefix_of([name for one in found for name in one.layers])
    table = new_table("layers that share a weight", right=["shape", "distance"], prefix=prefix)
    for one in found:
        names = [name.removeprefix(prefix) for name in one.layers]
        table.add_row(Names(names, whole=True, style=""), "x".join(map(str, one.shape)), f"{one.distance:.3f}")
    return table


def dropped(found: Sequence[Dropped]) -> Table:
    """Blocks that are gone."""
    table = new_table("dropped block", right=["influence"])
    for one in found:
        table.add_row(Name(one.block), f"{one.influence:.3f}")
    return table


def interface(found: Sequence[HeadsChanged], verbose: bool) -> RenderableType:
    """Inputs and outputs that have other heads."""
    table = new_table("changed inputs and outputs", right=["heads"], more=["axis"])
    shown = found if verbose else found[:GROUPS_SHOWN]
    for one in shown:
        where = Text(f"{one.axis} of an {one.kind}", style="dim")
        table.add_row(Name(one.name, whole=verbose), Signs(f"{one.before} → {one.after}"), where)
    return Group(table, *([below(_more(found, shown))] if len(found) > len(shown) else []))


def _more(all_of_them: Sequence[object], shown: Sequence[object]) -> str:
    return f"and {len(all_of_them) - len(shown)} more (-v lists all)"


def groups(found: Sequence[GroupReport], folded: bool, verbose: bool) -> RenderableType:
    """The groups that shrank the most, and how many stay as they are and why; all groups if `verbose`. `folded`: widths
    changed."""
    told = [g for g in found if verbose or (g.after < g.before if folded else not g.note)]
    largest = told if verbose else sorted(told, key=lambda g: g.after - g.before)[:GROUPS_SHOWN]
    names = {g.name for g in largest}
    shown = [g for g in told if g.name in names]
    parts: list[RenderableType] = [_groups(shown, folded, verbose)] if shown else []
    if len(told) > len(shown):
        parts.append(below(_more(told, shown)))
    if left := [g for g in found if g not in told]:
        parts.append(_unchanged(left, folded))
    return Group(*parts)


def _groups(shown: Sequence[GroupReport], folded: bool, verbose: bool) -> Table:
    notes = ["; ".join(filter(None, [f"{g.blocks} equal blocks" if g.blocks > 1 else "", g.note])) for g in shown]
    clustered = folded and any(g.clusters for g in shown)
    right = ["channels", "weights", *(["merged into", "merge error"] if clustered else [])]
    prefix = prefix_of([g.name for g in shown])
    table = new_table("group", right=right, more=["note"] if any(notes) else [], prefix=prefix)
    for group, note in zip(shown, notes, strict=True):
        width = f"{group.before} → {group.after}" if folded and group.after < group.before else str(group.before)
        row: list[RenderableType] = [Signs(width), str(sum(map(len, (group.producers, group.consumers))))]
        if clustered:
            row += [f"{group.clusters} clusters", f"{group.error:.3f}"] if group.clusters else ["", ""]
        name = Name(group.name, prefix, whole=verbose)
        table.add_row(name, *row, *([Message(note, style="dim")] if any(notes) else []))
    return table


def _unchanged(left: Sequence[GroupReport], folded: bool) -> RenderableType:
    """How many groups stay as they are, by reason, in one line."""
    counted = Counter(g.note for g in left)
    reasons = ", ".join(f"{count} {note}" if len(counted) > 1 else note for note, count in counted.most_common())
    are = "1 group is" if len(left) == 1 else f"{len(left)} groups are"
    return below(f"{are} {'unchanged' if folded else 'left out'}: {reasons} (-v lists them)")


@dataclass(frozen=True)
class Refusals:
    """Why channels stay, the reasons that cost most first; where they are beside that if there is room, or below."""

    found: Sequence[Refusal]
    verbose: bool

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide = options.max_width >= WIDE
        table = new_table("kept, and why", right=["channels", "parameters"], more=["where"] if wide else [])
        for one in self.found:
            cost = in_units(one.parameters) if one.parameters else ""
            why, where = Message(one.kind), Names(one.where, whole=self.verbose)
            below = why if wide or not one.where else Group(why, Padding(where, (0, 0, 0, 2)))
            table.add_row(below, str(one.channels or ""), cost, *([where] if wide else []))
        yield table
