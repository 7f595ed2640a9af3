"""Folds of one group at a time: what each costs the outputs, measured with samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import accumulate

from ..evaluation.candidates import Evaluator
from ..folding.merge import Merge
from ..options.choices import Recovery
from ..recovery.consumers import touched
from ..recovery.reconstruct import Changes, ReconstructionSettings, reconstruct
from ..runtime.session import Feeds
from ..runtime.shared_prefix import SharedPrefix
from .group_layout import GroupLayout
from .merger import Merger

_UNSEEN = 4  # one in so many batches is not fitted on but measured
ROWS = 4096  # of patches that consumers are fitted on where models are only compared
_FEW = 8  # batches that consumers are fitted on where ways to merge a group are compared
_MOST_WORK = 2.5e12  # multiplications and additions for measuring groups one by one: half a minute on two cores
_WORST = 1e3  # relative error: an infinite one counts as this


class SingleFolds:
    """Folds one group at a time and fits its consumers on some of the batches `fit`; errors are measured on the others
    (a single batch serves for both). Nothing runs before the first question."""

    def __init__(self, merger: Merger, recovery: Recovery, fit: Sequence[Feeds]) -> None:
        self._merger, self._recovery = merger, recovery
        held = max(1, round(len(fit) / _UNSEEN))
        self._fit, self._unseen = (fit[:-held], fit[-held:]) if len(fit) > 1 else (fit, fit)

    def error(self, name: str, merge: Merge, few: bool = False) -> float:
        """The squared relative error of the outputs when group `name` alone is merged and its consumers are fitted;
        `few`: on a few batches only, the same for every call."""
        merges = {name: merge}
        proto, analysis = self._merger.emit(merges), self._merger.analysis
        if self._recovery in (Recovery.LEAST_SQUARES, Recovery.STATISTICS):
            outputs = self._merger.layout.consumer_outputs(name)
            settings = ReconstructionSettings(self._recovery, rows=ROWS, only=outputs)
            reconstruct(self._few if few else self._all, analysis, Changes(merges), proto, settings)
        return float(min(self._evaluator.distance(proto, touched(analysis, merges)), _WORST) ** 2)

    @cached_property
    def _evaluator(self) -> Evaluator:
        return Evaluator(self._merger.model, lambda _: self._unseen, caches=self._merger.analysis.caches)

    @cached_property
    def _all(self) -> SharedPrefix:
        return SharedPrefix(self._merger.model, self._fit)

    @cached_property
    def _few(self) -> SharedPrefix:
        return SharedPrefix(self._merger.model, self._fit[:_FEW]) if len(self._fit) > _FEW else self._all


def affordable(layout: GroupLayout, names: Iterable[str], times: float) -> dict[str, float]:
    """The groups that can be folded alone, so many `times` each, before that takes too long, the cheapest first: what
    the fits of all those times are, in multiplications and additions."""
    prices = {name: times * layout.fit_work([name], ROWS) for name in names}
    order = sorted(prices, key=lambda name: prices[name])
    spent = accumulate(prices[name] for name in order)
    return {name: prices[name] for name, so_far in zip(order, spent, strict=True) if so_far <= _MOST_WORK}
