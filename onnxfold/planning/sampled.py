"""Choosing and repairing with samples: what every group costs, which channels go, and the refitted model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from ..analysis.groups import Role
from ..calibration.samples import Samples
from ..evaluation.candidates import Evaluator
from ..folding.functional import absorb, functional_merge, linear_error
from ..folding.merge import Merge, pruning
from ..model.linear import RECURRENT
from ..model.tensors import Pending
from ..options.choices import Method, Recovery
from ..progress import Progress
from ..recovery.consumers import touched
from ..recovery.reconstruct import Changes, ReconstructionSettings, Refitted, reconstruct
from ..runtime.session import Feeds
from ..runtime.shared_prefix import SharedPrefix
from .allocation import Width, round_width
from .merger import Merger
from .sensitivity import RIDGE, Sensitivity, measure_sensitivity

_UNSEEN = 4  # one in so many batches is not fitted on but measured, where groups are folded alone
_PER_FEATURE = 10.0  # multiply-adds per cubed number of features: a refit of a consumer
_MOST_WORK = 5e12  # multiply-adds spent on measuring groups one by one: a minute or two on two cores
_SHARES = (0.875, 0.5)  # of the channels kept, where they are measured
_CLOSE = 0.99  # a merge whose linearized error is this share of what dropping costs, or less, is worth measuring
_CLEAR = 0.97  # and is taken where its measured error is
_ROWS = 4096  # of patches, where a group is folded alone
_ENOUGH = 8  # batches that consumers are refitted on for that: the same few for all
_RIVALS = 4  # dropping, and three ways to merge


@dataclass(frozen=True, eq=False)
class Folded:
    """A folded model with its merges, by group, what was refitted, and the values that are `pending`, by tensor."""

    proto: ModelProto = field(repr=False)
    merges: Mapping[str, Merge]
    refitted: tuple[Refitted, ...] = ()
    pending: Mapping[str, Pending] = field(default_factory=dict, repr=False)


class SampledMerger:
    """One model, the groups `chosen`, and samples; the sensitivity analysis of the original happens when this is
    made."""

    def __init__(
        self,
        work: Merger,
        samples: Samples,
        chosen: Sequence[str],
        method: Method,
        recovery: Recovery,
        progress: Progress[Any],
    ) -> None:
        self.work, self.samples, self.chosen = work, samples, list(chosen)
        self.method, self.recovery, self._progress = method, recovery, progress
        by_choice = method is Method.AUTO and samples.faithful
        # on synthetic inputs it gains nothing (ResNet-20, see docs/experiments.md) and takes four times as long
        self._choosing = by_choice and samples.own and recovery is Recovery.LEAST_SQUARES
        self.found = Sensitivity({}, {})
        self._measured_sensitivity = by_choice or method in (Method.SECOND_ORDER, Method.FUNCTIONAL_FOLD)
        if self._measured_sensitivity:
            self.found = measure_sensitivity(
                work.model, work.analysis, chosen, samples.fit, remember=self._choosing, progress=progress
            )
        caches = work.analysis.caches
        self.evaluator = Evaluator(work.model, lambda _: samples.check, caches=caches)
        self._curves = dict[tuple[tuple[Width, ...], int], dict[str, NDArray[np.float64]]]()
        fit = samples.fit
        held = max(1, round(len(fit) / _UNSEEN))
        self._seen, unseen = (fit[:-held], fit[-held:]) if len(fit) > 1 else (fit, fit)
        self._alone = Evaluator(work.model, lambda _: unseen, caches=caches)
        self._prefixes = dict[int, SharedPrefix]()

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about groups that the samples could not decide."""
        why = "was decided by its weights: its consumers get NaN or infinity on the samples"
        blind = "was decided by its weights: a recurrent layer reads it"
        return (
            *(f"group '{name}' {why}" for name in self.found.broken),
            *(f"group '{name}' {blind}" for name in self._recurrent),
        )

    @property
    def _recurrent(self) -> list[str]:
        """Groups that a sensitivity analysis says nothing of because an LSTM, GRU or RNN reads them."""
        if not self._measured_sensitivity:
            return []
        nodes = self.work.model.graph.nodes
        read = {
            g.name for g in self.work.analysis.groups
            if any(nodes[i].op in RECURRENT for p in g.parameters if p.role is Role.CONSUMES for i in p.nodes)
        }  # fmt: skip
        known = {*self.found.eliminations, *self.found.broken}
        return [name for name in self.chosen if name in read and name not in known]

    def merge(self, name: str, keep: int) -> Merge:
        """The merge of group `name` to `keep` channels by the method asked for, nothing refitted, nothing measured."""
        if name not in self.found.eliminations:
            return self.work.merge(name, keep)
        if self.method is Method.FUNCTIONAL_FOLD:
            return self._functional(name, keep)
        order, errors = self.found.eliminations[name].order, self.found.eliminations[name].errors
        n = self._size(name)
        return pruning(np.setdiff1d(np.arange(n), order[: n - keep]), n, float(errors[n - keep]))

    def finish(self, keep: Mapping[str, int], choose: bool = False) -> Folded:
        """The model under the plan `keep`, repaired; `choose` takes time to measure choices. The samples held back stay
        unseen, to judge it."""
        merges = {name: self._repaired(name, k) for name, k in keep.items()}
        if choose and self._choosing:
            affordable = self._affordable(self.work.widths(keep), _RIVALS)
            open_ = [n for n in keep if n in affordable and n in self.found.functions]
            open_ = [n for n in open_ if self.found.functions[n].consumers]
            merges |= {name: self._chosen(name, keep[name]) for name in self._progress("choosing merges", open_)}
        proto = self.work.emit(merges)
        if self.recovery not in (Recovery.LEAST_SQUARES, Recovery.STATISTICS):
            return Folded(proto, merges)
        done = reconstruct(
            SharedPrefix(self.work.model, self.samples.fit), self.work.analysis, Changes(merges), proto,
            ReconstructionSettings(self.recovery), self._progress,
        )  # fmt: skip
        return Folded(proto, merges, done)

    def curves(self, widths: Sequence[Width], round_to: int) -> dict[str, NDArray[np.float64]]:
        """By group, the squared relative error of the outputs that k channels are expected to leave, at index k.

        The shape comes from the sensitivity analysis (or from Ward's clustering where a group was not measured), the
        height from folds of the group alone with its consumers refitted, measured on a few other samples, and
        interpolated. Once measured they are kept, for other budgets.
        """
        key = (tuple(widths), round_to)
        if key not in self._curves:
            self._curves[key] = self._measured_curves(widths, round_to)
        return self._curves[key]

    def _measured_curves(self, widths: Sequence[Width], round_to: int) -> dict[str, NDArray[np.float64]]:
        shapes = {width.name: self._shape(width) for width in widths}
        factors = dict[str, float]()
        out = {}
        affordable = self._affordable(widths, len(_SHARES))
        for width in self._progress("measuring groups", [w for w in widths if w.name in affordable]):
            shape = shapes[width.name]
            kept, found = list[int](), list[float]()
            for share in _SHARES:
                keep = round_width(width, width.size * share, round_to)
                if keep < width.size and keep not in kept and shape[keep] > 0:
                    kept.append(keep)
                    found.append(self._measured(width.name, self._repaired(width.name, keep), self._seen) / shape[keep])
            if kept:
                gone = width.size - np.arange(width.size + 1)
                at = [width.size - k for k in kept]
                logs = np.log(np.maximum(found, 1e-12))
                shape = shape * np.exp(np.interp(np.log(np.maximum(gone, 1)), np.log(at), logs))
                factors[width.name] = float(np.exp(np.mean(logs)))
            out[width.name] = shape
        usual = float(np.median(list(factors.values()))) if factors else 1.0
        return {width.name: out.get(width.name, shapes[width.name] * usual) for width in widths}

    def _chosen(self, name: str, keep: int) -> Merge:
        """The merge of group `name` that leaves the least error when the group alone is folded.

        Moments know exactly what dropping costs, and take merging to be better than it is: only what could win is
        measured, and nothing is merged unmeasured (streams that many branches join lose far more than moments say).
        """
        drop, found = self.merge(name, keep), self.found.functions[name]
        rivals = [
            absorb(found, drop.keep, RIDGE, self.work.cells(name)),
            self._functional(name, keep),
            self.work.merge(name, keep),
        ]
        bound = _CLOSE * linear_error(found.consumers, drop, RIDGE)
        close = [merge for merge in rivals if linear_error(found.consumers, merge, RIDGE) < bound]
        if not close:
            return drop
        feeds = self._seen[:_ENOUGH]
        errors = [self._measured(name, merge, feeds) for merge in close]
        best = int(np.argmin(errors))
        return close[best] if errors[best] < _CLEAR * self._measured(name, drop, feeds) else drop

    def _functional(self, name: str, keep: int) -> Merge:
        found = self.found.functions[name]
        clusters = self.work.clusters(name, found.gram, keep)
        return functional_merge(found, clusters.labels, clusters.inertia)

    def _affordable(self, widths: Sequence[Width], times: int) -> set[str]:
        """The groups that are measured one by one, so many `times`, the cheapest first; the others are taken to be like
        them."""
        prices = {w.name: sum(float(f) ** 3 for f in self.work.consumer_features(w.name)) for w in widths}
        spent, names = 0.0, set[str]()
        for name in sorted(prices, key=lambda n: prices[n]):
            spent += _PER_FEATURE * times * prices[name]
            if spent > _MOST_WORK:
                break
            names.add(name)
        return names

    def _measured(self, name: str, merge: Merge, feeds: Sequence[Feeds]) -> float:
        """The squared relative error of the outputs when group `name` alone is folded and its consumers are refitted on
        `feeds`; measured on other samples."""
        merges = {name: merge}
        proto = self.work.emit(merges)
        if self.recovery in (Recovery.LEAST_SQUARES, Recovery.STATISTICS):
            prefix = self._prefixes.setdefault(len(feeds), SharedPrefix(self.work.model, feeds))
            settings = ReconstructionSettings(self.recovery, rows=_ROWS, only=self._consumers(name))
            reconstruct(prefix, self.work.analysis, Changes(merges), proto, settings)
        return float(min(self._alone.distance(proto, touched(self.work.analysis, merges)), 1e3) ** 2)

    def _size(self, name: str) -> int:
        return self.work.widths([name])[0].size

    def _shape(self, width: Width) -> NDArray[np.float64]:
        curve = np.full(width.size + 1, np.nan)
        surveyed, merging = width.name in self.found.eliminations, self.method is Method.FUNCTIONAL_FOLD
        if surveyed and not merging:
            errors = self.found.eliminations[width.name].errors
            curve[width.size - np.arange(len(errors))] = errors
        else:
            ward = self.work.curve(width.name, self.found.functions[width.name].gram if surveyed else None)
            curve[:] = ward / max(float(ward[width.cells]), 1e-30)
        return curve

    def _repaired(self, name: str, keep: int) -> Merge:
        merge = self.merge(name, keep)
        dropped = name in self.found.eliminations and self.method is not Method.FUNCTIONAL_FOLD
        return merge if self.recovery is Recovery.NONE or dropped else self.work.repair(name, merge)

    def _consumers(self, name: str) -> frozenset[str]:
        group = next(g for g in self.work.analysis.groups if g.name == name)
        nodes = self.work.model.graph.nodes
        return frozenset(
            output for p in group.parameters if p.role is Role.CONSUMES for i in p.nodes for output in nodes[i].outputs
        )
