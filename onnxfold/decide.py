"""From a budget to merges: which widths, and whether a repair is kept where only measuring on probe inputs can tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .compress import Compressor
from .costs import Costs
from .errors import RequestError
from .merge import Merge
from .plan import Aim, Budget, Plan, by_error, meet, uniform
from .progress import Progress
from .recover import Recovery
from .trial import Trial

TOLERANCES = (0.5, 0.3, 0.2, 0.15, 0.1, 0.05, 0.02, 0.01, 3e-3, 1e-3, 1e-5)  # merge errors, tried in this order
BISECTIONS = 4  # between the first that passes and the last that does not


def decide(
    work: Compressor,
    prices: Costs,
    budget: Budget,
    chosen: Sequence[str],
    recovery: Recovery,
    trial: Trial,
    progress: Progress[Any],
) -> tuple[dict[str, Merge], float | None]:
    """(merges by group, the uniform ratio behind them if there is one) that meet `budget` on the groups `chosen`.

    Raises PlanError where a target cannot be met, and RequestError where the default budget has nothing to measure.
    """
    widths = work.widths(chosen)
    if budget.aim is Aim.QUALITY:
        return _boldest(work, budget, chosen, recovery, trial, progress), None
    if budget.aim is Aim.RATIO:
        plan = uniform(widths, budget.value, budget.round_to)
    else:
        price = prices.params if budget.aim is Aim.PARAMS else prices.macs
        whole = max(1, price({}))
        plan = meet(widths, budget, lambda keep: price(work.lengths(keep)) / whole)
    return _merges(work, plan, recovery, trial, progress), plan.ratio


def _boldest(
    work: Compressor,
    budget: Budget,
    chosen: Sequence[str],
    recovery: Recovery,
    trial: Trial,
    progress: Progress[Any],
) -> dict[str, Merge]:
    """The default: the largest merge error per group whose outputs on probe inputs stay within the budget."""
    if not trial.possible:
        raise RequestError(
            "onnxruntime cannot run this model on probe inputs, so the default budget has nothing to measure with: "
            "give --ratio, for example --ratio 0.3"
        )
    curves = {name: work.curve(name) for name in progress("measuring groups", list(chosen))}
    widths, best = work.widths(chosen), dict[str, Merge]()
    known: dict[tuple[tuple[str, int], ...], bool] = {(): True}

    def within(tolerance: float) -> bool:
        nonlocal best
        plan = by_error(widths, curves, tolerance, budget.round_to)
        key = tuple(sorted(plan.keep.items()))
        if key not in known:
            merges = {name: _repaired(work, name, keep, recovery, True) for name, keep in plan.keep.items()}
            known[key] = trial.error(work.emit(merges)) <= budget.value
            if known[key]:
                best = merges
        return known[key]

    too_bold = 1.0
    for tolerance in progress("trying budgets", list(TOLERANCES)):
        if within(tolerance):
            break
        too_bold = tolerance
    else:
        return {}
    for _ in progress("refining", list(range(BISECTIONS))):
        middle = (too_bold * tolerance) ** 0.5
        if within(middle):
            tolerance = middle
        else:
            too_bold = middle
    return best


def _repaired(work: Compressor, name: str, keep: int, recovery: Recovery, fused: bool) -> Merge:
    return work.merge(name, keep) if recovery is Recovery.NONE else work.recovered(name, keep, fused)


def _merges(
    work: Compressor,
    plan: Plan,
    recovery: Recovery,
    trial: Trial,
    progress: Progress[Any],
) -> dict[str, Merge]:
    """All merges of a plan. Fused normalisation is corrected only if that brings the spread of the outputs closer.

    The correction restores variance, so variance is what it is judged by. Judging it group by group, or by the error of
    the outputs, fits the probe inputs instead: measured on fused ResNet-20 and -56, 49 % against 66 % top-1.
    """
    merges = {
        name: _repaired(work, name, keep, recovery, True)
        for name, keep in progress("merging groups", list(plan.keep.items()))
    }
    fused = [name for name in merges if recovery is not Recovery.NONE and work.has_fused(name)]
    if not fused or not trial.possible:
        return merges
    plain = {**merges, **{name: _repaired(work, name, plan.keep[name], recovery, False) for name in fused}}
    return merges if trial.collapse(work.emit(merges)) <= trial.collapse(work.emit(plain)) else plain
