"""Gram matrices of feature rows: at once, or added up over blocks of columns where they do not fit side by side."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError, PlanError
from .blas import one_thread

Floats = NDArray[np.float64]
SINGLE = 4096  # points; the Gram matrix of more is kept in float32: 485 MB at 11,008
_SIDE = 512  # rows and columns that one task multiplies: fixed, so that sums do not depend on the number of threads
Gram = NDArray[np.floating[Any]]  # float64; float32 where float64 would be too large, see `SINGLE`

_BLOCK_ENTRIES = 2**23  # of a part, converted to float64 at a time: at most 64 MiB
_SINGLE_COLUMNS = 2048  # float32 columns multiplied at a time, so that single precision sums stay short


def gram(parts: Sequence[NDArray[Any]]) -> Floats:
    """Sum over the parts of XX', where X is the part with the mean of every column taken off.

    Each part is n x d_i, of any real dtype and layout (d_i may differ and may be 0); the result is float64, n x n,
    C-contiguous and exactly symmetric. float64 parts are multiplied and added in float64; narrower ones are multiplied
    in float32, 2,048 columns at a time, and added in float64 (relative error under 1e-6). Beside the result it needs
    the same again for one product, and 64 MiB or one column of a part.

    Raises ModelError for NaN and infinite values, naming part, row and column, and PlanError when the parts do not
    have the same n.
    """
    if len(parts) == 0 or any(part.ndim != 2 for part in parts):
        raise PlanError("features must be one or more parts of shape [n, d]")
    points = {part.shape[0] for part in parts}
    if len(points) != 1 or 0 in points:
        raise PlanError(f"all parts must have the same number of rows, at least 1; got {sorted(points)}")
    n = points.pop()
    width = max(1, _BLOCK_ENTRIES // n)
    total: Floats | None = None
    for index, part in enumerate(parts):
        if part.dtype.kind in "cOSUMm":
            raise PlanError(f"part {index} must hold real numbers, not {part.dtype}")
        single = part.dtype.kind == "f" and part.dtype.itemsize <= 4
        step = min(width, _SINGLE_COLUMNS) if single else width
        for begin in range(0, part.shape[1], step):
            block = _centered(part[:, begin : begin + step], index, begin, np.float32 if single else np.float64)
            product = block @ block.T  # numpy calls BLAS syrk for this: half the work, exactly symmetric
            total = product.astype(np.float64) if total is None else np.add(total, product, out=total)
    return np.zeros((n, n)) if total is None else total


def _centered(block: NDArray[Any], part: int, begin: int, dtype: type[np.floating[Any]]) -> NDArray[Any]:
    """IN: columns `begin`... of a part. OUT: a copy in `dtype` without its column means; refuses NaN and infinity."""
    centered = np.array(block, dtype=dtype, order="C")
    with np.errstate(over="ignore", invalid="ignore"):  # the next lines raise an error that names the place
        means = centered.mean(axis=0)
    if not np.isfinite(means).all():  # NaN and infinity anywhere in a column show in its mean
        bad = np.argwhere(~np.isfinite(centered))
        if len(bad) == 0:
            column = begin + int(np.argmin(np.isfinite(means)))
            raise ModelError(f"part {part} of the features has values too large to add up in column {column}")
        row, column = (int(at) for at in bad[0])
        raise ModelError(
            f"part {part} of the features has {centered[row, column]} at row {row}, column {begin + column}"
        )
    centered -= means  # rounded alike for every row, so no distance changes
    return centered


class GramSum:
    """G = sum over blocks of X X', n x n: float64, or float32 for more than `SINGLE` points.

    Products are computed in float32, their lower half only, by squares of `_SIDE` rows and columns on several `threads`
    (0: all there are). Every square is one single-threaded BLAS call, so the result is the same for any number of
    threads. Beside G each thread needs one square.
    """

    def __init__(self, points: int, threads: int = 0) -> None:
        self._threads = threads or os.cpu_count() or 1
        self._total: Gram = np.zeros((points, points), np.float32 if points > SINGLE else np.float64)
        begins = range(0, points, _SIDE)
        self._squares = [(row, column) for row in begins for column in begins if column <= row]

    def add(self, blocks: Iterable[NDArray[np.float32]]) -> None:
        """Add X X' of every block X [n, columns]. On several threads, the next one is made while one is multiplied."""
        workers = min(self._threads, len(self._squares))
        rooms = SimpleQueue[NDArray[np.float32]]()  # memory that is new for every product takes a fifth of the time
        for _ in range(workers):
            rooms.put(np.empty(_SIDE**2, np.float32))
        with one_thread(), ThreadPoolExecutor(workers) as pool:
            running = list[Future[None]]()
            for block in blocks:
                _finish(running)
                running = [pool.submit(self._add_square, block, *at, rooms) for at in self._squares]
                if self._threads == 1:  # nothing beside it, and no second block in memory
                    _finish(running)
            _finish(running)

    def _add_square(
        self, block: NDArray[np.float32], row: int, column: int, rooms: SimpleQueue[NDArray[np.float32]]
    ) -> None:
        """On the diagonal, numpy calls syrk: half the work."""
        left, right, room = block[row : row + _SIDE], block[column : column + _SIDE], rooms.get()
        try:
            made = room[: len(left) * len(right)].reshape(len(left), len(right))
            total = self._total[row : row + _SIDE, column : column + _SIDE]
            total += np.matmul(left, right.T, out=made)
        finally:
            rooms.put(room)

    def whole(self) -> Gram:
        """G, exactly symmetric. Nothing can be added after this."""
        total, self._total = self._total, np.empty((0, 0))
        n = len(total)
        for begin in range(0, n, _SIDE):
            end = min(begin + _SIDE, n)
            square = total[begin:end, begin:end]
            square[:] = np.tril(square) + np.tril(square, -1).T
            total[begin:end, end:] = total[end:, begin:end].T
        return total


def _finish(running: Sequence[Future[None]]) -> None:
    for future in running:
        future.result()
