"""How much of a model the groups reach: the share of its parameters and of its multiply-accumulates."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .analyse import Analysis
from .costs import Costs, Dims


@dataclass(frozen=True)
class Coverage:
    """Shares, 0..1, of the numbers that lie in a group along at least one axis: these can be folded away."""

    parameters: float
    macs: float


def coverage(analysis: Analysis, prices: Costs) -> Coverage:
    """What `analysis` reaches of a model that costs `prices`."""

    def share(terms: tuple[Dims, ...]) -> float:
        sizes = [math.prod(prices.shapes[tensor][axis] for tensor, axis in term) for term in terms]
        left = [math.prod(1 - analysis.share(*dim) for dim in term) for term in terms]
        return 1 - sum(size * out for size, out in zip(sizes, left, strict=True)) / max(1, sum(sizes))

    return Coverage(share(prices.params_terms), share(prices.macs_terms))
