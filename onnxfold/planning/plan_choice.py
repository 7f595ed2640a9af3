"""The best of several plans for one target: groups that are folded together cost other than the sum of what each costs
alone, so plans are tried, each near the best so far."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..analysis.costs import Costs, step_seconds
from ..errors import PlanError
from ..model.model import Model
from ..progress import Progress
from .allocation import Plan, Width, round_width
from .measured_targets import Price

Curves = Mapping[str, NDArray[np.float64]]
_SPREAD = 0.4  # standard deviation of the logarithm of what a group is taken to cost, from one plan to the next
MOST = 24  # plans
FEW = 4  # plans, for a fold that is there to be compared: they are the first of those that it is worth trying
_WORK = 24.0  # seconds that all of them may take, about, on two idle cores
TRIAL_SHARE, TRIAL_SAMPLES = 4, 64  # one in so many samples is fitted on in a trial, but at least this many
_FITTING, _MEASURING = 0.75, 0.25  # of `step_seconds`, for every sample
_FIT = 5e-13  # seconds, for every multiplication or addition of a fit


def tries(model: Model, prices: Costs, fitting: int, measuring: int, fits: float) -> int:
    """How many plans are worth their time, decided before the start by the size of the model: each is fitted on so many
    samples, measured on so many, and its `fits` take so many multiplications and additions."""
    each = step_seconds(model, prices) * (_FITTING * fitting + _MEASURING * measuring) + _FIT * fits
    return max(1, min(MOST, int(_WORK / max(1e-9, each))))


def best_plan(
    choose: Callable[[Curves], Plan],
    curves: Curves,
    trial: Callable[[Plan], float],
    others: Iterable[Plan],
    count: int,
    progress: Progress[Any],
) -> Plan:
    """The plan with the least error in a `trial`, of those that `choose` makes of versions of the error `curves`.

    The first version is `curves` themselves. In every other one each group is dearer or cheaper by chance than in the
    best version so far. Measured on a fused ResNet-20 at half of its MACs: 71.4 and 69.5 % right by the first plan, for
    two sets of inputs, 76.9 and 77.2 % by the best of 24 and 28 (docs/design/planning.md).

    Args:
        trial: the error of the outputs under a plan.
        others: plans that are tried too.
        count: how many are made of `curves`; with 1 and no `others` nothing is tried.

    Raises PlanError where `choose` does for `curves`.
    """
    first = choose(curves)
    rest = [plan for plan in others if plan.keep != first.keep]
    if count < 2 and not rest:
        return first
    names, rng = sorted(curves), np.random.default_rng(0)
    center, best, least, known = np.zeros(len(names)), first, float("inf"), list[Mapping[str, int]]()
    for at in progress("trying plans", list(range(count + len(rest)))):
        logs = center + (_SPREAD * rng.standard_normal(len(names)) if 0 < at < count else 0.0)
        try:
            plan = rest[at - count] if at >= count else choose(_scaled(curves, names, logs)) if at else first
        except PlanError:
            continue
        if plan.keep in known:
            continue
        known.append(plan.keep)
        error = trial(plan)
        if error < least:
            best, least, center = plan, error, logs
    return best


STREAM_SHARES = (0.1, 0.2, 0.3)  # of the channels of a residual stream that go in plans that are tried too
_STREAM_TRIES = 4  # one in so many plans is tried for each way to plan them


def best_of_ways(
    ways: Sequence[Callable[[Curves], Plan]],
    curves: Curves,
    trial: Callable[[Plan], float],
    others: Iterable[Plan],
    count: int,
    progress: Progress[Any],
) -> Plan:
    """The plan with the least error in a `trial`, of the best of each way to choose one from error curves: the first of
    `ways` tries `count` plans and `others`, and each of the others a quarter of that. Raises PlanError where none of
    them can."""
    plans, refusal = list[Plan](), PlanError("there is no way to plan")
    for number, choose in enumerate(ways):
        more, tries = (others, count) if number == 0 else ((), max(1, count // _STREAM_TRIES))
        try:
            plans.append(best_plan(choose, curves, trial, more, tries, progress))
        except PlanError as error:
            refusal = error
    if not plans:
        raise refusal
    return min(plans, key=trial) if len(plans) > 1 else plans[0]


def with_streams(
    widths: Sequence[Width],
    streams: Collection[str],
    round_to: int,
    price: Price,
    choose: Callable[[Price, Sequence[Width], Curves], Plan],
) -> Iterator[Callable[[Curves], Plan]]:
    """Ways to choose plans: first without the `streams` among the groups, then, where there are any, by the error
    curves of all, and with each of `STREAM_SHARES` of the streams gone, while the others pay for the rest: what a
    stream costs together with them its error curve hardly tells, since all that it feeds changes with it."""
    mine, rest = [w for w in widths if w.name in streams], [w for w in widths if w.name not in streams]
    yield lambda errors: choose(price, rest, errors)
    if mine:
        yield lambda errors: choose(price, widths, errors)
    for share in STREAM_SHARES if mine else ():
        kept = {w.name: round_width(w, w.size * (1 - share), round_to) for w in mine}
        fixed = {w.name: kept[w.name] for w in mine if kept[w.name] < w.size}

        def chosen(errors: Curves, fixed: Mapping[str, int] = fixed) -> Plan:
            plan = choose(lambda keep: price({**keep, **fixed}), rest, errors)
            return Plan({**plan.keep, **fixed})

        yield chosen


def _scaled(curves: Curves, names: list[str], logs: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    return {name: factor * curves[name] for name, factor in zip(names, np.exp(logs), strict=True)}
