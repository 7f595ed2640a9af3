"""Numbers stored as integers: value = (integer - zero) * scale, and the way back after the values have changed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...frozen import read_only

Array = NDArray[Any]
Floats = NDArray[np.float64]
_ROUNDING = 1e-6  # of the largest integer that goes by a scale: what float32 sums of products are off by


@dataclass(frozen=True)
class Scheme:
    """How values become integers.

    `scale` and `zero` are numbers [], or [n] one for each position along `axis`, or, with `groups`, one for each block
    of positions along it: then they have all axes of the values, and `groups` says of every position which block it is
    in. Integers lie in `low`..`high`: the part of their type that the model uses. `dtype`: the type that scales are
    stored in. A block of nothing but zeros may have the scale 0; where blocks have negative scales, so may new ones.
    """

    scale: Floats = field(repr=False)
    zero: Floats = field(repr=False)
    axis: int | None
    low: int
    high: int
    dtype: Any
    groups: NDArray[np.int64] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        read_only(self)

    def across(self, numbers: Floats, rank: int) -> Floats:
        """`scale` or `zero` in a shape that broadcasts against values of that many axes."""
        if self.axis is None:
            return numbers.reshape([1] * rank)
        if self.groups is not None:
            return np.take(numbers, self.groups, self.axis)
        return numbers.reshape([-1 if axis == self.axis else 1 for axis in range(rank)])


def in_blocks(length: int, block: int) -> NDArray[np.int64]:
    """The number of the block that each of `length` positions is in, where neighbors share one."""
    return np.arange(length, dtype=np.int64) // block


def used(integers: Array, bits: int, signed: bool) -> tuple[int, int]:
    """The range (low, high) that integers of this type may use, given those that a model holds.

    Weights that keep to 7 of 8 bits were made for processors whose sums of 8-bit products overflow; signed ones that
    leave out the lowest number, for kernels that want them symmetric. Both stay so.
    """
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    if not integers.size:
        return low, high
    least, most = int(integers.min()), int(integers.max())
    if bits == 8 and low // 2 <= least and most <= (high + 1) // 2:
        return low // 2, (high + 1) // 2
    return low + (signed and least > low), high


def dequantize(integers: Array, scheme: Scheme, dtype: Any) -> Array:
    """The values of `integers`, in `dtype`."""
    zero, scale = (scheme.across(numbers, integers.ndim) for numbers in (scheme.zero, scheme.scale))
    return np.asarray(((integers.astype(np.float64) - zero) * scale).astype(dtype))


def requantize(values: Array, scheme: Scheme, least: Floats | float = 0.0) -> tuple[Array, Scheme]:
    """Integers (as int64) for `values`, and the scheme to read them with: `scheme`, with new scales where they must be.

    A scale for all stays if nothing leaves the range. One of several stays where all its values are whole numbers of
    it (moved, copied, added up within the range); else it becomes the finest that holds them. Zero points stay if they
    are all equal and can; else they are chosen with the scale. `least` ([] or [n]): no scale falls below it.
    """
    if scheme.groups is not None:
        return _by_blocks(values, scheme, scheme.groups)
    values = np.asarray(values, np.float64)
    exact, whole = _whole(values, scheme)
    axes = tuple(axis for axis in range(values.ndim) if axis != scheme.axis)
    fits = (whole >= scheme.low) & (whole <= scheme.high)
    if scheme.axis is not None:
        fits &= np.abs(exact - whole) <= _ROUNDING * np.abs(exact).max(axis=axes, initial=0, keepdims=True)
        fits &= (scheme.across(scheme.scale, values.ndim) != 0) | (values == 0)
    kept = fits.all(axis=axes) & (np.abs(scheme.scale) >= least)
    if not kept.all():
        new_scale, new_zero = _finest(values.max(axis=axes, initial=0), values.min(axis=axes, initial=0), scheme)
        size = np.maximum(np.abs(np.where(new_scale != 0, new_scale, scheme.scale)), least)
        new_scale = np.where(new_scale < 0, -size, size).astype(scheme.dtype)
        scheme = replace(
            scheme,
            scale=np.where(kept, scheme.scale, new_scale.astype(np.float64)),
            zero=np.where(kept, scheme.zero, new_zero),
        )
        whole = _whole(values, scheme)[1]
    return np.clip(whole, scheme.low, scheme.high).astype(np.int64), scheme


def _whole(values: Floats, scheme: Scheme) -> tuple[Floats, Floats]:
    """(values in steps of their scales, those rounded)."""
    scale, zero = (scheme.across(numbers, values.ndim) for numbers in (scheme.scale, scheme.zero))
    exact = values / np.where(scale == 0, 1.0, scale) + zero
    return exact, np.rint(exact)


def _by_blocks(values: Array, scheme: Scheme, groups: NDArray[np.int64]) -> tuple[Array, Scheme]:
    """`requantize` with every block as a row that has a scale of its own."""
    assert scheme.axis is not None
    members = _members(groups, scheme.scale.shape[scheme.axis])
    rows = np.moveaxis(np.asarray(values), scheme.axis, -1)[..., members]
    scale, zero = (np.moveaxis(numbers, scheme.axis, -1) for numbers in (scheme.scale, scheme.zero))
    flat = replace(scheme, scale=scale.ravel(), zero=zero.ravel(), axis=0, groups=None)
    whole, flat = requantize(rows.reshape(-1, members.shape[1]), flat)
    integers = np.empty(rows.shape[:-2] + groups.shape, np.int64)
    integers[..., members] = whole.reshape(rows.shape)
    scale, zero = (np.moveaxis(numbers.reshape(scale.shape), -1, scheme.axis) for numbers in (flat.scale, flat.zero))
    return np.moveaxis(integers, -1, scheme.axis), replace(scheme, scale=scale, zero=zero)


def _members(groups: NDArray[np.int64], blocks: int) -> NDArray[np.int64]:
    """The positions in every block [blocks, most], its first again and again where it has fewer than others.

    >>> _members(np.array([0, 0, 0, 1, 1]), 2).tolist()
    [[0, 1, 2], [3, 4, 3]]
    """
    order, counts = np.argsort(groups, kind="stable"), np.bincount(groups, minlength=blocks)
    first = np.cumsum(counts) - counts
    inside = np.arange(counts.max(initial=0))
    return np.asarray(order[first[:, None] + np.where(inside < counts[:, None], inside, 0)])


def _finest(top: Floats, bottom: Floats, scheme: Scheme) -> tuple[Floats, Floats]:
    """The smallest scales that hold values from `bottom` (at most 0) to `top` (at least 0), and their zero points."""
    low, high = float(scheme.low), float(scheme.high)
    spread = (top - bottom) / (high - low)
    moved = np.clip(np.rint(low - bottom / np.where(spread > 0, spread, 1.0)), low, high)
    # rounding the zero point takes up to half a step from one side
    above, below = np.maximum(high - moved, 0.5), np.maximum(moved - low, 0.5)
    spread = np.maximum(spread, np.maximum(top / above, -bottom / below))
    if (scheme.zero != scheme.zero.flat[0]).any():
        return spread, moved
    around = _around(top, bottom, scheme)
    if (scheme.scale < 0).any():
        mirrored = _around(-bottom, -top, scheme)
        around = np.where(mirrored < around, -mirrored, around)
    able = np.isfinite(around)
    return np.where(able, around, spread), np.where(able, scheme.zero, moved)


def _around(top: Floats, bottom: Floats, scheme: Scheme) -> Floats:
    """The smallest scales that hold values from `bottom` to `top` with the zero points as they are; inf: none does."""
    above, below = scheme.high - scheme.zero, scheme.zero - scheme.low
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.maximum(np.where(top > 0, top / above, 0.0), np.where(bottom < 0, -bottom / below, 0.0))
