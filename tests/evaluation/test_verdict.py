"""The verdict: providers that are missing or fail, figures against values by hand, and what counts as wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from tiny import TEXT, fold, main, net, write

from onnxfold import RequestError, compare
from onnxfold.errors import ExecutionError
from onnxfold.evaluation import latency as timing
from onnxfold.evaluation import verdict as module
from onnxfold.evaluation.latency import interleaved
from onnxfold.evaluation.metrics import output_error
from onnxfold.evaluation.verdict import Check, Conditions, Status, check
from onnxfold.runtime import session
from onnxfold.runtime.session import Session, resolve_providers

CPU, CUDA, TRT = session.SHORT["cpu"], session.SHORT["cuda"], session.SHORT["tensorrt"]


class Fake:
    """A session that gives prepared outputs, and notes when it runs."""

    def __init__(self, outputs: dict[str, Any], log: list[str] | None = None, name: str = "") -> None:
        self._outputs, self._log, self._name = outputs, log, name
        self.inputs, self.outputs = (), tuple(outputs)

    def fitted(self, feeds: Any) -> Any:
        return feeds

    def run(self, feeds: object) -> list[Any]:
        if self._log is not None:
            self._log.append(self._name)
        if isinstance(self._outputs, Exception):
            raise self._outputs
        return list(self._outputs.values())


class Dead(Fake):
    """A session whose runs fail."""

    def __init__(self, reason: str) -> None:
        super().__init__({})
        self._reason = reason

    def run(self, feeds: object) -> list[Any]:
        raise ExecutionError(self._reason)


Started = Fake | Exception | Callable[[str], Any]


def judge(old: Started, new: Started, providers: Sequence[str] = (CPU,), latency: bool = False, **more: Any) -> Check:
    """The verdict on two sessions (or what makes them by provider); an exception is raised when the session starts."""

    def loader(model: str | Path | bytes, provider: str) -> Any:
        made = old if model == b"old" else new
        if callable(made):
            made = made(provider)
        if isinstance(made, Exception):
            raise made
        return made

    proto = net()
    protos = more.pop("protos", (proto, proto))
    conditions = Conditions(providers=providers, loader=loader, latency=latency, **more)
    feeds = {"x": np.zeros((4, 3), np.float32)}
    return check(b"old", b"new", feeds, protos=protos, inputs="nothing", conditions=conditions)


GOOD = np.float32([[1, 2, 3], [3, 2, 1]])


# figures ------------------------------------------------------------------------------------------------------------


def test_figures_by_hand() -> None:
    """[3, 4] against [3, 5]: noise 1, signal 5, norms 5 and sqrt 34, inner product 29."""
    found = output_error("y", np.float32([3, 4]), np.float32([3, 5]))
    assert found.relative_l2 == pytest.approx(1 / 5)
    assert found.cosine == pytest.approx(29 / (5 * math.sqrt(34)))
    assert found.sqnr_db == pytest.approx(20 * math.log10(5))
    assert found.max_abs == 1.0 and found.top1 is None


def test_figures_at_the_ends() -> None:
    same = output_error("y", GOOD, GOOD)
    assert (same.relative_l2, same.cosine, same.sqnr_db, same.max_abs, same.top1) == (0, 1, math.inf, 0, 1)
    from_zero = output_error("y", np.zeros(2), np.ones(2))
    assert (from_zero.relative_l2, from_zero.cosine, from_zero.sqnr_db) == (math.inf, 0, -math.inf)
    to_zero = output_error("y", np.ones(2), np.zeros(2))
    assert to_zero.relative_l2 == pytest.approx(1) and to_zero.cosine == 0 and to_zero.sqnr_db == pytest.approx(0)
    empty = output_error("y", np.zeros((0, 3)), np.zeros((0, 3)))
    assert (empty.relative_l2, empty.max_abs, empty.top1) == (0, 0, None)
    lost = output_error("y", GOOD, np.float32([[1, np.nan, 3], [3, 2, 1]]))
    assert (lost.relative_l2, lost.sqnr_db, lost.max_abs) == (math.inf, -math.inf, math.inf)
    masked = np.float32([-np.inf, 1, np.nan])
    assert output_error("y", masked, masked).relative_l2 == 0


def test_large_halves_do_not_overflow() -> None:
    found = output_error("y", np.full(9, 6e4, np.float16), np.full(9, 3e4, np.float16))
    assert found.relative_l2 == pytest.approx(0.5, rel=1e-3)


# problems -----------------------------------------------------------------------------------------------------------


def test_sound() -> None:
    verdict = judge(Fake({"y": GOOD}), Fake({"y": GOOD * 2}))
    assert verdict.passed and verdict.worst is not None
    assert verdict.worst.relative_l2 == pytest.approx(1) and verdict.worst.top1 == 1
    assert verdict.providers[0].status == "ok" and verdict.providers[0].speedup is None


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_output(bad: float) -> None:
    broken = GOOD.copy()
    broken[1, 2] = bad
    verdict = judge(Fake({"a": GOOD, "y": GOOD}), Fake({"a": GOOD, "y": broken}))
    assert verdict.problems == ("output 'y' has NaN or infinite values, unlike the original",)


def test_nan_that_the_original_has_too() -> None:
    broken = GOOD.copy()
    broken[0, 0] = np.nan
    verdict = judge(Fake({"y": broken}), Fake({"y": broken}))
    assert verdict.passed and "of the original" in verdict.notes[0]


def test_changed_output_shape() -> None:
    verdict = judge(Fake({"y": GOOD}), Fake({"y": GOOD[:, :2]}))
    assert verdict.problems == ("output 'y' has shape [2, 2] instead of [2, 3]",)
    assert verdict.providers[0].status == "failed"


def interface(change: Any) -> tuple[ModelProto, ModelProto]:
    proto = net()
    change(proto)
    return net(), proto


def test_changed_interface() -> None:
    def dimension(p: ModelProto) -> None:
        p.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 4

    def kind(p: ModelProto) -> None:
        p.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE

    def more(p: ModelProto) -> None:
        p.graph.output.append(helper.make_tensor_value_info("s", 1, None))

    for change, says in ((dimension, "inputs changed ('x'): ["), (kind, "outputs changed ('y')"), (more, "('s')")):
        verdict = judge(Fake({"y": GOOD}), Fake({"y": GOOD}), protos=interface(change))
        assert len(verdict.problems) == 1 and says in verdict.problems[0]


def test_models_of_other_batch_sizes() -> None:
    """What does not run has lost nothing that is worth a word of its own."""
    pair = [net(TEXT.replace("[N,", f"[{batch},")) for batch in (1, 4)]
    check = compare(*pair, latency=False).check
    assert check is not None and check.problems == (
        "the model's inputs changed ('x'): [4, 3, 8, 8] instead of [1, 3, 8, 8]",
        "the model's outputs changed ('y'): [4, 10] instead of [1, 10]",
        "CPU runs the original but not the result: Got invalid dimensions for input: x for the following indices "
        "index: 0 Got: 1 Expected: 4",
    )


def test_names_of_open_dimensions_are_no_interface() -> None:
    def rename(p: ModelProto) -> None:
        p.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"

    assert judge(Fake({"y": GOOD}), Fake({"y": GOOD}), protos=interface(rename)).passed


def test_refused_by_the_checker(tmp_path: Path) -> None:
    broken = net()
    broken.graph.node[1].op_type = "Rellu"
    good, bad = write(tmp_path / "good.onnx"), write(tmp_path / "bad.onnx", broken)

    def verdict(before: Path, after: Path) -> Check:
        return check(
            before, after, {}, protos=(net(), net()), inputs="", conditions=Conditions(providers=[], latency=False)
        )

    assert any("checker refuses" in p for p in verdict(good, bad).problems)
    assert verdict(bad, bad).passed, "what the original does not pass either is no fault of ours"


# providers ----------------------------------------------------------------------------------------------------------


def test_start_fails_on_one_provider() -> None:
    def old(provider: str) -> Any:
        error = ExecutionError("[ONNXRuntimeError] : 1 : FAIL : no driver\nmore")
        return error if provider == CUDA else Fake({"y": GOOD})

    verdict = judge(old, Fake({"y": GOOD}), (CUDA, CPU))
    assert [p.status for p in verdict.providers] == ["failed", "ok"]
    assert verdict.providers[0].message == "original: no driver"
    assert verdict.passed and verdict.notes == ("CUDA: original: no driver",)
    assert verdict.worst is not None and verdict.worst.relative_l2 == 0


def test_run_fails_on_one_provider() -> None:
    verdict = judge(Fake({"y": GOOD}), lambda p: Dead("kernel") if p == CUDA else Fake({"y": GOOD}), (CPU, CUDA))
    assert [p.status for p in verdict.providers] == ["ok", "failed"]
    assert verdict.problems == ("CUDA runs the original but not the result: kernel",)


def test_nothing_runs() -> None:
    verdict = judge(Dead("custom operator"), Fake({"y": GOOD}))
    assert verdict.passed and verdict.worst is None
    assert any("nothing was measured" in n for n in verdict.notes)


def test_provider_that_fails_in_a_real_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider that onnxruntime offers and that cannot start gives a note, and the CPU its verdict."""
    started = Session.__init__

    def start(self: Session, model: Any, provider: str = CPU, **how: Any) -> None:
        if provider == CUDA:
            raise ExecutionError("no kernel image")
        started(self, model, provider, **how)

    monkeypatch.setattr(session.ort, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(Session, "__init__", start)
    report = fold(net(), ratio=0.5, latency=False).report
    assert report.check is not None and report.check.passed
    assert {p.provider: p.status for p in report.check.providers} == {CPU: "ok", CUDA: "failed"}
    assert "CUDA: original: no kernel image" in report.verdict


def test_default_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session.ort, "get_available_providers", lambda: [TRT, CUDA, CPU])
    assert resolve_providers(None) == [CPU, CUDA]
    monkeypatch.setattr(session.ort, "get_available_providers", lambda: ["AzureExecutionProvider", CPU])
    assert resolve_providers(None) == [CPU]


