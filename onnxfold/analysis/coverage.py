"""How much of a model the groups reach: the share of its parameters and of its multiply-accumulates."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .costs import Costs
from .result import Analysis


@dataclass(frozen=True)
class Coverage:
    """Shares, 0..1, of the numbers that lie in a group along at least one axis: these can be folded away."""

    parameters: float
    macs: float


def coverage(analysis: Analysis, prices: Costs) -> Coverage:
    """What `analysis` reaches of a model that costs `prices`."""
    sizes = [math.prod(prices.shapes[tensor][axis] for tensor, axis in term) for term in prices.macs_terms]
    left = [math.prod(1 - analysis.shares.get(dim, 0.0) for dim in term) for term in prices.macs_terms]
    inside = sum(size * (1 - out) for size, out in zip(sizes, left, strict=True))
    kept = sum(refusal.parameters for refusal in analysis.refusals)
    return Coverage(max(0.0, 1 - kept / max(1, analysis.parameters)), inside / max(1, sum(sizes)))
