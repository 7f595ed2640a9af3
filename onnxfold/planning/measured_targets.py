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


def fast_enough(shares: Sequence[float], latency: Callable[[int], float], budget: Goal, progress: Progress[Any]) -> int:
    """The least of the folds 0, 1, ... (0 is the original) whose latency meets `budget`; at most `TIMINGS` are timed.

    Args:
        shares: MACs that remain, falling. The first fold that is timed is the one that would do if latency were in
            proportion to them, the second is the last one; then the bracket is halved.
        latency: share of the original's latency that a fold takes, measured.

    Raises PlanError where neither the guess nor the last fold meets the budget.
    """
    if budget.value >= 1:
        return 0
    last = len(shares) - 1
    slow, fast, best = 0, last + 1, 1.0
    at = max(1, next((i for i, share in enumerate(shares) if share <= budget.value), last))
    for _ in progress("timing", list(range(TIMINGS if last else 0))):
        found = latency(at)
        _log.debug("fold %d of %d takes %.3f of the original's latency", at, last, found)
        best = min(best, found)
        slow, fast = (slow, at) if found <= budget.value else (at, fast)
        if fast - slow <= 1:
            break
        at = last if fast > last else _halfway(shares, slow, fast)
    if fast > last:
        raise PlanError(
            f"{budget.asked} cannot be reached: the best measured here is {best:.2f} (latency "
            "depends on the machine and does not always follow the MACs)"
        )
    return fast


def _halfway(shares: Sequence[float], low: int, high: int) -> int:
    """The index strictly between two whose share is nearest to the middle of theirs."""
    middle = (shares[low] + shares[high]) / 2
    return min(range(low + 1, high), key=lambda i: abs(shares[i] - middle))
