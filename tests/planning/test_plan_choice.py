"""Which of several plans is taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny import MODELS

from onnxfold.analysis.costs import costs
from onnxfold.errors import PlanError
from onnxfold.model.model import load
from onnxfold.planning import plan_choice
from onnxfold.planning.allocation import Plan, Width
from onnxfold.planning.plan_choice import best_of_ways, best_plan, tries, with_streams
from onnxfold.progress import silent

CURVES = {name: np.linspace(1, 0, 9) for name in "abcd"}


def cheapest(curves: Mapping[str, NDArray[np.float64]]) -> Plan:
    """Two channels of the group that is said to cost least, one of the next."""
    first, second = sorted(curves, key=lambda name: float(curves[name][0]))[:2]
    return Plan({first: 6, second: 7})


def truly(plan: Plan) -> float:
    """What curves do not tell: group d costs nothing, and b little beside it."""
    cost = {"a": 1.0, "b": 0.1 if "d" in plan.keep else 1.0, "c": 1.0, "d": 0.0}
    return sum(cost[name] * (8 - k) for name, k in plan.keep.items())


def test_the_best_of_what_is_tried() -> None:
    seen = list[Plan]()

    def trial(plan: Plan) -> float:
        seen.append(plan)
        return truly(plan)

    found = best_plan(cheapest, CURVES, trial, [], 40, silent)
    assert seen[0].keep == {"a": 6, "b": 7}, "curves as they are come first"
    assert truly(found) == min(map(truly, seen)) < truly(seen[0])
    assert len({tuple(plan.keep.items()) for plan in seen}) == len(seen), "none is tried twice"
    assert found.keep == {"d": 6, "b": 7}, "the best of twelve"
    assert best_plan(cheapest, CURVES, truly, [], 40, silent).keep == found.keep, "the same every time"


def test_one_plan_is_not_tried() -> None:
    def trial(_: Plan) -> float:
        raise AssertionError

    assert best_plan(cheapest, CURVES, trial, [Plan({"a": 6, "b": 7})], 1, silent).keep == {"a": 6, "b": 7}


def test_other_plans_are_tried_too() -> None:
    other = Plan({"d": 2})
    assert best_plan(cheapest, CURVES, truly, [other], 1, silent) is other


def test_plans_in_which_a_stream_loses_a_fixed_share() -> None:
    """The others pay for the rest of the target, so they lose less where the stream loses more."""
    widths = [Width("stream", 40, 1), Width("mlp", 100, 1)]

    def price(keep: Mapping[str, int]) -> float:
        return (keep.get("stream", 40) + keep.get("mlp", 100)) / 140

    def choose(
        price: Callable[[Mapping[str, int]], float], among: Sequence[Width], _: Mapping[str, NDArray[np.float64]]
    ) -> Plan:
        (only,) = among
        return Plan({only.name: max(k for k in range(only.size) if price({only.name: k}) <= 0.8)})

    ways = list(with_streams(widths, ["stream"], 1, price, choose))
    found = [ways[number]({}).keep for number in (0, 2, 3, 4)]
    assert found == [
        {"mlp": 72}, {"mlp": 76, "stream": 36}, {"mlp": 80, "stream": 32}, {"mlp": 84, "stream": 28}
    ]  # fmt: skip
    assert len(list(with_streams(widths, [], 1, price, choose))) == 1

    def truly(plan: Plan) -> float:
        return abs(plan.keep.get("stream", 40) - 33.0)

    del ways[1]  # by curves, which there are none of
    assert best_of_ways(ways, {}, truly, [], 1, silent).keep == {"mlp": 80, "stream": 32}


def test_ways_that_cannot_plan_are_left_out() -> None:
    def never(_: Mapping[str, NDArray[np.float64]]) -> Plan:
        raise PlanError("out of reach")

    plan = Plan({"a": 7})
    assert best_of_ways([never, lambda _: plan], CURVES, truly, [], 1, silent) is plan
    with pytest.raises(PlanError, match="out of reach"):
        best_of_ways([never, never], CURVES, truly, [], 1, silent)


def test_what_cannot_be_is_left_out_but_not_the_first() -> None:
    def picky(curves: Mapping[str, NDArray[np.float64]]) -> Plan:
        if any(curve[0] > 1 for curve in curves.values()):
            raise PlanError("out of reach")
        return cheapest(curves)

    assert best_plan(picky, CURVES, truly, [], 8, silent).keep == {"a": 6, "b": 7}
    with pytest.raises(PlanError):
        best_plan(picky, {**CURVES, "a": 2 * CURVES["a"]}, truly, [Plan({})], 8, silent)


def test_large_models_are_tried_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_choice, "MOST", 24)
    model = load(MODELS / "digits_vgg.onnx")
    prices = costs(model)
    counts = [tries(model, prices, samples, samples, 0.0) for samples in (1, 10_000, 100_000, 10**9)]
    assert counts == sorted(counts, reverse=True) and counts[0] > counts[2] > counts[3] == 1
    wide = [tries(model, prices, 1, 1, fits) for fits in (0.0, 4e12, 1e15)]  # DenseNet-40: 4e12 for every plan
    assert wide[0] > wide[1] > wide[2] == 1
