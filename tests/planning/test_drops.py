"""Folds judged by the user's own measure: few are measured, the furthest that keeps the budget is taken."""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort
import pytest
from onnx import ModelProto
from tiny import net, write, write_external

import onnxfold
from onnxfold.errors import PlanError, RequestError
from onnxfold.evaluation.own_measure import OwnMeasure
from onnxfold.model.model import load
from onnxfold.options.budget import Aim, Budget
from onnxfold.options.options import FoldOptions
from onnxfold.planning.drops import MEASURED, Drops
from onnxfold.planning.goal import Goal
from onnxfold.planning.sampled import Folded
from onnxfold.progress import silent


class Asked:
    """Folds of a model whose measure falls by `slope` at each, and which of them were measured."""

    def __init__(self, slope: float) -> None:
        self.slope, self.seen, self.files = slope, list[int](), list[Path]()

    def fold(self, at: int) -> Folded:
        self.seen.append(at)
        return Folded(named(at), {})

    def __call__(self, path: Path) -> float:
        self.files.append(path)
        at = int(load(path).proto.graph.name)
        assert at == self.seen[-1], "the fold that was made is the one that is measured"
        return 1 - self.slope * at

    def smallest(self, count: int, value: float, quantized: bool = False) -> int:
        own = OwnMeasure(self, "own", 1.0)
        goal = Goal(Aim.DROP, value, quantized=quantized)
        found = Drops(own, load(named(0)), silent).smallest(count, self.fold, goal)
        return int(found.proto.graph.name)


def named(at: int) -> ModelProto:
    proto = net()
    proto.graph.name = str(at)
    return proto


@pytest.mark.parametrize("count", [1, 2, 7, 100, 255])
@pytest.mark.parametrize("least", [1, 2, 77, 255])
def test_the_furthest_that_keeps_the_budget(count: int, least: int) -> None:
    asked = Asked(0.001)
    found = asked.smallest(count, 0.001 * least)
    assert found == min(count, least) and len(asked.seen) <= MEASURED


@pytest.mark.parametrize("count", [1000, 5000])
@pytest.mark.parametrize("least", [1, 3, 600])
def test_of_very_many_it_is_near(count: int, least: int) -> None:
    asked = Asked(1e-5)
    found = asked.smallest(count, 1e-5 * least)
    assert 1 <= found <= least and least - found <= count / 2 ** (MEASURED - 1) and len(asked.seen) == MEASURED


@pytest.mark.parametrize("count", [1, 5, 1000])
def test_none_keeps_it(count: int) -> None:
    asked = Asked(0.25)
    with pytest.raises(PlanError, match=r"`max_drop=0.1` cannot be kept: .*drops by 0.25.*was 1") as caught:
        asked.smallest(count, 0.1)
    assert asked.seen[-1] == min(asked.seen) == 1, "the smallest was tried before it was given up"
    assert "\n" not in str(caught.value) and len(asked.seen) <= MEASURED


def test_before_int8_nothing_need_go() -> None:
    assert Asked(0.25).smallest(9, 0.1, quantized=True) == 0


def test_with_no_fold_nothing_is_measured() -> None:
    asked = Asked(0.25)
    assert asked.smallest(0, 0.1) == 0 and not asked.seen


def test_what_rises_is_kept() -> None:
    assert Asked(-0.1).smallest(40, 0.0) == 40


def test_files_are_models_and_go() -> None:
    asked = Asked(0.001)
    asked.smallest(9, 0.003)
    assert all(path.suffix == ".onnx" and not path.exists() and not path.parent.exists() for path in asked.files)


def test_weights_beside_the_model_come_along(tmp_path: Path) -> None:
    source = load(write_external(tmp_path / "in.onnx"))
    before = sorted(p.name for p in tmp_path.iterdir())

    def own(path: Path) -> float:
        assert path.parent != tmp_path
        return float(len(ort.InferenceSession(path, providers=["CPUExecutionProvider"]).get_inputs()))

    found = Drops(OwnMeasure(own, "own", 1.0), source, silent).measured(Folded(source.proto, {}))
    assert found.after == 1 and sorted(p.name for p in tmp_path.iterdir()) == before


def test_a_budget_without_a_measure(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"`max_drop` .*pass `metric` too"):
        FoldOptions(budget=Budget.max_drop(0.1))
    with pytest.raises(RequestError, match=r"`max_drop` .*pass `metric` too"):
        onnxfold.fold(write(tmp_path / "in.onnx"), max_drop=0.1)
