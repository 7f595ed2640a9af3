"""Merges: how the channels of one group are combined, as two small matrices. Folding and pruning differ only here.

Weights that produce channels become ``for_producers @ W`` along their axis, weights that consume them
``for_consumers @ W`` (each row of `for_consumers` adds up the columns it replaces). Source: Wang et al., ICLR 2025
(mean and sum); Saukh et al., ICLR 2026 (pruning as the same projection with another matrix).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ..errors import RuleError
from ..frozen import read_only

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_PIECE = 2**20  # numbers of a weight that are merged at a time, so that they stay in the processor's cache


@dataclass(frozen=True)
class Merge:
    """n channels become k.

    `keep` [k]: the old channels whose positions the new ones take, ascending. `labels` [n]: the new channel of every
    old one, -1 for a dropped one. `for_producers`, `for_consumers` [k, n]. `scales`: extra factors [k] for single
    weights that produce channels, by tensor name (recovery). `error`: the squared distance that the merge introduces in
    the features it was made from.

    Of channels that norms go over (docs/design/residual.md): `squares`, by what a norm gives, the factor by which the
    mean square over the new channels stands for that over the old ones (empty: each counts for those that it replaces).
    `rotated`: the new channels are directions, none of them an old one, and norms over them scale all alike.
    """

    keep: Ints
    labels: Ints
    for_producers: csr_matrix = field(repr=False)
    for_consumers: csr_matrix = field(repr=False)
    scales: Mapping[str, Floats] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    error: float = 0.0
    squares: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    rotated: bool = False

    def __post_init__(self) -> None:
        k, n = len(self.keep), len(self.labels)
        shapes = self.for_producers.shape, self.for_consumers.shape
        if shapes != ((k, n), (k, n)):
            raise RuleError(f"a merge of {n} channels into {k} with matrices {shapes[0]}, {shapes[1]}")
        if not (np.diff(self.keep) > 0).all() or not (self.labels[self.keep] == np.arange(k)).all():
            raise RuleError("a merge must keep its channels in ascending order, each in its own cluster")
        read_only(self)

    @property
    def before(self) -> int:
        """The number of channels before."""
        return len(self.labels)

    @property
    def after(self) -> int:
        """The number of channels after."""
        return len(self.keep)

    def scaled(self, tensor: str, factors: Floats) -> Merge:
        """The same merge with `factors` [k] on the parameter `tensor`."""
        return replace(self, scales=MappingProxyType({**self.scales, tensor: factors}))


def folding(labels: NDArray[np.integer], error: float = 0.0) -> Merge:
    """The merge of clusters: the mean of what produces channels, the sum of what consumes them.

    Args:
        labels: [n] cluster of every channel, 0..k-1, every cluster used; renumbered by first member.
        error: inertia of the clustering.
    """
    _, first, canonical = np.unique(labels, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    canonical = rank[canonical.ravel()]
    n, k = len(labels), len(first)
    sums = csr_matrix((np.ones(n), (canonical, np.arange(n))), shape=(k, n))
    sizes = np.bincount(canonical, minlength=k)
    means = csr_matrix((1.0 / sizes[canonical], (canonical, np.arange(n))), shape=(k, n))
    return Merge(np.sort(first).astype(np.int64), canonical, means, sums, error=error)


def pruning(keep: NDArray[np.integer], channels: int, error: float = 0.0) -> Merge:
    """The merge that drops all channels but `keep` [k]."""
    kept = np.unique(np.asarray(keep, np.int64))
    labels = np.full(channels, -1, np.int64)
    labels[kept] = np.arange(len(kept))
    select = csr_matrix((np.ones(len(kept)), (np.arange(len(kept)), kept)), shape=(len(kept), channels))
    return Merge(kept, labels, select, select, error=error)


def weighted(merge: Merge, weights: Floats) -> Merge:
    """The same merge, the mean of what produces channels weighted by `weights` [n] (positive where one is merged)."""
    kept = merge.labels >= 0
    share = np.where(kept, weights, 0.0)
    share = share / np.bincount(merge.labels[kept], share[kept], merge.after)[merge.labels]
    members = np.flatnonzero(kept)
    means = csr_matrix((share[kept], (merge.labels[kept], members)), shape=merge.for_producers.shape)
    return replace(merge, for_producers=means)


def rearranging(for_producers: csr_matrix, for_consumers: csr_matrix) -> Merge:
    """A merge that keeps every channel's place and recombines the parameters (permutation, duplication oracles)."""
    n = for_producers.shape[0]
    return Merge(np.arange(n), np.arange(n), for_producers, for_consumers)


def apply(matrix: csr_matrix, array: NDArray[Any], axis: int, blocks: int) -> NDArray[Any]:
    """`matrix` along `axis`; with `blocks`, its blocks along `axis` of each part of axis 0."""
    matrix = matrix if matrix.dtype == array.dtype else matrix.astype(array.dtype)
    if blocks == 1:
        moved = np.moveaxis(array, axis, 0)
        flat = np.ascontiguousarray(moved.reshape(moved.shape[0], -1))
        return np.moveaxis((matrix @ flat).reshape(matrix.shape[0], *moved.shape[1:]), 0, axis)
    new, old = matrix.shape[0] // blocks, matrix.shape[1] // blocks
    if new * blocks != matrix.shape[0]:
        raise RuleError("the blocks of a grouped weight became unequal")
    parts = np.split(array, blocks, axis=0)
    return np.concatenate(
        [apply(matrix[i * new : (i + 1) * new, i * old : (i + 1) * old], part, axis, 1) for i, part in enumerate(parts)]
    )


def apply_in_pieces(matrix: csr_matrix, array: NDArray[Any], axis: int) -> NDArray[Any]:
    """`apply` to a two-dimensional `array` of any float type, computed in the type of `matrix`: the same numbers,
    without anything of the size of `array` in memory but the result."""
    shape = list(array.shape)
    shape[axis] = matrix.shape[0]
    out = np.empty(shape, array.dtype)
    step = max(1, _PIECE // max(1, array.shape[axis]))
    for begin in range(0, array.shape[1 - axis], step):
        at = (slice(None),) * (1 - axis) + (slice(begin, begin + step),)
        out[at] = apply(matrix, array[at].astype(matrix.dtype, copy=False), axis, 1)
    return out
