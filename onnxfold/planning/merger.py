"""From a plan to a smaller model: cluster, merge, recover and emit every group. No policy, no measuring."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from ..analysis.extract import gather
from ..analysis.groups import ChannelGroup, Role
from ..analysis.result import Analysis
from ..folding.features import feature_gram
from ..folding.gram import Gram
from ..folding.kmeans import Assignment, ClusterSettings, cluster, ward_curve
from ..folding.merge import Merge
from ..model.graph import Node
from ..model.model import Model
from ..model.tensors import Pending
from ..options.choices import Method
from ..progress import Progress
from ..recovery.closed_form import fold_ar, variance_correction
from ..transform.edits import edits, removed_atoms
from ..transform.emit import emit
from .allocation import BLOCK, Width
from .checkpoint import Checkpoint
from .executor import Executor
from .merge_task import MergeOutcome, MergeTask, run


class Merger:
    """One model and one method; remembers Gram matrices, so that several plans can be tried.

    `streamed`: it does not, and new values of weights outside the model's file are computed when they are written. Then
    what is in memory depends on the widest group, not on the model.
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
        self._clustering = clustering or ClusterSettings()
        self._executor, self._kept = executor or Executor(), kept
        self._grams: dict[str, Gram] = {}
        self._curves: dict[str, NDArray[np.float64]] = {}
        self._totals: dict[str, float] = {}
        self._made: dict[tuple[str, int], Merge] = {}
        self._recovered: dict[tuple[str, int, bool], Merge] = {}
        self._groups = {group.name: group for group in analysis.groups}

    def gram(self, name: str) -> Gram:
        """The Gram matrix of group `name`'s features."""
        if name in self._grams:
            return self._grams[name]
        made = feature_gram(gather(self.model, self.analysis, self._groups[name]), self._clustering.threads)
        self._totals[name] = float(np.trace(made))
        if not self.streamed:
            self._grams[name] = made
        return made

    def consumer_features(self, name: str) -> list[int]:
        """How many inputs the consumers of a group have: all their channels, times the kernel."""
        found = []
        for place in (p for p in self._groups[name].parameters if p.role is Role.CONSUMES and not p.summed):
            shape = self.model.graph.tensor(place.tensor).shape or ()
            sizes = [d for i, d in enumerate(shape) if isinstance(d, int) and (i == place.axis or i >= 2)]
            found.append(math.prod(sizes))
        return found

    def curve(self, name: str, gram: Gram | None = None) -> NDArray[np.float64]:
        """[k] the merge error with k clusters, equal cells respected; NaN where k is not a multiple of the cells.

        By the features of the weights, or by another `gram` [n, n]."""
        if gram is not None:
            return self._curve(name, gram)
        if name not in self._curves:
            self._curves[name] = self._curve(name, self.gram(name))
        return self._curves[name].copy()

    def _curve(self, name: str, whole: Gram) -> NDArray[np.float64]:
        group = self._groups[name]
        if group.blocks == 1:
            return ward_curve(whole)
        cells = [np.flatnonzero(group.cells == c) for c in range(group.blocks)]
        total = np.full(group.size + 1, np.nan)
        total[:: group.blocks] = sum(ward_curve(np.ascontiguousarray(whole[np.ix_(c, c)])) for c in cells)
        return total

    def merge(self, name: str, keep: int) -> Merge:
        """The merge of group `name` to `keep` channels, before any recovery."""
        if (name, keep) not in self._made:
            self._take(name, keep, False, run(self._task(name, keep, False, self.gram(name))))
        return self._made[name, keep]

    def prepare(self, keep: Mapping[str, int], repair: bool, progress: Progress[Any]) -> None:
        """Merge the groups of a plan, as tasks that may run side by side; `repair` their merges as `recovered` does.

        What an earlier run has kept is not done again."""
        known = {key[:2] for key in self._recovered} if repair else self._made.keys()
        open_ = [key for key in keep.items() if key not in known and not self._resumed(*key, repair)]
        tasks = (self._task(name, k, repair, self._grams.get(name)) for name, k in open_)
        with closing(self._executor.each(run, tasks)) as done:
            for _ in progress("merging groups", open_):
                number, outcome = next(done)
                self._take(*open_[number], repair, outcome)
                if self._kept is not None:
                    self._kept.put(*open_[number], repair, outcome)

    def _resumed(self, name: str, keep: int, repair: bool) -> bool:
        """Whether an earlier run has merged a group; then that is taken."""
        outcome = None if self._kept is None else self._kept.get(name, keep, self._groups[name].size, repair)
        if outcome is not None:
            self._take(name, keep, repair, outcome)
        return outcome is not None

    def _task(self, name: str, keep: int, repair: bool, gram: Gram | None) -> MergeTask:
        group = self._groups[name]
        weights = gather(self.model, self.analysis, group)
        clustering = replace(self._clustering, threads=self._executor.threads(self._clustering.threads))
        known = None if self._executor.away else gram
        return MergeTask(
            name, keep, weights, self.cells(name), self.method, clustering, repair, repair and not self.streamed, known
        )

    def _take(self, name: str, keep: int, repaired: bool, outcome: MergeOutcome) -> None:
        """Remember what became of a task."""
        self._made[name, keep], self._totals[name] = outcome.merge(), outcome.total
        if repaired:
            self._recovered |= {(name, keep, fused): outcome.repaired(fused) for fused in (False, not self.streamed)}

    def clusters(self, name: str, gram: Gram, keep: int) -> Assignment:
        """The channels of group `name` in `keep` clusters by a Gram matrix, none across cells."""
        return cluster(gram, keep, self._clustering, blocks=self.cells(name))

    def cells(self, name: str) -> NDArray[np.int64] | None:
        """[n] the block of every channel of group `name`, None where there is only one."""
        group = self._groups[name]
        return group.cells if group.blocks > 1 else None

    def recovered(self, name: str, keep: int, fused: bool = True) -> Merge:
        """The merge by weights with closed-form recovery, see `repair`."""
        if (name, keep, fused) not in self._recovered:
            self._recovered[name, keep, fused] = self.repair(name, self.merge(name, keep), fused)
        return self._recovered[name, keep, fused]

    def repair(self, name: str, merge: Merge, fused: bool = True) -> Merge:
        """A merge of group `name` with Fold-AR, and with the correction of fused normalization if `fused`."""
        weights = gather(self.model, self.analysis, self._groups[name])
        merge = fold_ar(weights, merge)
        return variance_correction(weights, merge) if fused else merge

    def has_fused(self, name: str) -> bool:
        """Whether variance correction has something to correct in group `name`."""
        return bool(gather(self.model, self.analysis, self._groups[name]).plain)

    def relative_error(self, name: str, merge: Merge) -> float:
        """The merge's error over that of one channel for all (0..1)."""
        if name not in self._totals:
            self.gram(name)
        total = self._totals[name]
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

    def lengths(self, keep: Mapping[str, int]) -> Mapping[tuple[str, int], int]:
        """New axis lengths under a plan."""
        return self.analysis.lengths(
            removed_atoms(g, _first(g, keep[g.name])) for g in self.analysis.groups if g.name in keep
        )

    def widths(self, names: Iterable[str], quantized: bool = False) -> list[Width]:
        """What planning needs of these groups; `quantized`: for kernels of INT8, whose grouped convolutions (depthwise
        ones above all) take twice as long where their channels are no whole blocks."""
        groups = [self._groups[n] for n in names]
        return [
            Width(
                g.name, g.size, g.blocks, self._block(g.name), g.run,
                BLOCK if quantized and any(n.attrs.get("group", 1) > 1 for n in self._nodes(g.name)) else 1,
            )
            for g in groups
        ]  # fmt: skip

    def _nodes(self, name: str) -> Iterator[Node]:
        """Those whose weights the channels of a group lie in."""
        return (self.model.graph.nodes[i] for p in self._groups[name].parameters for i in p.nodes)

    def _block(self, name: str) -> int:
        """How many channels the kernels that make a group compute at once, or share a scale where they are read."""
        parameters, stored = self._groups[name].parameters, self.model.constants.stored
        here = [(p.axis, stored[p.tensor]) for p in parameters if p.tensor in stored]
        shared = max((one.block for axis, one in here if axis == one.axis), default=0)
        return shared or (BLOCK if any("Conv" in node.op for node in self._nodes(name)) else 1)


def _first(group: ChannelGroup, keep: int) -> NDArray[np.int64]:
    """Some `keep` channels, equally many of every cell: which ones does not matter for lengths."""
    each = keep // group.blocks
    return np.sort(np.concatenate([np.flatnonzero(group.cells == c)[:each] for c in range(group.blocks)]))
