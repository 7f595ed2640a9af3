"""Gram matrices of more rows than fit beside each other: added up over blocks of columns, in place."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .blas import one_thread

SINGLE = 4096  # points; the Gram matrix of more is kept in float32: 485 MB at 11,008
_SLAB = 1024  # rows that one task multiplies: fixed, so that sums do not depend on the number of threads

Gram = NDArray[np.floating[Any]]


class GramSum:
    """G = sum over blocks of X X', n x n: float64, or float32 for more than `SINGLE` points.

    Products are computed in float32, their lower half only, by slabs of rows on several `threads` (0: all there are).
    Every slab is one single-threaded BLAS call, so the result is the same for any number of threads. Beside G each
    thread needs `_SLAB` x n floats.
    """

    def __init__(self, points: int, threads: int = 0) -> None:
        self._threads = threads or os.cpu_count() or 1
        self._total: Gram = np.zeros((points, points), np.float32 if points > SINGLE else np.float64)

    def add(self, block: NDArray[np.float32]) -> None:
        """Add X X' of a block X [n, columns]."""
        n = len(self._total)

        def slab(begin: int) -> None:
            end = min(begin + _SLAB, n)
            self._total[begin:end, :end] += block[begin:end] @ block[:end].T

        begins = range(0, n, _SLAB)[::-1]  # the widest first
        with one_thread(), ThreadPoolExecutor(min(self._threads, len(begins))) as pool:
            list(pool.map(slab, begins))

    def whole(self) -> Gram:
        """G, exactly symmetric. Nothing can be added after this."""
        total, self._total = self._total, np.empty((0, 0))
        n = len(total)
        for begin in range(0, n, _SLAB):
            end = min(begin + _SLAB, n)
            square = total[begin:end, begin:end]
            square[:] = np.tril(square) + np.tril(square, -1).T
            total[begin:end, end:] = total[end:, begin:end].T
        return total
