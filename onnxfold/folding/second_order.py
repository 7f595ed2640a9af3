"""Second-order selection: which channels to drop, when their consumers are refitted to the channels that stay.

Block Optimal Brain Surgeon: with the inverse moments P = (H + lambda I)^-1 of a consumer's inputs and its weights W,
dropping the inputs J costs exactly tr(W_J P_JJ^-1 W_J') in squared output error after all other weights have been
refitted (Hassibi and Stork 1993; Kurtic et al., ZipLM, 2023, for structures). Channels go one by one, the cheapest for
all consumers together first, so one run gives the error for every width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from ..frozen import read_only
from ..progress import steps
from .blas import one_thread
from .ridge import damping

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.int64]

_AHEAD = 8  # the exact greedy search goes over the cheapest eighth of the channels (at least _LEAST), and only then
# are the large matrices updated, once
_LEAST = 24
_SINGLE = 1024  # inputs; wider consumers are computed in single precision: half the time, and only ranks depend on it
_SLACK = 0.05  # that search goes on while its cheapest channel costs at most this much more than `outside`


@dataclass(frozen=True, eq=False)
class Consumer:
    """One consumer of the channels: `moments` [d, d] of its centered inputs, `weights` [outputs, d], `columns` [n, b]
    the inputs that belong to every channel (-1 for one that it does not read: each part of a grouped convolution is a
    consumer of its own), and the `energy` that its squared error is divided by."""

    moments: Floats
    weights: Floats
    columns: Ints
    energy: float

    def __post_init__(self) -> None:
        read_only(self)

    @property
    def read(self) -> Ints:
        """The channels that it reads."""
        return np.flatnonzero(self.columns[:, 0] >= 0)


@dataclass(frozen=True, eq=False)
class Elimination:
    """`order` [m]: channels, the first to be dropped first. `errors` [m + 1]: the error when so many are gone, summed
    over the consumers, each relative to its energy."""

    order: Ints
    errors: NDArray[np.float64]

    def __post_init__(self) -> None:
        read_only(self)


def eliminate(
    consumers: Sequence[Consumer], keep: int = 1, ridge: float = 1e-3, cells: Ints | None = None
) -> Elimination:
    """Drop channels one by one until `keep` are left.

    `ridge` is relative to the mean of the diagonal of the moments. With `cells` [n] the channels go in rounds: one of
    every cell before the next of any.
    """
    with one_thread(all(len(consumer.moments) <= _SINGLE for consumer in consumers)):
        return _eliminate(consumers, keep, ridge, cells)


def _eliminate(consumers: Sequence[Consumer], keep: int, ridge: float, cells: Ints | None) -> Elimination:
    n = consumers[0].columns.shape[0]
    states = [_State(consumer, ridge) for consumer in consumers]
    left = np.arange(n)
    order, errors = list[int](), [0.0]
    allowed = _Rounds(n, cells)
    while len(left) > keep:
        scores = np.sum([state.scores(left) for state in states], axis=0)
        open_ = allowed.open(left)
        ranked = left[open_][np.argsort(scores[open_], kind="stable")]
        ahead = ranked[: max(_LEAST, len(left) // _AHEAD)]
        outside = np.sort(scores[open_])[len(ahead)] if len(ahead) < len(ranked) else np.inf
        with one_thread():
            gone, costs = _exactly(states, ahead, outside, len(left) - keep, allowed)
        for state in states:
            state.drop(gone)
        order += gone
        errors += list(errors[-1] + np.cumsum(costs))
        left = left[~np.isin(left, gone)]
    return Elimination(np.array(order, np.int64), np.maximum.accumulate(errors))


class _Rounds:
    """Which channels may be dropped next when all cells shrink alike: one of every cell before the next of any."""

    def __init__(self, n: int, cells: Ints | None) -> None:
        self.cells = np.zeros(n, np.int64) if cells is None else cells
        self.count = int(self.cells.max()) + 1
        self.gone = np.zeros(self.count, np.int64)

    @property
    def even(self) -> bool:
        """Whether no round has begun."""
        return bool(self.gone.min() == self.gone.max())

    def open(self, left: Ints) -> NDArray[np.bool_]:
        return np.asarray(self.gone[self.cells[left]] == self.gone.min())

    def take(self, channel: int) -> None:
        self.gone[self.cells[channel]] += 1


def _exactly(
    states: Sequence[_State], ahead: Ints, outside: float, most: int, allowed: _Rounds
) -> tuple[list[int], list[float]]:
    """Greedy among the channels `ahead` alone, until one of the others may be cheaper: `outside` is the least of their
    scores, which seldom fall.

    Returns the channels to drop, in order, and what each costs. Where some cells have already given up one channel more
    than others, it ends when all have given up equally many: `ahead` then holds channels of the other cells only.
    """
    until = None if allowed.even else int(allowed.gone.min())
    small = [state.part(ahead) for state in states]
    gone, costs = list[int](), list[float]()
    waiting = np.arange(len(ahead))
    for _ in steps("ordering channels", range(min(most, len(ahead)))):
        if until not in (None, allowed.gone.min()):
            break
        may = waiting[allowed.open(ahead[waiting])]
        if not len(may):
            break
        scores = np.sum([part.scores(may) for part in small], axis=0)
        best = int(np.argmin(scores))
        if gone and scores[best] > outside * (1 + _SLACK):
            break
        chosen = int(may[best])
        for part in small:
            part.drop([chosen])
        gone.append(int(ahead[chosen]))
        costs.append(float(scores[best]))
        allowed.take(gone[-1])
        waiting = waiting[waiting != chosen]
    return gone, costs


class _State:
    """The inverse moments and the weights of one consumer, without the inputs of the channels dropped so far."""

    def __init__(self, consumer: Consumer, ridge: float) -> None:
        d = len(consumer.moments)
        kind: type[np.floating[Any]] = np.float32 if d > _SINGLE else np.float64
        self.inverse: Floats = _inverse(consumer.moments, damping(consumer.moments, ridge), kind)
        self.weights: Floats = np.array(consumer.weights, kind)
        self.columns = consumer.columns
        self.energy = max(consumer.energy, 1e-30)

    def scores(self, channels: Ints) -> NDArray[np.float64]:
        """What dropping each of `channels` costs, relative to the energy."""
        mine = self.columns[channels, 0] >= 0
        out = np.zeros(len(channels))
        if not mine.any():
            return out
        at = self.columns[channels[mine]]
        own = self.inverse[at[:, :, None], at[:, None, :]]
        weights = self.weights[:, at].transpose(1, 2, 0)  # [channels, b, outputs]
        solved: Floats = np.linalg.solve(own, weights)
        out[mine] = np.maximum(np.einsum("cbo,cbo->c", weights, solved), 0.0) / self.energy
        return out

    def part(self, channels: Ints) -> _State:
        """The same for these channels alone, numbered from 0; right as long as no other channel is dropped."""
        columns = self.columns[channels]
        mine = columns[:, 0] >= 0
        at = columns[mine].ravel()
        part = object.__new__(_State)
        part.inverse, part.weights = self.inverse[np.ix_(at, at)], self.weights[:, at]
        part.columns = np.full(columns.shape, -1)
        part.columns[mine] = np.arange(len(at)).reshape(-1, columns.shape[1])
        part.energy = self.energy
        return part

    def drop(self, channels: Sequence[int]) -> None:
        """Refit the weights without these channels."""
        at = self.columns[list(channels)].ravel()
        at = at[at >= 0]
        if not len(at):
            return
        rows = self.inverse[at]
        factor = np.linalg.solve(self.inverse[np.ix_(at, at)], rows)
        self.weights = self.weights - self.weights[:, at] @ factor
        self.inverse -= rows.T @ factor
        alive = np.ones(len(self.inverse), bool)
        alive[at] = False
        self.inverse, self.weights = self.inverse[np.ix_(alive, alive)], self.weights[:, alive]
        renumbered = (np.cumsum(alive) - 1)[self.columns]  # those of dropped channels are never read again
        self.columns = np.where(self.columns >= 0, renumbered, -1)


def _inverse(moments: Floats, ridge: float, kind: type[np.floating[Any]]) -> Floats:
    """(moments + ridge I)^-1, with a larger ridge where that has no Cholesky factor."""
    factor, invert = (lapack.spotrf, lapack.spotri) if kind is np.float32 else (lapack.dpotrf, lapack.dpotri)
    for _ in range(8):
        damped = np.array(moments, kind, order="F")
        damped[np.diag_indices(len(damped))] += ridge
        lower, failed = factor(damped, lower=1, overwrite_a=1)
        if not failed:
            inverse, failed = invert(lower, lower=1, overwrite_c=1)
        if not failed:
            upper = np.triu_indices(len(inverse), 1)
            inverse[upper] = inverse.T[upper]
            return np.ascontiguousarray(inverse)
        ridge *= 10
    raise FloatingPointError("the moments of a consumer's inputs are not positive semidefinite")
