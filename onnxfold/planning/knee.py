"""The knee of a curve: where going on begins to cost more than it gains."""

from __future__ import annotations

import math
from collections.abc import Sequence

_FLAT = 1e-9  # distances from the chord below this are rounding


def knee(gained: Sequence[float], cost: Sequence[float]) -> int | None:
    """The index of the point furthest below the chord from the first point to the one with the largest gain.

    Kneedle's criterion (Satopaa, Albrecht, Irwin, Raghavan: Finding a "Kneedle" in a Haystack, ICDCSW 2011) without its
    smoothing, which is for noisy curves of many points: both axes are scaled to 0..1, and the knee of a rising convex
    curve is where gain less cost is largest. Of equals the one with the smallest gain; None where no point lies below
    the chord (a straight line, a concave curve, fewer than three points). Points with a cost that is not finite do not
    count.

    >>> knee([0.0, 0.1, 0.2, 0.3, 0.4], [0.0, 0.01, 0.02, 0.2, 0.5])
    2
    """
    points = sorted((g, c, i) for i, (g, c) in enumerate(zip(gained, cost, strict=True)) if math.isfinite(c))
    if len(points) < 3:
        return None
    (left, low, _), (right, high, _) = points[0], points[-1]
    if right <= left or high <= low:
        return None
    below = [((g - left) / (right - left) - (c - low) / (high - low), -g, -i) for g, c, i in points]
    distance, _, last = max(below)
    return -last if distance > _FLAT else None
