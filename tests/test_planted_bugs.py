"""A bug of ours ends a run, wherever it is: never in a result with a note, never as the fault of the model.

Bugs are planted one by one: a function deep inside raises what a bug would, and everything else is as it is.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import MODELS, net, snapshot, write

from onnxfold.cli import main as cli
from onnxfold.errors import ExecutionError, RequestError, RuleError
from onnxfold.model.onnx_calls import asking_onnx
from onnxfold.passes.quantization.ort_quantizer import quantizing
from onnxfold.planning.executor import Executor
from onnxfold.runtime.session import Session, brief, running

MLP, RESNET = MODELS / "digits_mlp.onnx", MODELS / "digits_resnet_bn.onnx"
NET, OUT, GIVEN, IMAGES = "net.onnx", "out.onnx", "digits.npz", "images.npz"
TEXT = """<ir_version: 8, opset_import: ["" : 17]> agraph (float[N,3,8,8] x) => (float[N,10] y) {
    a = Conv <kernel_shape: ints = [3,3]> (x, w1, b1)
    b = Relu (a)
    c = Conv <kernel_shape: ints = [3,3]> (b, w2, b2)
    d = Relu (c)
    e = Conv <kernel_shape: ints = [3,3]> (d, w3, b2)
    f = Relu (e)
    g = GlobalAveragePool (f)
    h = Flatten (g)
    y = Gemm <transB: int = 1> (h, w4, b4)
}"""
SHAPES = {
    "w1": (8, 3, 3, 3),
    "b1": (8,),
    "w2": (8, 8, 3, 3),
    "b2": (8,),
    "w3": (8, 8, 3, 3),
    "w4": (10, 8),
    "b4": (10,),
}
FOLD = [MLP, OUT, "--ratio", "0.3"]
SAMPLED = [*FOLD, "--calibration", GIVEN]
LIMITED = [MLP, OUT, "--max-error", "0.2", "--calibration", GIVEN]
FAST = ["--effort", "fast"]
REFINED = [*SAMPLED, "--refine", "--steps", "2"]
FUSED = [NET, OUT, "--fuse", "mean", "--share", "30"]
BLOCKS = [RESNET, OUT, "--drop-blocks", "1", *FAST]

PLANTED = {
    # what every command begins with
    "a rule": ("onnxfold.analysis.rules.node_view:NodeView.x", [*FOLD, *FAST]),
    "groups": ("onnxfold.analysis.groups:find_groups", ["--inspect", MLP]),
    "rules where nothing is written": ("onnxfold.analysis.rules.node_view:NodeView.x", ["--inspect", MLP]),
    "prices": ("onnxfold.analysis.costs:costs", ["--inspect", MLP]),
    "the estimate": ("onnxfold.planning.time_estimate:_rate", FOLD),
    "shapes": ("onnxfold.model.shapes.inference:_absurd_constants", [*FOLD, *FAST]),
    # from weights
    "clustering": ("onnxfold.folding.kmeans:cluster", [*FOLD, *FAST]),
    "two groups at a time": ("onnxfold.folding.kmeans:cluster", [*FOLD, *FAST, "--jobs", "2"]),
    "repair from weights": ("onnxfold.recovery.closed_form:fold_ar", [RESNET, OUT, "--ratio", "0.3", *FAST]),
    "probe inputs": ("onnxfold.runtime.probe_inputs:probe", [MLP, OUT, "--max-error", "0.2", *FAST]),
    "an error": ("onnxfold.evaluation.metrics:relative_l2", [MLP, OUT, "--max-error", "0.2", *FAST]),
    "outputs": ("onnxfold.runtime.outputs:with_outputs", [MLP, OUT, "--max-error", "0.2", *FAST]),
    "writing edits": ("onnxfold.transform.emit:emit", [*FOLD, *FAST]),
    "timing for a limit": (
        "onnxfold.evaluation.latency:interleaved", [MLP, OUT, "--target-latency", "0.9", *FAST],
    ),
    # with samples
    "synthetic inputs": ("onnxfold.calibration.synthetic.deep_inversion:invert", FOLD),
    "the loss of synthetic inputs": ("onnxfold.calibration.synthetic.loss:class_loss", FOLD),
    "a gradient": ("onnxfold.runtime.autodiff.adjoints:_where", FOLD),
    "a static copy": ("onnxfold.runtime.autodiff.prepare:activation_bytes", FOLD),
    "cutting batches": ("onnxfold.runtime.batching:cut", SAMPLED),
    "segments": ("onnxfold.runtime.segments:segment", SAMPLED),
    "elimination": ("onnxfold.folding.second_order:eliminate", [*SAMPLED, "--method", "second-order"]),
    "functional folding": ("onnxfold.folding.functional:functions", [*SAMPLED, "--method", "functional-fold"]),
    "sensitivity": ("onnxfold.planning.sensitivity:measure_sensitivity", LIMITED),
    "moments": ("onnxfold.recovery.moments:Moments.add", SAMPLED),
    "reconstruction": ("onnxfold.recovery.reconstruct:reconstruct", SAMPLED),
    "a refit": ("onnxfold.recovery.least_squares:refit", [*SAMPLED, "--recovery", "least-squares"]),
    "a prefix": ("onnxfold.runtime.shared_prefix:_integers", LIMITED),
    # other commands and stages
    "fused weights": ("onnxfold.passes.weight_sharing.tying:fused", [*FUSED, *FAST]),
    "a joint fit": ("onnxfold.passes.weight_sharing.joint_fit:joint", [*FUSED, "--calibration", IMAGES]),
    "weights side by side": ("onnxfold.passes.weight_sharing.similarity:paired", [*FUSED, *FAST]),
    "influence of blocks": ("onnxfold.runtime.segments:segment", BLOCKS),
    "layers": ("onnxfold.passes.weight_sharing.distances:rank", ["layers", NET, *FAST]),
    "a sweep": ("onnxfold.recovery.reconstruct:reconstruct", ["sweep", MLP, "--calibration", GIVEN, "--at", "0.8,0.6"]),
    "refinement": ("onnxfold.runtime.autodiff.adam:Adam.step", REFINED),
    "the graph of refinement": ("onnxfold.passes.distillation.variables:variables", REFINED),
    "quantization": ("onnxfold.passes.quantization.ort_quantizer:as_before", [*SAMPLED, "--quantize"]),
    "the verdict": ("onnxfold.evaluation.metrics:pooled_error", [*FOLD, *FAST]),
    "inputs of the verdict": ("onnxfold.runtime.session:fitted", [*FOLD, *FAST]),
    "the quality": ("onnxfold.evaluation.metrics:component_error", [*FOLD, *FAST]),
    "a comparison": ("onnxfold.evaluation.metrics:pooled_error", ["compare", MLP, MLP]),
}  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a model and calibration data to work in, without anything kept from other runs."""
    rng = np.random.default_rng(0)
    np.savez(tmp_path / GIVEN, image=rng.standard_normal((24, 64)).astype(np.float32))
    np.savez(tmp_path / IMAGES, x=rng.standard_normal((24, 3, 8, 8)).astype(np.float32))
    write(tmp_path / NET, net(TEXT, SHAPES))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("onnxfold.calibration.synthetic.cache.load", lambda _: None)
    monkeypatch.delenv("ONNXFOLD_TRACEBACK", raising=False)
    yield tmp_path


