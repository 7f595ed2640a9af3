"""From a budget to a folded model: which widths, measured where weights alone cannot tell."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto

from ..analysis.costs import Costs
from ..errors import PlanError, RequestError
from ..evaluation.candidates import Evaluator, required
from ..evaluation.latency import Profiler
from ..folding.merge import Merge
from ..options.budget import Aim
from ..options.choices import Recovery
from ..progress import Progress
from .allocation import (
    HIGHEST_RATIO,
    Plan,
    Step,
    Width,
    allocate,
    by_error,
    ladder,
    meet,
    out_of_reach,
    path,
    refund,
    round_width,
    special_ratios,
    uniform,
)
from .drops import Drops
from .given_plan import given_widths
from .goal import Goal
from .measured_targets import Price, fast_enough, small_enough
from .merger import Merger
from .plan_choice import Curves, best_of_ways, with_streams
from .sampled import Folded, SampledMerger

TOLERANCES = (0.5, 0.3, 0.2, 0.15, 0.1, 0.05, 0.02, 0.01, 3e-3, 1e-3, 1e-5)  # merge errors, tried in this order
BISECTIONS = 4  # between the first that passes and the last that does not
_OVERSHOT = 0.02  # of the original: what a target may be missed by before channels are given back
_TOLERANCES_TRIED = 256  # where plans are made without being measured
TRIALS = 5  # of folds along a path, to find the smallest that is good enough


@dataclass(frozen=True)
class Decision:
    """The folded model, and the uniform ratio behind it if there is one."""

    folded: Folded
    ratio: float | None


@dataclass(frozen=True, eq=False)
class SearchContext:
    """What a search works with: who merges, what channels cost, what measures files and latencies, what asks the user's
    own measure (None: there is none), and how many bytes `beside` the model a result is going to hold."""

    merger: Merger
    prices: Costs
    profiler: Profiler
    progress: Progress[Any]
    drops: Drops | None = None
    beside: int = 0

    def price(self, goal: Goal) -> Price:
        """The share of what the goal limits that remains under given widths; of the MACs, where nothing can be
        computed.

        The share of a file is what its parameters take and all that is stored beside them, which stays.
        """
        work, prices = self.merger, self.prices
        if goal.aim is Aim.SIZE:
            rest = self.profiler.size(work.model.proto) - prices.stored({})
            beside = self.beside  # the original, with nothing gone, is not written anew
            return lambda keep: (
                (rest + prices.stored(work.layout.lengths(keep)) + (beside if keep else 0)) / work.model.size
            )
        price = prices.params if goal.aim is Aim.PARAMS else prices.macs
        whole = max(1, price({}))
        return lambda keep: price(work.layout.lengths(keep)) / whole

    def linked(self, goal: Goal) -> Mapping[str, Collection[str]]:
        """By group, those whose savings depend on its width, by the price of this goal: they share a product."""
        params = goal.aim in (Aim.SIZE, Aim.PARAMS)
        return self.merger.layout.linked(self.prices.products(params))

    def share_of_file(self, folded: Folded) -> float:
        """Bytes of the file that a folded model would be, over those of the original."""
        beside = self.beside if folded.merges else 0
        return (self.profiler.size(folded.proto) + beside) / self.merger.model.size

    def smallest(self, count: int, fold: Callable[[int], Folded], goal: Goal) -> Folded:
        """The furthest of the folds 1 to `count` whose loss the user's own measure allows. Raises PlanError."""
        if self.drops is None:
            raise RequestError(f"{goal.asked} limits how far your own metric may fall: pass `metric` too")
        return self.drops.smallest(count, fold, goal)

    def fastest(self, plans: Sequence[Mapping[str, int]], merge: Callable[[str, int], Merge], goal: Goal) -> int:
        """Which of `plans` is the first that meets a budget of latency. Repair changes values only: it can wait."""
        price = self.price(goal)

        def latency(at: int) -> float:
            return self.profiler.latency(self.merger.emit({name: merge(name, k) for name, k in plans[at].items()}))

        return fast_enough([price(keep) for keep in plans], latency, goal, self.progress)


