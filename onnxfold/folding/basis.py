"""One basis for a whole residual stream: the directions of least energy go, and norms make up for what is gone.

Source: Ashkboos et al., SliceGPT, ICLR 2024, here with one basis for all blocks and no adapters between them.
Formulas: docs/design/residual.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import helmert
from scipy.sparse import csr_matrix

from ..frozen import read_only
from .merge import Merge, pruning

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Spread:
    """What a norm divides: `moments` [n, n], the mean of x x' over all rows x of samples, each scaled to a mean square
    of 1 (after its mean is taken off where `centered`). `norm`: what the norm gives.

    Where the norm is over several rows (the pixels of an image), they are scaled, and their mean taken off, together;
    `means` [n, n] is the mean of m m' over the means m of such rows."""

    norm: str
    moments: Floats = field(repr=False)
    centered: bool
    means: Floats | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        read_only(self)

    def factor(self, matrix: Floats) -> float:
        """By what the mean square over the channels `matrix` @ x [k] stands for that over x; 1 where none is left."""
        left = matrix @ self.moments @ matrix.T
        k = len(left)
        means = left if self.means is None else matrix @ self.means @ matrix.T
        square = np.trace(left) / k - (means.sum() / k**2 if self.centered else 0.0)
        return float(1.0 / square) if square > 0 else 1.0


@dataclass(frozen=True, eq=False)
class Basis:
    """The directions of a stream: `vectors` [m, n], orthonormal, those of most energy first, and their `energies` [m],
    the share of all that each has. `centered`: all of them have the mean 0, and so are new channels to have."""

    vectors: Floats = field(repr=False)
    energies: Floats = field(repr=False)
    centered: bool

    def __post_init__(self) -> None:
        read_only(self)

    @classmethod
    def of(cls, spreads: Sequence[Spread]) -> Basis:
        """The principal directions of all norms together, each of which counts for as much."""
        centered = spreads[0].centered
        moments = np.mean([one.moments for one in spreads], axis=0)
        values, vectors = np.linalg.eigh(moments)
        values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1].T
        if centered:  # the direction of equal entries has none: it is left out, whatever eigh makes of rounding
            equal = int(np.argmax(np.abs(vectors.sum(axis=1))))
            values, vectors = np.delete(values, equal), np.delete(vectors, equal, axis=0)
            vectors = _orthonormal(vectors - vectors.mean(axis=1, keepdims=True))
        return cls(vectors, values / max(float(values.sum()), 1e-30), centered)

    def matrix(self, keep: int) -> Floats:
        """[keep, n] what makes new channels of old ones; its rows are orthonormal, or, `centered`, its columns add up
        to 0: then layer normalization has no mean to take off, and one direction less is left."""
        if self.centered:
            return np.asarray(helmert(keep).T @ self.vectors[: keep - 1], np.float64)
        return self.vectors[:keep]

    def lost(self) -> Floats:
        """[n + 1] the share of the energy that is lost where k channels are kept, at index k."""
        left = np.concatenate([[0.0], np.cumsum(self.energies)])
        lost = np.maximum(left[-1] - left, 0.0)
        return np.concatenate([[np.nan], lost]) if self.centered else lost

    def merge(self, keep: int, spreads: Sequence[Spread]) -> Merge:
        """The merge that leaves `keep` directions: what consumes old channels takes them back from new ones."""
        n, matrix = self.vectors.shape[1], self.matrix(keep)
        labels = np.full(n, -1, np.int64)
        labels[:keep] = np.arange(keep)
        dense = csr_matrix(matrix)
        made = Merge(np.arange(keep), labels, dense, dense, error=float(self.lost()[keep]), rotated=True)
        return replace(made, squares=factors(spreads, matrix))


def factors(spreads: Sequence[Spread], matrix: Floats) -> Mapping[str, float]:
    """`Merge.squares` where `matrix` [k, n] makes new channels of old ones."""
    return {one.norm: one.factor(matrix) for one in spreads}


def selection(keep: NDArray[np.int64], n: int, spreads: Sequence[Spread], error: float = 0.0) -> Merge:
    """The merge that drops all of n channels but `keep` [k]."""
    made = pruning(keep, n, error)
    return replace(made, squares=factors(spreads, np.eye(n)[made.keep]))


def _orthonormal(rows: Floats) -> Floats:
    """The same rows, orthonormal again."""
    q, r = np.linalg.qr(rows.T)
    return np.asarray((q * np.sign(np.diag(r))).T, np.float64)
