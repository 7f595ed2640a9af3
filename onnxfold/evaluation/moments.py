"""How far the components of an output move, of many samples: added up batch by batch, so that no output is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..frozen import read_only

Along = Mapping[int | None, "Moments"]  # by axis; None: all values are of one component


def _quiet() -> np.errstate:
    """Squares may be infinite: `metrics._tempered` looks at that. One for each use: older ones do not nest."""
    return np.errstate(over="ignore", invalid="ignore")


@dataclass(frozen=True, eq=False)
class Moments:
    """Of every component: how many values there are, their `mean`, and the sum of their squared distances from it
    (`apart`); all [components]. NaN does not count."""

    count: NDArray[np.float64]
    mean: NDArray[np.float64]
    apart: NDArray[np.float64]

    def __post_init__(self) -> None:
        read_only(self)

    @classmethod
    @_quiet()
    def of(cls, rows: NDArray[np.float64]) -> Moments:
        """Of values [values, components]."""
        there = ~np.isnan(rows)
        if there.all():
            middle = rows.mean(axis=0) if len(rows) else np.zeros(rows.shape[1])
            return cls(np.full(rows.shape[1], float(len(rows))), middle, np.square(rows - middle).sum(axis=0))
        count, filled = there.sum(axis=0).astype(np.float64), np.where(there, rows, 0.0)
        mean = filled.sum(axis=0) / np.maximum(1, count)
        return cls(count, mean, np.square(np.where(there, rows - mean, 0.0)).sum(axis=0))

    @_quiet()
    def __add__(self, other: Moments) -> Moments:
        """Of the values of both (Chan, Golub, LeVeque: Updating formulae for computing sample variances, 1979)."""
        count, gap = self.count + other.count, other.mean - self.mean
        share = other.count / np.maximum(1, count)
        return Moments(count, self.mean + gap * share, self.apart + other.apart + np.square(gap) * self.count * share)

    @property
    @_quiet()
    def size(self) -> NDArray[np.float64]:
        """The root mean square [components]; 0 where there are no values."""
        found: NDArray[np.float64] = np.sqrt(np.square(self.mean) + np.square(self.deviation))
        return found

    @property
    @_quiet()
    def deviation(self) -> NDArray[np.float64]:
        """The standard deviation [components]; 0 where there are no values."""
        found: NDArray[np.float64] = np.sqrt(self.apart / np.maximum(1, self.count))
        return found


class MomentsAlong:
    """Of one output [N, ...], batch by batch, along each axis on which all have as many components: the first, the
    second and the last (see `metrics.component_error`)."""

    def __init__(self) -> None:
        self._found: dict[int | None, Moments] | None = None

    @property
    def known(self) -> Along:
        """The moments so far, by axis."""
        return dict(self._found or {})

    def add(self, output: NDArray[Any]) -> None:
        """One batch more; what is infinite does not count."""
        here = _moments_of(output)
        if self._found is None:
            self._found = here
            return
        both = {axis: (one, here[axis]) for axis, one in self._found.items() if axis in here}
        self._found = {axis: a + b for axis, (a, b) in both.items() if a.mean.shape == b.mean.shape}


def _moments_of(output: NDArray[Any]) -> dict[int | None, Moments]:
    values = np.array(output, np.float64)
    values[~np.isfinite(values)] = np.nan
    last = values.ndim - 1
    axes: set[int | None] = {0, 1, last} if last > 0 else {0, None} if last == 0 else {None}
    return {axis: Moments.of(as_rows([values], axis)) for axis in axes if axis is None or values.shape[axis]}


def as_rows(batches: Sequence[NDArray[Any]], axis: int | None) -> NDArray[np.float64]:
    """[values, components]: all batches with the components of `axis` last."""
    arrays = [np.asarray(x, np.float64) for x in batches]
    if axis is None:
        return np.concatenate([x.reshape(-1, 1) for x in arrays])
    return np.concatenate([np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis]) for x in arrays])
