"""From a plan to a smaller model: cluster, merge, recover and emit every group. No policy, no measuring."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from ..analysis.result import Analysis
from ..folding.gram import Gram
from ..folding.kmeans import Assignment, ClusterSettings, cluster
from ..folding.merge import Merge
from ..model.model import Model
from ..model.tensors import Pending
from ..options.choices import Method
from ..progress import Progress
from ..recovery.closed_form import fold_ar, variance_correction
from ..transform.edits import edits
from ..transform.emit import emit
from .checkpoint import Checkpoint
from .executor import Executor
from .group_layout import GroupLayout
from .merge_task import MergeOutcome, MergeTask, run
from .weight_features import WeightFeatures


class Merger:
    """One model and one method. Outcomes depend on weights and settings alone and are remembered, so that several plans
    can be tried. `layout` describes the groups.

    `streamed`: Gram matrices are not remembered, and new values of weights outside the model's file are computed when
    they are written. Then what is in memory depends on the widest group, not on the model.
    """

    def __init__(
        self,
        model: Model,
        analysis: Analysis,
        method: Method = Method.FOLD,
        clustering: ClusterSettings | None = None,
        executor: Executor | None = None,
        streamed: bool = False,
        kept: Checkpoint | None = None,
    ) -> None:
        self.model, self.analysis, self.method, self.streamed = model, analysis, method, streamed
        self.layout = GroupLayout.of(model, analysis)
        self._clustering = clustering or ClusterSettings()
        self._features = WeightFeatures(self.layout, self._clustering.threads, forget_grams=streamed)
        self._executor, self._kept = executor or Executor(), kept
        self._outcomes = dict[tuple[str, int, bool], MergeOutcome]()  # by group, width, and whether it is repaired

    def prepare(self, keep: Mapping[str, int], repair: bool, progress: Progress[Any]) -> None:
        """Merge the groups of a plan, as tasks that may run side by side; `repair` their merges as `recovered` does.

        What an earlier run has kept is not done again."""
        open_ = [key for key in keep.items() if not self._known(*key, repair) and not self._resumed(*key, repair)]
        away = self._executor.away
        grams = (None if away else self._features.known_gram(name) for name, _ in open_)
        tasks = (self._task(name, k, repair, gram) for (name, k), gram in zip(open_, grams, strict=True))
        with closing(self._executor.each(run, tasks)) as done:
            for _ in progress("merging groups", open_):
                number, outcome = next(done)
                self._outcomes[(*open_[number], repair)] = outcome
                if self._kept is not None:
                    self._kept.put(*open_[number], repair, outcome)

    def merge(self, name: str, keep: int) -> Merge:
        """The merge of group `name` to `keep` channels, before any recovery."""
        return self._outcome(name, keep, repair=False).merge()

    def recovered(self, name: str, keep: int, fused: bool = True) -> Merge:
        """The merge by weights with closed-form recovery, see `repair`."""
        if fused and self.streamed:  # tasks leave that correction out, and keep less in memory
            return self.repair(name, self.merge(name, keep))
        return self._outcome(name, keep, repair=True).repaired(fused)

    def repair(self, name: str, merge: Merge, fused: bool = True) -> Merge:
        """Any merge of group `name` with Fold-AR, and with the correction of fused normalization if `fused`."""
        weights = self.layout.weights(name)
        merge = fold_ar(weights, merge)
        return variance_correction(weights, merge) if fused else merge

    def clusters(self, name: str, gram: Gram, keep: int) -> Assignment:
        """The channels of group `name` in `keep` clusters by a Gram matrix, none across cells."""
        return cluster(gram, keep, self._clustering, blocks=self.layout.cells(name))

    def curve(self, name: str) -> NDArray[np.float64]:
        """[n + 1] the merge error of group `name` with k clusters at index k, see `WeightFeatures.curve`."""
        return self._features.curve(name)

    def has_fused(self, name: str) -> bool:
        """Whether variance correction has something to correct in group `name`."""
        return bool(self.layout.weights(name).plain)

    def relative_error(self, name: str, merge: Merge) -> float:
        """The merge's error over that of one channel for all (0..1)."""
        known = self._known(name, merge.after, repair=False)
        total = self._features.total(name) if known is None else known.total
        return merge.error / total if total > 0 else 0.0

    def emit(self, merges: Mapping[str, Merge]) -> ModelProto:
        """The model with these merges; of one that is streamed, without the values in `pending`."""
        return emit(self.model, edits(self.model, self.analysis, merges, lazy=self.streamed))

    def pending(self, merges: Mapping[str, Merge]) -> Mapping[str, Pending]:
        """The new values, by tensor, that `emit` leaves to the writer."""
        if not self.streamed:
            return {}
        arrays = edits(self.model, self.analysis, merges, lazy=True).arrays
        return {name: values for name, values in arrays.items() if isinstance(values, Pending)}

    def _known(self, name: str, keep: int, repair: bool) -> MergeOutcome | None:
        """What became of a group at this width, if that is known; what is repaired holds the plain merge too."""
        found = self._outcomes.get((name, keep, True))
        return found if found is not None or repair else self._outcomes.get((name, keep, False))

    def _outcome(self, name: str, keep: int, repair: bool) -> MergeOutcome:
        found = self._known(name, keep, repair)
        if found is None:
            found = run(self._task(name, keep, repair, self._features.gram(name)))
            self._outcomes[name, keep, repair] = found
        return found

    def _resumed(self, name: str, keep: int, repair: bool) -> bool:
        """Whether an earlier run has merged a group; then that is taken."""
        size = self.layout.groups[name].size
        outcome = None if self._kept is None else self._kept.get(name, keep, size, repair)
        if outcome is not None:
            self._outcomes[name, keep, repair] = outcome
        return outcome is not None

    def _task(self, name: str, keep: int, repair: bool, gram: Gram | None) -> MergeTask:
        clustering = replace(self._clustering, threads=self._executor.threads(self._clustering.threads))
        weights, cells = self.layout.weights(name), self.layout.cells(name)
        return MergeTask(
            name, keep, weights, cells, self.method, clustering, repair, repair and not self.streamed, gram
        )
