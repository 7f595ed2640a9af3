"""The passes that decide how much of which channel group goes, and merge or drop the channels."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..analysis.groups import ChannelGroup
from ..errors import NothingToFoldError
from ..evaluation.own_measure import OwnMeasure
from ..folding.merge import Merge
from ..options.budget import Budget
from ..options.choices import Quantization
from ..options.parts import CalibrationOptions, OutputOptions, PlanningOptions, ScaleOptions
from ..planning.allocation import round_width, special_ratios
from ..planning.checkpoint import Checkpoint, checkpoint, key_of
from ..planning.executor import Executor
from ..planning.goal import Goal
from ..planning.memory import check_memory
from ..planning.planner import Outcome, Planner, Workspace
from ..progress import Phase
from ..recovery.reconstruct import Refitted
from .base import BasePass, Candidate, Run, State
from .distillation.block_targets import Counterparts
from .distillation.channel_maps import maps_of
from .provenance import bytes_noted
from .quantization.quantize import narrowed

NOWHERE, SMALL = OutputOptions(), ScaleOptions()
Curve = tuple[tuple[int, float], ...]  # widths, and the relative error of the outputs that each was expected to make
_log = logging.getLogger(__name__)
_POINTS = 24  # of a curve


@dataclass(frozen=True, eq=False)
class GroupOutcome:
    """What became of a group: channels `after`, how many `clusters` of several channels were merged, with which
    relative `error`; `note`: why it stays as it is; `curve`: what other widths were expected to cost, where that was
    measured."""

    group: ChannelGroup = field(repr=False)
    after: int
    clusters: int = 0
    error: float = 0.0
    note: str = ""
    curve: Curve = ()


@dataclass(frozen=True, eq=False)
class FoldRecord:
    """What `FoldChannels` did: the `merges` and outcomes of `groups`, axis `lengths` that changed, the uniform `ratio`
    behind it if there is one, the consumers that were `refitted`, and how decisions were made (`settings`).

    `left`: why nothing went, where nothing did.
    """

    merges: Mapping[str, Merge] = field(repr=False)
    groups: tuple[GroupOutcome, ...]
    lengths: Mapping[tuple[str, int], int] = field(repr=False)
    ratio: float | None
    refitted: tuple[Refitted, ...]
    settings: Mapping[str, Any]
    left: str = ""


class PreparePlanning(BasePass):
    """Makes the planner, with a checkpoint where a run is to be continued or a model is streamed."""

    name = "fold"
    requires = frozenset(("analysis", "samples"))
    provides = frozenset(("planner",))

    def __init__(self, planning: PlanningOptions, output: OutputOptions = NOWHERE, scale: ScaleOptions = SMALL) -> None:
        self._planning, self._output, self._scale = planning, output, scale
        self._executor = Executor(scale.jobs, scale.scheduler)

    def check(self, state: State, run: Run) -> None:
        """Refuse too little memory, and a cluster that does not answer."""
        subject, jobs = state.known, 1 if self._executor.away else self._scale.jobs
        if subject.streamed:
            check_memory(subject.model, subject.analysis, subject.chosen, jobs, self._scale.max_memory)
        self._executor.check()

    def __call__(self, state: State, run: Run) -> State:
        target = run.target(self._output.path)
        place = Workspace(
            target, self._output.external_data, next(iter(run.providers), None), self._executor,
            self._checkpoint(state, run, target), state.found(OwnMeasure), bytes_noted(state), run.timer,
        )  # fmt: skip
        return state.adding(planner=Planner(state.known, self._planning, state.samples, place, run.progress))

    def _checkpoint(self, state: State, run: Run, target: Path) -> Checkpoint | None:
        subject, selection = state.known, self._planning.selection
        if self._output.path is None or not (self._output.resume or subject.streamed):
            return None
        how = (
            selection.method, self._planning.recovery, selection.clusterer, self._planning.runtime.seed,
            subject.streamed, selection.fold_heads, selection.fold_residual,
        )  # fmt: skip
        return run.enter(checkpoint(target, key_of(subject.model, *how), self._output.resume))


class FoldChannels(BasePass):
    """Folds channels until a budget is met. Leaves a `FoldRecord`."""

    name = "fold"
    requires = frozenset(("planner",))
    provides = frozenset(("candidate",))
    phases = (Phase.SENSITIVITY, Phase.PLAN, Phase.RECONSTRUCT)

    def __init__(
        self,
        planning: PlanningOptions,
        calibration: CalibrationOptions,
        budget: Budget,
        output: OutputOptions = NOWHERE,
        quantized: Quantization | None = None,
        plans: int | None = None,
    ) -> None:
        """`quantized`: fewer bits follow, and a budget of quality holds for both together. `plans`: at most so many
        are tried (None: as many as are worth it)."""
        self._planning, self._calibration, self._output = planning, calibration, output
        self._goal, self._quantized = replace(Goal.of(budget, planning.selection), plans=plans), quantized

    def check(self, state: State, run: Run) -> None:
        """Refuse a target that no plan can reach, and ratios for groups that there are not."""
        special_ratios(state.known.analysis.groups, self._goal)
        place = Workspace(run.target(self._output.path), self._output.external_data)
        Planner(state.known, self._planning, None, place, run.progress).check(self._goal, self._calibration.sampled)

    def __call__(self, state: State, run: Run) -> State:
        """Raises PlanError for a budget that cannot be met, and NothingToFoldError where it removes nothing, unless
        fewer bits follow."""
        planner, subject, goal = state.planner, state.known, self._goal
        assert planner is not None
        if self._quantized is not None:
            samples = planner.samples
            value = narrowed(
                goal.aim, goal.value, planner.evaluator(samples), subject.model, samples, planner.dropped,
                self._quantized,
            )  # fmt: skip
            goal = replace(goal, value=value, quantized=True)
        outcome = planner.decide(goal)
        folded = outcome.decision.folded
        _log.info("%s: %d of %d groups shrink", goal.asked, len(folded.merges), len(subject.chosen))
        for name, merge in folded.merges.items():
            _log.debug("group %s: %d of %d channels stay", name, merge.after, merge.before)
        left = "" if folded.merges else planner.nothing_left(self._goal, outcome)
        if left and self._quantized is None:
            raise NothingToFoldError(left)
        left = "" if self._goal.idle else left
        record = FoldRecord(
            folded.merges, self._groups(planner, folded.merges, outcome),
            planner.merger.layout.lengths({name: merge.after for name, merge in folded.merges.items()}),
            outcome.decision.ratio, folded.refitted, planner.settings(outcome), left,
        )  # fmt: skip
        maps = partial(maps_of, subject.analysis, folded.merges)
        current = Candidate(folded.proto, folded.pending, lambda: Counterparts(maps()), bool(folded.merges))
        return state.adding(
            record, current=current, samples=outcome.samples, inputs=planner.inputs(outcome.samples)
        )  # fmt: skip

    def _groups(self, planner: Planner, merges: Mapping[str, Merge], outcome: Outcome) -> tuple[GroupOutcome, ...]:
        out, round_to, curves = [], self._goal.round_to, planner.curves(outcome.samples)
        notes = {**planner.subject.notes, **planner.staying(outcome)}
        for group in planner.subject.analysis.groups:
            merge, curve = merges.get(group.name), _points(curves.get(group.name))
            if merge is None:
                note = notes.get(group.name, self._kept)
                width = planner.merger.layout.widths([group.name], self._goal)[0]
                narrow = self._goal.widths is None and round_width(width, 0, round_to) == group.size
                if group.name not in notes and narrow and not self._goal.idle:
                    note = f"too narrow for {self._goal.rounded}"
                out.append(GroupOutcome(group, group.size, note=note, curve=curve))
            else:
                merged = int((np.bincount(merge.labels[merge.labels >= 0]) > 1).sum())
                error = planner.merger.relative_error(group.name, merge)
                out.append(GroupOutcome(group, merge.after, merged, error, curve=curve))
        return tuple(out)

    @property
    def _kept(self) -> str:
        """Why groups that could shrink do not."""
        if self._goal.idle:
            return "no channels were to go"
        return "kept by the budget" if self._goal.widths is None else "kept by the plan"


def _points(curve: NDArray[np.float64] | None) -> Curve:
    """Some points of an error curve [n + 1], which holds squares, the narrowest width first; widths that cannot be are
    left out."""
    if curve is None:
        return ()
    there = np.flatnonzero(np.isfinite(curve) & (np.arange(len(curve)) > 0))
    chosen = there[np.unique(np.linspace(0, len(there) - 1, _POINTS).astype(int))] if len(there) else there
    return tuple((int(k), float(f"{max(0.0, curve[k]) ** 0.5:.5g}")) for k in chosen)