def test_chosen_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session.ort, "get_available_providers", lambda: [CPU])
    monkeypatch.setattr(session.ort, "get_all_providers", lambda: [TRT, CUDA, CPU])
    assert resolve_providers(["CPU", "cpu", CPU]) == [CPU]
    assert resolve_providers("cpu") == [CPU]
    for bad in ([], [""], ["gpu"], [CUDA], ["cpu", "cuda"]):
        with pytest.raises(RequestError):
            resolve_providers(bad)


def test_a_provider_that_is_missing_is_an_error_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(session.ort, "get_available_providers", lambda: [CPU])
    monkeypatch.setattr(session.ort, "get_all_providers", lambda: [CUDA, CPU])
    path = write(tmp_path / "in.onnx")
    for providers in ("cpu,cuda", "cuda"):
        assert main([str(path), str(tmp_path / "out.onnx"), "--ratio", "0.5", "--providers", providers]) == 2
        shown = capsys.readouterr()
        assert shown.out == "" and "this onnxruntime has no CUDAExecutionProvider, only CPU" in shown.err
    assert [one.name for one in tmp_path.iterdir()] == ["in.onnx"]


# latency ------------------------------------------------------------------------------------------------------------


def test_latency_is_interleaved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "LATENCY_SECONDS", 1.5)
    log: list[str] = []
    pair: list[Any] = [Fake({"y": GOOD}, log, name) for name in ("old", "new")]
    interleaved(*pair, {})
    turn = sum(timing.TURN)
    assert log[1 : 1 + 4 * turn] == (["old"] * turn + ["new"] * turn) * 2
    assert log.count("old") - 1 == log.count("new") <= timing.LATENCY_RUNS[1] * turn / timing.TURN[1]


