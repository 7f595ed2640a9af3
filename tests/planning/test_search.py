"""Widths from error curves: the path, the target on it, and what is given back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from nbits import net, random
from numpy.typing import NDArray
from tiny import MODELS
from transformer import PRESETS, Draw, Kind, Style, build, feeds

import onnxfold
from onnxfold.analysis.analyze import analyze
from onnxfold.analysis.costs import costs
from onnxfold.errors import PlanError
from onnxfold.model.model import load
from onnxfold.options.budget import Aim
from onnxfold.planning.allocation import BLOCK, Step, Width, allocate, by_error, meet, path, refund
from onnxfold.planning.goal import Goal
from onnxfold.planning.merger import Merger
from onnxfold.planning.sampled import SampledMerger
from onnxfold.planning.search import met

Floats = NDArray[np.float64]
WIDTHS = [Width("a", 64, 1), Width("b", 32, 4), Width("c", 48, 1), Width("narrow", 8, 1)]
WEIGHT = {"a": 5.0, "b": 1.0, "c": 2.0, "narrow": 9.0}  # price of one channel
WHOLE = 1.0 + sum(w.size * WEIGHT[w.name] for w in WIDTHS)


def price(keep: Mapping[str, int]) -> float:
    return (1.0 + sum(keep.get(w.name, w.size) * WEIGHT[w.name] for w in WIDTHS)) / WHOLE


def macs(round_to: int, value: float = 0.5) -> Goal:
    return Goal(Aim.MACS, value, round_to)


def curves(seed: int = 0, convex: bool = True) -> dict[str, Floats]:
    """Errors by channels kept: falling to 0, NaN for the widths that cells do not allow."""
    rng, out = np.random.default_rng(seed), {}
    for width in WIDTHS:
        steps = rng.uniform(0, 1, width.size) ** 3
        steps = np.sort(steps) if convex else steps
        curve = np.concatenate([np.cumsum(steps)[::-1], [0.0]]) / width.size
        curve[np.arange(width.size + 1) % width.cells != 0] = np.nan
        out[width.name] = curve
    return out


@pytest.mark.parametrize("convex", [True, False])
@pytest.mark.parametrize("round_to", [1, 4, 8])
@pytest.mark.parametrize("seed", range(3))
def test_the_path_narrows_step_by_step(seed: int, round_to: int, convex: bool) -> None:
    found = curves(seed, convex)
    steps = list(path(WIDTHS, found, price, macs(round_to)))
    assert steps[0] == Step({}, 1.0, 0.0)
    prices = [s.price for s in steps]
    assert all(b < a for a, b in pairwise(prices))
    errors = [s.error for s in steps]
    assert all(b >= a for a, b in pairwise(errors))
    sizes = {w.name: w for w in WIDTHS}
    for before, step in pairwise(steps):
        changed = {n for n in sizes if before.keep.get(n) != step.keep.get(n)}
        assert len(changed) == 1
        assert step.price == price(step.keep)
        assert step.error == pytest.approx(sum(found[n][k] for n, k in step.keep.items()))
        for name, k in step.keep.items():
            assert k % round_to == 0 and k % sizes[name].cells == 0 and 2 * sizes[name].cells <= k < sizes[name].size
    least = {n: max(round_to, 2 * w.cells) for n, w in sizes.items() if max(round_to, 2 * w.cells) < w.size}
    assert steps[-1].keep == least


def test_the_cheapest_error_per_price_goes_first() -> None:
    line = {w.name: np.linspace(1, 0, w.size + 1) * w.size for w in WIDTHS}  # the same error for every channel
    steps = list(path(WIDTHS, line, price, macs(1)))
    widths = [(s.keep.get("a", 64), s.keep.get("c", 48), s.keep.get("b", 32)) for s in steps]
    assert widths[1:7] == [(64, 48, 32)] * 6  # "narrow" saves most
    assert widths[7:69] == [(k, 48, 32) for k in range(63, 1, -1)]
    assert widths[69:115] == [(2, k, 32) for k in range(47, 1, -1)]
    assert widths[115:] == [(2, 2, k) for k in range(28, 4, -4)]


def test_half_of_what_counts_is_what_kernels_save() -> None:
    """Kernels compute 16 channels at once: of two groups alike but for that, the one that loses a block goes first."""
    widths = [Width("within", 32, 1, BLOCK), Width("whole", 16, 1, BLOCK)]
    line = {w.name: np.linspace(1, 0, w.size + 1) * w.size for w in widths}

    def total(keep: Mapping[str, int]) -> float:
        return (keep.get("within", 32) + 1.2 * keep.get("whole", 16)) / (32 + 1.2 * 16)

    def order(budget: Goal) -> list[dict[str, int]]:
        return [dict(s.keep) for s in path(widths, line, total, budget)]

    assert order(macs(8))[1:] == [{"within": 24}, {"within": 16}, {"within": 16, "whole": 8}, {"within": 8, "whole": 8}]
    assert order(macs(1))[:15] == [{}, *({"whole": k} for k in range(15, 1, -1))]
    free = [replace(w, block=1) for w in widths]
    assert list(path(free, line, total, macs(8)))[1].keep == {"whole": 8}
    dear = {**line, "within": 2.5 * line["within"]}
    assert list(path(widths, dear, total, macs(8)))[1].keep == {"whole": 8}
    for blockwise in (Goal(Aim.LATENCY, 0.5), Goal(Aim.MACS, 0.5, quantized=True)):
        assert list(path(widths, dear, total, blockwise))[1].keep == {"within": 24}
    assert list(path(widths, dear, total, Goal(Aim.MACS, 0.5, 1, quantized=True)))[1].keep == {"whole": 15}


def test_a_cliff_behind_a_plateau_is_seen_from_afar() -> None:
    """A curve need not be convex: what is free after one dear step is worth that step."""
    widths = [Width("bump", 32, 1), Width("steady", 32, 1)]
    bump = np.zeros(33)
    bump[:32], bump[32] = 1.0, 0.0  # the first channels cost 1, all others nothing more
    steady = np.linspace(1.6, 0, 33)
    steps = list(path(widths, {"bump": bump, "steady": steady}, lambda k: sum({**dict.fromkeys(
        ("bump", "steady"), 32), **k}.values()) / 64, macs(8)))  # fmt: skip
    assert [set(s.keep) for s in steps[1:4]] == [{"bump"}] * 3
    assert steps[3].keep == {"bump": 8}


def test_groups_without_a_curve_stay() -> None:
    found = {**curves(), "a": np.full(65, np.nan)}
    steps = list(path(WIDTHS, found, price, macs(8)))
    assert steps[-1].keep == {"b": 8, "c": 8}


def test_what_saves_nothing_stays() -> None:
    steps = list(path(WIDTHS, curves(), lambda keep: price({n: k for n, k in keep.items() if n != "c"}), macs(8)))
    assert all("c" not in s.keep for s in steps)
    assert len(steps) > 3


@pytest.mark.parametrize("target", [0.95, 0.7, 0.4])
def test_the_first_step_that_meets_the_target(target: float) -> None:
    steps = list(path(WIDTHS, curves(), price, macs(4)))
    found = allocate(steps, Goal(Aim.MACS, target, 4))
    assert found.price <= target
    assert all(s.price > target for s in steps[: steps.index(found)])


def test_a_target_that_no_step_meets() -> None:
    steps = list(path(WIDTHS, curves(), price, macs(8)))
    least = math.ceil(100 * steps[-1].price) / 100  # rounded up: what the message names can be asked for
    with pytest.raises(PlanError, match=f"`target_params=0.1` cannot be reached.* allow {least:.2f}"):
        allocate(steps, Goal(Aim.PARAMS, 0.1))
    assert allocate(steps, Goal(Aim.PARAMS, steps[-1].price)) is steps[-1]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("target", [0.9, 0.65, 0.45])
def test_what_is_left_over_is_given_back(target: float, seed: int) -> None:
    budget, found = Goal(Aim.MACS, target, 4), curves(seed, convex=False)
    step = allocate(path(WIDTHS, found, price, macs(4)), budget)
    plan = refund(step, WIDTHS, found, price, budget)
    assert price(plan.keep) <= target
    sizes = {w.name: w.size for w in WIDTHS}
    for name, size in sizes.items():
        assert step.keep.get(name, size) <= plan.keep.get(name, size) <= size
        if name in plan.keep:  # not one more step fits
            wider = {**plan.keep, name: min(size, plan.keep[name] + 4)}
            assert plan.keep[name] < size and price(wider) > target
    error = sum(found[n][k] for n, k in plan.keep.items())
    assert error <= step.error


def test_rounded_widths_remove_no_more_than_asked_for() -> None:
    """Uniform ratios in multiples of 8 jump from the whole model to a third of the arithmetic; what is left is had."""
    model = load(MODELS / "digits_resnet_bn.onnx")
    work = Merger(model, analyze(model))
    prices, names = costs(model), [g.name for g in work.analysis.groups]
    whole, budget = prices.macs({}), Goal(Aim.MACS, 0.7, 8)

    def left(keep: Mapping[str, int]) -> float:
        return prices.macs(work.layout.lengths(keep)) / whole

    uniformly, plan = meet(work.layout.widths(names), budget, left), met(work, work.layout.widths(names), budget, left)
    assert left(uniformly.keep) < left(plan.keep) <= 0.7
    assert plan.keep and all(left({**plan.keep, name: k + 8}) > 0.7 for name, k in plan.keep.items())


def test_heads_go_one_by_one() -> None:
    """A head of 64 positions is a multiple of 8 by itself."""
    heads = Width("heads", 6, 1, run=64)
    found = {"heads": np.arange(6, -1, -1.0)}
    steps = [s.keep.get("heads", 6) for s in path([heads], found, lambda keep: keep.get("heads", 6) / 6, macs(8))]
    assert steps == [6, 5, 4, 3, 2]
    assert by_error([heads], {"heads": np.array([9, 8, 6, 1, 1, 0, 0.0])}, 0.2, 8).keep == {"heads": 3}


@pytest.mark.parametrize(
    ("round_to", "allowed"), [(1, range(63, 1, -1)), (8, (48, 32, 16)), (12, (48,)), (64, ())]
)  # multiples of 16 and of what is asked for, unless widths are free
def test_kernels_that_need_whole_blocks_get_them(round_to: int, allowed: Sequence[int]) -> None:
    width = Width("depthwise", 64, 1, BLOCK, multiple=BLOCK)
    line = {"depthwise": np.arange(64, -1, -1.0)}
    steps = path([width], line, lambda keep: keep.get("depthwise", 64) / 64, macs(round_to))
    assert [s.keep["depthwise"] for s in steps if s.keep] == list(allowed)


def test_only_grouped_convolutions_in_int8_need_whole_blocks() -> None:
    model = load(MODELS / "digits_mobilenet.onnx")
    work = Merger(model, analyze(model))
    names = [g.name for g in work.analysis.groups]
    assert {w.multiple for w in work.layout.widths(names)} == {1}
    grouped = {w.name for w in work.layout.widths(names, Goal(Aim.MACS, 0.5, quantized=True)) if w.multiple == BLOCK}
    assert "/6/expand/expand.0/Conv" in grouped and "/6/project/project.0/Conv" not in grouped


def test_a_plan_without_whole_heads_is_measured_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """What heads cost together is more than the sum: the version nearest to the original is taken."""
    config = PRESETS["gpt2"].tiny()
    proto = build(config, Style.DECOMPOSED).model(Draw(Kind.ALIKE))
    calibration = {name: x for name, x in feeds(proto, config, batch=24).items() if "past" not in name}
    tried: list[tuple[float, set[str]]] = []

    def noted(sampled: SampledMerger, keep: Mapping[str, int]) -> float:
        tried.append((trial(sampled, keep), set(keep)))
        return tried[-1][0]

    trial = SampledMerger.trial
    monkeypatch.setattr(SampledMerger, "trial", noted)
    heads = {g.name for g in onnxfold.inspect(proto).groups if g.before == config.heads}
    assert heads
    result = onnxfold.fold(proto, target_params=0.9, round_to=1, calibration=calibration, latency=False)
    assert heads & tried[0][1], "a net of repeated heads gives some of them up"
    assert tried[-1][1] and not heads & tried[-1][1], "the last is without"
    taken = {g.name for g in result.report.groups if g.after < g.before}
    assert taken == min(tried)[1]


LINKED = {name: load(MODELS / f"digits_{name}.onnx") for name in ("mobilenet", "resnet_bn", "vgg")}
LINKED["weights in blocks"] = load(net(random()))


@pytest.mark.parametrize("params", [False, True], ids=["macs", "params"])
@pytest.mark.parametrize("name", LINKED)
def test_what_is_not_linked_need_not_be_priced_again(name: str, params: bool) -> None:
    loaded = LINKED[name]
    work, prices, asked = Merger(loaded, analyze(loaded)), costs(loaded), 0
    widths = work.layout.widths(work.layout.groups)
    total = prices.params if params else prices.macs

    def share(keep: Mapping[str, int]) -> float:
        nonlocal asked
        asked += 1
        return total(work.layout.lengths(keep)) / total({})

    rng = np.random.default_rng(1)
    found = {w.name: rng.random() * np.cumsum(rng.random(w.size + 1))[::-1] for w in widths}
    linked = work.layout.linked(prices.products(params))
    whole = list(path(widths, found, share, macs(4)))
    every, asked = asked, 0
    assert [*path(widths, found, share, macs(4), linked)] == whole and len(whole) > len(widths)
    assert asked < every or all(len(linked[n]) == len(linked) for n in linked)
    if name in ("vgg", "mobilenet"):
        alone = {n: [n] for n in linked}
        assert [*path(widths, found, share, macs(4), alone)] != whole, "prices of neighbors do change"