def plant(monkeypatch: pytest.MonkeyPatch, where: str, bug: Exception) -> list[str]:
    """Let the function at `where` (module:name or module:class.name) raise `bug` wherever it is called; a list that
    grows with every call."""
    calls: list[str] = []

    def broken(*_: object, **__: object) -> Any:
        calls.append(where)
        raise bug

    module, name = where.split(":")
    owner, _, method = name.rpartition(".")
    home: Any = importlib.import_module(module)
    if owner:
        monkeypatch.setattr(getattr(home, owner), method, broken)
        return calls
    healthy = getattr(home, name)
    for one in [m for n, m in sys.modules.items() if n.split(".")[0] == "onnxfold"]:
        for alias in [alias for alias, value in vars(one).items() if value is healthy]:
            monkeypatch.setattr(one, alias, broken)
    return calls


@pytest.mark.parametrize("bug", [RuleError("planted"), KeyError("planted")], ids=["RuleError", "KeyError"])
@pytest.mark.parametrize("what", PLANTED)
def test_a_planted_bug_ends_the_run(
    what: str, bug: Exception, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    where, arguments = PLANTED[what]
    before, calls = snapshot(place), plant(monkeypatch, where, bug)
    assert cli.main([*map(str, arguments), "--quiet"]) == 70, capsys.readouterr()
    said = capsys.readouterr().err
    assert calls and "internal error" in said and "planted" in said and said.count("\n") == 1
    assert snapshot(place) == before


def test_a_bug_in_what_the_quantizer_is_given(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """That is called from within onnxruntime's quantizer, which may raise anything itself."""
    before = snapshot(place)
    calls = plant(monkeypatch, "onnxfold.passes.quantization.ort_quantizer:Reader.get_next", RuleError("planted"))
    assert cli.main([*map(str, SAMPLED), "--quantize", "--quiet"]) == 70
    assert calls and "RuleError: planted" in capsys.readouterr().err and snapshot(place) == before


@pytest.mark.parametrize("kind", [KeyError, ValueError, RuleError])
def test_a_bug_in_a_task_is_no_trouble_with_a_cluster(kind: type[Exception]) -> None:
    def broken(_: int) -> int:
        raise kind("planted")

    def tasks() -> Iterator[int]:
        yield 1
        raise kind("planted")

    for function, given in ((broken, iter([1, 2])), (abs, tasks())):
        with pytest.raises(RuleError, match="planted"):
            list(Executor(jobs=2).each(function, given))


# what is no bug still ends as it should -----------------------------------------------------------------------------


HALF = ["--ratio", "0.5", "--round-to", "4"]


def unknown(folder: Path) -> Path:
    """A model with an operator that onnxruntime does not know."""
    text = TEXT.replace("y = Gemm", "q = Gemm").replace("}", "y = custom.Odd (q)\n}")
    return write(folder / "odd.onnx", net(text.replace('"" : 17', '"" : 17, "custom" : 1'), SHAPES))


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([*HALF, *FAST], 0, ""),
        (HALF, 0, ""),
        ([*HALF, "--refine", "--steps", "2"], 0, ""),
        (["--max-error", "0.2", *FAST], 2, "cannot be measured: use a ratio"),
        (["--target-latency", "0.9", "--round-to", "4", *FAST], 2, "the model does not run on CPU"),
        (
            ["--ratio", "0.3", "--calibration", IMAGES],
            2,
            "cannot use samples: onnxruntime cannot load this model",
        ),
        (["--ratio", "0.3", "--method", "second-order"], 2, "cannot use samples"),
        (["--ratio", "0.3", "--quantize"], 5, "cannot be quantized: onnxruntime has to run it for that, and does not"),
        (
            ["--fuse", "mean", "--share", "30", "--distance", "cka", "--calibration", IMAGES],
            2,
            "cannot load this model",
        ),
    ],
    ids=str,
)
def test_what_onnxruntime_does_not_know(
    arguments: list[str], code: int, says: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = unknown(place)
    before = snapshot(place)
    more = [] if code else ["--allow-unmeasured"]
    assert cli.main([str(source), OUT, *arguments, *more]) == code, capsys.readouterr()
    shown = capsys.readouterr()
    assert says in shown.err
    if code:
        assert shown.out == "" and shown.err.count("\n") == 1 and snapshot(place) == before
    else:
        said = " ".join(shown.out.split())
        assert "custom:Odd" in said and "Nothing was measured: no provider could run the original model" in said


def test_lists_of_tensors_cannot_be_measured(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Outputs that are no array, as the words of a text may be: weights decide, and what asks for errors is refused."""
    text = TEXT.replace("(float[N,10] y)", "(float[N,10] y, seq(float[M]) q)")
    text = text.replace(
        "\n}", "\n    k = Constant <value_ints: ints = [3,7]> ()\n    q = SplitToSequence <axis: int = 1> (y, k)\n}"
    )
    source = write(place / "lists.onnx", net(text, SHAPES))
    assert cli.main([str(source), OUT, "--max-error", "0.3", *FAST]) == 2
    assert "cannot be measured on the available inputs" in capsys.readouterr().err and not (place / OUT).exists()
    assert cli.main([str(source), OUT, *HALF, *FAST]) == 0
    assert (place / OUT).stat().st_size < source.stat().st_size


def test_the_text_of_onnxruntime_stays(place: Path) -> None:
    with pytest.raises(ExecutionError) as caught:
        Session(unknown(place))
    cause = caught.value.__cause__
    assert cause is not None and not isinstance(cause, ExecutionError)
    assert str(caught.value) == str(cause) and brief(caught.value) == brief(cause) != str(cause)
    with pytest.raises(ExecutionError, match="Required inputs"):
        Session(place / NET).run({})


@pytest.mark.parametrize("kind", [MemoryError, KeyboardInterrupt])
@pytest.mark.parametrize("around", [running, quantizing, asking_onnx])
def test_what_is_nobodys_fault_passes(kind: type[BaseException], around: Callable[[], Any]) -> None:
    with pytest.raises(kind), around():
        raise kind
    with pytest.raises(ExecutionError, match=r"^ValueError$"), around():
        raise ValueError


@pytest.mark.parametrize("kind", [RuleError, RequestError, OSError])
def test_what_onnx_does_not_raise_passes(kind: type[Exception]) -> None:
    with pytest.raises(kind, match="planted"), asking_onnx():
        raise kind("planted")
