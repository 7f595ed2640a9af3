"""The scales of an integer weight after channels were merged along one of its axes. Plain arrays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags

from ..folding.merge import apply
from ..model.quantized.scheme import Scheme, in_blocks


def merged(
    scheme: Scheme, axis: int, blocks: int, kept: NDArray[np.bool_], matrix: csr_matrix, block: int = 0
) -> Scheme:
    """`scheme` after `matrix` [new, old] along `axis` (by `blocks` parts of axis 0, each for itself), whose positions
    `kept` stay.

    Scales of single channels are averaged. Where every `block` of neighboring numbers along `axis` shares a scale, the
    remaining numbers are divided into blocks again, sorted by the block that they were in; each block takes the scale
    of its first number.
    """
    if scheme.groups is not None and axis == scheme.axis:
        return _regrouped(scheme, scheme.groups, kept, blocks, block)
    if scheme.groups is None and axis != scheme.axis:
        return scheme
    if blocks > 1:  # one scale for a position in all parts, whose channels differ: any will do as a start
        first = np.arange(int(kept.sum()) // blocks)
        at = axis if scheme.groups is not None else 0
        return replace(scheme, scale=np.take(scheme.scale, first, at), zero=np.take(scheme.zero, first, at))
    matrix = abs(matrix)
    whole = np.asarray(matrix.sum(axis=1)).ravel()
    mean = diags(1 / np.where(whole > 0, whole, 1)) @ matrix
    at = axis if scheme.groups is not None else 0
    scale, zero = (apply(mean, numbers, at, 1) for numbers in (scheme.scale, scheme.zero))
    if scheme.groups is None:
        scale = np.maximum(scale, np.finfo(np.float32).tiny)
    return replace(scheme, scale=scale, zero=zero if (scheme.zero % 1).any() else np.rint(zero))


def _regrouped(scheme: Scheme, groups: NDArray[np.int64], kept: NDArray[np.bool_], blocks: int, block: int) -> Scheme:
    assert scheme.axis is not None
    left = np.arange(int(kept.sum()) // blocks) if blocks > 1 else np.flatnonzero(kept)
    if len(left) == len(groups):
        return scheme
    order = np.argsort(groups[left], kind="stable")
    now = np.empty(len(left), np.int64)
    now[order] = in_blocks(len(left), block)
    first = groups[left[order[::block]]]
    scale, zero = (np.take(numbers, first, scheme.axis) for numbers in (scheme.scale, scheme.zero))
    return replace(scheme, scale=scale, zero=zero, groups=now)
