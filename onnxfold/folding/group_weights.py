"""The weights of one channel group as plain arrays, with the group's channels first."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from ..frozen import Pickled, read_only

Floats = NDArray[np.floating[Any]]
BLOCK_ENTRIES = 2**23  # of a block: 32 MiB in float32


class LazyTensor(Protocol):
    """A tensor that is read only when it is needed."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def array(self) -> NDArray[Any]: ...


@dataclass(frozen=True, eq=False)
class Part(Pickled):
    """One parameter's share of every channel: the numbers at `positions` [n, r] along an axis of a tensor.

    `source`: the tensor, or where it is. `axis` is seen apart by `blocks` parts of axis 0 (`Place`).
    """

    tensor: str
    source: NDArray[Any] | LazyTensor = field(repr=False)
    axis: int
    blocks: int
    positions: NDArray[np.int64] = field(repr=False)

    def __post_init__(self) -> None:
        read_only(self)

    @property
    def width(self) -> int:
        """How many numbers a channel has."""
        length = self.blocks * self.source.shape[self.axis]
        return int(self.positions.shape[1]) * (math.prod(self.source.shape) // length if length else 0)

    @property
    def values(self) -> Floats:
        """[n, width] all of them, in float64 if that is what they are, else float32. Raises ModelError for NaN and
        infinity, naming the tensor and where in it."""
        return self._columns(slice(None), self.positions.ravel())

    def pieces(self) -> Iterator[Floats]:
        """`values` by columns, in blocks of `BLOCK_ENTRIES` at most (or of one position along the axis)."""
        return self._pieces(self.positions.ravel())

    def pieces_as_stored(self) -> Iterator[Floats]:
        """The same numbers in the tensor's own order in memory, which is quicker to read. Not to be written to: where
        nothing has to be converted, they are the tensor itself."""
        return self._pieces(_index(self.positions.ravel()))

    def _pieces(self, index: NDArray[np.int64] | slice) -> Iterator[Floats]:
        n, r = self.positions.shape
        step = max(1, BLOCK_ENTRIES // max(1, n * r))
        for begin in range(0, self.width // max(1, r), step):
            yield self._columns(slice(begin, begin + step), index)

    def _columns(self, columns: slice, index: NDArray[np.int64] | slice) -> Floats:
        array = self.source if isinstance(self.source, np.ndarray) else self.source.array()
        n, r = self.positions.shape
        if r == 0:
            return np.empty((n, 0))
        first = along(array, self.axis, self.blocks)
        taken = first.reshape(first.shape[0], -1)[:, columns][index].reshape(n, -1)
        if taken.dtype != np.float64:
            taken = taken.astype(np.float32)
        if not np.isfinite(taken).all():
            check_finite(self.tensor, array)
        return taken


@dataclass(frozen=True)
class Norm(Pickled):
    """A BatchNormalization over the group's channels: vectors [n], and the weight that makes its input, if one does.

    `producer` and `bias` name parts of the group (a convolution straight before it); '' where there is none.
    """

    scale: str
    gamma: Floats
    beta: Floats
    mean: Floats
    var: Floats
    epsilon: float
    producer: str
    bias: str

    def __post_init__(self) -> None:
        read_only(self)


@dataclass(frozen=True)
class GroupWeights:
    """All parameters of a group of `size` channels.

    `rows`: weights that produce channels by contracting others. `filters`: depthwise weights. `vectors`: one number per
    channel (bias, gamma, ...), per gate for recurrent layers. `columns`: weights that consume the channels. `plain`:
    names in `rows` whose output no BatchNormalization normalizes, with the name of their bias ('' if none). Recurrent
    layers have none: their gates saturate, so what averaging takes from the inputs is not what the outputs lose.
    """

    size: int
    rows: tuple[Part, ...]
    filters: tuple[Part, ...]
    vectors: tuple[Part, ...]
    columns: tuple[Part, ...]
    norms: tuple[Norm, ...]
    plain: tuple[tuple[str, str], ...]

    @property
    def entries(self) -> int:
        """How many numbers all channels have together."""
        return self.size * sum(p.width for p in (*self.rows, *self.filters, *self.vectors, *self.columns))

    def part(self, tensor: str) -> Part:
        """Making parameter `tensor`."""
        return next(p for p in (*self.rows, *self.filters, *self.vectors) if p.tensor == tensor)


def _index(positions: NDArray[np.int64]) -> NDArray[np.int64] | slice:
    """The same as a slice where that is all: numbers that only move are not copied one by one."""
    first = int(positions[0]) if len(positions) else 0
    after = first + len(positions)
    return slice(first, after) if np.array_equal(positions, np.arange(first, after)) else positions


def check_finite(name: str, values: NDArray[Any]) -> None:
    """Raise ModelError if one of the values of parameter `name` is NaN or infinite."""
    finite = np.isfinite(values.astype(np.float32) if values.dtype.itemsize < 4 else values)
    if not finite.all():
        at = [int(i) for i in np.argwhere(~finite)[0]]
        raise ModelError(f"weight '{name}' is not a finite number at {at}: the model is broken, export it again")


def along(array: NDArray[Any], axis: int, blocks: int) -> NDArray[Any]:
    """A view or copy of `array` with `axis` (seen apart by `blocks` parts of axis 0) first: [positions, ...]."""
    if blocks == 1:
        return np.moveaxis(array, axis, 0)
    parts = array.reshape(blocks, array.shape[0] // blocks, *array.shape[1:])
    moved = np.moveaxis(parts, axis + 1, 1)
    return moved.reshape(blocks * array.shape[axis], *moved.shape[2:])
