"""Which of several measured models are worth having, and which one to take for what. Plain numbers in and out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ...compat import StrEnum

MARGIN = 0.1  # by which something measured must be expected to be better in everything for a chain to be left out
VISIBLE = 0.1  # error of the outputs from which a loss counts as visible: what the default budget allows


@dataclass(frozen=True)
class Point:
    """What a model takes and costs: shares of the original's `size` (bytes) and `latency`, and the `error` of its
    outputs. `loss`: what counts, which is the error unless the user has a measure of their own; `visible`: whether the
    loss can be seen."""

    size: float
    latency: float
    error: float
    loss: float = math.nan
    visible: bool = True

    @property
    def taken(self) -> float:
        """Bytes times latency."""
        return self.size * self.latency

    @property
    def fair(self) -> bool:
        """Whether it takes no more bytes and no more time than the original."""
        return max(self.size, self.latency) <= NO_WORSE

    def then(self, other: Point) -> Point:
        """What both steps together are expected to give: savings multiply, errors at right angles add up."""
        return Point(self.size * other.size, self.latency * other.latency, math.hypot(self.error, other.error))

    def narrowed(self, share: float) -> Point:
        """The best that can be hoped for where `share` of the multiply-accumulates remains of this one's."""
        return Point(self.size * share**2, self.latency * share, self.error)

    def beaten_by(self, other: Point, margin: float = MARGIN) -> bool:
        """Whether `other` is better in everything by a `margin`."""
        pairs = ((self.size, other.size), (self.latency, other.latency), (self.error, other.error))
        return all(theirs <= (1 - margin) * mine for mine, theirs in pairs)


ORIGINAL = Point(1.0, 1.0, 0.0, 0.0, False)
_GAIN = 2.0  # by which training is taken to lower an error at most: a ViT and a language model got 1.2
_SAME_LOSS = 0.05  # samples say no more than that of which of two is better
NO_WORSE = 1.05  # latencies that differ by less are noise, of small models on busy machines
HALF = 0.52  # float16 stores names and shapes as before, and so takes a little more than half


class Aspect(StrEnum):
    """What a user may want; the values are those of reports."""

    BYTES = "half the bytes"
    SPEED = "twice as fast"
    LOSS = "no visible loss"


def front(points: Sequence[Point]) -> list[int]:
    """Those that no other one is at least as good as in size, latency and loss, and better in one of them (Pareto)."""
    return [i for i, one in enumerate(points) if not any(_dominates(other, one) for other in points)]


def best(points: Sequence[Point], aspect: Aspect) -> int | None:
    """The one to take: the least loss with half the bytes, or half the latency; or, without visible loss, the least of
    bytes times latency. None where there is none.

    What has half the bytes and takes longer than the original, or the other way around, only counts where nothing else
    does it."""
    found = [i for i, point in enumerate(points) if math.isfinite(point.loss) and _fits(point, aspect)]
    fair = [i for i in found if points[i].fair] or found
    if aspect is Aspect.LOSS:
        return min(fair, key=lambda i: (points[i].taken, points[i].loss), default=None)
    return least_loss(points, fair)


def rivals(points: Sequence[Point], among: Sequence[int], aspect: Aspect) -> list[int]:
    """Which of some versions may be the best for an aspect if training makes them lose less, the least loss first."""
    at = best(points, aspect)
    if at is None:
        return []
    if aspect is Aspect.LOSS:
        limit, found = VISIBLE, [i for i in among if points[i].visible and points[i].taken < points[at].taken]
    else:
        limit, found = points[at].error, [i for i in among if _fits(points[i], aspect)]
    close = [i for i in found if points[i].fair and points[i].error <= _GAIN * limit]
    return sorted(close, key=lambda i: points[i].loss)


def least_loss(points: Sequence[Point], among: Sequence[int]) -> int | None:
    """The one with the least loss; of those that differ by less than samples can tell, the one that takes the least
    bytes times latency. None of none."""
    if not among:
        return None
    least = min(points[i].loss for i in among)
    close = [i for i in among if points[i].loss <= least + _SAME_LOSS * abs(least)]
    return min(close, key=lambda i: (points[i].taken, points[i].loss))


def _fits(point: Point, aspect: Aspect) -> bool:
    if aspect is Aspect.LOSS:
        return not point.visible
    return (point.size if aspect is Aspect.BYTES else point.latency) <= HALF


def _dominates(one: Point, other: Point) -> bool:
    a, b = (one.size, one.latency, one.loss), (other.size, other.latency, other.loss)
    return all(x <= y for x, y in zip(a, b, strict=True)) and a != b
