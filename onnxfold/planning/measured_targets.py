"""Targets that are measured, not computed: the size of the file, and latency. Plain numbers in, plain numbers out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from ..errors import PlanError
from ..progress import Progress
from .allocation import Plan
from .goal import Goal

Made = TypeVar("Made")
Price = Callable[[Mapping[str, int]], float]
TIMINGS = 7  # candidates that are timed at most
_CLOSE = 0.03  # of the original's latency: a candidate that is so little faster than asked is good enough
_REPLANS = 2  # plans that are chosen because the one before was too slow, and that one
_BELOW = 0.01  # what the first one is expected to be faster than asked, since measurements scatter

_log = logging.getLogger(__name__)


def small_enough(
    choose: Callable[[Price], Plan],
    price: Price,
    finish: Callable[[Plan], Made],
    measure: Callable[[Made], float],
    budget: Goal,
) -> tuple[Plan, Made]:
    """The plan that meets `budget` when it is measured, and what `finish` made of it.

    Args:
        choose: the plan that meets the budget at given prices. Raises PlanError where none does.
        price: the share expected to remain under given widths.
        measure: the share that really remains.

    Where the measure exceeds the budget, all prices are raised by at least what that plan's was too low.
    """
    missed = 0.0

    def corrected(keep: Mapping[str, int]) -> float:
        return price(keep) + missed

    while True:
        plan = choose(corrected)
        made = finish(plan)
        found = measure(made)
        _log.debug("a plan for a share of %.4f leaves %.4f", budget.value, found)
        if found <= budget.value:
            return plan, made
        missed = max(found - price(plan.keep), 2 * missed)


def fast_plan(
    first: Callable[[float], Plan],
    choose: Callable[[float], Plan],
    latency: Callable[[Plan], float],
    budget: Goal,
    progress: Progress[Any],
) -> Plan | None:
    """A plan whose latency meets `budget`; None where none of `_REPLANS` does.

    Args:
        first: a plan that is expected to leave a share of the latency, made at once. Raises PlanError where none is.
        choose: the best of many such plans.
        latency: the share that one leaves, measured.

    What the first plan takes tells how far off expectations are, and what the next one should be expected to leave.
    """
    wanted, ways = budget.value - _BELOW, [first, *[choose] * _REPLANS]
    for make in progress("timing", ways):
        try:
            plan: Plan = make(wanted)
        except PlanError:
            return None
        found = latency(plan)
        _log.debug("a plan takes %.3f of the original's latency, expected %.3f", found, wanted)
        if make is choose and found <= budget.value:
            return plan
        wanted *= (budget.value - _BELOW) / found
    return None


def fast_enough(shares: Sequence[float], latency: Callable[[int], float], budget: Goal, progress: Progress[Any]) -> int:
    """The least of the folds 0, 1, ... (0 is the original) whose latency meets `budget`; at most `TIMINGS` are timed.

    Args:
        shares: of the latency that is expected to remain (or of the MACs), falling. The first fold that is timed is the
            one that would do if latency were in proportion to them; one that meets the budget and no more is taken.
        latency: share of the original's latency that a fold takes, measured.

    Where the first is too slow, the next one is that which would do if all were as much slower than expected, then the
    last one. Then the bracket is halved. Raises PlanError where none of these meets the budget.
    """
    if budget.value >= 1:
        return 0
    last = len(shares) - 1
    slow, fast, best = 0, last + 1, 1.0
    at = _expected(shares, budget.value - _BELOW, 1, last)
    for timed in progress("timing", list(range(TIMINGS if last else 0))):
        found = latency(at)
        _log.debug("fold %d of %d takes %.3f of the original's latency, expected %.3f", at, last, found, shares[at])
        best = min(best, found)
        slow, fast = (slow, at) if found <= budget.value else (at, fast)
        if fast - slow <= 1 or budget.value - _CLOSE <= found <= budget.value:
            break
        if fast <= last:
            at = _halfway(shares, slow, fast)
        else:
            at = last if timed else _expected(shares, (budget.value - _BELOW) * shares[at] / found, slow + 1, last)
    if fast > last:
        raise PlanError(
            f"{budget.asked} cannot be reached: the best measured here is {best:.2f} (latency "
            "depends on the machine and does not always follow the MACs)"
        )
    return fast


def _expected(shares: Sequence[float], wanted: float, first: int, last: int) -> int:
    """The first fold, from `first` on, whose share is at most what is wanted; `last` where there is none."""
    return next((i for i in range(first, last) if shares[i] <= wanted), last)


def _halfway(shares: Sequence[float], low: int, high: int) -> int:
    """The index strictly between two whose share is nearest to the middle of theirs."""
    middle = (shares[low] + shares[high]) / 2
    return min(range(low + 1, high), key=lambda i: abs(shares[i] - middle))
