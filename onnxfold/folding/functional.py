"""What channels do for their consumers: how alike they are to these, and the error that merges leave when consumers are
refitted.

All from the second moments H of the consumers' inputs and their weights W. A merge gives z = A x, where the
nonlinearity in front of x is taken to be linear; then the best consumer of z errs by tr(W (H - H A' (A H A')^-1 A H)
W'), which is the cost of dropping (block Optimal Brain Surgeon) where A selects. Clustering activations instead of
weights: cf. Wang et al., ICLR 2025, whose features are weights; refitted consumers of merged channels: GRAIL (arXiv
2602.23795).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csr_matrix

from ..frozen import read_only
from .blas import one_thread
from .merge import Merge, folding, pruning, weighted
from .ridge import damping
from .second_order import Consumer

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ALIKE = 0.3  # least correlation of activations that are merged: a ReLU of a sum is not the sum of the ReLUs
_SINGLE = 1024  # inputs; systems of so many are solved by one thread
_LEAST = 1e-30


@dataclass(frozen=True, eq=False)
class Functions:
    """What the n channels of a group do for their consumers.

    `gram` [n, n]: inner products of the channels' activations, as they count for the consumers (see `functions`), as
    squared errors relative to the consumers' energies; `likeness` [n, n]: correlations of the activations; `worth` [n]:
    the diagonal of `gram`. `consumers`: none where their moments were too large to be kept.
    """

    gram: Floats = field(repr=False)
    likeness: Floats = field(repr=False)
    worth: Floats = field(repr=False)
    consumers: tuple[Consumer, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        read_only(self)


def functions(consumers: Sequence[Consumer], remember: bool = False) -> Functions:
    """The functions of the channels of one group; with `remember`, its consumers are kept in single precision.

    Activations x_i [b] are compared in the metric M [b, b] of the mean consumer, M = sum_i W_i' W_i, which gives the
    correlation rho_ij = tr(M H_ij) / sqrt(tr(M H_ii) tr(M H_jj)), and are scaled to what they contribute to the
    outputs, w_i^2 = tr(W_i H_ii W_i') / energy: the Gram matrix is rho_ij w_i w_j. A channel that does little is near
    0, so that it joins any cluster at little cost, and two that do the same are near each other even where their
    consumers weigh them differently; the inner products of the contributions themselves, tr(W_i H_ij W_j'), do not see
    these (ResNet-20, inner groups at half their channels: 1.22 times the error of dropping, against 1.15).
    """
    n = len(consumers[0].columns)
    common, worth = np.zeros((n, n)), np.zeros(n)
    for consumer in consumers:
        mine = consumer.read
        at = consumer.columns[mine]
        weights = np.asarray(consumer.weights, np.float64)[:, at]  # [outputs, channels, b]
        metric = np.einsum("ocb,ocd->bd", weights, weights, optimize=True)
        inside = np.zeros((len(mine), len(mine)))
        for b, d in np.ndindex(*metric.shape):
            inside += metric[b, d] * consumer.moments[np.ix_(at[:, b], at[:, d])]
        energy = max(consumer.energy, _LEAST)
        common[np.ix_(mine, mine)] += (inside + inside.T) / (2 * energy)
        own = consumer.moments[at[:, :, None], at[:, None, :]]
        worth[mine] += np.einsum("ocb,cbd,ocd->c", weights, own, weights, optimize=True) / energy
    size = np.sqrt(np.maximum(np.diag(common), 0.0))
    scale = np.where(size > 0, 1 / np.where(size > 0, size, 1.0), 0.0)
    likeness = common * np.outer(scale, scale)
    worth = np.maximum(worth, 0.0)
    root = np.sqrt(worth)
    kept = tuple(_single(consumer) for consumer in consumers) if remember else ()
    return Functions(likeness * np.outer(root, root), likeness, worth, kept)


def functional_merge(found: Functions, labels: Ints, error: float = 0.0) -> Merge:
    """The merge of clusters `labels` [n]: weights that produce channels are averaged, weighted by the channels' worth;
    those that consume them are added up."""
    floor = 1e-6 * float(found.worth.mean()) + _LEAST
    return weighted(folding(labels, error), found.worth + floor)


def linear_error(consumers: Sequence[Consumer], merge: Merge, ridge: float) -> float:
    """The squared error, summed over the consumers and relative to their energies, when they are refitted to `merge`.

    As if activations were merged rather than what makes them: exact for dropping, too small for merging. `ridge` is
    relative to the mean of the diagonal of the moments, as in `eliminate`.
    """
    means = merge.for_producers.tocoo()
    total = 0.0
    for consumer in consumers:
        d = len(consumer.moments)
        kept = consumer.columns[merge.keep]
        rest = np.setdiff1d(np.arange(d), consumer.columns)
        rows, columns = kept[means.row], consumer.columns[means.col]
        both = (rows >= 0) & (columns >= 0)
        values = np.broadcast_to(means.data[:, None], rows.shape)[both]
        chosen = csr_matrix(
            (
                np.concatenate([values, np.ones(len(rest))]),
                (np.concatenate([rows[both], rest]), np.concatenate([columns[both], rest])),
            ),
            shape=(d, d),
        )[np.union1d(kept[kept >= 0], rest)]
        damped = _damped(consumer, ridge)
        cross = chosen @ damped  # [new inputs, d]
        wanted = np.asarray(cross @ consumer.weights.T)
        solved = _solved(np.asarray((chosen @ cross.T).T), wanted)
        whole = float(np.sum((consumer.weights @ damped) * consumer.weights))
        total += max(0.0, whole - float(np.sum(wanted * solved))) / max(consumer.energy, _LEAST)
    return total


def absorb(found: Functions, kept: Ints, ridge: float, cells: Ints | None = None, error: float = 0.0) -> Merge:
    """All channels but `kept` [k] are dropped, or merged into a kept one where that leaves less error.

    With the consumers refitted to the kept channels, the residuals r of their outputs, and V_ij the refitted weights of
    kept channel i less those with which it stands in for j, adding t times what is new in a dropped x_j to channel i
    takes away cov(r, V_ij x_j)^2 / var(V_ij x_j) of the squared error, at t = cov / var. Each dropped channel goes to
    the kept one (of its own cell [n]) where that is most, if t is positive and their activations are `ALIKE`; their
    producers' weights are then averaged with the shares 1 and t (1 at most).

    `found` must have remembered its consumers.
    """
    n = len(found.worth)
    kept = np.sort(np.asarray(kept, np.int64))
    gone = np.setdiff1d(np.arange(n), kept)
    both, spread = np.zeros((len(kept), len(gone))), np.zeros((len(kept), len(gone)))
    for consumer in found.consumers:
        _gains(consumer, kept, gone, ridge, both, spread)
    may = (both > 0) & (spread > _LEAST) & (found.likeness[np.ix_(kept, gone)] > ALIKE)
    if cells is not None:
        may &= cells[kept][:, None] == cells[gone]
    share = np.where(may, both / np.where(may, spread, 1.0), 0.0)
    gain = both * share
    plain = pruning(kept, n, error)
    if not may.any():
        return plain
    target, column = np.argmax(gain, axis=0), np.arange(len(gone))
    chosen = gain[target, column] > 0
    labels, weight = plain.labels.copy(), np.ones(n)
    labels[gone[chosen]] = target[chosen]
    weight[gone[chosen]] = np.minimum(share[target, column][chosen], 1.0)
    members = np.flatnonzero(labels >= 0)
    into = csr_matrix((np.ones(len(members)), (labels[members], members)), shape=(len(kept), n))
    return weighted(Merge(kept, labels, into, into, error=error), weight)


def _gains(consumer: Consumer, kept: Ints, gone: Ints, ridge: float, both: Floats, spread: Floats) -> None:
    """Add the share of one consumer, relative to its energy: cov(r, V_ij x_j) to `both` [k, gone], var(V_ij x_j) to
    `spread`."""
    here, out = np.flatnonzero(consumer.columns[kept, 0] >= 0), np.flatnonzero(consumer.columns[gone, 0] >= 0)
    if not len(here) or not len(out):
        return
    width = consumer.columns.shape[1]
    at_gone = consumer.columns[gone[out]].ravel()
    others = np.setdiff1d(np.arange(len(consumer.moments)), at_gone)
    damped = _damped(consumer, ridge)
    cross = damped[np.ix_(others, at_gone)]
    stands_in = _solved(damped[np.ix_(others, others)], cross)
    new = damped[np.ix_(at_gone, at_gone)] - cross.T @ stands_in  # covariance of what is new in the dropped inputs
    lost = consumer.weights[:, at_gone]
    refitted = np.zeros_like(consumer.weights, np.float64)
    refitted[:, others] = consumer.weights[:, others] + lost @ stands_in.T
    used = refitted[:, consumer.columns[kept[here]]].transpose(1, 2, 0)  # [k, b, outputs]
    residual = (new @ lost.T).reshape(len(out), width, -1)
    where = np.ix_(here, out)
    energy = max(consumer.energy, _LEAST)
    both[where] += used.reshape(len(here), -1) @ residual.reshape(len(out), -1).T / energy
    blocks = new.reshape(len(out), width, len(out), width)[np.arange(len(out)), :, np.arange(len(out)), :]
    spread[where] += (used @ used.transpose(0, 2, 1)).reshape(len(here), -1) @ blocks.reshape(len(out), -1).T / energy
    place = np.zeros(len(consumer.moments), np.int64)
    place[others] = np.arange(len(others))
    instead = stands_in[place[consumer.columns[kept[here]]]].reshape(len(here), width, len(out), width)
    own = lost.T.reshape(len(out), width, -1)  # W_j' [gone, b, outputs]
    crossed = (own.reshape(-1, own.shape[-1]) @ used.reshape(-1, used.shape[-1]).T).reshape(len(out), width, -1, width)
    for j in range(len(out)):  # V_i less F W_j, what x_i took over of x_j: products of both with outputs summed out
        taken = instead[:, :, j]  # F [k, b, b]
        both[here, out[j]] -= np.einsum("kbc,cb->k", taken, own[j] @ residual[j].T) / energy
        square = taken @ (own[j] @ own[j].T) @ taken.transpose(0, 2, 1) - 2 * taken @ crossed[j].transpose(1, 0, 2)
        spread[here, out[j]] += np.einsum("kbc,bc->k", square, blocks[j]) / energy


def _damped(consumer: Consumer, ridge: float) -> Floats:
    damped = np.array(consumer.moments, np.float64)
    damped[np.diag_indices(len(damped))] += damping(damped, ridge)
    return damped


def _solved(matrix: NDArray[Any], right: NDArray[Any]) -> Floats:
    with one_thread(len(matrix) <= _SINGLE):
        return np.asarray(cho_solve(cho_factor(matrix, lower=True, check_finite=False), right, check_finite=False))


def _single(consumer: Consumer) -> Consumer:
    return Consumer(
        consumer.moments.astype(np.float32), consumer.weights.astype(np.float32), consumer.columns, consumer.energy
    )
