"""From a budget to a folded model: which widths, measured where weights alone cannot tell."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnx import ModelProto

from ..analysis.costs import Costs
from ..errors import PlanError, RequestError
from ..evaluation.candidates import Evaluator
from ..evaluation.latency import Profiler
from ..folding.merge import Merge
from ..options.budget import Aim, Budget
from ..options.choices import Recovery
from ..progress import Progress
from .allocation import Plan, Step, Width, allocate, by_error, ladder, meet, path, refund, special_ratios, uniform
from .measured_targets import Price, fast_enough, small_enough
from .merger import Merger
from .sampled import Folded, SampledMerger

TOLERANCES = (0.5, 0.3, 0.2, 0.15, 0.1, 0.05, 0.02, 0.01, 3e-3, 1e-3, 1e-5)  # merge errors, tried in this order
BISECTIONS = 4  # between the first that passes and the last that does not
_OVERSHOT = 0.02  # of the original: what a target may be missed by before channels are given back
_TRIALS = 5  # of folds along a path, to find the smallest that is good enough


@dataclass(frozen=True)
class Decision:
    """The folded model, and the uniform ratio behind it if there is one."""

    folded: Folded
    ratio: float | None


def decide(
    work: Merger,
    prices: Costs,
    budget: Budget,
    chosen: Sequence[str],
    recovery: Recovery,
    evaluator: Evaluator,
    profiler: Profiler,
    progress: Progress[Any],
) -> Decision:
    """What meets `budget` on the groups `chosen`, from weights (and a few probe inputs) alone.

    Raises PlanError where a target cannot be met, and RequestError where the default budget has nothing to measure.
    """
    widths, price = work.widths(chosen), _price(work, prices, budget, profiler)

    def finish(plan: Plan) -> Folded:
        merges = _merges(work, plan, recovery, evaluator, progress)
        return Folded(work.emit(merges), merges, pending=work.pending(merges))

    if budget.aim in (Aim.QUALITY, Aim.AGREEMENT):
        merges = _boldest(work, budget, chosen, recovery, evaluator, progress)
        return Decision(Folded(work.emit(merges), merges), None)
    if budget.aim is Aim.SIZE:
        plan, folded = small_enough(
            lambda corrected: met(work, widths, budget, corrected),
            price,
            finish,
            _share_of_file(work, profiler),
            budget,
        )
        return Decision(folded, plan.ratio)
    if budget.aim is Aim.LATENCY:
        plans = ladder(widths, budget.round_to)
        plan = plans[_fastest([p.keep for p in plans], work.merge, work, price, budget, profiler, progress)]
    elif budget.aim is Aim.RATIO:
        plan = uniform(widths, budget.value, budget.round_to, special_ratios(work.analysis.groups, budget))
    else:
        plan = met(work, widths, budget, price)
    return Decision(finish(plan), plan.ratio)


def decide_sampled(
    sampled: SampledMerger, prices: Costs, budget: Budget, profiler: Profiler, progress: Progress[Any]
) -> Decision:
    """What meets `budget`, chosen and repaired with samples. Raises PlanError where a target cannot be met.

    Widths that kernels of INT8 need are given up where the target is out of reach with them.
    """
    widths = sampled.work.widths(sampled.chosen)
    blocks = sampled.work.widths(sampled.chosen, budget.quantized)
    if blocks != widths:
        with contextlib.suppress(PlanError):
            return _decided(sampled, blocks, prices, budget, profiler, progress)
    return _decided(sampled, widths, prices, budget, profiler, progress)


def _decided(
    sampled: SampledMerger,
    widths: Sequence[Width],
    prices: Costs,
    budget: Budget,
    profiler: Profiler,
    progress: Progress[Any],
) -> Decision:
    """The same for groups of these `widths`."""
    work = sampled.work
    if budget.aim is Aim.RATIO:
        plan = uniform(widths, budget.value, budget.round_to, special_ratios(work.analysis.groups, budget))
        return Decision(sampled.finish(plan.keep, choose=True), plan.ratio)
    if not sampled.evaluator.possible:
        raise RequestError("onnxruntime cannot run this model on the samples, so nothing can be planned: give --ratio")
    curves = sampled.curves(widths, budget.round_to)
    price = _price(work, prices, budget, profiler)

    def choose(price: Price, among: Sequence[Width] = widths) -> Plan:
        steps = path(among, curves, price, budget)
        return refund(allocate(steps, budget), among, curves, price, budget)

    def finish(plan: Plan) -> Folded:
        return sampled.finish(plan.keep, choose=True)

    if budget.aim in (Aim.PARAMS, Aim.MACS):
        plans = [choose(price)]
        single = [w for w in widths if w.run == 1]
        if not plans[0].keep.keys() <= {w.name for w in single}:
            with contextlib.suppress(PlanError):
                plans.append(choose(price, single))
        return Decision(_nearest(sampled, [finish(plan) for plan in plans]), None)
    if budget.aim is Aim.SIZE:
        return Decision(small_enough(choose, price, finish, _share_of_file(work, profiler), budget)[1], None)
    steps = list(path(widths, curves, price, budget))
    if budget.aim is Aim.LATENCY:
        at = _fastest([s.keep for s in steps], sampled.merge, work, price, budget, profiler, progress)
        return Decision(finish(Plan(steps[at].keep)), None)
    return Decision(_smallest(sampled, steps, budget, progress), None)


def _nearest(sampled: SampledMerger, made: Sequence[Folded]) -> Folded:
    """What is nearest to the original on samples held back. (What several groups cost together is taken for the sum of
    what each costs alone. Whole attention heads cost more: a plan without them may be the better one.)"""
    return made[0] if len(made) == 1 else min(made, key=lambda one: sampled.evaluator.distance(one.proto))


def met(work: Merger, widths: Sequence[Width], budget: Budget, price: Price) -> Plan:
    """The smallest uniform ratio that meets a target; where rounded widths remove far too much, some is given back."""
    plan = meet(widths, budget, price)
    if not plan.keep or price(plan.keep) >= budget.value - _OVERSHOT:
        return plan
    curves = {w.name: (work.curve(w.name), w.cells) for w in widths if w.name in plan.keep}
    relative = {name: curve / max(float(curve[cells]), 1e-30) for name, (curve, cells) in curves.items()}
    return refund(Step(plan.keep, 0.0, 0.0), widths, relative, price, budget)


def good_enough(evaluator: Evaluator, proto: ModelProto, budget: Budget) -> bool:
    """Whether a version of the model keeps a quality budget on the samples of `evaluator`."""
    if budget.aim is Aim.AGREEMENT:
        return evaluator.agreement(proto) >= budget.value
    return evaluator.error(proto) <= budget.value


def _smallest(sampled: SampledMerger, steps: Sequence[Step], budget: Budget, progress: Progress[Any]) -> Folded:
    """The step furthest along that is good enough: measured on a few, the expected errors corrected by each."""
    best = Folded(sampled.work.model.proto, {})
    low, high, factor = 0, len(steps) - 1, 1.0
    for _ in progress("trying budgets", list(range(_TRIALS))):
        if low >= high:
            break
        middle = (low + high + 1) // 2
        if budget.aim is Aim.QUALITY:  # where the corrected expectation meets the budget, inside the bracket
            fitting = [i for i in range(low + 1, high + 1) if steps[i].error * factor <= budget.value**2]
            middle = fitting[-1] if fitting else low + 1
        folded = sampled.finish(steps[middle].keep)
        if steps[middle].error > 0:
            factor = sampled.evaluator.error(folded.proto) ** 2 / steps[middle].error
        if good_enough(sampled.evaluator, folded.proto, budget):
            best, low = folded, middle
        else:
            high = middle - 1
    return best


def _price(work: Merger, prices: Costs, budget: Budget, profiler: Profiler) -> Price:
    """The share of what the budget limits that remains under given widths; of the MACs, where nothing can be computed.

    The share of a file is what its parameters take and all that is stored beside them, which stays.
    """
    if budget.aim is Aim.SIZE:
        rest = profiler.size(work.model.proto) - prices.stored({})
        return lambda keep: (rest + prices.stored(work.lengths(keep))) / work.model.size
    price = prices.params if budget.aim is Aim.PARAMS else prices.macs
    whole = max(1, price({}))
    return lambda keep: price(work.lengths(keep)) / whole


def _share_of_file(work: Merger, profiler: Profiler) -> Callable[[Folded], float]:
    return lambda folded: profiler.size(folded.proto) / work.model.size


def _fastest(
    plans: Sequence[Mapping[str, int]],
    merge: Callable[[str, int], Merge],
    work: Merger,
    price: Price,
    budget: Budget,
    profiler: Profiler,
    progress: Progress[Any],
) -> int:
    """Which of `plans` is the first that meets a budget of latency. Repair changes values only: it can wait."""

    def latency(at: int) -> float:
        return profiler.latency(work.emit({name: merge(name, k) for name, k in plans[at].items()}))

    return fast_enough([price(keep) for keep in plans], latency, budget, progress)


def _boldest(
    work: Merger,
    budget: Budget,
    chosen: Sequence[str],
    recovery: Recovery,
    evaluator: Evaluator,
    progress: Progress[Any],
) -> dict[str, Merge]:
    """The default: the largest merge error per group whose outputs on probe inputs stay within the budget."""
    if not evaluator.possible:
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
            known[key] = good_enough(evaluator, work.emit(merges), budget)
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


def _repaired(work: Merger, name: str, keep: int, recovery: Recovery, fused: bool) -> Merge:
    return work.merge(name, keep) if recovery is Recovery.NONE else work.recovered(name, keep, fused)


def _merges(
    work: Merger,
    plan: Plan,
    recovery: Recovery,
    evaluator: Evaluator,
    progress: Progress[Any],
) -> dict[str, Merge]:
    """All merges of a plan. Fused normalization is corrected only if that brings the spread of the outputs closer.

    Where a model is streamed that cannot be measured, and nothing is corrected: what is so large is a transformer, and
    normalizes its residual stream itself.

    The correction restores variance, so variance is what it is judged by. Judging it group by group, or by the error of
    the outputs, fits the probe inputs instead: measured on fused ResNet-20 and -56, 49 % against 66 % top-1.
    """
    work.prepare(plan.keep, recovery is not Recovery.NONE, progress)
    measured = not work.streamed
    merges = {name: _repaired(work, name, keep, recovery, measured) for name, keep in plan.keep.items()}
    if not measured:
        return merges
    fused = [name for name in merges if recovery is not Recovery.NONE and work.has_fused(name)]
    if not fused or not evaluator.possible:
        return merges
    plain = {**merges, **{name: _repaired(work, name, plan.keep[name], recovery, False) for name in fused}}
    return merges if evaluator.collapse(work.emit(merges)) <= evaluator.collapse(work.emit(plain)) else plain
