"""How long a fold is expected to take, and when that is said."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest
from tiny import MODELS

import onnxfold
from onnxfold.errors import ExecutionError, RequestError
from onnxfold.options.choices import Effort, Method, Recovery
from onnxfold.options.options import ChoiceOptions
from onnxfold.options.parts import PlanningOptions, SelectionOptions
from onnxfold.passes.choice.work import titles, work_of
from onnxfold.passes.prepare import subject_of
from onnxfold.planning import plan_choice
from onnxfold.planning import time_estimate as module
from onnxfold.planning.drops import MEASURED
from onnxfold.planning.subject import Subject
from onnxfold.planning.time_estimate import Estimate, Work, estimate
from onnxfold.progress import Phase, announced

MLP = MODELS / "digits_mlp.onnx"
IMAGES = {"image": np.random.default_rng(0).standard_normal((32, 64)).astype(np.float32)}


def planning(effort: str = "balanced") -> PlanningOptions:
    return PlanningOptions(effort=Effort(effort))


@pytest.fixture
def mlp(monkeypatch: pytest.MonkeyPatch) -> Subject:
    """With a machine on which a sample takes 10 ms, and where nothing was made before."""
    monkeypatch.setattr(module, "are_made", lambda *_: False)
    monkeypatch.setattr(module, "_forward", lambda *_: 0.01)
    monkeypatch.setattr(module, "_rate", lambda: 1e9)
    return subject_of(MLP, planning())


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        ((0.0, 3.0), "about 5 seconds"),
        ((20.0, 23.0), "about 45 seconds (20 seconds of that to make inputs)"),
        ((60.0, 70.0), "about 2 minutes (60 seconds of that to make inputs)"),
        ((0.0, 9000.0), "about 2.5 hours"),
    ],
)
def test_in_words(seconds: tuple[float, float], words: str) -> None:
    assert str(Estimate(*seconds)) == words


def test_what_there_is_need_not_be_made(mlp: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    none, own, many = (estimate(mlp, planning(), n, True) for n in (0, 128, 1024))
    assert none and own and many
    assert none.samples > 100 and own.samples == 0  # 512 samples, 40 steps, 6 passes of 10 ms, up to the limit
    assert many.fold > 4 * own.fold
    monkeypatch.setattr(module, "are_made", lambda *_: True)
    again = estimate(mlp, planning(), 0, True)
    assert again == Estimate(0.0, none.fold)


def test_the_users_own_measure_takes_time(mlp: Subject) -> None:
    """Once for the result; while folds are searched for a limit, once for each, and each is made."""
    plain = estimate(mlp, planning(), 64, True)
    assert plain is not None
    once, searched = plain.with_metric(30.0, False), plain.with_metric(30.0, True)
    assert once.fold == pytest.approx(plain.fold + 30)
    assert once.phases[Phase.CHECK] == pytest.approx(plain.phases[Phase.CHECK] + 30)
    made = plain.phases[Phase.RECONSTRUCT]
    assert searched.loops["measuring folds"] == pytest.approx(MEASURED * (30 + made))
    assert Phase.RECONSTRUCT not in searched.phases
    assert searched.fold == pytest.approx(plain.fold + 30 + MEASURED * (30 + made) - made)
    assert sum(searched.phases.values()) - sum(plain.phases.values()) == pytest.approx(searched.fold - plain.fold)


def test_a_sweep_measures_every_model(mlp: Subject) -> None:
    plain = estimate(mlp, planning(), 64, True)
    assert plain is not None
    models = [one.of_models(Work.of_folds(6))[Phase.MODELS] for one in (plain, plain.with_metric(30.0, False))]
    assert models[1] - models[0] == pytest.approx(7 * 30)  # what is recommended is made twice


def test_a_choice_counts_its_stages() -> None:
    given = {Phase.SENSITIVITY: 10.0, Phase.PLAN: 7.0, Phase.RECONSTRUCT: 2.0, Phase.CHECK: 9.0, Phase.TRAIN: 50.0}
    found = Estimate(0.0, 0.0, given, {"trying plans": 6.0, "weighing widths": 0.5})  # .5 of the plan is done once
    options = ChoiceOptions.of(allow=["fold", "int8", "fp16", "refine", "drop"], at=[0.8, 0.6])
    assert found.stages(work_of(options)) == (
        10 + 2 * 4, 0.5 + 4 * (1.5 + 2) + 6 * 4, 3 * (2 * 2 + 4), 2 * (12.5 + 4), 2 * (6.5 + 2 + 4 + 50)
    )  # fmt: skip
    assert found.of_models(work_of(options))[Phase.MODELS] == 18 + 38.5 + 24 + 33 + 125
    parts = [title.part for title in titles(options, found)]
    assert parts == pytest.approx([18 / 238.5, 38.5 / 220.5, 24 / 182, 33 / 158, 1.0])
    alone = ChoiceOptions.of(allow=["fold"], at=[0.5])
    assert found.stages(work_of(alone)) == (0.0, 10 + 0.5 + 1.5 + 2 + 4, 0.0, 0.0, 6.5 + 2 + 4)
    assert titles(alone, None)[1].part > 0.45 > 0.01 > titles(alone, None)[0].part


def test_a_ratio_measures_no_curves(mlp: Subject) -> None:
    planned, ratio = estimate(mlp, planning(), 64, True), estimate(mlp, planning(), 64, False)
    assert planned and ratio and planned.fold > ratio.fold


def test_texts_are_long_and_trained_on_at_half_of_that(mlp: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = estimate(mlp, planning(), 64, False, (100, 64))
    monkeypatch.setattr(module, "longer", lambda *_: 4.0)
    long = estimate(mlp, planning(), 64, False, (100, 64))
    assert plain and long
    assert long.phases[Phase.TRAIN] == pytest.approx(2 * plain.phases[Phase.TRAIN])
    assert long.phases[Phase.SENSITIVITY] > 3 * plain.phases[Phase.SENSITIVITY]


def test_refinement_takes_time(mlp: Subject) -> None:
    plain, refined = (estimate(mlp, planning(), 64, False, size) for size in (None, (100, 64)))
    assert plain and refined
    assert refined.fold - plain.fold == pytest.approx(5 * 0.01 * 6400)  # passes a step, seconds a sample, samples
    assert refined.samples == plain.samples


def test_plans_that_are_tried_take_time(mlp: Subject) -> None:
    one, tried = (estimate(mlp, planning(), 128, True, None, tried) for tried in (False, True))
    assert one and tried
    passes = 2 * 64 + 64  # two over what a plan is fitted on, one over the rest
    assert tried.fold - one.fold >= plan_choice.MOST * 0.01 * passes


def test_nothing_is_expected_of_weights_alone(mlp: Subject) -> None:
    assert estimate(mlp, planning("fast"), 0, True) is None
    assert estimate(mlp, planning("fast"), 64, True) is not None


def test_nothing_is_expected_where_no_inputs_are_made(mlp: Subject) -> None:
    selection = SelectionOptions(method=Method.FOLD)
    by_weights = PlanningOptions(selection=selection, recovery=Recovery.CLOSED_FORM)
    assert estimate(mlp, by_weights, 0, True) is None
    assert estimate(mlp, by_weights, 64, True) is not None


def test_a_model_that_does_not_run_has_none(mlp: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> float:
        raise ExecutionError("no kernel")

    monkeypatch.setattr(module, "_forward", fail)
    assert estimate(mlp, planning(), 0, True) is None


def test_it_is_said_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LONG", 0.0)
    events: list[str] = []

    def progress(what: str, items: Iterable[Any]) -> Iterator[Any]:
        events.append(what)
        yield from items

    result = onnxfold.fold(
        MLP, target_macs=0.6, calibration=IMAGES, latency=False, progress=progress, announce=events.append
    )
    assert events[0].startswith("about ") and len([e for e in events if e.startswith("about ")]) == 1 < len(events)
    assert result.report.seconds["estimated"] > 0


def test_what_is_short_is_not_worth_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LONG", 1e6)
    said: list[str] = []
    onnxfold.fold(MLP, target_macs=0.6, calibration=IMAGES, latency=False, announce=said.append)
    assert not said


def test_a_bad_request_is_refused_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxfold.passes.calibrate.estimate", lambda *_: pytest.fail("estimated"))
    with pytest.raises(RequestError):
        onnxfold.fold(MLP, target_macs=2.0)


def test_only_a_terminal_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    announced("about 5 seconds")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    announced("about 6 seconds")
    assert "5 seconds" not in (text := capsys.readouterr().err) and "about 6 seconds" in text
