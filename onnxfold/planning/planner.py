"""From budgets to folded models, for one model: samples if they can be used, else weights alone."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from ..calibration.collect import given_up, without_caches
from ..calibration.samples import Samples
from ..errors import ExecutionError
from ..evaluation.candidates import Evaluator
from ..evaluation.device_latency import CommandTimer
from ..evaluation.latency import Profiler
from ..evaluation.own_measure import OwnMeasure
from ..options.budget import Aim
from ..options.choices import Effort, Recovery
from ..options.parts import PlanningOptions
from ..progress import Progress
from .checkpoint import Checkpoint
from .drops import Drops
from .executor import Executor
from .given_plan import check_kept
from .goal import Goal
from .least import least
from .sampled import Folded, SampledMerger
from .search import Decision, SearchContext, check_reachable, decide, decide_sampled
from .subject import CheckInputs, Subject

_UNSAMPLED = "only samples tell what may go from a residual stream: pass `calibration`"
_UNTOLD = "the samples do not tell which of its channels matter"


@dataclass(frozen=True)
class Workspace:
    """Where a result is going to be written and how, on which provider its latency counts (None: nowhere), who merges
    groups, what is kept for a run that goes on later, the user's `own` measure, how many bytes `beside` the model the
    result is going to hold, and what measures latency on another device (`timer`)."""

    target: Path
    external_data: bool = False
    provider: str | None = None
    executor: Executor = field(default_factory=Executor)
    checkpoint: Checkpoint | None = None
    own: OwnMeasure | None = None
    beside: int = 0
    timer: CommandTimer | None = None


@dataclass(frozen=True)
class Outcome:
    """What was decided for a budget: the `decision`, the samples as they were used (not trusted where the model proved
    not to run piece by piece, with a note), how merges were repaired, and, where a limit lets nothing go, what the
    `least` would cost."""

    decision: Decision
    samples: Samples | None
    recovery: Recovery
    least: str = ""

    @property
    def sampled(self) -> bool:
        """Whether samples decided."""
        return self.samples is not None and self.samples.trusted


class Planner:
    """Decides budgets for `subject`. Sensitivity and error curves are measured once, however many budgets there are.

    `samples` is None, or what samples there are; those that are not trusted only count as none. Nothing here changes
    by being asked: results are remembered, and the same question has the same answer in any order.
    """

    def __init__(
        self,
        subject: Subject,
        options: PlanningOptions,
        samples: Samples | None,
        workspace: Workspace,
        progress: Progress[Any],
    ) -> None:
        self.subject, self.options, self.workspace, self._progress = subject, options, workspace, progress
        self.samples = None if samples is None else without_caches(samples, subject.analysis.caches)
        self.merger = subject.merger(options, workspace.executor, workspace.checkpoint)

    def decide(self, goal: Goal) -> Outcome:
        """What meets `goal`. Raises PlanError where it cannot be met, RequestError where nothing can be measured."""
        outcome = self._decided(goal)
        if outcome.decision.folded.merges or not goal.aim.limits_loss:
            return outcome
        samples = outcome.samples
        sampled = self._from_samples if samples is not None and samples.trusted else None
        found = least(self._context(samples), self.evaluator(samples), sampled, goal, self._chosen(samples))
        if found is None:
            return outcome
        decision = outcome.decision if found.folded is None else Decision(found.folded, None)
        return replace(outcome, decision=decision, least=found.words)

    def _decided(self, goal: Goal) -> Outcome:
        self._check_given(goal)
        samples = self.samples
        if samples is not None and samples.trusted:
            try:
                sampled = self._from_samples
                decision = decide_sampled(self._context(samples), sampled, goal)
                notes = (*sampled.notes, *sampled.notes_on(decision.folded.merges))
                noted = replace(samples, notes=(*samples.notes, *notes))
                return Outcome(decision, noted, self._recovery(samples))
            except ExecutionError as error:
                samples = self._given_up(samples, error)
        recovery = self._recovery(samples)
        decision = decide(self._context(samples), self._from_weights, goal, self.subject.by_weights, recovery)
        return Outcome(decision, samples, recovery)

    def check(self, goal: Goal, sampled: bool) -> None:
        """Raise PlanError for a target that no plan can reach, from widths and prices alone, and RequestError for given
        widths that cannot be. `sampled`: whether there will be samples."""
        self._check_given(goal)
        chosen = self.subject.chosen if sampled else self.subject.by_weights
        check_reachable(self._context(None), goal, chosen, sampled)

    def _chosen(self, samples: Samples | None) -> tuple[str, ...]:
        """The groups that may shrink."""
        return self.subject.chosen if samples is not None and samples.trusted else self.subject.by_weights

    def _check_given(self, goal: Goal) -> None:
        if goal.widths is not None:
            check_kept(goal.widths, self.subject.analysis.groups, self.subject.notes)

    def without(self, samples: Samples) -> Planner:
        """One that has `samples`, which are not trusted, instead of its own."""
        return Planner(self.subject, self.options, samples, self.workspace, self._progress)

    def beside(self, size: int) -> Planner:
        """The same, for results that hold so many bytes beside the model; it knows what was measured so far."""
        made = copy(self)
        made.workspace = replace(self.workspace, beside=size)
        return made

    def evaluator(self, samples: Samples | None) -> Evaluator:
        """Measures errors: on the samples held back, where they are trusted and the model runs piece by piece, or on
        probe inputs."""
        if samples is not None and samples.trusted:
            try:
                return self._from_samples.evaluator
            except ExecutionError:
                return self._from_weights
        return self._from_weights

    def inputs(self, samples: Samples | None) -> CheckInputs:
        """What results are checked on."""
        return CheckInputs.of(samples, self._unsampled, self.subject.more)

    def curves(self, samples: Samples | None) -> Mapping[str, NDArray[np.float64]]:
        """By group, the error curve that a decision with `samples` measured (`SampledMerger.curves`); empty without."""
        return self._from_samples.measured if samples is not None and samples.trusted else {}

    def staying(self, outcome: Outcome) -> Mapping[str, str]:
        """Why groups that were chosen stay all the same, by name: residual streams about which samples say nothing."""
        chosen = self._from_samples.chosen if outcome.sampled else self.subject.by_weights
        return {name: _UNTOLD if outcome.sampled else _UNSAMPLED for name in self.subject.chosen if name not in chosen}

    def nothing_left(self, goal: Goal, outcome: Outcome) -> str:
        """Why a decision for `goal` removed no channel."""
        if goal.widths is not None:
            return f"{goal.widths.named} keeps all channels of all groups: let some keep fewer"
        staying = self.staying(outcome)
        if staying and staying.keys() == set(self.subject.chosen):
            return next(iter(staying.values()))
        moving = [name for name in self.subject.chosen if name not in staying]
        widest = max((width.size for width in self.merger.layout.widths(moving)), default=0)
        if goal.aim.limits_loss or goal.aim is Aim.DROP:
            reason = f"no group can shrink within {goal.asked}"
            unrepaired = self.options.effort is Effort.FAST and outcome.samples is None and not self.subject.streamed
            more = "; `calibration` or `effort='balanced'` repair what is merged, so that it costs less" * unrepaired
            return f"{reason}: {outcome.least or 'allow more, for example `ratio=0.1`'}{more}"
        return (
            f"this budget removes nothing: the widest group has {widest} channels, kept widths are multiples of "
            f"{goal.rounded}"
        )

    def settings(self, outcome: Outcome) -> dict[str, Any]:
        """How decisions were made, for the report."""
        selection, samples = self.options.selection, outcome.samples
        return {
            "effort": self.options.effort.value, "samples": None if samples is None else samples.described,
            "samples_match": None if samples is None else samples.match, "samples_used": outcome.sampled,
            "method": selection.method.value, "recovery": outcome.recovery.value,
            "clusterer": selection.clusterer.value, "round_to": selection.round_to, "seed": self.options.runtime.seed,
            "include": list(selection.include), "exclude": list(selection.exclude),
            "fold_heads": self.subject.fold_heads, "fold_residual": self.subject.fold_residual,
            "device": None if selection.device is None else selection.device.value,
        }  # fmt: skip

    def _recovery(self, samples: Samples | None) -> Recovery:
        """How merges are repaired."""
        if self.options.recovery is not Recovery.AUTO:
            return self.options.recovery
        return Recovery.LEAST_SQUARES if samples is not None and samples.trusted else Recovery.CLOSED_FORM

    def _given_up(self, samples: Samples, error: ExecutionError) -> Samples:
        return given_up(samples, error, self.options.selection.method, self.options.recovery)

    def _context(self, samples: Samples | None) -> SearchContext:
        profiler = self._profilers[samples is not None and samples.trusted]
        beside = self.workspace.beside
        return SearchContext(self.merger, self.subject.prices, profiler, self._progress, self.drops, beside)

    @property
    def drops(self) -> Drops | None:
        """What measures folds by the user's own measure, if there is one."""
        own = self.workspace.own
        return None if own is None else Drops(own, self.subject.model, self._progress)

    def dropped(self, proto: ModelProto) -> float:
        """By how much the user's own measure falls for a version of the model."""
        assert self.drops is not None
        return self.drops.measured(Folded(proto, {})).drop

    @cached_property
    def _profilers(self) -> dict[bool, Profiler]:
        """By whether samples decide. Nothing runs before they are asked."""
        place = self.workspace
        return {
            sampled: Profiler(
                self.subject.model, place.target, place.external_data, place.provider,
                self.inputs(self.samples if sampled else None).single, place.timer,
            )
            for sampled in (False, True)
        }  # fmt: skip

    @cached_property
    def _from_samples(self) -> SampledMerger:
        assert self.samples is not None
        method = self.options.selection.method
        recovery = self._recovery(self.samples)
        return SampledMerger.of(self.merger, self.samples, self.subject.chosen, method, recovery, self._progress)

    @cached_property
    def _from_weights(self) -> Evaluator:
        subject = self.subject
        return Evaluator(subject.model, self.inputs(None).several, not subject.streamed, subject.analysis.caches)

    @cached_property
    def _unsampled(self) -> CheckInputs:
        return self.subject.checks(self.options)
