"""The matrix by which one axis of a tensor is folded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from scipy.sparse import csr_matrix

from ..folding.merge import Merge
from .groups import Place, Role
from .result import Analysis


def _axis_matrix(
    parts: Sequence[tuple[Place, Merge]],
    name: str,
    kept: NDArray[np.bool_],
    made: bool = False,
    dtype: DTypeLike = np.float64,
) -> csr_matrix:
    """[new length, old length]: identity on positions that no merge touches, the merges' matrices elsewhere."""
    place_of = np.cumsum(kept) - 1
    free = kept.copy()
    rows, columns, values = list[Any](), list[Any](), list[Any]()
    for place, merge in parts:
        free[place.positions.ravel()] = False
        means = place.role is Role.PRODUCES or (made and not place.summed)
        matrix = merge.for_producers if means else merge.for_consumers
        row = np.repeat(np.arange(merge.after), np.diff(matrix.indptr))
        factor = merge.scales.get(name)
        weights = matrix.data if factor is None or place.role is not Role.PRODUCES else matrix.data * factor[row]
        rows.append(place_of[place.positions[merge.keep[row]]].ravel())
        columns.append(place.positions[matrix.indices].ravel())
        values.append(np.repeat(weights, place.positions.shape[1]))
    untouched = np.flatnonzero(free)
    rows.append(place_of[untouched])
    columns.append(untouched)
    values.append(np.ones(len(untouched)))
    numbers = np.concatenate(values).astype(dtype, copy=False)
    return _matrix(numbers, np.concatenate(rows), np.concatenate(columns), int(kept.sum()), len(kept))


def _matrix(
    values: NDArray[Any], rows: NDArray[np.int64], columns: NDArray[np.int64], new: int, old: int
) -> csr_matrix:
    """[new, old], from entries that are each given once. It is asked for thousands of times, and scipy's own way from
    triples takes twice as long, as looking for the largest of long integers does."""
    order = np.lexsort((columns, rows))
    columns = columns.astype(np.int32)  # as scipy would: an axis is no longer than `graph.LONGEST`
    starts = np.zeros(new + 1, np.int32)
    np.cumsum(np.bincount(rows, minlength=new), out=starts[1:])
    return csr_matrix((values[order], columns[order], starts), shape=(new, old))


def axis_matrix(
    analysis: Analysis, parts: Sequence[tuple[Place, Merge]], tensor: str, consumed: bool = False
) -> csr_matrix:
    """[new, old]: what becomes of the channels of activation `tensor` under the merges of the places in it; `consumed`:
    of the weights, one for each channel, of whatever adds them up."""
    (axis,) = {place.axis for place, _ in parts}
    size = analysis.slots[tensor, axis, 1][1]
    kept = np.ones(size, bool)
    for place, merge in parts:
        gone = np.ones(merge.before, bool)
        gone[merge.keep] = False
        kept[place.positions[gone].ravel()] = False
    return _axis_matrix(parts, tensor, kept, made=not consumed)
