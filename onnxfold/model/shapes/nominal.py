"""Sizes that stand for open dimensions, wherever a model has to be run or priced."""

from __future__ import annotations

from collections.abc import Sequence

OPEN_SPATIAL = 64  # for open dimensions of images: every usual stride divides it
OPEN_OTHER = 16
_DIGITS = 6  # of numbers in names such as "past_length + 1"; longer ones are no lengths


def concrete_shape(
    shape: Sequence[int | str | None], batch: int, given: Sequence[int] | None = None
) -> tuple[int, ...]:
    """`shape` with its open dimensions filled in: the first with `batch`, those of images with 64, others with 16.

    Caches of attention are empty: dimensions called "past..." have length 0, also as part of a sum.

    >>> concrete_shape(("N", 8, "past_sequence_length", 64), 2), concrete_shape(("N", "past_length + sequence"), 2)
    ((2, 8, 0, 64), (2, 16))
    """
    if given is not None:
        return tuple(given)
    other = OPEN_SPATIAL if len(shape) >= 4 else OPEN_OTHER

    def length(dim: int | str | None) -> int:
        if isinstance(dim, int) and dim > 0:
            return dim
        parts = [part.strip() for part in dim.split("+")] if isinstance(dim, str) else [""]
        if not any(part.startswith("past") for part in parts):
            return other
        return sum(_number(part, other) for part in parts)

    return tuple(length(d) if axis or (isinstance(d, int) and d > 0) else batch for axis, d in enumerate(shape))


def _number(part: str, other: int) -> int:
    """What a part of a sum stands for: a number (not one beyond any length), an empty past, or an open length."""
    if part.isdecimal() and len(part) <= _DIGITS:
        return int(part)
    return 0 if part.startswith("past") else other


def empty_shape(shape: Sequence[int | str | None], batch: int) -> tuple[int, ...] | None:
    """The shape of an input that holds nothing to begin with (a cache without tokens); None for all others.

    >>> empty_shape(("N", 8, "past_sequence_length", 64), 2), empty_shape(("N", 8), 2)
    ((2, 8, 0, 64), None)
    """
    found = tuple(0 if d == 0 else n for d, n in zip(shape, concrete_shape(shape, batch), strict=True))
    return found if 0 in found[1:] else None