def check_reachable(context: SearchContext, goal: Goal, chosen: Sequence[str], sampled: bool) -> None:
    """Raise PlanError for a target below what folding all groups as far as they go leaves, before anything is measured.

    `sampled`: whether samples will decide, which may take every group to its narrowest width; weights alone go by a
    uniform ratio.
    """
    if not goal.aim.is_target:
        return
    widths = context.merger.layout.widths(chosen)
    narrowest = {w.name: round_width(w, 0, goal.round_to) for w in widths}
    keep = narrowest if sampled else uniform(widths, HIGHEST_RATIO, goal.round_to).keep
    least = context.price(goal)({w.name: keep[w.name] for w in widths if keep.get(w.name, w.size) < w.size})
    if least > goal.value:
        raise out_of_reach(goal, least)


def decide(
    context: SearchContext, evaluator: Evaluator, budget: Goal, chosen: Sequence[str], recovery: Recovery
) -> Decision:
    """What meets `budget` on the groups `chosen`, from weights (and a few probe inputs) alone.

    Widths that kernels want are given up where the target is out of reach with them, or nothing goes. Raises
    PlanError where a target cannot be met, and RequestError where the default budget has nothing to measure.
    """
    widths, blocks = context.merger.layout.widths(chosen), _blocks(context.merger, chosen, budget)
    if blocks != widths:
        with contextlib.suppress(PlanError):
            found = _decided_from_weights(context, evaluator, budget, blocks, recovery)
            if found.folded.merges:
                return found
    return _decided_from_weights(context, evaluator, budget, widths, recovery)


def _blocks(work: Merger, chosen: Sequence[str], budget: Goal) -> list[Width]:
    """Groups with the widths that kernels want, where these are followed."""
    return work.layout.widths(chosen, None if budget.blocks is None else budget)


def _decided_from_weights(
    context: SearchContext, evaluator: Evaluator, budget: Goal, widths: Sequence[Width], recovery: Recovery
) -> Decision:
    """The same for groups of these `widths`."""
    work = context.merger
    repair = _Repair(work, recovery, evaluator, context.progress)
    chosen, price = [width.name for width in widths], context.price(budget)

    def finish(plan: Plan) -> Folded:
        merges = repair.merges(plan)
        return Folded(work.emit(merges), merges, pending=work.pending(merges))

    if budget.aim.limits_loss:
        merges = repair.boldest(budget, chosen)
        return Decision(Folded(work.emit(merges), merges), None)
    if budget.widths is not None:
        given = given_widths(budget.widths, work.analysis.groups)
        if budget.origin is None or not budget.origin.limits_loss:
            return Decision(finish(given), None)
        merges = {name: repair.repaired(name, k, True) for name, k in given.keep.items()}  # as `boldest` does
        return Decision(Folded(work.emit(merges), merges, pending=work.pending(merges)), None)
    if budget.aim is Aim.DROP:
        rising = repair.rising(budget, chosen)
        return Decision(context.smallest(len(rising), lambda at: finish(rising[at - 1]), budget), None)
    if budget.aim is Aim.SIZE:
        plan, folded = small_enough(
            lambda corrected: met(work, widths, budget, corrected), price, finish, context.share_of_file, budget
        )
        return Decision(folded, plan.ratio)
    if budget.aim is Aim.LATENCY:
        plans = ladder(widths, budget.round_to)
        plan = plans[context.fastest([p.keep for p in plans], work.merge, budget)]
    elif budget.aim is Aim.RATIO:
        plan = uniform(widths, budget.value, budget.round_to, special_ratios(work.analysis.groups, budget))
    else:
        assert budget.aim.is_target, budget.aim
        plan = met(work, widths, budget, price)
    return Decision(finish(plan), plan.ratio)


def decide_sampled(context: SearchContext, sampled: SampledMerger, budget: Goal) -> Decision:
    """What meets `budget`, chosen and repaired with samples. Raises PlanError where a target cannot be met.

    Widths that kernels want are given up where the target is out of reach with them, or nothing goes.
    """
    widths = sampled.merger.layout.widths(sampled.chosen)
    blocks = sampled.merger.layout.widths(sampled.chosen, budget)
    if blocks != widths:
        with contextlib.suppress(PlanError):
            found = _decided(context, sampled, blocks, budget)
            if found.folded.merges or budget.blocks is None:
                return found
    return _decided(context, sampled, widths, budget)


