"""What a run found, as data (for JSON) and as tables (for a terminal)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console, RenderableType

from ..analysis.costs import Size
from ..analysis.coverage import Coverage
from ..analysis.pins import Refusal
from ..evaluation.verdict import Check
from ..model.kv_cache import HeadsChanged
from ..passes.distillation.result import RefinementReport
from ..passes.quantization.result import QuantizationReport
from ..passes.weight_sharing.result import Dropped, Shared
from ..units import as_fast, change, how_many, in_bytes, in_ms, in_percent, in_units, less, visible
from . import render, wording
from .group_report import GroupReport
from .html import extra
from .json_text import SCHEMA
from .layer_sizes import LayerSize
from .provenance import Provenance
from .shown import Rows, Shown
from .tables import plain


@dataclass(frozen=True, repr=False)
class FoldReport(Shown):
    """All of a run. `after` and `check` are None where nothing was folded (inspect), `coverage` where nothing was
    analyzed (compare), `refinement` and `quantization` where none was asked for. `shared`, `dropped`: what became of
    whole layers; `interface`: inputs and outputs that have other heads; `notes`: what else is worth knowing; `layers`:
    the parameters of every layer; `sheet`: inputs that were made, a JPEG in base64 ('' where they are no images).
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
    notes: tuple[str, ...] = ()
    layers: tuple[LayerSize, ...] = ()
    sheet: str = ""
    provenance: Provenance | None = None

    @property
    def verdict(self) -> str:
        """One line that says what came out of it."""
        return "; ".join([self.headline, *self.remarks])

    @property
    def headline(self) -> str:
        """What came out of it, in short."""
        if self.check is None or self.after is None:
            return self._in_reach
        if not self.check.passed:
            return "failed: " + "; ".join(self.check.problems)
        own, quality = wording.measure(self.check), wording.quality(self.check)
        parts = [f"file {less(self.before.file, self.after.file)}"]
        if self.before.macs:
            parts.append(f"MACs {less(self.before.macs, self.after.macs)}")
        for done in self.check.providers:
            if done.speedup is not None and not done.slower:  # a note says that it is
                parts.append(f"{as_fast(done.speedup)} on {done.where}")
        parts = [quality, *parts] if wording.comes_first(self.check) else [*parts, quality] if quality else parts
        parts = [own, *parts] if own else parts
        if self.refinement is not None and self.refinement.kept:
            parts.append(str(self.refinement))
        if self.quantization is not None:
            parts.append(str(self.quantization))
        if self.interface:
            parts.append(f"{len(self.interface)} inputs and outputs have fewer heads")
        return ", ".join(parts)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What else is worth knowing of it."""
        if self.check is None or self.after is None or not self.check.passed:
            return self.notes
        refused = [] if self.refinement is None or self.refinement.kept else [str(self.refinement)]
        said = [*refused, *self.check.notes, *filter(None, [wording.advice(self.check)])]
        return (*said, *self.notes)

    @property
    def _only_quantized(self) -> bool:
        """Whether no channel was asked to go: what is said of groups is of no use then."""
        asked = self.settings.get("budget") == {"ratio": 0}
        return asked and self.quantization is not None and all(g.after == g.before for g in self.groups)

    @property
    def _in_reach(self) -> str:
        """What a fold could do."""
        channels = sum(g.before for g in self.groups)
        text = f"{how_many(len(self.groups), 'group')} with {how_many(channels, 'channel')} can be folded"
        if self.coverage is None:
            return text
        macs = f" and {100 * self.coverage.macs:.0f} % of the MACs" if self.before.macs else ""
        cover = "covers" if len(self.groups) == 1 else "cover"
        return f"{text}, which {cover} {100 * self.coverage.parameters:.0f} % of the parameters{macs}"

    def to_dict(self) -> dict[str, Any]:
        """The whole report as plain values (schema in docs/report.md); infinite and undefined numbers are None."""
        data = {"schema": SCHEMA, **asdict(self), "verdict": self.verdict}
        data["passed"] = None if self.check is None else self.check.passed
        data["mark"] = None if self.check is None else self.check.mark
        return dict(plain(data))

    @property
    def sign(self) -> str:
        """The mark of the verdict, as it is printed; '' where there is none."""
        return "" if self.check is None else render.MARKS[self.check.mark][0]

    def figures(self) -> Rows:
        """Sizes and latencies, before and after."""
        old, new = self.before, self.after
        pairs = (("file", in_bytes), ("parameters", in_units), ("macs", in_units))
        rows = [{"": name.replace("macs", "MACs"), "before": shown(getattr(old, name))} for name, shown in pairs]
        peak = dict(zip(("before", "after", "change"), wording.peak(old, new or old), strict=True))
        if new is None or self.check is None:
            return [*rows, {"": wording.PEAK, "before": peak["before"]}]
        for row, (name, shown) in zip(rows, pairs, strict=True):
            row |= {"after": shown(getattr(new, name)), "change": change(getattr(old, name), getattr(new, name))}
        return [*rows, {"": wording.PEAK, **peak}] + [
            {
                "": f"latency {one.where}", "before": in_ms(one.latency_before_ms),
                "after": in_ms(one.latency_after_ms), "change": f"{one.speedup or 0:.2f} x as fast",
            }
            for one in self.check.providers
            if one.latency_before_ms is not None and one.latency_after_ms is not None
        ]  # fmt: skip

    def records(self) -> Rows:
        """The channel groups. Where there are none (fuse, compare): the layers that share a weight, or else the outputs
        on every provider."""
        if self.groups:
            return [{**asdict(g), "removed": 1 - g.after / g.before if g.before else 0.0} for g in self.groups]
        if self.shared:
            return [asdict(one) for one in self.shared]
        checked = () if self.check is None else self.check.providers
        return [{"provider": one.provider, **asdict(error)} for one in checked for error in one.outputs]

    def details(self) -> Sequence[tuple[str, Rows]]:
        """The groups that shrank (all, where nothing was folded), and the outputs."""
        groups = [g for g in self.groups if self.after is None or g.after < g.before]
        rows = [{"group": g.name, "channels": _width(g), "note": g.note} for g in groups]
        checked = () if self.check is None else self.check.providers
        outputs = [
            {"output": error.name, "relative L2": in_percent(error.relative_l2), "on": one.where}
            for one in checked for error in one.outputs
        ]  # fmt: skip
        what = "groups" if self.after is None else "groups that shrank"
        return [(f"{len(rows)} of {len(self.groups)} {what}", rows), ("outputs", outputs)]

    def plot(self) -> Any:
        """The widths of the groups that shrank the most, before and after; where there are no groups (fuse, compare),
        what remains of the file, the arithmetic and the latency: a chart by Altair. Raises RequestError where the extra
        `report` is missing."""
        extra.require("a chart")
        from .html import charts

        if not self.groups:
            return charts.remaining(self._remaining())
        return charts.widths(
            [{"group": visible(one.name, 60), "before": one.before, "after": one.after} for one in self.groups]
        )

    def _remaining(self) -> Rows:
        """What remains of sizes and latencies, as shares."""
        old, new = self.before, self.after or self.before
        names = {"file": "file", "parameters": "parameters", "macs": "MACs", "peak_memory": wording.PEAK}
        sizes = [(shown, getattr(old, name), getattr(new, name) or 0) for name, shown in names.items()]
        timed = [
            (f"latency {one.where}", one.latency_before_ms or 0.0, one.latency_after_ms or 0.0)
            for one in (() if self.check is None else self.check.providers)
        ]
        return [{"what": name, "remaining": after / before} for name, before, after in (*sizes, *timed) if before]

    def print(self, console: Console | None = None, verbose: bool = False) -> None:
        """Show the tables; None: on standard output."""
        (console or Console()).print(self.render(verbose))

    def render(self, verbose: bool = False) -> RenderableType:
        """The tables as one renderable."""
        check, folded = self.check, self.after is not None
        about_channels = verbose or not self._only_quantized
        parts: list[RenderableType | None] = [
            render.verdict(self.headline, self.remarks, check),
            render.sizes(self.before, self.after, check) if self.after is not None and check is not None else None,
            render.outputs(check) if folded and check is not None else None,
            render.quantization(self.quantization) if self.quantization is not None else None,
            render.shared(self.shared) if self.shared else None,
            render.dropped(self.dropped) if self.dropped else None,
            render.interface(self.interface, verbose) if self.interface else None,
            render.groups(self.groups, folded, verbose) if self.groups and about_channels else None,
            render.Refusals(self.refusals, verbose) if self.refusals and about_channels else None,
        ]
        heading = render.heading(self.model, self.output, None if folded and check is not None else self.before)
        return render.page(heading, [part for part in parts if part is not None])


def _width(group: GroupReport) -> str:
    return f"{group.before} → {group.after}" if group.after < group.before else str(group.before)
