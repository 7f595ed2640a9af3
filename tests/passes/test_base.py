"""The pipeline: requirements checked when it is built, refusals before anything costs time, frozen states."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from tiny import MODELS, net

import onnxfold
from onnxfold import Budget, PlanError, RequestError, RuleError
from onnxfold.options.parts import CalibrationOptions, PlanningOptions, RuntimeOptions, SelectionOptions
from onnxfold.passes.base import BasePass, Pipeline, Run, State
from onnxfold.passes.fold import FoldChannels, FoldRecord, PreparePlanning
from onnxfold.passes.prepare import Analyze
from onnxfold.passes.verify import Stage

PLANNING, CALIBRATION = PlanningOptions(), CalibrationOptions()


class Step(BasePass):
    """Notes what happens to it."""

    def __init__(self, name: str, log: list[str], needs: str = "", gives: str = "", fails: str = "") -> None:
        self.name, self.log, self._fails = name, log, fails
        self.requires, self.provides = frozenset(needs.split()), frozenset(gives.split())

    def check(self, state: State, run: Run) -> None:
        self.log.append(f"check {self.name}")
        if self._fails == "check":
            raise RequestError("no")

    def __call__(self, state: State, run: Run) -> State:
        self.log.append(self.name)
        if self._fails == "run":
            raise RuleError("broken")
        return state.adding(self.name)


def test_requirements_are_checked_when_the_pipeline_is_built() -> None:
    with pytest.raises(RuleError, match=r"the pass 'b' requires \['samples'\]"):
        Pipeline(Step("a", [], gives="analysis"), Step("b", [], needs="analysis samples"))
    with pytest.raises(RuleError, match="'fold' requires"):
        Pipeline(FoldChannels(PLANNING, CALIBRATION, Budget.macs(0.5)))
    Pipeline(Step("b", [], needs="samples"), given=("samples",))


def test_all_passes_refuse_before_the_second_one_runs() -> None:
    log: list[str] = []
    passes = [Step("a", log, gives="analysis"), Step("b", log, "analysis"), Step("c", log, fails="check")]
    with Run(RuntimeOptions()) as run, pytest.raises(RequestError):
        Pipeline(*passes).run(State.load(net(), None), run)
    assert log == ["a", "check b", "check c"]


def test_a_failure_names_what_ran_before() -> None:
    log: list[str] = []
    passes = [Step("a", log), Step("b", log), Step("c", log, fails="run"), Step("d", log)]
    with Run(RuntimeOptions()) as run, pytest.raises(RuleError) as caught:
        Pipeline(*passes).run(State.load(net(), None), run)
    assert caught.value.__notes__ == ["in the pass 'c'; passes that ran before: a, b"] and "d" not in log


def test_passes_are_timed_under_their_names() -> None:
    log: list[str] = []
    with Run(RuntimeOptions()) as run:
        done = Pipeline(Step("a", log), Step("b", log), Step("a", log)).run(State.load(net(), None), run)
    assert list(run.clock.seconds) == ["a", "b"] and done.records == ("a", "b", "a")


def test_a_state_stays_as_it_was() -> None:
    state = State.load(net(), None)
    other = state.adding("x", name="other")
    assert (state.records, state.name, other.records, other.name) == ((), "model", ("x",), "other")
    with pytest.raises(FrozenInstanceError):
        state.name = "y"  # type: ignore[misc]
    assert state.found(str) is None and other.done(str) == "x"
    with pytest.raises(RuleError, match="no pass left a FoldRecord"):
        state.done(FoldRecord)
    with pytest.raises(RuleError, match="not analyzed"):
        state.known  # noqa: B018


def test_what_is_staged_vanishes_with_the_run(tmp_path: Any) -> None:
    from onnxfold.options.parts import OutputOptions

    output = OutputOptions(path=tmp_path / "out.onnx")
    with Run(RuntimeOptions()) as run:
        state = Pipeline(Stage(output), given=("candidate",)).run(State.load(net(), None), run)
        assert state.staged is not None and state.staged.path.exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("budget", [{"target_macs": 0.01}, {"target_params": 0.02}, {"target_size": 0.005}])
@pytest.mark.parametrize("effort", ["fast", "balanced"])
def test_a_target_out_of_reach_costs_no_time(
    budget: dict[str, float], effort: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused from widths and prices alone: nothing is estimated, no inputs are made, no curve is measured."""
    spent = lambda *_, **__: pytest.fail("time was spent")  # noqa: E731
    for place in ("calibrate.estimate", "calibrate.collect_samples"):
        monkeypatch.setattr(f"onnxfold.passes.{place}", spent)
    monkeypatch.setattr("onnxfold.planning.merger.Merger.curve", spent)
    (name,) = budget
    with pytest.raises(PlanError, match=f"`{name}=.*cannot be reached: .* at the least"):
        onnxfold.fold(MODELS / "digits_resnet_bn.onnx", effort=effort, latency=False, **budget)


def test_ratios_for_groups_that_there_are_not_cost_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxfold.passes.calibrate.collect_samples", lambda *_, **__: pytest.fail("made"))
    with pytest.raises(RequestError, match="nowhere"):
        onnxfold.fold(MODELS / "digits_resnet_bn.onnx", group_ratios={"nowhere": 0.5}, latency=False)


def test_a_prepared_state_answers_in_any_order() -> None:
    """One state, two budgets, twice: what was asked before changes no answer."""
    planning = PlanningOptions(selection=SelectionOptions(round_to=4), effort="fast")  # type: ignore[arg-type]
    given = CalibrationOptions(effort="fast")  # type: ignore[arg-type]
    with Run(RuntimeOptions()) as run:
        prepared = Pipeline(Analyze(planning.selection), Step("s", [], gives="samples"), PreparePlanning(planning)).run(
            State.load(MODELS / "digits_mlp.onnx", None), run
        )

        def folded(share: float) -> bytes:
            fold = FoldChannels(planning, given, Budget.macs(share))
            done = Pipeline(fold, given=("analysis", "planner")).run(prepared, run)
            return bytes(done.current.proto.SerializeToString(deterministic=True))

        first = [folded(share) for share in (0.8, 0.5)]
        assert [folded(share) for share in (0.5, 0.8)] == first[::-1] and first[0] != first[1]
