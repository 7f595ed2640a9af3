"""Folds judged by the user's own measure: it may take minutes, so few are measured, as files like any other model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import PlanError
from ..evaluation.own_measure import Measured, OwnMeasure
from ..model.leftovers import scratch_folder
from ..model.model import Model
from ..model.save import staged
from ..progress import Progress
from .goal import Goal
from .sampled import Folded

MEASURED = 8  # folds at most


@dataclass(frozen=True, eq=False)
class Drops:
    """What the user's `own` measure says of folds of a `model`."""

    own: OwnMeasure
    model: Model = field(repr=False)
    progress: Progress[Any]

    def measured(self, folded: Folded, max_drop: float | None = None) -> Measured:
        """What it says of a fold. Raises RequestError where it fails."""
        target, pending = "candidate.onnx", folded.pending
        with scratch_folder() as folder, staged(folded.proto, self.model, folder / target, pending=pending) as written:
            return replace(self.own, max_drop=max_drop).of(written.path)

    def smallest(self, count: int, fold: Callable[[int], Folded], goal: Goal) -> Folded:
        """The furthest of the folds 1 to `count`, each of which removes more than the one before, that keeps `goal`.

        `MEASURED` of them are measured at most, by halves, and the first before all others are given up. Raises
        PlanError where none of them keeps it, unless INT8 follows, which has something to do without.
        """
        best, low, high, seen = Folded(self.model.proto, {}), 0, count, list[Measured]()
        for left in self.progress("measuring folds", list(range(MEASURED, 0, -1))):
            if low >= high:
                break
            at = 1 if left == 1 and not low else (low + high + 1) // 2
            made = fold(at)
            seen.append(self.measured(made, goal.value))
            if seen[-1].kept:
                best, low = made, at
            else:
                high = at - 1
        if seen and not low and not goal.quantized:
            raise _out_of_reach(goal, seen)
        return best


def _out_of_reach(goal: Goal, seen: list[Measured]) -> PlanError:
    least = min(seen, key=lambda one: one.drop)
    folds = "the only fold that was measured" if len(seen) == 1 else f"the best of {len(seen)} folds that were measured"
    return PlanError(
        f"{goal.asked} cannot be kept: {folds} drops by {least.drop:.3g} ({least}). Allow more, or pass `calibration` "
        "with real inputs, which usually lose less"
    )
