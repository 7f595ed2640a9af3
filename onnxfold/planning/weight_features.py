"""Features of channels taken from their weights: inner products of all pairs, and what clustering would cost."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..folding.features import feature_gram
from ..folding.gram import Gram
from ..folding.kmeans import ward_curve
from .group_layout import GroupLayout


class WeightFeatures:
    """The features of every group of `layout`. Results depend on the weights alone and are remembered; with
    `forget_grams`, all but the Gram matrices are, which take the most memory. `threads`: 0 for all there are."""

    def __init__(self, layout: GroupLayout, threads: int = 0, forget_grams: bool = False) -> None:
        self._layout, self._threads, self._forget = layout, threads, forget_grams
        self._grams = dict[str, Gram]()
        self._totals = dict[str, float]()
        self._curves = dict[str, NDArray[np.float64]]()

    def gram(self, name: str) -> Gram:
        """The Gram matrix [n, n] of the features of group `name`."""
        if name in self._grams:
            return self._grams[name]
        made = feature_gram(self._layout.weights(name), self._threads)
        self._totals[name] = float(np.trace(made))
        if not self._forget:
            self._grams[name] = made
        return made

    def known_gram(self, name: str) -> Gram | None:
        """`gram`, if it was computed before and is remembered."""
        return self._grams.get(name)

    def total(self, name: str) -> float:
        """The error of merging all channels of group `name` into one: the sum of squares of their features."""
        if name not in self._totals:
            self.gram(name)
        return self._totals[name]

    def curve(self, name: str) -> NDArray[np.float64]:
        """[n + 1] the merge error with k clusters at index k, as `cluster_curve` has it. A copy."""
        if name not in self._curves:
            self._curves[name] = cluster_curve(self.gram(name), self._layout.cells(name))
        return self._curves[name].copy()


def cluster_curve(gram: Gram, cells: NDArray[np.int64] | None) -> NDArray[np.float64]:
    """[n + 1] the inertia of Ward's clustering with k clusters at index k, none across `cells` [n] (None: only one).

    NaN where k is not a multiple of the number of cells.
    """
    if cells is None:
        return ward_curve(gram)
    blocks = int(cells.max()) + 1
    members = [np.flatnonzero(cells == c) for c in range(blocks)]
    total = np.full(len(gram) + 1, np.nan)
    total[::blocks] = sum(ward_curve(np.ascontiguousarray(gram[np.ix_(m, m)])) for m in members)
    return total