def test_slow_models_take_short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "LATENCY_SECONDS", 0.0)
    log: list[str] = []
    pair: list[Any] = [Fake({"y": GOOD}, log, name) for name in ("old", "new")]
    interleaved(*pair, {})
    assert log == ["old", *["old", "new"] * timing.LATENCY_RUNS[0]]


def test_latency_in_brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of the time: runs of 10 ms each, 0.1 s in all."""
    now = iter(float(i) / 100 for i in range(10**6))
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(now))
    counts = []
    for measure in (timing.in_turn, timing.briefly_in_turn):
        monkeypatch.setattr(timing, "LATENCY_SECONDS", 0.6)
        before, after = measure(Fake({"y": GOOD}), Fake({"y": GOOD}), {})  # type: ignore[arg-type]
        assert len(before) == len(after)
        counts.append(len(before))
    assert counts[0] > 2 * counts[1] >= 2 * timing.LATENCY_RUNS[0]


@pytest.mark.parametrize(("times", "slower"), [((1.0, 1.5), True), ((1.0, 1.01), False), ((1.5, 1.0), False)])
def test_slower_is_noted(monkeypatch: pytest.MonkeyPatch, times: tuple[float, float], slower: bool) -> None:
    monkeypatch.setattr(module, "in_turn", lambda *_: tuple([one] for one in times))
    verdict = judge(Fake({"y": GOOD}), Fake({"y": GOOD}), latency=True)
    assert verdict.passed
    assert verdict.notes == (("slower on CPU: 1.50x the latency",) if slower else ())
    assert verdict.providers[0].speedup == pytest.approx(times[0] / times[1])


def test_fixed_batch_is_timed_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose batch is fixed at 4 cannot run one sample."""
    monkeypatch.setattr(timing, "LATENCY_SECONDS", 0.0)
    report = fold(net(TEXT.replace("N,", "4,")), ratio=0.5).report
    assert report.check is not None
    assert report.check.providers[0].status == "ok" and report.check.providers[0].speedup


