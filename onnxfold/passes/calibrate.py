"""Where the inputs come from that a run decides and repairs with."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from ..calibration.collect import Making, collect_samples, keep_samples, refuse_samples
from ..evaluation.own_measure import OwnMeasure
from ..options.budget import Aim, Budget
from ..options.parts import CalibrationOptions, DistillOptions, PlanningOptions
from ..planning.goal import Goal
from ..planning.time_estimate import Estimate, Work, estimate, estimate_streamed
from ..progress import Phase, expected
from .base import BasePass, Run, State
from .distillation.schedule import extent

_log = logging.getLogger(__name__)


class AnnounceTime(BasePass):
    """Says how long the run may take, before it takes long. Leaves an `Estimate`."""

    name = "samples"

    def __init__(
        self,
        planning: PlanningOptions,
        calibration: CalibrationOptions,
        budget: Budget | None = None,
        announce: Callable[[str], None] | None = None,
        distill: DistillOptions | None = None,
        more: str = "",
        work: Work | None = None,
    ) -> None:
        """`budget`: None for several. `announce` is told the estimate in words, with what comes `more`; None tells
        nobody. `work`: what is made, where that is several models."""
        self._planning, self._calibration, self._budget, self._work = planning, calibration, budget, work
        self._announce, self._distill, self._more = announce, distill, more

    def __call__(self, state: State, run: Run) -> State:
        found = self._estimate(state)
        if found is None:
            return state
        if (own := state.found(OwnMeasure)) is not None:
            found = found.with_metric(own.seconds, self._budget is not None and self._budget.aim is Aim.DROP)
        if self._announce is not None and found.worth_saying:
            self._announce(f"{found}{self._more}")
        expected(run.progress, found.of_models(self._work), found.loops)
        return state.adding(found)

    def _estimate(self, state: State) -> Estimate | None:
        subject = state.known
        if subject.streamed:
            return estimate_streamed(subject, Goal.of(self._budget or Budget.of(), self._planning.selection))
        effort, shapes = self._planning.effort, subject.shapes
        refining = extent(subject.model, effort, shapes, self._distill.steps) if self._distill is not None else None
        own = 0 if self._calibration.data is None else self._calibration.samples
        measured = self._budget is None or self._budget.aim not in (Aim.RATIO, Aim.PLAN)
        tried = self._budget is None or self._budget.aim in (Aim.MACS, Aim.PARAMS)
        searched = self._budget is not None and self._budget.aim.limits_loss
        return estimate(subject, self._planning, own, measured, refining, tried, searched)


class CollectSamples(BasePass):
    """Reads the user's inputs, or makes synthetic ones, where the options want any."""

    name = "samples"
    provides = frozenset(("samples",))
    phases = (Phase.INPUTS,)

    def __init__(
        self,
        planning: PlanningOptions,
        calibration: CalibrationOptions,
        budget: Budget | None = None,
        training: bool = False,
        refining: bool = False,
        max_memory: int | None = None,
    ) -> None:
        """`training`: whether weights are trained, or ranges measured, on the samples; `refining`: the first of it;
        `max_memory`: bytes that the user's inputs may take, None: half of the machine's memory."""
        self._planning, self._calibration, self._budget = planning, calibration, budget
        self._training, self._refining, self._max_memory = training, refining, max_memory

    def check(self, state: State, run: Run) -> None:
        """A model that is too large to run has no use for samples."""
        if self._budget is not None and state.subject is not None and state.subject.streamed:
            planning, budget = self._planning, self._budget
            refuse_samples(
                self._calibration.data, planning.selection.method, planning.recovery, budget.aim, self._refining
            )

    def __call__(self, state: State, run: Run) -> State:
        """Raises RequestError for samples that do not fit the model, or that are asked for and cannot be had."""
        samples = None
        if state.subject is None or not state.subject.streamed:
            making = Making(run.progress, run.providers, state.shapes)
            samples = collect_samples(
                state.source, self._calibration, self._planning, making, self._training, self._max_memory
            )
        if self._calibration.save_synthetic is not None:
            keep_samples(samples, self._calibration.data, Path(self._calibration.save_synthetic))
        if samples is None:
            _log.info("no samples: weights alone decide")
        else:
            _log.info("samples: %s%s", samples.described, "" if samples.trusted else ", which decide nothing")
        return state.adding(samples=samples)
