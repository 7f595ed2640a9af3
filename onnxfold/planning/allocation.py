"""Planning: how many channels every group keeps under a budget. Plain numbers in, plain numbers out."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import PlanError, RequestError
from ..progress import steps
from ..units import did_you_mean
from .goal import Goal

HIGHEST_RATIO = 0.95  # of the channels that a target may remove from a group
BLOCK = 16  # channels that convolutions compute at once: 24 take the time of 32 (onnxruntime with AVX-512)


class Named(Protocol):
    """Something with names that patterns can be compared with, like a channel group."""

    @property
    def name(self) -> str: ...
    @property
    def producers(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class Width:
    """What planning knows of a group: its `size`, in how many equal `cells` it must stay, its kernels' `block`, how
    many positions a channel takes in its narrowest weight (`run`: the dimension of an attention head), and what its
    kernels need a multiple of, in positions (`multiple`; where widths are rounded at all)."""

    name: str
    size: int
    cells: int
    block: int = 1
    run: int = 1
    multiple: int = 1

    def step(self, round_to: int) -> int:
        """The multiple of channels that are kept, of the cells and of `round_to` positions."""
        positions = round_to if round_to == 1 else math.lcm(round_to, self.multiple)
        return math.lcm(positions // math.gcd(positions, self.run), self.cells)

    def padded(self, k: int) -> int:
        """The channels that kernels compute for k."""
        return -(-k // self.block) * self.block


@dataclass(frozen=True)
class Plan:
    """Channels kept per group name (only groups that shrink), and the uniform ratio behind it if there is one."""

    keep: Mapping[str, int]
    ratio: float | None = field(default=None)


def round_width(width: Width, wanted: float, round_to: int) -> int:
    """The allowed number of channels nearest to `wanted`, the larger of two: a multiple of the cells, and of `round_to`
    in positions.

    At least one multiple and at least 2 per cell stay; a group narrower than that is left as it is.

    >>> round_width(Width("g", 64, 1), 44.8, 8)
    48
    >>> round_width(Width("heads", 12, 1, run=64), 8.4, 8)
    8
    """
    step = width.step(round_to)
    least = max(step, math.ceil(2 * width.cells / step) * step)
    if least >= width.size:
        return width.size
    return int(min(width.size, max(least, math.floor(wanted / step + 0.5) * step)))


def special_ratios(groups: Iterable[Named], budget: Goal) -> dict[str, float]:
    """The ratios of groups that have one of their own, by name; the first pattern that fits counts.

    Raises RequestError for a pattern that fits none of `groups`."""
    found = dict[str, float]()
    listed = list(groups)
    for pattern, ratio in reversed(budget.special):
        fits = {g.name: ratio for g in listed if any(map(pattern.search, (g.name, *g.producers)))}
        if not fits:
            meant = did_you_mean(pattern.pattern, (name for g in listed for name in (g.name, *g.producers)))
            raise RequestError(
                f"no group matches the pattern '{pattern.pattern}' in `group_ratios`"
                f"{meant or ': `inspect` lists all groups'}"
            )
        found.update(fits)
    return found


def uniform(widths: Sequence[Width], ratio: float, round_to: int, special: Mapping[str, float] | None = None) -> Plan:
    """Remove the share `ratio` of the channels of every group; another one of those that are `special`, by name."""
    ratios = {w.name: (special or {}).get(w.name, ratio) for w in widths}
    keep = {w.name: round_width(w, w.size * (1 - ratios[w.name]), round_to) for w in widths}
    return Plan({w.name: keep[w.name] for w in widths if keep[w.name] < w.size}, ratio)


def meet(widths: Sequence[Width], budget: Goal, price: Callable[[Mapping[str, int]], float]) -> Plan:
    """The smallest uniform ratio whose `price` (share of the original that remains) is at most the target.

    Raises PlanError if even the highest ratio does not reach it.
    """
    low, high = 0.0, HIGHEST_RATIO
    best = uniform(widths, high, budget.round_to)
    reached = price(best.keep)
    if reached > budget.value:
        raise out_of_reach(budget, reached)
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


def ladder(widths: Sequence[Width], round_to: int) -> list[Plan]:
    """All different plans of a uniform ratio, from the whole model to `HIGHEST_RATIO`, in steps of one percent."""
    plans = [uniform(widths, percent / 100, round_to) for percent in range(round(100 * HIGHEST_RATIO) + 1)]
    return [plan for i, plan in enumerate(plans) if not i or plan.keep != plans[i - 1].keep]


def out_of_reach(budget: Goal, least: float) -> PlanError:
    """The error for a target below the `least` share that folding all groups as far as they go leaves."""
    shown = math.ceil(least * 100) / 100
    return PlanError(
        f"{budget.asked} cannot be reached: the foldable groups allow {shown:.2f} at the least "
        "(`inspect` shows what is kept and why)"
    )


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
        step = width.step(round_to)
        k = round_width(width, math.ceil(wanted / step) * step, round_to)
        if k < width.size:
            keep[width.name] = k
    return Plan(keep)


@dataclass(frozen=True)
class Step:
    """One point of a path: channels kept by group, the `price` of that, and the `error` expected."""

    keep: Mapping[str, int]
    price: float
    error: float


def path(
    widths: Sequence[Width],
    errors: Mapping[str, NDArray[np.float64]],
    price: Callable[[Mapping[str, int]], float],
    budget: Goal,
    linked: Mapping[str, Collection[str]] | None = None,
) -> Iterator[Step]:
    """From the whole model to the smallest, each step a little narrower: greedy on error per price.

    Args:
        errors: by group, the error with k channels kept at index k, over all of them; NaN where k cannot be.
        price: share of the original that remains under given widths.
        linked: by group, those whose savings change with its width; None: all.

    Every step shrinks the group whose next stretch of its error curve (to any narrower width: curves need not be
    convex) costs the least error per price saved, of which `Goal.blockwise` is what kernels save. Measured in floats
    on ResNet-20 and -56 at 0.7 and 0.5 of the MACs: 0.05 of the latency less at equal MACs, top-1 as before.
    """
    keep = {w.name: w.size for w in widths}
    allowed = {w.name: [k for k in _allowed(w, budget.round_to) if np.isfinite(errors[w.name][k])] for w in widths}
    sizes = {w.name: w.size for w in widths}
    slopes = dict[str, float]()
    for _ in steps("weighing widths", range(1 + sum(map(len, allowed.values())))):
        spent = price(keep)
        total = sum(float(errors[name][k]) for name, k in keep.items() if k < sizes[name])
        yield Step({name: k for name, k in keep.items() if k < sizes[name]}, spent, total)
        for width in (w for w in widths if w.name not in slopes):
            name, now = width.name, keep[width.name]
            lower = [k for k in allowed[name] if k < now]
            if lower:
                saved = (spent - price({**keep, name: lower[-1]})) / (now - lower[-1])  # near enough linear in k
                slopes[name] = _slope(width, errors[name], now, lower, saved, budget.blockwise)
        best = min((w.name for w in widths if w.name in slopes), key=slopes.__getitem__, default=None)
        if best is None or not np.isfinite(slopes[best]):
            return
        keep[best] = max(k for k in allowed[best] if k < keep[best])
        changed = slopes.keys() if linked is None else {best, *linked[best]}
        slopes = {name: slope for name, slope in slopes.items() if name not in changed}


def _slope(
    width: Width, errors: NDArray[np.float64], now: int, lower: Sequence[int], saved: float, blocks: float
) -> float:
    """The least error per price of any stretch from `now` channels to a `lower` number, where each saves so much;
    infinite where none saves anything. `blocks`: the share of the savings that whole blocks of kernels make."""
    if saved <= 0:
        return math.inf
    here = float(errors[now]) if now < width.size else 0.0
    gaps = ((k, (1 - blocks) * (now - k) + blocks * (width.padded(now) - width.padded(k))) for k in lower)
    return min(max(float(errors[k]) - here, 0.0) / (saved * gap) for k, gap in gaps)


def allocate(steps: Iterable[Step], budget: Goal) -> Step:
    """The first of `steps` whose price is at most the target. Raises PlanError if none is."""
    spent = 1.0
    for step in steps:
        spent = step.price
        if spent <= budget.value:
            return step
    raise out_of_reach(budget, spent)


def refund(
    step: Step,
    widths: Sequence[Width],
    errors: Mapping[str, NDArray[np.float64]],
    price: Callable[[Mapping[str, int]], float],
    budget: Goal,
) -> Plan:
    """A plan that uses up the target where `step` removed more than it had to: groups become wider again, always the
    one that saves most error, while the price stays within the target."""
    keep = dict(step.keep)
    lattice = {w.name: [*_allowed(w, budget.round_to), w.size] for w in widths}
    while True:
        gains = []
        for name, k in keep.items():
            wider = next((n for n in lattice[name] if n > k), None)
            if wider is not None and price({**keep, name: wider}) <= budget.value:
                after = 0.0 if wider == lattice[name][-1] else float(errors[name][wider])
                gains.append((float(errors[name][k]) - after, name, wider))
        if not gains:
            sizes = {w.name: w.size for w in widths}
            return Plan({name: k for name, k in keep.items() if k < sizes[name]})
        _, name, wider = max(gains)
        keep[name] = wider


def _allowed(width: Width, round_to: int) -> list[int]:
    """The widths narrower than it is that a group may have, ascending."""
    return list(range(round_width(width, 0, round_to), width.size, width.step(round_to)))
