"""From a plan to a smaller model: cluster, merge, recover and emit every group. No policy, no measuring."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from .analyse import Analysis
from .channels import ChannelGroup, Role
from .cluster import Assignment, Clusterer, cluster, ward_curve
from .emit import edits, emit, removed_atoms
from .features import Method, feature_gram, magnitudes
from .gather import gather
from .merge import Merge, folding, pruning
from .model import Model
from .plan import BLOCK, Width
from .recover import fold_ar, variance_correction

Fix = Callable[[Merge], Merge]


class Compressor:
    """One model and one method; remembers Gram matrices, so that several plans can be tried."""

    def __init__(
        self,
        model: Model,
        analysis: Analysis,
        method: Method = Method.FOLD,
        clusterer: Clusterer = Clusterer.NATIVE,
        seed: int = 0,
        threads: int = 0,
    ) -> None:
        self.model, self.analysis, self.method = model, analysis, method
        self._clusterer, self._seed, self._threads = clusterer, seed, threads
        self._grams: dict[str, NDArray[np.float64]] = {}
        self._made: dict[tuple[str, int], Merge] = {}
        self._groups = {group.name: group for group in analysis.groups}

    def gram(self, name: str) -> NDArray[np.float64]:
        """The Gram matrix of group `name`'s features."""
        if name not in self._grams:
            self._grams[name] = feature_gram(gather(self.model, self.analysis, self._groups[name]))
        return self._grams[name]

    def reader_features(self, name: str) -> list[int]:
        """How many inputs the readers of a group have: all their channels, times the kernel."""
        found = []
        for place in (p for p in self._groups[name].parameters if p.role is Role.READS):
            shape = self.model.graph.tensor(place.tensor).shape or ()
            sizes = [d for i, d in enumerate(shape) if isinstance(d, int) and (i == place.axis or i >= 2)]
            found.append(math.prod(sizes))
        return found

    def curve(self, name: str, gram: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """[k] the merge error with k clusters, equal cells respected; NaN where k is not a multiple of the cells.

        By the features of the weights, or by another `gram` [n, n]."""
        group, whole = self._groups[name], self.gram(name) if gram is None else gram
        if group.blocks == 1:
            return ward_curve(whole)
        cells = [np.flatnonzero(group.cells == c) for c in range(group.blocks)]
        total = np.full(group.size + 1, np.nan)
        total[:: group.blocks] = sum(ward_curve(np.ascontiguousarray(whole[np.ix_(c, c)])) for c in cells)
        return total

    def merge(self, name: str, keep: int) -> Merge:
        """The merge of group `name` to `keep` channels, before any recovery."""
        if (name, keep) not in self._made:
            group = self._groups[name]
            if self.method not in (Method.PRUNE_L1, Method.PRUNE_L2):
                self._made[name, keep] = self._fold(group, keep)
            else:
                self._made[name, keep] = self._prune(group, keep)
        return self._made[name, keep]

    def clusters(self, name: str, gram: NDArray[np.float64], keep: int) -> Assignment:
        """The channels of group `name` in `keep` clusters by a Gram matrix, none across cells."""
        return cluster(
            gram, keep, blocks=self.cells(name), seed=self._seed, clusterer=self._clusterer, threads=self._threads
        )

    def cells(self, name: str) -> NDArray[np.int64] | None:
        """[n] the block of every channel of group `name`, None where there is only one."""
        group = self._groups[name]
        return group.cells if group.blocks > 1 else None

    def recovered(self, name: str, keep: int, fused: bool = True) -> Merge:
        """The merge by weights with closed-form recovery, see `repair`."""
        return self.repair(name, self.merge(name, keep), fused)

    def repair(self, name: str, merge: Merge, fused: bool = True) -> Merge:
        """A merge of group `name` with Fold-AR, and with the correction of fused normalisation if `fused`."""
        weights = gather(self.model, self.analysis, self._groups[name])
        merge = fold_ar(weights, merge)
        return variance_correction(weights, merge) if fused else merge

    def has_fused(self, name: str) -> bool:
        """Whether variance correction has something to correct in group `name`."""
        return bool(gather(self.model, self.analysis, self._groups[name]).plain)

    def relative_error(self, name: str, merge: Merge) -> float:
        """The merge's error over that of one channel for all (0..1)."""
        total = float(np.trace(self.gram(name)))
        return merge.error / total if total > 0 else 0.0

    def emit(self, merges: Mapping[str, Merge]) -> ModelProto:
        """The model with these merges."""
        return emit(self.model, edits(self.model, self.analysis, merges))

    def lengths(self, keep: Mapping[str, int]) -> Mapping[tuple[str, int], int]:
        """New axis lengths under a plan."""
        return self.analysis.lengths(
            removed_atoms(g, _first(g, keep[g.name])) for g in self.analysis.groups if g.name in keep
        )

    def widths(self, names: Iterable[str]) -> list[Width]:
        """What planning needs of these groups."""
        return [Width(n, self._groups[n].size, self._groups[n].blocks, self._block(n)) for n in names]

    def _block(self, name: str) -> int:
        """How many channels the kernels that make a group compute at once, or share a scale where they are read."""
        parameters, stored = self._groups[name].parameters, self.model.constants.stored
        here = [(p.axis, stored[p.tensor]) for p in parameters if p.tensor in stored]
        shared = max((one.block for axis, one in here if axis == one.axis), default=0)
        nodes = (self.model.graph.nodes[i] for p in parameters for i in p.nodes)
        return shared or (BLOCK if any("Conv" in node.op for node in nodes) else 1)

    def _fold(self, group: ChannelGroup, keep: int) -> Merge:
        found = self.clusters(group.name, self.gram(group.name), keep)
        return folding(found.labels, found.inertia)

    def _prune(self, group: ChannelGroup, keep: int) -> Merge:
        scores = magnitudes(gather(self.model, self.analysis, group), self.method)
        best = np.lexsort((np.arange(group.size), -scores))  # the first of equals stays
        each = keep // group.blocks
        kept = np.concatenate([best[group.cells[best] == c][:each] for c in range(group.blocks)])
        return pruning(kept, group.size, self._dropped(group, kept))

    def _dropped(self, group: ChannelGroup, kept: NDArray[np.int64]) -> float:
        """Squared size of the centred features of the dropped channels, to compare with a clustering's inertia."""
        gone = np.setdiff1d(np.arange(group.size), kept)
        return float(np.diag(self.gram(group.name))[gone].sum())


def _first(group: ChannelGroup, keep: int) -> NDArray[np.int64]:
    """Some `keep` channels, equally many of every cell: which ones does not matter for lengths."""
    each = keep // group.blocks
    return np.sort(np.concatenate([np.flatnonzero(group.cells == c)[:each] for c in range(group.blocks)]))
