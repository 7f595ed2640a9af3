"""Second moments of what a linear node reads, and of what it should give, summed up batch by batch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .linear import Linear

Floats = NDArray[np.float64]
Array = NDArray[Any]

MOST_FEATURES = 4608
"""Per group (512 channels of 3x3): a moment matrix of 170 MB. Wider readers have no moments; they are merged only."""
ROWS_PER_FEATURE = 24
LEAST_ROWS = 16384
"""More rows of patches than these tell little more about so many features: a random share of the places is used."""


class Moments:
    """Sums over rows x (inputs) and y (targets) per group of a linear node: 1, x, y, xx', yx', y^2.

    Rows are multiplied in single precision, batch by batch, and added in double.
    """

    def __init__(self, node: Linear) -> None:
        g, d, o = node.groups, node.features, node.outputs
        self.node, self.count = node, 0
        self._x, self._y = np.zeros((g, d)), np.zeros((g, o))
        self._xx, self._yx = np.zeros((g, d, d)), np.zeros((g, o, d))
        self._yy = np.zeros((g, o))

    def add(self, x: Array, y: Array, share: float, rng: np.random.Generator) -> None:
        """Take in a batch: the node's input and its target (of the shape of its output), at a `share` of the places."""
        total = self.node.positions(y)
        chosen = None if share >= 1 else np.sort(rng.choice(total, max(1, int(total * share)), replace=False))
        patches = np.asarray(self.node.patches(x, y.shape, chosen), np.float32)
        targets = np.asarray(self.node.rows(y, chosen), np.float32)
        targets = targets.reshape(len(targets), self.node.groups, self.node.outputs)
        self.count += len(patches)
        self._x += patches.sum(axis=0, dtype=np.float64)
        self._y += targets.sum(axis=0, dtype=np.float64)
        self._yy += np.einsum("rgo,rgo->go", targets, targets, dtype=np.float64)
        if self.node.groups == 1:
            p = patches[:, 0]
            self._xx[0] += p.T @ p
            self._yx[0] += targets[:, 0].T @ p
        else:
            p = np.ascontiguousarray(patches.transpose(1, 0, 2))
            self._xx += p.transpose(0, 2, 1) @ p
            self._yx += targets.transpose(1, 2, 0) @ p

    def means(self, group: int = 0) -> tuple[Floats, Floats]:
        """Means of x [d] and y [o]."""
        return self._x[group] / self.count, self._y[group] / self.count

    def inputs(self, group: int = 0) -> Floats:
        """[d, d] covariance of x."""
        x, _ = self.means(group)
        return np.asarray(self._xx[group] / self.count - np.outer(x, x))

    def cross(self, group: int = 0) -> Floats:
        """[o, d] covariance of y with x."""
        x, y = self.means(group)
        return np.asarray(self._yx[group] / self.count - np.outer(y, x))

    def raw(self, group: int = 0) -> tuple[Floats, Floats]:
        """Uncentred: xx' [d, d] and yx' [o, d]."""
        return self._xx[group] / self.count, self._yx[group] / self.count

    def energies(self, group: int = 0, centred: bool = True) -> Floats:
        """[o] variances of y; or means of y^2."""
        if not centred:
            return np.asarray(self._yy[group] / self.count)
        _, y = self.means(group)
        return np.asarray(np.maximum(self._yy[group] / self.count - y * y, 0.0))


def share_of_places(node: Linear, places: int) -> float:
    """The share of `places` rows worth looking at."""
    return min(1.0, max(LEAST_ROWS, ROWS_PER_FEATURE * node.features) / max(1, places))
