"""Which merge a group gets at a given width, going by what samples tell about its channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..folding.functional import absorb, functional_merge, linear_error
from ..folding.merge import Merge, pruning
from ..options.choices import Method, Recovery
from ..progress import Progress
from .merger import Merger
from .residual import Narrowing
from .sensitivity import RIDGE, Sensitivity
from .single_folds import SingleFolds, affordable

_CLOSE = 0.99  # a merge is measured where its linearized error is at most this share of that of dropping
_CLEAR = 0.97  # and taken where its measured error is below this share of that of dropping
_RIVALS = 4  # dropping, and three ways to merge


@dataclass(frozen=True, eq=False)
class MergeChoice:
    """Chooses merges by `method`; groups that `sensitivity` has nothing about are merged by their weights. `streams`:
    how residual streams under norms are folded, by name."""

    merger: Merger
    sensitivity: Sensitivity = field(repr=False)
    method: Method
    recovery: Recovery
    streams: Mapping[str, Narrowing] = field(default_factory=dict, repr=False)
    _known: dict[tuple[str, int], Merge] = field(default_factory=dict, repr=False, init=False)  # that were measured

    def drops(self, name: str) -> bool:
        """Whether channels of group `name` are dropped in the order that samples give, and not merged."""
        return name in self.sensitivity.eliminations and self.method is not Method.FUNCTIONAL_FOLD

    def merge(self, name: str, keep: int) -> Merge:
        """The merge of group `name` to `keep` channels by the method asked for, nothing refitted, nothing measured."""
        if name in self.streams:
            return self.streams[name].merge(keep)
        if self.drops(name):
            found = self.sensitivity.eliminations[name]
            n = self.merger.layout.groups[name].size
            return pruning(np.setdiff1d(np.arange(n), found.order[: n - keep]), n, float(found.errors[n - keep]))
        if name in self.sensitivity.eliminations:
            return self._functional(name, keep)
        return self.merger.merge(name, keep)

    def repaired(self, name: str, keep: int) -> Merge:
        """`merge`, repaired in closed form where channels are merged."""
        merge = self.merge(name, keep)
        kept = self.recovery is Recovery.NONE or self.drops(name) or name in self.streams
        return merge if kept else self.merger.repair(name, merge)

    def measured(self, keep: Mapping[str, int], folds: SingleFolds, progress: Progress[Any]) -> dict[str, Merge]:
        """For the groups of a plan that can be measured in the time there is, the merge that leaves the least error
        when the group alone is folded. They are remembered, for other plans."""
        able = affordable(self.merger.layout, keep, _RIVALS)
        functions = self.sensitivity.functions
        open_ = [n for n in keep if n in able and n in functions and functions[n].consumers]
        open_ = [n for n in open_ if n not in self.streams]
        for name in progress("choosing merges", [n for n in open_ if (n, keep[n]) not in self._known]):
            self._known[name, keep[name]] = self._least_error(name, keep[name], folds)
        return {name: self._known[name, keep[name]] for name in open_}

    def _least_error(self, name: str, keep: int, folds: SingleFolds) -> Merge:
        """The linearized error is exact for dropping channels and too low for merging them: only merges with a lower
        one are measured, and none is taken unmeasured (residual streams lose far more by merging than it estimates)."""
        drop, found = self.merge(name, keep), self.sensitivity.functions[name]
        rivals = [
            absorb(found, drop.keep, RIDGE, self.merger.layout.cells(name)),
            self._functional(name, keep),
            self.merger.merge(name, keep),
        ]
        bound = _CLOSE * linear_error(found.consumers, drop, RIDGE)
        close = [merge for merge in rivals if linear_error(found.consumers, merge, RIDGE) < bound]
        if not close:
            return drop
        errors = [folds.error(name, merge, few=True) for merge in close]
        best = int(np.argmin(errors))
        return close[best] if errors[best] < _CLEAR * folds.error(name, drop, few=True) else drop

    def _functional(self, name: str, keep: int) -> Merge:
        """Clusters of channels that do alike for their consumers."""
        found = self.sensitivity.functions[name]
        clusters = self.merger.clusters(name, found.gram, keep)
        return functional_merge(found, clusters.labels, clusters.inertia)
