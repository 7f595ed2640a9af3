"""Choosing and repairing with samples: what every group costs, which channels go, and the reconstructed model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from ..analysis.costs import Costs
from ..analysis.rotation import streams
from ..calibration.samples import Samples, sample_count
from ..evaluation.candidates import Evaluator
from ..folding.merge import Merge
from ..model.tensors import Pending
from ..options.choices import Method, Recovery
from ..progress import Progress
from ..recovery.reconstruct import Changes, ReconstructionSettings, Refitted, reconstruct
from ..runtime.session import Feeds
from ..runtime.shared_prefix import SharedPrefix
from .allocation import Width
from .error_curves import ErrorCurves
from .merge_choice import MergeChoice
from .merger import Merger
from .plan_choice import TRIAL_SAMPLES, TRIAL_SHARE, tries
from .residual import Narrowing, narrowings, tried_width
from .sensitivity import RIDGE, RIDGE_OUT_OF_DOMAIN, Sensitivity, measure_sensitivity
from .single_folds import ROWS, SingleFolds
from .subject import reference_of


@dataclass(frozen=True, eq=False)
class Folded:
    """A folded model with its merges, by group, what was refitted, and the values that are `pending`, by tensor."""

    proto: ModelProto = field(repr=False)
    merges: Mapping[str, Merge]
    refitted: tuple[Refitted, ...] = ()
    pending: Mapping[str, Pending] = field(default_factory=dict, repr=False)


class SampledMerger:
    """One model, the groups `chosen`, samples, and the result of a sensitivity analysis. Made by `of`.

    `evaluator` measures errors on the samples held back. `notes`: what the user should know about groups
    that the samples could not decide. `choosing`: whether `finish` may compare ways to merge.
    """

    def __init__(
        self, choice: MergeChoice, samples: Samples, chosen: Sequence[str], choosing: bool, notes: Sequence[str],
        progress: Progress[Any],
    ) -> None:  # fmt: skip
        self.merger, self.samples, self.chosen, self.notes = choice.merger, samples, tuple(chosen), tuple(notes)
        caches = self.merger.analysis.caches
        found = reference_of(samples)
        self.evaluator = Evaluator(self.merger.model, lambda _: samples.check, caches=caches, reference=found)
        self._choice, self._choosing, self._progress = choice, choosing, progress
        self._folds = SingleFolds(self.merger, choice.recovery, samples.fit)
        self._measuring = ErrorCurves(choice, self._folds)
        self._tried = dict[tuple[tuple[str, int], ...], float]()
        self._finished: tuple[tuple[tuple[tuple[str, int], ...], bool], Folded] | None = None
        self._curves = dict[tuple[tuple[Width, ...], int], dict[str, NDArray[np.float64]]]()

    @classmethod
    def of(
        cls,
        merger: Merger,
        samples: Samples,
        chosen: Sequence[str],
        method: Method,
        recovery: Recovery,
        progress: Progress[Any],
    ) -> SampledMerger:
        """Run the sensitivity analysis of the original, where `method` goes by one. Raises what onnxruntime raises for
        a model that does not run piece by piece."""
        automatic = method is Method.AUTO and samples.faithful
        # on synthetic inputs it gains nothing (ResNet-20, see docs/experiments.md) and takes four times as long
        choosing = automatic and samples.own and recovery is Recovery.LEAST_SQUARES
        found, notes = Sensitivity({}, {}), list[str]()
        if automatic or method.needs_samples:
            found = measure_sensitivity(
                merger.model, merger.analysis, chosen, samples.fit, remember=choosing, progress=progress,
                ridge=RIDGE_OUT_OF_DOMAIN if samples.out_of_domain else RIDGE,
            )  # fmt: skip
            notes = _notes(found, [name for name in chosen if merger.layout.is_read_by_recurrent(name)])
        choice = MergeChoice(merger, found, method, recovery)
        streams, stays = _narrowed(choice, samples, chosen)
        left = [name for name in chosen if name not in stays]
        notes += stays.values()
        return cls(replace(choice, streams=streams), samples, left, choosing, notes, progress)

    def merge(self, name: str, keep: int) -> Merge:
        """The merge of group `name` to `keep` channels by the method asked for, nothing refitted, nothing measured."""
        return self._choice.merge(name, keep)

    def trial(self, keep: Mapping[str, int]) -> float:
        """The error of the outputs under the plan `keep`, repaired on some of the samples and measured on the others
        (a single batch serves for both). It is remembered, for other budgets."""
        key = tuple(sorted(keep.items()))
        if key not in self._tried:
            self._tried[key] = self._trial(keep)
        return self._tried[key]

    def _trial(self, keep: Mapping[str, int]) -> float:
        merges = {name: self._choice.repaired(name, k) for name, k in keep.items()}
        proto, level = self.merger.emit(merges), self._choice.recovery
        if level in (Recovery.LEAST_SQUARES, Recovery.STATISTICS):
            settings = ReconstructionSettings(level, rows=ROWS)
            reconstruct(self._trial_prefix, self.merger.analysis, Changes(merges), proto, settings)
        return self._trial_evaluator.distance(proto)

    def tries(self, prices: Costs, most: int | None = None) -> int:
        """How many plans are worth trying, `most` at most (None: any number); one where the samples do not tell which
        channels matter (an MLP at 60 % of its MACs lost 0.9 points by the first plan, and 1.4 by the one that did best
        on classes that were spread)."""
        fitting, measuring = self._dealt
        if not self.samples.faithful:
            return 1
        fits = self.merger.layout.fit_work(self.chosen, ROWS)
        found = tries(self.merger.model, prices, sample_count(fitting), sample_count(measuring), fits)
        return found if most is None else min(found, most)

    @cached_property
    def _dealt(self) -> tuple[tuple[Feeds, ...], tuple[Feeds, ...]]:
        """Batches to fit a trial on, a quarter of all or as many as it takes, and those to measure it on."""
        fit = self.samples.fit
        if len(fit) == 1:
            return fit, fit
        enough = next((n for n in range(1, len(fit)) if sample_count(fit[:n]) >= TRIAL_SAMPLES), len(fit) - 1)
        at = max(enough, len(fit) // TRIAL_SHARE)
        return fit[:at], fit[at:]

    @cached_property
    def _trial_prefix(self) -> SharedPrefix:
        return SharedPrefix(self.merger.model, self._dealt[0])

    @cached_property
    def _trial_evaluator(self) -> Evaluator:
        return Evaluator(self.merger.model, lambda _: self._dealt[1], caches=self.merger.analysis.caches)

    def finish(self, keep: Mapping[str, int], choose: bool = False) -> Folded:
        """The model under the plan `keep`, repaired; `choose` takes time to measure choices. The samples held back stay
        unseen, to judge it. The last one is remembered: plans in floats and for fewer bits are often the same."""
        key = tuple(keep.items()), choose
        if self._finished is None or self._finished[0] != key:
            self._finished = key, self._finish(keep, choose)
        return self._finished[1]

    def _finish(self, keep: Mapping[str, int], choose: bool) -> Folded:
        merges = {name: self._choice.repaired(name, k) for name, k in keep.items()}
        if choose and self._choosing:
            merges |= self._choice.measured(keep, self._folds, self._progress)
        merger, level = self.merger, self._choice.recovery
        proto = merger.emit(merges)
        if level not in (Recovery.LEAST_SQUARES, Recovery.STATISTICS):
            return Folded(proto, merges)
        original, settings = SharedPrefix(merger.model, self.samples.fit), ReconstructionSettings(level)
        done = reconstruct(original, merger.analysis, Changes(merges), proto, settings, self._progress)
        return Folded(proto, merges, done)

    def notes_on(self, merges: Mapping[str, Merge]) -> list[str]:
        """How residual streams became narrower, for people."""
        found = streams(self.merger.model, self.merger.analysis)
        notes = []
        for name in self.streams.intersection(merges):
            obstacle = found[name].obstacle()
            why = f" (its basis cannot change: {obstacle})" if obstacle else ""
            notes.append(f"of the residual stream '{name}' {self._choice.streams[name].words}{why}")
        return sorted(notes)

    @property
    def streams(self) -> frozenset[str]:
        """The residual streams under norms among the groups."""
        return frozenset(self._choice.streams)

    @property
    def measured(self) -> Mapping[str, NDArray[np.float64]]:
        """The curves that were measured last; empty where no budget asked for any."""
        return list(self._curves.values())[-1] if self._curves else {}

    def curves(self, widths: Sequence[Width], round_to: int) -> dict[str, NDArray[np.float64]]:
        """By group, the squared relative error of the outputs that k channels are expected to leave, at index k: see
        `ErrorCurves.measure`. Once measured they are kept, for other budgets."""
        key = (tuple(widths), round_to)
        if key not in self._curves:
            self._curves[key] = self._measuring.measure(widths, round_to, self._progress)
        return self._curves[key]


def _narrowed(
    choice: MergeChoice, samples: Samples, chosen: Sequence[str]
) -> tuple[dict[str, Narrowing], dict[str, str]]:
    """How residual streams under norms are folded: of two ways the one that leaves less error where a stream alone is
    folded. And why others stay, by name."""
    merger = choice.merger
    found = {n: one for n, one in streams(merger.model, merger.analysis).items() if n in chosen}
    if not found:
        return {}, {}
    folds = SingleFolds(merger, choice.recovery, samples.fit)
    best, notes = dict[str, Narrowing](), dict[str, str]()
    for name, ways in narrowings(found, choice.sensitivity.eliminations, samples.fit).items():
        if not ways:
            notes[name] = f"the residual stream '{name}' stays: the samples do not tell which of its channels matter"
            continue
        keep = tried_width(found[name].group.size)
        errors = [folds.error(name, way.merge(keep), few=True) for way in ways] if len(ways) > 1 else [0.0]
        best[name] = ways[int(np.argmin(errors))]
    return best, notes


def _notes(found: Sensitivity, recurrent: Sequence[str]) -> list[str]:
    """What the user should know about groups that the samples could not decide; `recurrent`: those that an LSTM, GRU or
    RNN reads."""
    why = "was ranked by its weights: its consumers see NaN or infinity on the samples"
    blind = "was ranked by its weights: a recurrent layer reads it"
    known = {*found.eliminations, *found.broken}
    return [
        *(f"group '{name}' {why}" for name in found.broken),
        *(f"group '{name}' {blind}" for name in recurrent if name not in known),
    ]
