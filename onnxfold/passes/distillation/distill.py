"""The pass that trains a compressed model on the outputs of the original."""

from __future__ import annotations

from ...errors import RequestError
from ...options.choices import Effort
from ...options.parts import DistillOptions
from ...progress import Phase
from ...runtime.session import quickest
from ..base import BasePass, Run, State
from .result import RefinementReport
from .schedule import extent, sample_shapes
from .train import TrainSettings, refine, refined


class Distill(BasePass):
    """Trains the weights of the candidate on the samples, and keeps them where that is better. Leaves a
    `RefinementReport`; does nothing where nothing was folded."""

    name = "refine"
    requires = frozenset(("analysis", "candidate"))
    phases = (Phase.TRAIN,)

    def __init__(self, options: DistillOptions, effort: Effort, seed: int) -> None:
        self._steps, self._effort, self._seed = options.steps, effort, seed

    def check(self, state: State, run: Run) -> None:
        """Refuse a model whose caches may change."""
        if state.subject is not None and state.subject.analysis.caches:
            raise RequestError("`refine` needs caches of the original size: leave out `refine` or `fold_heads`")

    def __call__(self, state: State, run: Run) -> State:
        original, current, samples = state.source, state.current, state.samples
        if not current.shrunk:
            return state
        if samples is None:
            note = "there are no inputs to train on (models that are streamed from disk have none)"
            if self._effort is Effort.FAST:
                note = "`effort='fast'` makes no inputs: pass `calibration` or use `effort='balanced'`"
            return state.adding(RefinementReport(False, float("nan"), float("nan"), 0, (), (), note))
        steps, batch = extent(original, self._effort, sample_shapes(original, samples), self._steps)
        settings = TrainSettings(steps, batch, self._seed, quickest(original, run.providers))
        found = refine(original, current.proto, samples, settings, current.counterparts(), run.progress)
        report = RefinementReport(
            found.improved, found.before, found.after, found.blocks, found.losses, found.errors, found.note
        )
        if not found.improved:
            return state.adding(report)
        return state.adding(report, current=current.becoming(refined(current.proto, found.arrays, original.folder)))
