"""Other forms of a weight that is stored as integers: what nodes behind DequantizeLinear make of it that only move its
axes, so that its integers can be written back (Transpose, Cast between floats, a Reshape that keeps the axes...)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...frozen import read_only

Array = NDArray[Any]
Axes = tuple["int | None", ...]
FORMS = frozenset(("Identity", "Cast", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze"))


@dataclass(frozen=True)
class Form:
    """A weight as the last of `tensors`, of which the first is what DequantizeLinear gives.

    `axes` tells of every axis of each of them which axis of the integers it is; None for one of length 1 that was
    added. Axes of the integers that are left out have length 1. `lengths`: those of the integers, None where they are
    not known.
    """

    tensors: tuple[str, ...]
    axes: tuple[Axes, ...]
    lengths: tuple[int, ...] | None

    def __post_init__(self) -> None:
        read_only(self)

    @classmethod
    def first(cls, tensor: str, lengths: Sequence[int] | None) -> Form:
        """That of DequantizeLinear itself."""
        known = None if lengths is None else tuple(lengths)
        return cls((tensor,), (tuple(range(len(known or ()))),), known)

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The shape of the last of its tensors."""
        return None if self.lengths is None else tuple(1 if a is None else self.lengths[a] for a in self.axes[-1])

    def then(self, tensor: str, axes: Sequence[int | None]) -> Form:
        """The form that a node makes of it: `axes` tells of every new axis which of the last ones it is."""
        last = self.axes[-1]
        made = tuple(None if a is None else last[a] for a in axes)
        return Form((*self.tensors, tensor), (*self.axes, made), self.lengths)

    def axis(self, axis: int | None) -> int | None:
        """Which axis of the weight an axis of the integers is; None for none."""
        return self.axes[-1].index(axis) if axis is not None and axis in self.axes[-1] else None

    def shapes(self, last: Sequence[int]) -> list[tuple[int, ...]]:
        """The shapes of all tensors, by that of the last."""
        lengths = {axis: n for axis, n in zip(self.axes[-1], last, strict=True) if axis is not None}
        return [tuple(1 if a is None else lengths.get(a, 1) for a in axes) for axes in self.axes]

    def seen(self, held: Array) -> Array:
        """Integers, or scales that have all their axes, with the axes of the weight."""
        axes = self.axes[-1]
        kept = [axis for axis in axes if axis is not None]
        moved = held.transpose([*kept, *(axis for axis in range(held.ndim) if axis not in kept)])
        return moved.reshape([1 if axis is None else held.shape[axis] for axis in axes])

    def held(self, seen: Array) -> Array:
        """The way back from `seen`."""
        kept = [axis for axis in self.axes[-1] if axis is not None]
        bare = seen.reshape([n for n, axis in zip(seen.shape, self.axes[-1], strict=True) if axis is not None])
        moved = bare.transpose(np.argsort(kept)) if kept else bare
        return np.ascontiguousarray(moved.reshape(self.shapes(seen.shape)[0]))


def kept_axes(before: Sequence[int], after: Sequence[int]) -> list[int | None] | None:
    """Which axis every axis of a reshaped tensor was, None for a length of 1; None where axes are joined or divided.

    >>> kept_axes([3, 1, 4], [1, 3, 4]), kept_axes([3, 4], [4, 3])
    ([None, 0, 2], None)
    """
    long = [axis for axis, n in enumerate(before) if n != 1]
    if [before[axis] for axis in long] != [n for n in after if n != 1]:
        return None
    left = iter(long)
    return [None if n == 1 else next(left) for n in after]
