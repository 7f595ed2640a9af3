"""Merging one group as an independent task: plain data in, plain data out, in this process or another one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..folding.features import feature_gram, magnitudes
from ..folding.gram import Gram
from ..folding.group_weights import GroupWeights
from ..folding.kmeans import ClusterSettings, cluster
from ..folding.merge import Merge, folding, pruning
from ..frozen import Pickled, read_only
from ..options.choices import Method
from ..recovery.closed_form import fold_ar, variance_correction

Factors = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class MergeTask(Pickled):
    """Merge a group to `keep` channels by `method` from its weights, and `repair` the merge: by Fold-AR, and by the
    correction of fused normalization if `fused`.

    `cells` [n]: the block of every channel, None where there is only one. `gram`: that of the features, where it is
    known already.
    """

    name: str
    keep: int
    weights: GroupWeights = field(repr=False)
    cells: NDArray[np.int64] | None = field(repr=False)
    method: Method
    clustering: ClusterSettings
    repair: bool
    fused: bool
    gram: Gram | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        read_only(self)


@dataclass(frozen=True, eq=False)
class MergeOutcome(Pickled):
    """The result of a task.

    `labels` [n]: the new channel of every old one, -1 for a dropped one. `error`: the squared distance that the merge
    introduces in the features, `total`: that of one channel for all. `normalized`, `fused`: factors [k] by parameter,
    of Fold-AR, and of that and the correction of fused normalization; empty where nothing was to be repaired.
    """

    labels: NDArray[np.int64]
    error: float
    total: float
    normalized: Factors
    fused: Factors

    def __post_init__(self) -> None:
        read_only(self)

    def merge(self) -> Merge:
        """The plain merge."""
        if (self.labels < 0).any():
            kept = np.flatnonzero(self.labels >= 0)
            return pruning(kept, len(self.labels), self.error)
        return folding(self.labels, self.error)

    def repaired(self, fused: bool) -> Merge:
        """The merge with its factors."""
        merge = self.merge()
        for tensor, factors in (self.fused if fused else self.normalized).items():
            merge = merge.scaled(tensor, factors)
        return merge


def run(task: MergeTask) -> MergeOutcome:
    """Carry out a task. Raises ModelError for weights that are not finite, PlanError for clusters that cannot be
    made."""
    gram = feature_gram(task.weights, task.clustering.threads) if task.gram is None else task.gram
    total = float(np.trace(gram))
    if task.method.prunes_by_weights:
        merge = _pruned(task, gram)
    else:
        found = cluster(gram, task.keep, task.clustering, blocks=task.cells)
        merge = folding(found.labels, found.inertia)
    del gram
    normalized: Factors = {}
    fused: Factors = {}
    if task.repair:
        normalized = (repaired := fold_ar(task.weights, merge)).scales
        fused = (variance_correction(task.weights, repaired) if task.fused else repaired).scales
    return MergeOutcome(merge.labels, merge.error, total, dict(normalized), dict(fused))


def _pruned(task: MergeTask, gram: Gram) -> Merge:
    """The merge that drops the channels with the lowest scores, equally many of every cell."""
    n = task.weights.size
    cells = np.zeros(n, np.int64) if task.cells is None else task.cells
    scores = magnitudes(task.weights, task.method)
    best = np.lexsort((np.arange(n), -scores))  # the first of equals stays
    blocks = int(cells.max()) + 1
    kept = np.concatenate([best[cells[best] == c][: task.keep // blocks] for c in range(blocks)])
    gone = np.setdiff1d(np.arange(n), kept)
    # squared size of the centered features of the dropped channels, to compare with a clustering's inertia
    return pruning(kept, n, float(np.diag(gram)[gone].sum()))
