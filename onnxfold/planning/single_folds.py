"""Folds of one group at a time: what each costs the outputs, measured with samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ..calibration.samples import Samples
from ..evaluation.candidates import Evaluator
from ..folding.merge import Merge
from ..options.choices import Recovery
from ..recovery.consumers import touched
from ..recovery.reconstruct import Changes, ReconstructionSettings, reconstruct
from ..runtime.session import Feeds
from ..runtime.shared_prefix import SharedPrefix
from .allocation import Width
from .merger import Merger

_UNSEEN = 4  # one in so many batches is not fitted on but measured
_ROWS = 4096  # of patches that consumers are fitted on
_FEW = 8  # batches that consumers are fitted on where ways to merge a group are compared
_PER_FEATURE = 10.0  # multiply-adds per cubed number of features: to fit a consumer
_MOST_WORK = 5e12  # multiply-adds spent on measuring groups one by one: a minute or two on two cores
_WORST = 1e3  # relative error: an infinite one counts as this


@dataclass(frozen=True, eq=False)
class SingleFolds:
    """Folds one group at a time, fits its consumers on the batches `fit` and measures the error on `unseen` ones."""

    merger: Merger
    recovery: Recovery
    fit: Sequence[Feeds] = field(repr=False)
    unseen: Sequence[Feeds] = field(repr=False)

    @classmethod
    def of(cls, merger: Merger, recovery: Recovery, samples: Samples) -> SingleFolds:
        """On the batches of `samples` that may be fitted on. A single one serves for both."""
        given = samples.fit
        held = max(1, round(len(given) / _UNSEEN))
        return cls(merger, recovery, *((given[:-held], given[-held:]) if len(given) > 1 else (given, given)))

    def error(self, name: str, merge: Merge, few: bool = False) -> float:
        """The squared relative error of the outputs when group `name` alone is merged and its consumers are fitted;
        `few`: on a few batches only, the same for every call."""
        merges = {name: merge}
        proto, analysis = self.merger.emit(merges), self.merger.analysis
        if self.recovery in (Recovery.LEAST_SQUARES, Recovery.STATISTICS):
            outputs = self.merger.layout.consumer_outputs(name)
            settings = ReconstructionSettings(self.recovery, rows=_ROWS, only=outputs)
            reconstruct(self._few if few else self._all, analysis, Changes(merges), proto, settings)
        return float(min(self._evaluator.distance(proto, touched(analysis, merges)), _WORST) ** 2)

    def affordable(self, widths: Sequence[Width], times: int) -> set[str]:
        """The groups that can be folded alone, so many `times` each, before that takes too long; the cheapest first."""
        features = self.merger.layout.consumer_features
        prices = {w.name: sum(float(f) ** 3 for f in features(w.name)) for w in widths}
        spent, names = 0.0, set[str]()
        for name in sorted(prices, key=lambda n: prices[n]):
            spent += _PER_FEATURE * times * prices[name]
            if spent > _MOST_WORK:
                break
            names.add(name)
        return names

    @cached_property
    def _evaluator(self) -> Evaluator:
        return Evaluator(self.merger.model, lambda _: self.unseen, caches=self.merger.analysis.caches)

    @cached_property
    def _all(self) -> SharedPrefix:
        return SharedPrefix(self.merger.model, self.fit)

    @cached_property
    def _few(self) -> SharedPrefix:
        return SharedPrefix(self.merger.model, self.fit[:_FEW]) if len(self.fit) > _FEW else self._all
