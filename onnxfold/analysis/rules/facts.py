"""What an operator rule may say: plain, frozen facts about the axes of one node. Rules say, they never do.

An `Axis` is a list of positions; every position of every axis of every tensor is an *atom* (an integer).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...frozen import read_only

Atoms = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Axis:
    """Positions along one axis, as atoms: none where the length is 1 (broadcast) or open (`size` is None)."""

    atoms: Atoms
    size: int | None

    def __post_init__(self) -> None:
        if self.atoms.flags.writeable:  # most are not: these are made for every axis of every tensor, and for parts
            read_only(self)

    def __len__(self) -> int:
        return len(self.atoms)

    def __getitem__(self, part: slice | Sequence[int] | NDArray[np.int64]) -> Axis:
        """A part of the axis: ``axis[2:5]``, or the positions of an index array in its order."""
        if self.size is None or not len(self.atoms):
            return Axis(self.atoms[:0], self.size)
        atoms = self.atoms[part] if isinstance(part, slice) else self.atoms[np.asarray(part, np.int64)]
        return Axis(atoms, len(atoms))

    def repeat(self, times: int) -> Axis:
        """Every position `times` times in a row (Flatten; depthwise multiplier)."""
        return Axis(np.repeat(self.atoms, times), None if self.size is None else self.size * times)

    def tile(self, times: int) -> Axis:
        """The whole axis `times` times in a row (an inner axis under Reshape; Concat of a tensor with itself)."""
        return Axis(np.tile(self.atoms, times), None if self.size is None else self.size * times)


@dataclass(frozen=True)
class At:
    """A place in a node that holds an integer: attribute `attr`, or input number `input`; `index` within a list.

    A missing list is created when it must be written; then the attribute `instead_of` goes. A plain number is to stand
    there in place of what was computed from the lengths `lengths`, (tensor, axis) pairs, where there are any; `rest`:
    -1, which stands for what is left.
    """

    attr: str | None = None
    input: int | None = None
    index: int | None = None
    instead_of: str | None = None
    lengths: frozenset[tuple[str, int]] = frozenset()
    rest: bool = False


@dataclass(frozen=True)
class Live:
    """The integer needs no edit: the graph computes it from the lengths of `sources`, (tensor, axis) pairs.

    `linear` tells that it does so by products and exact divisions alone. Where these turn out to be lengths of other
    channels, a plain number may take its place `at` (None: its value is open), or -1 its place `rest` (None: there it
    means something else). Quotients are exact while the length of its source is a multiple of `unit`.
    """

    sources: frozenset[tuple[str, int]]
    linear: bool
    at: At | None = None
    unit: int = 1
    rest: At | None = None


@dataclass(frozen=True, eq=False)
class Tie:
    """Position i of `a` and position i of `b` are the same channel. Axes of length 1 broadcast and tie nothing."""

    a: Axis
    b: Axis


@dataclass(frozen=True, eq=False)
class Contract:
    """Position i of `a` is multiplied with position i of `b`, and the products are added up; neither is a constant.

    They are followed where one side can take the sums of what is merged (products.py), else kept.
    """

    a: Axis
    b: Axis


@dataclass(frozen=True, eq=False)
class Average:
    """The node takes the mean, or the sum, over `axis`, number `number` of its input 0; or a sum of squares, or its
    root, by which it may also divide.

    Where that is followed (responses.py, spreads.py), every position that is left counts for as many as it stands for.
    """

    axis: Axis
    number: int


@dataclass(frozen=True, eq=False)
class Indices:
    """Constant input `input` of the node holds positions of `of`, one for each position of `made`: they are numbered
    anew after folding, and those whose position of `made` is gone are left out.

    `made` is axis `axis` of the input; where its last axis names several positions, the one meant is number `column`.
    """

    of: Axis
    made: Axis
    input: int
    axis: int = 0
    column: int | None = None


@dataclass(frozen=True, eq=False)
class Free:
    """The operator does not care about these positions (dropped by a Slice, filled with a constant by a Pad)."""

    axis: Axis


@dataclass(frozen=True, eq=False)
class Consumes:
    """This axis of a parameter consumes the channels it is tied to, although the node itself produces these.

    The recurrent weight of an LSTM contracts the hidden state: its columns are summed up, not averaged.
    """

    axis: Axis


@dataclass(frozen=True, eq=False)
class Holds:
    """This axis of a constant holds channels as data does (a table that a weight of the same node multiplies): where
    they merge, its numbers are averaged."""

    axis: Axis


@dataclass(frozen=True, eq=False)
class Count:
    """The integer at `at` equals the number of positions in `of` times `sign` (-1 for bounds counted from the end).

    It is recounted after folding.
    """

    of: Axis
    at: At | Live
    sign: int = 1


@dataclass(frozen=True, eq=False)
class Blocks:
    """The axis is `count` equal blocks in a row, and must stay so: every block keeps the same number of positions."""

    axis: Axis
    count: int


@dataclass(frozen=True, eq=False)
class Normalize:
    """BatchNormalization over `axis`, with the names of its constant parameters (for variance correction)."""

    axis: Axis
    scale: str
    bias: str
    mean: str
    var: str
    epsilon: float


@dataclass(frozen=True, eq=False)
class ChannelNorm:
    """The node divides channels, `axis` (number `number` of its input 0), by a statistic over all of them, and over the
    axes `beside` too, and then multiplies them by the constant `scale`."""

    axis: Axis
    number: int
    scale: str
    beside: tuple[int, ...] = ()


@dataclass(frozen=True)
class Refuse:
    """The rule cannot follow this node; `why` completes "the channels are kept because ..."."""

    why: str


@dataclass(frozen=True, eq=False)
class OneOf:
    """Only one of these alternatives can be followed (a Reshape that joins or splits axes); the rest are kept.

    The analysis takes the first whose axes nothing else keeps, so a rule puts the most useful first.
    """

    options: tuple[tuple[Tie | Count, ...], ...]


Fact = (
    OneOf | Tie | Contract | Average | Indices | Consumes | Holds
    | Free | Count | Blocks | Normalize | ChannelNorm | Refuse
)  # fmt: skip
