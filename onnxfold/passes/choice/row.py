"""One chain as it was measured, or why it was not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...analysis.costs import Size
from ...evaluation.own_measure import Measured
from ...evaluation.quality import Mark
from ...evaluation.verdict import Check, Status
from ..base import State
from ..sweep import Timing
from .chain import Chain
from .front import VISIBLE, Point

_ROUNDING = 1e-9


@dataclass(frozen=True)
class ChoiceRow:
    """A chain, and what came of it: as in `SweepRow`. `skipped`: why it was not measured, where that was decided."""

    chain: Chain
    size: Size | None = None
    error: float | None = None
    agreement: float | None = None
    timings: tuple[Timing, ...] = ()
    problems: tuple[str, ...] = ()
    note: str = ""
    measure: Measured | None = None
    mark: Mark | None = None
    skipped: str = ""

    @property
    def usable(self) -> bool:
        """Whether there is a model that passed its checks, with an error that is a number."""
        return self.size is not None and not self.problems and self.error is not None and math.isfinite(self.error)

    @property
    def latency(self) -> float | None:
        """Latency over that of the original, on the first provider that was timed; None where nothing was."""
        return next((t.share for t in self.timings if t.status is Status.OK and t.share is not None), None)

    def point(self, before: Size) -> Point:
        """Where it lies beside the original, of which `before` is the size. Only of a usable row."""
        assert self.size is not None and self.error is not None
        latency = 1.0 if self.latency is None else self.latency
        size = self.size.file / max(1, before.file)
        if self.measure is not None:
            drop = self.measure.drop
            return Point(size, latency, self.error, drop, drop > _ROUNDING * max(1.0, abs(self.measure.before)))
        return Point(size, latency, self.error, self.error, self.error > VISIBLE)


def row_of(chain: Chain, done: State, size: Size) -> ChoiceRow:
    """The row of a state that a chain left, whose model has this size."""
    verdict = done.done(Check)
    quality = verdict.quality
    return ChoiceRow(
        chain, size, None if quality is None else quality.error, None if quality is None else quality.agreement,
        tuple(Timing.of(one) for one in verdict.providers), verdict.problems, "; ".join(verdict.notes),
        verdict.measure, verdict.mark,
    )  # fmt: skip


def original_row(before: Size, rows: Sequence[ChoiceRow]) -> ChoiceRow:
    """The model as it is, beside the others."""
    known = next((row.measure for row in rows if row.measure is not None), None)
    measure = None if known is None else Measured(known.metric, known.before, known.before, 0.0, known.max_drop)
    classes = any(row.agreement is not None for row in rows)
    timed = next((t for row in rows for t in row.timings if t.status is Status.OK and t.share is not None), None)
    timings = () if timed is None else (replace(timed, latency_after_ms=timed.latency_before_ms),)
    return ChoiceRow(Chain(), before, 0.0, 1.0 if classes else None, timings, measure=measure)
