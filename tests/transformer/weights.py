"""Weights that are drawn when they are needed, part by part: the same numbers whatever the part and the layout."""

from __future__ import annotations

import functools
import math
import zlib
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

TILE = 256  # weights are drawn in squares of so many rows and columns, each with random numbers of its own

Array = NDArray[np.float32]


class Kind(Enum):
    """RANDOM: independent, uniformly distributed. ALIKE: of low rank, neurons in pairs, and such noise."""

    RANDOM = "random"
    ALIKE = "alike"


@dataclass(frozen=True)
class Draw:
    """How weights are drawn.

    With ALIKE a matrix is A B + noise, of rank `rank` but for noise of `noise` times its standard deviation. Along an
    axis of hidden units or heads, position p and p + n/2 have the same row of A (column of B), so that folding finds
    pairs that differ by the noise alone; whole heads pair up, where their number is even.
    """

    kind: Kind = Kind.RANDOM
    seed: int = 0
    rank: int = 16
    noise: float = 0.1


class Source(Protocol):
    """A matrix that can be had in slabs."""

    @property
    def size(self) -> tuple[int, int]: ...

    def slab(self, begin: int, end: int, axis: int, draw: Draw) -> Array:
        """Rows (axis 0) or columns (axis 1) from `begin` to `end`, all of the other axis."""
        ...


@dataclass(frozen=True)
class Drawn:
    """Random numbers of mean `mean` and standard deviation `deviation`; a vector is one row.

    `alike`: the axes (rows, columns) of hidden units or heads. The name alone decides the numbers.
    """

    name: str
    size: tuple[int, int]
    deviation: float = 1.0
    mean: float = 0.0
    alike: tuple[bool, bool] = (False, False)

    def slab(self, begin: int, end: int, axis: int, draw: Draw) -> Array:
        rows, columns = (begin, end), (0, self.size[1])
        if axis:
            rows, columns = (0, self.size[0]), (begin, end)
        out = np.empty((rows[1] - rows[0], columns[1] - columns[0]), np.float32)
        for i in range(rows[0] // TILE, math.ceil(rows[1] / TILE)):
            for j in range(columns[0] // TILE, math.ceil(columns[1] / TILE)):
                r, c = _overlap(i, rows), _overlap(j, columns)
                tile = self._tile(i, j, draw)
                out[r[0] - rows[0] : r[1] - rows[0], c[0] - columns[0] : c[1] - columns[0]] = tile[
                    r[0] - i * TILE : r[1] - i * TILE, c[0] - j * TILE : c[1] - j * TILE
                ]
        return out

    def _tile(self, i: int, j: int, draw: Draw) -> Array:
        shape = tuple(min(TILE, n - TILE * k) for n, k in zip(self.size, (i, j), strict=True))
        tile = _random(draw.seed, self.name, 1, i, j).random(shape, np.float32)
        tile -= 0.5
        tile *= 12**0.5  # of unit variance
        if draw.kind is Kind.ALIKE:
            a, b = _factors(self, draw)
            tile *= draw.noise
            tile += a[i * TILE : i * TILE + shape[0]] @ b[:, j * TILE : j * TILE + shape[1]]
            tile /= math.hypot(1.0, draw.noise)
        tile *= self.deviation
        tile += self.mean
        return tile


@dataclass(frozen=True)
class Turned:
    """A transposed matrix."""

    of: Source

    @property
    def size(self) -> tuple[int, int]:
        return self.of.size[1], self.of.size[0]

    def slab(self, begin: int, end: int, axis: int, draw: Draw) -> Array:
        return self.of.slab(begin, end, 1 - axis, draw).T


@dataclass(frozen=True)
class Joined:
    """Matrices beside each other along `axis`: packed weights."""

    parts: tuple[Source, ...]
    axis: int = 1

    @property
    def size(self) -> tuple[int, int]:
        along, across = sum(part.size[self.axis] for part in self.parts), self.parts[0].size[1 - self.axis]
        return (across, along) if self.axis else (along, across)

    def slab(self, begin: int, end: int, axis: int, draw: Draw) -> Array:
        if axis != self.axis:
            return np.concatenate([part.slab(begin, end, axis, draw) for part in self.parts], self.axis)
        found, start = [], 0
        for part in self.parts:
            first, last = max(begin, start), min(end, start + part.size[axis])
            if first < last:
                found.append(part.slab(first - start, last - start, axis, draw))
            start += part.size[axis]
        return np.concatenate(found, axis)


@dataclass(frozen=True, eq=False)
class Stored:
    """What a file holds: a matrix under a shape, or numbers as they are (`table`), in an element type."""

    shape: tuple[int, ...]
    dtype: Any
    source: Source | None = None
    table: NDArray[Any] | None = None

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def parts(self, draw: Draw) -> Any:
        """The elements in order, as arrays of this element type, a slab at a time."""
        if self.source is None:
            yield np.ascontiguousarray(self.table).astype(self.dtype, copy=False)
            return
        for begin in range(0, self.source.size[0], TILE):
            slab = self.source.slab(begin, min(begin + TILE, self.source.size[0]), 0, draw)
            yield np.ascontiguousarray(slab).astype(self.dtype, copy=False)


def _overlap(tile: int, span: tuple[int, int]) -> tuple[int, int]:
    return max(tile * TILE, span[0]), min((tile + 1) * TILE, span[1])


def _random(seed: int, name: str, *which: int) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64((seed, zlib.crc32(name.encode()), *which)))


@functools.lru_cache(maxsize=4)
def _factors(drawn: Drawn, draw: Draw) -> tuple[Array, Array]:
    """A [rows, rank] and B [rank, columns] of unit variance in their product."""
    sides = []
    for axis, n in enumerate(drawn.size):
        half = n // 2 if drawn.alike[axis] and n % 2 == 0 else n
        side = _random(draw.seed, drawn.name, 0, axis).standard_normal((half, draw.rank), np.float32)
        sides.append(np.tile(side, (n // half, 1)) / np.float32(draw.rank**0.25))
    return sides[0], np.ascontiguousarray(sides[1].T)
