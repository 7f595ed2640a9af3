"""A model up to where budgets are decided, as `onnxfold.fold` prepares it: for benchmarks that decide several budgets
on one sensitivity analysis, or look at the folded model before it is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onnxfold.analysis.result import Analysis
from onnxfold.calibration.samples import Samples
from onnxfold.model.model import Model
from onnxfold.options.budget import Budget
from onnxfold.options.options import FoldOptions
from onnxfold.passes.base import Pipeline, Run, State
from onnxfold.passes.calibrate import CollectSamples
from onnxfold.passes.fold import PreparePlanning
from onnxfold.passes.prepare import Analyze
from onnxfold.planning.goal import Goal
from onnxfold.planning.sampled import Folded
from onnxfold.progress import Progress, silent


class Planned:
    """A model that was analyzed, its samples, and what decides budgets for it."""

    def __init__(self, state: State, options: FoldOptions) -> None:
        assert state.planner is not None
        self._planner, self._options = state.planner, options
        self.model: Model = state.source
        self.analysis: Analysis = state.known.analysis
        self.samples: Samples | None = state.samples

    def decide(self, budget: Budget) -> Folded:
        """The model folded to a budget."""
        return self._planner.decide(Goal.of(budget, self._options.selection)).decision.folded

    def macs(self, folded: Folded) -> float:
        """The share of the MACs that remains."""
        prices = self._planner.subject.prices
        lengths = self._planner.merger.layout.lengths({name: merge.after for name, merge in folded.merges.items()})
        return prices.macs(lengths) / prices.macs({})


@contextmanager
def planned(model: Path, progress: Progress[Any] = silent, training: bool = False, **given: Any) -> Iterator[Planned]:
    """Prepare a model with keywords of `onnxfold.fold`; `training`: samples are made also where only that asks for
    some."""
    o = FoldOptions.of(**given)
    with Run(o.runtime, progress) as run:
        passes = (
            Analyze(o.selection),
            CollectSamples(o.planning, o.calibration, training=training),
            PreparePlanning(o.planning),
        )
        yield Planned(Pipeline(*passes).run(State.load(model, o.runtime.input_shapes), run), o)
