"""What axes before and after a Reshape have in common, where several become several: the groups of a GroupNorm, say.

[64, 8, 8] as [32, 128] is [32, 2, 8, 8] either way: 32 blocks of 2 channels, 2 channels in each, and an image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from .facts import Axis, Tie


@dataclass(frozen=True)
class SharedPart:
    """A factor of one axis before, number `of_x`, and of one after, number `of_y`: `length` positions, each for so many
    neighbors in a row (`step_x`, `step_y`) along them."""

    length: int
    of_x: int
    of_y: int
    step_x: int
    step_y: int

    def ties(self, x: Axis, y: Axis) -> Iterator[Tie]:
        """All positions of both axes that belong to the same position of the part are one channel."""
        at_x = np.arange(len(x)) // self.step_x % self.length
        at_y = np.arange(len(y)) // self.step_y % self.length
        yield Tie(x, y[at_x * self.step_y])
        yield Tie(x[at_y * self.step_x], y)


def common_parts(x: Sequence[int], y: Sequence[int]) -> list[SharedPart]:
    """The factors that axes of lengths `x` and of lengths `y`, with as many elements, have in common; none where they
    cross.

    >>> [(p.length, p.of_x, p.of_y) for p in common_parts([64, 8, 8], [32, 128])]
    [(32, 0, 0), (2, 0, 1), (8, 1, 1), (8, 2, 1)]
    >>> common_parts([6, 4], [4, 6])
    []
    """
    starts_x, starts_y = _strides(x), _strides(y)
    cuts = sorted({*starts_x, *starts_y, math.prod(x)}, reverse=True)
    if math.prod(x) != math.prod(y) or 0 in cuts or any(a % b for a, b in pairwise(cuts)):
        return []
    found = []
    for above, below in pairwise(cuts):
        a, b = (next(i for i, start in enumerate(starts) if start <= below) for starts in (starts_x, starts_y))
        found.append(SharedPart(above // below, a, b, below // starts_x[a], below // starts_y[b]))
    return found


def front_part(x: Sequence[object], y: Sequence[object]) -> SharedPart | None:
    """What the first axes have in common, whatever is behind (open lengths): the shorter one, if it divides the other.

    >>> front_part([64, "H", "W"], [32, None])
    SharedPart(length=32, of_x=0, of_y=0, step_x=2, step_y=1)
    """
    a, b = (sizes[0] if sizes and isinstance(sizes[0], int) else 0 for sizes in (x, y))
    length = min(a, b)
    if length < 2 or a % length or b % length:
        return None
    return SharedPart(length, 0, 0, a // length, b // length)


def _strides(sizes: Sequence[int]) -> list[int]:
    """How many elements lie between neighbors along each axis."""
    return [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]
