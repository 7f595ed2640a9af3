"""A group's error curve as a small picture in a table: coordinates of an SVG."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from ...units import in_percent
from ..group_report import GroupReport

WIDTH, HEIGHT, MARGIN = 96, 26, 3


@dataclass(frozen=True)
class Spark:
    """`points` of a polyline, the place of the width that was chosen (None: it is not on the curve), and all of it in
    words."""

    points: str
    chosen: tuple[float, float] | None
    said: str


def spark(group: GroupReport) -> Spark | None:
    """The curve of a group; None where none was measured. Errors over 100 % are drawn as 100 %."""
    curve = [(width, min(1.0, error)) for width, error in group.curve if math.isfinite(error)]
    if len(curve) < 2:
        return None
    most = max(error for _, error in curve) or 1.0

    def at(width: float, error: float) -> tuple[float, float]:
        x = MARGIN + (WIDTH - 2 * MARGIN) * width / group.before
        return round(x, 1), round(HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * error / most, 1)

    error = _between(curve, group.after)
    points = " ".join(f"{x},{y}" for x, y in (at(*one) for one in curve))
    said = "" if error is None else f"; {group.after} kept: {in_percent(error)} expected"
    least, highest = curve[0]
    return Spark(
        points, None if error is None else at(group.after, error),
        f"expected output error by channels kept, {in_percent(highest)} at {least}{said}",
    )  # fmt: skip


def _between(curve: list[tuple[int, float]], width: int) -> float | None:
    """The error at a width, on the line between its neighbors; None outside."""
    for (a, low), (b, high) in pairwise(curve):
        if a <= width <= b:
            return low + (high - low) * (width - a) / max(1, b - a)
    return None
