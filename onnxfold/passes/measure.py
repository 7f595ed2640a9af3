"""The pass that asks the user's own measure what the original is worth, before anything takes long."""

from __future__ import annotations

from ..evaluation.own_measure import own_measure
from ..model.save import on_disk
from ..options.parts import MeasureOptions
from .base import BasePass, Run, State


class MeasureOriginal(BasePass):
    """Measures the original. Leaves an `OwnMeasure`, by which later passes plan and judge."""

    name = "measure"
    requires = frozenset[str]()

    def __init__(self, options: MeasureOptions) -> None:
        self._options = options

    def __call__(self, state: State, run: Run) -> State:
        """Raises RequestError where the measure fails."""
        asked, original = self._options, on_disk(state.source, run.scratch)
        assert asked.metric is not None
        return state.adding(own_measure(asked.metric, original, asked.max_drop, asked.timeout))


def measuring(options: MeasureOptions) -> list[MeasureOriginal]:
    """The pass, where there is something to measure by."""
    return [] if options.metric is None else [MeasureOriginal(options)]