def _decided(context: SearchContext, sampled: SampledMerger, widths: Sequence[Width], budget: Goal) -> Decision:
    """The same for groups of these `widths`."""
    work = sampled.merger
    if budget.aim is Aim.RATIO:
        plan = uniform(widths, budget.value, budget.round_to, special_ratios(work.analysis.groups, budget))
        return Decision(sampled.finish(plan.keep, choose=True), plan.ratio)
    if budget.widths is not None:
        given = given_widths(budget.widths, work.analysis.groups)
        searched = budget.origin is not None and (budget.origin.limits_loss or budget.origin is Aim.DROP)
        return Decision(sampled.finish(given.keep, choose=not searched), None)
    if not sampled.evaluator.possible:
        raise RequestError(f"{sampled.evaluator.obstacle}, so nothing can be planned: use `ratio`")
    curves = sampled.curves(widths, budget.round_to)
    price, linked = context.price(budget), context.linked(budget)

    def choose(price: Price, among: Sequence[Width] = widths, errors: Curves = curves) -> Plan:
        steps = path(among, errors, price, budget, linked)
        return refund(allocate(steps, budget), among, errors, price, budget)

    def finish(plan: Plan) -> Folded:
        return sampled.finish(plan.keep, choose=True)

    if budget.aim in (Aim.PARAMS, Aim.MACS):
        tries = sampled.tries(context.prices, budget.plans)
        ways = list(with_streams(widths, sampled.streams, budget.round_to, price, choose))
        heads = _without_heads(widths, lambda single: choose(price, single))
        plan = best_of_ways(ways, curves, lambda plan: sampled.trial(plan.keep), heads, tries, context.progress)
        return Decision(finish(plan), None)
    if budget.aim is Aim.SIZE:
        return Decision(small_enough(choose, price, finish, context.share_of_file, budget)[1], None)
    steps = list(path(widths, curves, price, budget, linked))
    if budget.aim is Aim.LATENCY:
        at = context.fastest([s.keep for s in steps], sampled.merge, budget)
        return Decision(finish(Plan(steps[at].keep)), None)
    if budget.aim is Aim.DROP:
        last = len(steps) - 1  # the first is the original
        return Decision(context.smallest(last, lambda at: sampled.finish(steps[at].keep), budget), None)
    assert budget.aim.limits_loss, budget.aim
    return Decision(_smallest(sampled, steps, budget, context.progress), None)


def _without_heads(widths: Sequence[Width], choose: Callable[[Sequence[Width]], Plan]) -> list[Plan]:
    """A plan that leaves whole attention heads, where there are any: they cost more together than each alone tells."""
    single = [w for w in widths if w.run == 1]
    if len(single) == len(widths):
        return []
    try:
        return [choose(single)]
    except PlanError:
        return []


def met(work: Merger, widths: Sequence[Width], budget: Goal, price: Price) -> Plan:
    """The smallest uniform ratio that meets a target; where rounded widths remove far too much, some is given back."""
    plan = meet(widths, budget, price)
    if not plan.keep or price(plan.keep) >= budget.value - _OVERSHOT:
        return plan
    curves = {w.name: (work.curve(w.name), w.cells) for w in widths if w.name in plan.keep}
    relative = {name: curve / max(float(curve[cells]), 1e-30) for name, (curve, cells) in curves.items()}
    return refund(Step(plan.keep, 0.0, 0.0), widths, relative, price, budget)


def good_enough(evaluator: Evaluator, proto: ModelProto, budget: Goal) -> bool:
    """Whether a version of the model keeps a quality budget on the samples of `evaluator`. Raises RequestError where
    no output has the classes that a budget of agreement is about."""
    if budget.aim is Aim.AGREEMENT:
        return required(evaluator.agreement(proto)) >= budget.value
    return evaluator.error(proto) <= budget.value


