"""What the length of an axis can be: a number, a name that the model gives, or what is known of one without a name.

Every string is a name of the model's own, whatever it looks like ("N by 8", "x[0]", "3|5"): what onnxfold finds out
about lengths is held in types, never in text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, repr=False)
class Unnamed:
    """An open length without a name. `lengths` are what it was when the open inputs were tried at two sizes: axes that
    agree in both are taken for equally long."""

    lengths: tuple[int, int]

    def __repr__(self) -> str:
        return "?"


@dataclass(frozen=True, repr=False)
class Multiple:
    """A length that is always `times` (2 or more) an open one: of the batch and 8 heads in one axis, say.

    Along such an axis `times` positions come again and again.
    """

    symbol: str | Unnamed
    times: int

    def __repr__(self) -> str:
        return f"{self.times}*{self.symbol}"


Dim = int | str | Unnamed | Multiple | None
"""A length; None where nothing is known of it."""


def period(dim: Dim) -> int | None:
    """How many positions come again and again along a dimension that is known to be a multiple of so many.

    >>> period(Multiple("N", 8)), period("N by 8"), period(8)
    (8, None, None)
    """
    return dim.times if isinstance(dim, Multiple) else None


def declarable(shape: Sequence[Dim]) -> tuple[int | str | None, ...]:
    """`shape` as a model can say it: lengths without a name of the model's own are open.

    >>> declarable(("N", 8, Multiple("N", 8)))
    ('N', 8, None)
    """
    return tuple(dim if isinstance(dim, int | str) else None for dim in shape)
