"""Planning: how many channels every group keeps under a budget. Plain numbers in, plain numbers out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from .errors import PlanError, RequestError

HIGHEST_RATIO = 0.95  # of the channels that a target may remove from a group


class Aim(Enum):
    """What a budget limits."""

    RATIO = "ratio"
    """The share of channels removed in every group."""

    PARAMS = "target-params"
    """The share of the parameters that may remain."""

    MACS = "target-macs"
    """The share of the multiply-accumulates that may remain."""

    QUALITY = "quality"
    """The error on probe inputs that may be made (the default)."""


@dataclass(frozen=True)
class Budget:
    """One aim with its `value` (a share, 0..1), and the multiple that widths are rounded to. Checked when made."""

    aim: Aim
    value: float
    round_to: int = 8

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and 0 <= self.value <= 1):
            raise RequestError(f"--{self.aim.value} must be between 0 and 1, not {self.value}")
        if self.aim is Aim.RATIO and self.value >= 1:
            raise RequestError("--ratio must be below 1: at 1 no channel would be left")
        if self.aim in (Aim.PARAMS, Aim.MACS) and self.value <= 0:
            raise RequestError(f"--{self.aim.value} must be above 0: nothing would be left")
        if self.round_to < 1:
            raise RequestError(f"--round-to must be at least 1, not {self.round_to}")


@dataclass(frozen=True)
class Width:
    """What planning knows of a group: its `size`, and in how many equal `cells` it must stay."""

    name: str
    size: int
    cells: int


@dataclass(frozen=True)
class Plan:
    """Channels kept per group name (only groups that shrink), and the uniform ratio behind it if there is one."""

    keep: Mapping[str, int]
    ratio: float | None = field(default=None)


def round_width(width: Width, wanted: float, round_to: int) -> int:
    """The allowed number of channels nearest to `wanted`, the larger of two: a multiple of `round_to` and the cells.

    At least one multiple and at least 2 per cell stay; a group narrower than that is left as it is.

    >>> round_width(Width("g", 64, 1), 44.8, 8)
    48
    """
    step = math.lcm(round_to, width.cells)
    least = max(step, math.ceil(2 * width.cells / step) * step)
    if least >= width.size:
        return width.size
    return int(min(width.size, max(least, math.floor(wanted / step + 0.5) * step)))


def uniform(widths: Sequence[Width], ratio: float, round_to: int) -> Plan:
    """Remove the share `ratio` of the channels of every group."""
    keep = {w.name: round_width(w, w.size * (1 - ratio), round_to) for w in widths}
    return Plan({w.name: keep[w.name] for w in widths if keep[w.name] < w.size}, ratio)


def meet(widths: Sequence[Width], budget: Budget, price: Callable[[Mapping[str, int]], float]) -> Plan:
    """The smallest uniform ratio whose `price` (share of the original that remains) is at most the target.

    Raises PlanError if even the highest ratio does not reach it.
    """
    low, high = 0.0, HIGHEST_RATIO
    best = uniform(widths, high, budget.round_to)
    reached = price(best.keep)
    if reached > budget.value:
        raise PlanError(
            f"--{budget.aim.value} {budget.value:g} cannot be reached: the foldable groups allow {reached:.2f} at the "
            "least (--inspect shows what is kept and why)"
        )
    if price({}) <= budget.value:
        return Plan({}, 0.0)
    for _ in range(20):
        middle = (low + high) / 2
        plan = uniform(widths, middle, budget.round_to)
        if price(plan.keep) <= budget.value:
            best, high = plan, middle
        else:
            low = middle
    return best


def by_error(
    widths: Sequence[Width], curves: Mapping[str, NDArray[np.float64]], tolerance: float, round_to: int
) -> Plan:
    """Shrink every group as far as its own relative merge error stays within `tolerance`.

    `curves[name][k]` is the inertia with k clusters (see cluster.ward_curve); relative to that with one cluster.
    """
    keep = {}
    for width in widths:
        curve = curves[width.name]
        limit = tolerance * curve[width.cells]
        enough = np.flatnonzero(curve[width.cells :] <= limit) + width.cells
        wanted = int(enough[0]) if len(enough) else width.size
        step = math.lcm(round_to, width.cells)
        k = round_width(width, math.ceil(wanted / step) * step, round_to)
        if k < width.size:
            keep[width.name] = k
    return Plan(keep)