def _smallest(sampled: SampledMerger, steps: Sequence[Step], budget: Goal, progress: Progress[Any]) -> Folded:
    """The step furthest along that is good enough: measured on a few, the expected errors corrected by each."""
    best = Folded(sampled.merger.model.proto, {})
    low, high, factor = 0, len(steps) - 1, 1.0
    for _ in progress("trying budgets", list(range(TRIALS))):
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


@dataclass(frozen=True, eq=False)
class _Repair:
    """How plans become merges from weights alone, judged on probe inputs where that is needed."""

    work: Merger
    recovery: Recovery
    evaluator: Evaluator
    progress: Progress[Any]

    def boldest(self, budget: Goal, chosen: Sequence[str]) -> dict[str, Merge]:
        """The default: the largest merge error per group whose outputs on probe inputs stay within the budget."""
        if not self.evaluator.possible:
            raise RequestError(
                f"{self.evaluator.obstacle}, so a limit on the output error cannot be measured: use a "
                "ratio, for example `ratio=0.3`"
            )
        work = self.work
        curves = {name: work.curve(name) for name in self.progress("measuring groups", list(chosen))}
        widths, best = _blocks(work, chosen, budget), dict[str, Merge]()
        known: dict[tuple[tuple[str, int], ...], bool] = {(): True}

        def within(tolerance: float) -> bool:
            nonlocal best
            plan = by_error(widths, curves, tolerance, budget.round_to)
            key = tuple(sorted(plan.keep.items()))
            if key not in known:
                merges = {name: self.repaired(name, keep, True) for name, keep in plan.keep.items()}
                known[key] = good_enough(self.evaluator, work.emit(merges), budget)
                if known[key]:
                    best = merges
            return known[key]

        too_bold = 1.0
        for tolerance in self.progress("trying budgets", list(TOLERANCES)):
            if within(tolerance):
                break
            too_bold = tolerance
        else:
            return {}
        for _ in self.progress("refining", list(range(BISECTIONS))):
            middle = (too_bold * tolerance) ** 0.5
            if within(middle):
                tolerance = middle
            else:
                too_bold = middle
        return best

    def rising(self, budget: Goal, chosen: Sequence[str]) -> list[Plan]:
        """All different plans of one merge error for every group, the smallest error first."""
        curves = {name: self.work.curve(name) for name in self.progress("measuring groups", list(chosen))}
        widths, plans = _blocks(self.work, chosen, budget), list[Plan]()
        for tolerance in np.geomspace(min(TOLERANCES), max(TOLERANCES), _TOLERANCES_TRIED):
            plan = by_error(widths, curves, float(tolerance), budget.round_to)
            if plan.keep and (not plans or plan.keep != plans[-1].keep):
                plans.append(plan)
        return plans

    def repaired(self, name: str, keep: int, fused: bool) -> Merge:
        """The merge of one group, repaired from its weights; `fused`: also for normalization fused into them."""
        if self.recovery is Recovery.NONE:
            return self.work.merge(name, keep)
        return self.work.recovered(name, keep, fused)

    def merges(self, plan: Plan) -> dict[str, Merge]:
        """All merges of a plan. Fused normalization is corrected only if that brings the spread of the outputs closer.

        A streamed model cannot be measured, and nothing is corrected there: what is so large is a transformer, and
        normalizes its residual stream itself.

        The correction restores variance, so variance is what it is judged by. Judging it group by group, or by the
        error of the outputs, fits the probe inputs instead: measured on fused ResNet-20 and -56, 49 % against 66 %
        top-1.
        """
        work = self.work
        work.prepare(plan.keep, self.recovery is not Recovery.NONE, self.progress)
        measured = not work.streamed
        merges = {name: self.repaired(name, keep, measured) for name, keep in plan.keep.items()}
        if not measured:
            return merges
        fused = [name for name in merges if self.recovery is not Recovery.NONE and work.has_fused(name)]
        if not fused or not self.evaluator.possible:
            return merges
        plain = {**merges, **{name: self.repaired(name, plan.keep[name], False) for name in fused}}
        collapse = self.evaluator.collapse
        return merges if collapse(work.emit(merges)) <= collapse(work.emit(plain)) else plain