def test_failure_at_batch_one_is_a_problem() -> None:
    class Picky(Fake):
        def run(self, feeds: Any) -> list[Any]:
            if len(feeds["x"]) == 1:
                raise ExecutionError("batch 1")
            return [GOOD]

    verdict = judge(Fake({"y": GOOD}), Picky({"y": GOOD}), latency=True)
    assert verdict.problems == ("CPU runs the original but not the result: batch 1",)


# compare ------------------------------------------------------------------------------------------------------------


def test_compare_models_that_do_not_belong_together() -> None:
    """Another number of outputs, other inputs: a verdict, no exception."""
    more = net()
    more.graph.output.append(helper.make_tensor_value_info("s", TensorProto.FLOAT, ["N", 16, 4, 4]))
    report = compare(net(), more, latency=False)
    assert report.check is not None and not report.check.passed and "outputs changed" in report.verdict
    renamed = net(TEXT.replace("(x, w1", "(z, w1").replace("8] x)", "8] z)"))
    assert "inputs changed ('x')" in compare(net(), renamed, latency=False).verdict


def test_compare_with_given_inputs() -> None:
    one, other = net(), net()
    bias = next(t for t in other.graph.initializer if t.name == "b3")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(1), "b3"))
    report = compare(one, other, inputs={"x": np.zeros((5, 3, 8, 8), np.float32)}, latency=False)
    assert report.check is not None and report.check.worst is not None and report.check.passed
    assert report.check.worst.max_abs == pytest.approx(1, rel=1e-5)
    assert report.check.inputs == "samples given in Python"


def test_compare_equal_models() -> None:
    report = compare(net(), net(), latency=False)
    assert report.check and report.check.worst and report.check.worst.sqnr_db == math.inf
    onnx.checker.check_model(net())


def test_session_never_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider that silently became the CPU is an error, not a measurement."""
    with pytest.raises(ExecutionError, match="fell back"):

        class Fallen:
            def __init__(self, *_: object, **__: object) -> None: ...
            def get_providers(self) -> list[str]:
                return ["CPUExecutionProvider"]

        monkeypatch.setattr(session.ort, "InferenceSession", Fallen)
        session.Session(b"", "CUDAExecutionProvider")


def test_what_became_of_a_provider_reads_as_before() -> None:
    assert [status.value for status in Status] == ["ok", "skipped", "failed"]
    report = compare(net(), net(), latency=False)
    assert json.loads(report.to_json())["check"]["providers"][0]["status"] == "ok"
