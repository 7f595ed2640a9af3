"""How good a result is: what is measured on inputs that nothing was fitted on, and what may be concluded from it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from onnx import ModelProto

from ..compat import StrEnum
from ..units import in_percent
from .candidates import Evaluator, least_agreement
from .side_by_side import SideBySide, Thumbnails, side_by_side, with_images

DEFAULT_LIMIT = 0.1  # error of the outputs, where a run has no limit of its own
_NORMAL = 1.959964  # quantile of the normal distribution for 95 %
_ROUNDING = 1e-6


class Mark(StrEnum):
    """What the last line begins with; the values are those of reports."""

    KEPT = "kept"
    """The limit is kept, on inputs that can be trusted."""

    UNSURE = "unsure"
    """Written, but over the limit that is usual, or on inputs that say little."""

    FAILED = "failed"
    """Not written: a limit that was given is broken, or the result is not sound."""


@dataclass(frozen=True)
class Limit:
    """What the outputs must keep: an error at most, and an agreement at least; `given`: the user asked for it, as
    `parameter`. `loses`: whether a result with a lost output is written all the same (explicit ratios, targets)."""

    error: float = DEFAULT_LIMIT
    agreement: float = 0.0
    given: bool = False
    parameter: str = ""
    loses: bool = False


USUAL, ANY = Limit(), Limit(loses=True)


@dataclass(frozen=True)
class Deviation:
    """How far a tensor that is compared is off: its `error` (`metrics.component_error`), and the norm of the difference
    over its own (`relative_l2`)."""

    name: str
    error: float
    relative_l2: float

    @property
    def lost(self) -> bool:
        """Whether both its mean over the samples and zeros would do better."""
        return not (self.error <= 1 or self.relative_l2 <= 1)


@dataclass(frozen=True)
class Quality:
    """What `samples` inputs say of a result.

    Attributes:
        outputs: all tensors that are compared.
        agreement: the share of samples that keep their top class; None where there are no classes.
        interval: 95 % of it (`wilson`).
        inputs: what they are, for people.
        independent: nothing was fitted on inputs of this kind.
        seen: the first of the outputs beside each other, for pictures.
    """

    outputs: tuple[Deviation, ...] = ()
    agreement: float | None = None
    interval: tuple[float, float] | None = None
    samples: int = 0
    inputs: str = ""
    independent: bool = False
    seen: tuple[SideBySide, ...] = ()

    @property
    def error(self) -> float:
        """The largest error; 0 where nothing is compared."""
        return max((one.error for one in self.outputs), default=0.0)

    @property
    def lost(self) -> tuple[Deviation, ...]:
        """The outputs that are lost; inputs that say little of real ones do not tell."""
        return tuple(one for one in self.outputs if one.lost) if self.independent else ()

    @property
    def worst(self) -> str:
        """The tensor with the largest error."""
        return max(self.outputs, key=lambda one: one.error).name if self.outputs else ""

    def broken(self, limit: Limit) -> str:
        """Which part of a `limit` is not kept, in words; '' if all is."""
        if self.error > limit.error + _ROUNDING:
            return f"output error {in_percent(self.error)}" + (f" in '{self.worst}'" if len(self.outputs) > 1 else "")
        if self.agreement is not None and self.agreement < limit.agreement - _ROUNDING:
            return f"{in_percent(self.agreement)} of {self.samples} samples keep their top class"
        return ""


def measured(
    evaluator: Evaluator, proto: ModelProto, inputs: str, independent: bool, thumbnails: Thumbnails | None = None
) -> Quality | None:
    """The quality of a version of the model; `thumbnails` shows the samples that are furthest off, where they are
    images. None where the original cannot be run, or has nothing to compare."""
    if not evaluator.possible:
        return None
    pairs = evaluator.beside(proto)
    outputs = tuple(Deviation(name, *found) for name, found in evaluator.deviations(pairs).items())
    samples = evaluator.samples
    agreement = None if pairs is None else least_agreement(list(pairs.values()))
    interval = None if agreement is None else wilson(agreement, samples)
    seen = () if pairs is None else side_by_side(pairs)
    if thumbnails is not None:
        seen = with_images(seen, evaluator.inputs, thumbnails)
    return Quality(outputs, agreement, interval, samples, inputs, independent and not evaluator.strange, seen)


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval for a `share` of `count` samples (Wilson, J. Am. Stat. Assoc. 1927).

    >>> [round(x, 3) for x in wilson(0.9, 100)]
    [0.826, 0.945]
    """
    if count < 1:
        return 0.0, 1.0
    z = _NORMAL**2 / count
    middle = (share + z / 2) / (1 + z)
    half = _NORMAL / (1 + z) * math.sqrt(share * (1 - share) / count + z / (4 * count))
    return max(0.0, middle - half), min(1.0, middle + half)
