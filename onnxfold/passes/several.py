"""One model decided for several budgets, one after another: what does not depend on the budget is done once."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import Any

from ..model.model import Source
from ..options.budget import Budget
from ..options.options import FoldOptions
from ..progress import Progress
from .base import Pipeline, Run, State
from .calibrate import CollectSamples
from .fold import FoldChannels, PreparePlanning
from .lists import quantizable, trains
from .measure import measuring
from .prepare import Analyze
from .provenance import bytes_noted, noting
from .reached import KeepUnreached


class Decisions:
    """A model that is analyzed, and prepared for planning when the first budget is decided. Files that this needs go
    with the object."""

    def __init__(self, source: Source, options: FoldOptions, progress: Progress[Any]) -> None:
        """Raises RequestError, ModelError, NothingToFoldError."""
        self.options = options
        self._run = Run(options.runtime, progress).__enter__()
        weakref.finalize(self, self._run.__exit__, None, None, None)
        shapes, most = options.runtime.input_shapes, options.scale.max_memory
        self.analyzed = Pipeline(Analyze(options.selection, most)).run(State.load(source, shapes, most), self._run)
        self._prepared: State | None = None

    def decided(self, budget: Budget) -> State:
        """The state after a fold to `budget`, nothing of it written. Raises as `onnxfold.fold` does."""
        options = replace(self.options, budget=budget)
        kind = None if options.quantize is None else options.quantize.kind
        fold = FoldChannels(options.planning, options.calibration, budget, options.output, kind)
        fold.check(self.analyzed, self._run)  # before samples are made
        ready = self._prepared or self._prepare(options)
        noted = Pipeline(*noting(options), given=("analysis",)).run(ready, self._run)
        assert noted.planner is not None
        noted = noted.adding(planner=noted.planner.beside(bytes_noted(noted)))
        self._prepared = ready.adding(planner=noted.planner)  # with what this budget is going to measure
        return Pipeline(fold, given=("analysis", "planner")).run(noted, self._run)

    def _prepare(self, o: FoldOptions) -> State:
        """Samples and a planner, as `onnxfold.fold` has them."""
        return Pipeline(
            *measuring(o.measure),
            *quantizable(o),
            CollectSamples(o.planning, o.calibration, o.budget, trains(o), o.distill is not None, o.scale.max_memory),
            KeepUnreached(o.planning),
            PreparePlanning(o.planning, replace(o.output, path=None, resume=False), o.scale),
            given=("analysis",),
        ).run(self.analyzed, self._run)
