"""Error curves: what every width of every group is expected to cost the outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..progress import Progress
from .allocation import Width, round_width
from .merge_choice import MergeChoice
from .single_folds import SingleFolds, affordable
from .weight_features import cluster_curve

Floats = NDArray[np.float64]
_SHARES = (0.875, 0.5)  # of the channels kept, where they are measured


@dataclass(frozen=True, eq=False)
class ErrorCurves:
    """Measures curves of groups that are merged by `choice`. What folds of a group alone cost is remembered."""

    choice: MergeChoice
    folds: SingleFolds
    _known: dict[tuple[str, int], float] = field(default_factory=dict, repr=False, init=False)  # by group and width

    def measure(self, widths: Sequence[Width], round_to: int, progress: Progress[Any]) -> dict[str, Floats]:
        """By group, the squared relative error of the outputs that k channels are expected to leave, at index k.

        The shape comes from the sensitivity analysis (or from Ward's clustering where a group was not measured), the
        height from folds of the group alone with its consumers fitted, measured on a few other samples, and
        interpolated. Groups that there is no time for get the median height.
        """
        shapes = {width.name: self._shape(width) for width in widths}
        measured = affordable(self.choice.merger.layout, [width.name for width in widths], len(_SHARES))
        heights = dict[str, float]()
        out = dict[str, Floats]()
        for width in progress("measuring groups", [w for w in widths if w.name in measured]):
            shape = shapes[width.name]
            factors = self._factors(width, shape, round_to)
            if factors:
                gone = width.size - np.arange(width.size + 1)
                at = [width.size - keep for keep in factors]
                logs = np.log(np.maximum(list(factors.values()), 1e-12))
                shape = shape * np.exp(np.interp(np.log(np.maximum(gone, 1)), np.log(at), logs))
                heights[width.name] = float(np.exp(np.mean(logs)))
            out[width.name] = shape
        usual = float(np.median(list(heights.values()))) if heights else 1.0
        return {width.name: out.get(width.name, shapes[width.name] * usual) for width in widths}

    def _factors(self, width: Width, shape: Floats, round_to: int) -> Mapping[int, float]:
        """By width, what folding the group to it costs, over what its curve of this `shape` has there."""
        found = dict[int, float]()
        for share in _SHARES:
            keep = round_width(width, width.size * share, round_to)
            if keep < width.size and keep not in found and shape[keep] > 0:
                found[keep] = self._error(width.name, keep) / float(shape[keep])
        return found

    def _error(self, name: str, keep: int) -> float:
        """The squared relative error of the outputs where group `name` alone keeps so many channels."""
        if (name, keep) not in self._known:
            self._known[name, keep] = self.folds.error(name, self.choice.repaired(name, keep))
        return self._known[name, keep]

    def _shape(self, width: Width) -> Floats:
        """The curve [n + 1] up to a factor; NaN where no width can be."""
        choice, name = self.choice, width.name
        if name in choice.streams:
            return choice.streams[name].curve()
        if choice.drops(name):
            curve = np.full(width.size + 1, np.nan)
            errors = choice.sensitivity.eliminations[name].errors
            curve[width.size - np.arange(len(errors))] = errors
            return curve
        if name in choice.sensitivity.eliminations:
            curve = cluster_curve(choice.sensitivity.functions[name].gram, choice.merger.layout.cells(name))
        else:
            curve = choice.merger.curve(name)
        return curve / max(float(curve[width.cells]), 1e-30)
