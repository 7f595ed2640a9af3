"""Second moments of the inputs of a linear node and of the outputs that it should have, summed up batch by batch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..model.linear import Linear

Floats = NDArray[np.float64]
Array = NDArray[Any]

MOST_FEATURES = 4608
"""Per group (512 channels of 3x3): a moment matrix of 170 MB. Wider consumers get no full moments: see
channel_maps.py."""
ROWS_PER_FEATURE = 8
LEAST_ROWS = 16384
"""More rows of patches than these tell little more about so many features: a random share of the places is used."""
_GROUPED = 4
"""One in so many of the rows does for a grouped node: a depthwise one has 9 features, yet its rows are as long as all
channels times 9, and took half of the time of folding EfficientNet-Lite0."""


class Moments:
    """Sums over rows x (inputs) and y (targets) per group of a linear node: 1, x, y, xx', yx', y^2.

    Rows are multiplied in single precision, a batch at a time (several where there are more features than rows), and
    added in double; all less the means of the first batch, so that inputs far from 0 keep their variance.
    """

    def __init__(self, node: Linear) -> None:
        g, d, o = node.groups, node.features, node.outputs
        self.node, self.count = node, 0
        self._x, self._y = np.zeros((g, d)), np.zeros((g, o))
        self._products = np.zeros((g, d, d)), np.zeros((g, o, d))
        self._waiting = list[tuple[Array, Array]]()  # rows of one group that are not multiplied yet
        self._yy = np.zeros((g, o))
        self._at_x, self._at_y = np.zeros((g, d), np.float32), np.zeros((g, o), np.float32)

    def add(self, x: Array, y: Array, share: float, rng: np.random.Generator) -> None:
        """Take in a batch: the node's input and its target (of the shape of its output), at a `share` of the places."""
        total = self.node.positions(y)
        chosen = None if share >= 1 else np.sort(rng.choice(total, max(1, int(total * share)), replace=False))
        patches = np.asarray(self.node.patches(x, y.shape, chosen), np.float32)
        targets = np.asarray(self.node.rows(y, chosen), np.float32)
        targets = targets.reshape(len(targets), self.node.groups, self.node.outputs)
        if self.count == 0:
            self._at_x = patches.mean(axis=0, dtype=np.float64).astype(np.float32)
            self._at_y = targets.mean(axis=0, dtype=np.float64).astype(np.float32)
        patches, targets = patches - self._at_x, targets - self._at_y
        self.count += len(patches)
        self._x += patches.sum(axis=0, dtype=np.float64)
        self._y += targets.sum(axis=0, dtype=np.float64)
        self._yy += np.einsum("rgo,rgo->go", targets, targets, dtype=np.float64)
        if self.node.groups == 1:
            self._waiting.append((patches[:, 0], targets[:, 0]))
            if sum(len(rows) for rows, _ in self._waiting) >= self.node.features:
                self.settle()
        else:
            p, (xx, yx) = np.ascontiguousarray(patches.transpose(1, 0, 2)), self._products
            xx += p.transpose(0, 2, 1) @ p
            yx += targets.transpose(1, 2, 0) @ p

    def settle(self) -> None:
        """Multiply the rows that wait (adding a matrix takes as long as multiplying a few hundred rows), which frees
        their memory."""
        if self._waiting:
            parts = zip(*self._waiting, strict=True)
            patches, targets = (part[0] if len(part) == 1 else np.concatenate(part) for part in parts)
            self._waiting.clear()
            xx, yx = self._products
            xx[0] += patches.T @ patches
            yx[0] += targets.T @ patches

    @property
    def _sums(self) -> tuple[Floats, Floats]:
        """Of xx' and yx'."""
        self.settle()
        return self._products

    @property
    def finite(self) -> bool:
        """Whether all that was taken in was finite, and small enough to be squared in single precision."""
        return all(bool(np.isfinite(part).all()) for part in (*self._sums, self._yy))

    def means(self, group: int = 0) -> tuple[Floats, Floats]:
        """Means of x [d] and y [o]."""
        x, y = self._offsets(group)
        return self._at_x[group] + x, self._at_y[group] + y

    def _offsets(self, group: int) -> tuple[Floats, Floats]:
        """Means less those of the first batch."""
        return self._x[group] / self.count, self._y[group] / self.count

    def inputs(self, group: int = 0) -> Floats:
        """[d, d] covariance of x."""
        x, _ = self._offsets(group)
        found = np.asarray(self._sums[0][group] / self.count)
        for row, mean in zip(found, x, strict=True):  # in place: matrices can have a hundred megabytes
            row -= mean * x
        return found

    def spread(self) -> Floats:
        """[groups, d] variances of x."""
        means = self._x / self.count
        return np.asarray(np.diagonal(self._sums[0], axis1=1, axis2=2) / self.count - means * means)

    def cross(self, group: int = 0) -> Floats:
        """[o, d] covariance of y with x."""
        x, y = self._offsets(group)
        return np.asarray(self._sums[1][group] / self.count - np.outer(y, x))

    def raw(self, group: int = 0) -> tuple[Floats, Floats]:
        """Uncentered: xx' [d, d] and yx' [o, d]."""
        x, y = self.means(group)
        return self.inputs(group) + np.outer(x, x), self.cross(group) + np.outer(y, x)

    def energies(self, group: int = 0, centered: bool = True) -> Floats:
        """[o] variances of y; or means of y^2."""
        _, y = self._offsets(group)
        variances = np.asarray(np.maximum(self._yy[group] / self.count - y * y, 0.0))
        return variances if centered else variances + self.means(group)[1] ** 2


def share_of_places(node: Linear, places: int, least: int = LEAST_ROWS) -> float:
    """The share of so many `places` (rows of patches) that moments of a node's inputs need (`rows_needed`)."""
    return min(1.0, rows_needed(node.features, least, node.groups > 1) / max(1, places))


def rows_needed(features: int, least: int = LEAST_ROWS, grouped: bool = False) -> float:
    """How many rows moments of so many features need: `least`, a quarter of that for a `grouped` node, or a few for
    every feature; of very many features fewer, where `least` is less than usual."""
    few = ROWS_PER_FEATURE * features
    return max(least / (_GROUPED if grouped else 1), min(few, LEAST_ROWS), few * least / LEAST_ROWS)


def fit_work(features: int, rows: int = LEAST_ROWS) -> float:
    """Multiplications and additions to fit a consumer of so many features (no more than can be fitted in full) on so
    many `rows` at least."""
    features = min(features, MOST_FEATURES)
    return 2.0 * rows_needed(features, rows) * features**2 + 3.0 * float(features) ** 3
