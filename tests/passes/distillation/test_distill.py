"""Refinement from end to end: it helps or changes nothing, keeps what must stay, and never ends a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from helpers import model
from onnx import ModelProto, TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from tiny import MODELS, SHARED, main, write_external

import onnxfold
from onnxfold.analysis.costs import costs
from onnxfold.calibration.judge import Judge
from onnxfold.calibration.origin import Origin
from onnxfold.calibration.samples import Samples
from onnxfold.model.model import load
from onnxfold.model.shapes.nominal import concrete_shape
from onnxfold.options.choices import Effort
from onnxfold.passes.distillation import train
from onnxfold.passes.distillation.block_targets import Counterparts
from onnxfold.passes.distillation.problem import pose
from onnxfold.passes.distillation.schedule import extent, sample_shapes
from onnxfold.runtime.session import Session

Array = np.ndarray[Any, Any]
CHAIN = """(float[N,6] x) => (float[N,4] y) {
    a = Gemm (x, w0, b0)
    b = Relu (a)
    c = Gemm <transB: int = 1> (b, w0, b1)
    d = Relu (c)
    y = Gemm (d, v)
}"""
SHAPES: dict[str, Any] = {"w0": (6, 6), "b0": (6,), "b1": (6,), "v": (6, 4)}
# of |gradient|: float32 losses of some 0.01, and ReLUs that a step goes past; measured 0.0016 at most
GRADIENT_RTOL = 5e-3
CIFAR = ("cifar10_resnet20_bn", "cifar10_squeezenet_bn", "vit_2_6_cifar10", "vit_ibp_3_3_8_cifar10")


def samples(shape: tuple[int, ...] = (6,), count: int = 64, name: str = "x", kind: Any = np.float32) -> Samples:
    x = np.random.default_rng(0).standard_normal((count + 16, *shape)).astype(kind)
    return Samples(({name: x[:count]},), Judge(({name: x[count:]},), "noise", True), Origin.PICTURES, "noise")


def disturbed(proto: ModelProto, share: float = 0.05) -> ModelProto:
    """A copy whose weights are off by `share`."""
    rng = np.random.default_rng(1)
    copy = ModelProto.FromString(proto.SerializeToString())
    for tensor in copy.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype.kind == "f" and array.ndim > 1:
            off = array * (1 + share * rng.standard_normal(array.shape))
            tensor.CopyFrom(numpy_helper.from_array(off.astype(array.dtype), tensor.name))
    return copy


def arrays(proto: ModelProto) -> dict[str, Array]:
    return {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}


# what it does -------------------------------------------------------------------------------------------------------


def test_weights_that_are_off_come_back_and_stay_tied() -> None:
    proto = model(CHAIN, SHAPES)
    off = disturbed(proto, 0.2)
    found = train.refine(load(proto), off, samples(), train.TrainSettings(300, 32))
    assert found.improved and found.blocks == 2
    assert found.after < 0.2 * found.before
    assert found.errors[0] == (0, found.before) and min(e for _, e in found.errors) == found.after
    assert np.mean(found.losses[-10:]) < 0.1 * np.mean(found.losses[:10])
    assert set(found.arrays) == set(SHAPES)  # w0 is read by two nodes and is one weight
    written = train.refined(off, found.arrays, None)
    assert [n.input for n in written.graph.node] == [n.input for n in proto.graph.node]
    assert not np.array_equal(arrays(written)["w0"], arrays(off)["w0"])


def test_the_same_seed_gives_the_same_bytes_and_another_does_not() -> None:
    proto = model(CHAIN, SHAPES)

    def bytes_of(seed: int) -> bytes:
        off = disturbed(proto)
        found = train.refine(load(proto), off, samples(), train.TrainSettings(40, 32, seed))
        return train.refined(off, found.arrays, None).SerializeToString(deterministic=True)

    assert bytes_of(1) == bytes_of(1) != bytes_of(2)


def test_half_precision_is_refined_in_single_and_rounded_back() -> None:
    proto = model(CHAIN, SHAPES)
    for tensor in proto.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    off = disturbed(proto, 0.2)
    found = train.refine(load(proto), off, samples(kind=np.float16), train.TrainSettings(100, 32))
    assert found.after < 0.7 * found.before
    after = train.refined(off, found.arrays, None)
    assert all(t.data_type == TensorProto.FLOAT16 for t in after.graph.initializer)


def test_weights_in_a_file_of_their_own_are_written(tmp_path: Path) -> None:
    path = write_external(tmp_path / "in.onnx", model(CHAIN, SHAPES))
    stored = onnx.load(path, load_external_data=False)
    values = {"w0": np.full((6, 6), 0.5, np.float32)}
    found = {t.name: t for t in train.refined(stored, values, tmp_path).graph.initializer}
    np.testing.assert_array_equal(numpy_helper.to_array(found["w0"]), values["w0"])
    assert found["v"].external_data, "what was not trained stays where it is"


def test_what_makes_nothing_better_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "RATE", 30.0)
    monkeypatch.setattr(train, "_LOST", np.inf)  # and it is never lowered
    proto = model(CHAIN, SHAPES)
    off = disturbed(proto)
    found = train.refine(load(proto), off, samples(), train.TrainSettings(40, 32))
    assert not found.improved and not found.arrays and found.after == found.before
    assert "no improvement" in found.note or "did not lower the error" in found.note


def test_narrower_streams_are_compared_with_what_they_were_made_of() -> None:
    proto = model(CHAIN.replace("transB: int = 1> (b, w0", "transB: int = 0> (b, w1"), {**SHAPES, "w1": (6, 6)})
    found = onnxfold.fold(proto, ratio=0.5, round_to=1, calibration=samples().fit[0], refine=True, steps=80)
    assert found.report.refinement is not None and found.report.refinement.blocks == 2
    assert found.report.refinement.kept


# what stops it ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shaped", [False, True])
def test_an_operator_without_a_reverse_rule_is_named(shaped: bool) -> None:
    text = """(float[N,6] x) => (float[N,4] y) {
        a = MatMul (x, w)
        b = com.microsoft.BiasGelu (a, bias)
        y = MatMul (b, v)
    }"""
    proto = model(text, {"w": (6, 6), "bias": (6,), "v": (6, 4)})
    if shaped:
        proto.graph.value_info.append(helper.make_tensor_value_info("b", TensorProto.FLOAT, ["N", 6]))
    found = train.refine(load(proto), disturbed(proto), samples(), train.TrainSettings(10, 32))
    assert not found.improved and "BiasGelu" in found.note and "\n" not in found.note


def test_a_model_without_weights_is_left_alone() -> None:
    proto = model("(float[N,6] x) => (float[N,6] y) { y = Relu (x) }")
    found = train.refine(load(proto), proto, samples(), train.TrainSettings(10, 32))
    assert not found.improved and "no weight" in found.note


def test_untrusted_inputs_are_not_trained_on() -> None:
    proto = model(CHAIN, SHAPES)
    noise = Samples(samples().fit, samples().judge, Origin.RANDOM, "random inputs")
    found = train.refine(load(proto), disturbed(proto), noise, train.TrainSettings(10, 32))
    assert not found.improved and "random inputs" in found.note


@pytest.mark.parametrize(
    ("errors", "hopeless"),
    [
        ([0.84, 0.94, 0.86, 0.89, 0.91, 0.85, 0.89, 0.84, 0.83], False),  # worse than 0.8, but falling
        ([0.84, 0.94, 0.86, 0.89, 0.91, 0.85, 0.89, 0.84, 0.79], False),
        ([0.82, 0.94, 0.86, 0.89, 0.91, 0.85, 0.89, 0.84, 0.83], True),
        ([0.84, 0.94, 0.86, 0.89, 0.91], False),  # too early to tell
    ],
)
def test_no_patience_with_errors_that_do_not_fall(errors: list[float], hopeless: bool) -> None:
    assert train._hopeless(errors, 0.8) is hopeless


# how much -----------------------------------------------------------------------------------------------------------


def test_the_extent_follows_effort_and_size() -> None:
    small = load(MODELS / "digits_mlp.onnx")
    assert [extent(small, effort, None, None) for effort in Effort] == [(200, 32), (800, 32), (3200, 32)]
    assert extent(small, Effort.BALANCED, None, 7) == (7, 32)
    with pytest.raises(onnxfold.RequestError, match="`steps` must be at least 1, not 0"):
        extent(small, Effort.BALANCED, None, 0)
    text = "(float[N,3,512,512] x) => (float y) { y = Conv <pads: ints = [1, 1, 1, 1]> (x, w) }"
    large = load(model(text, {"w": (64, 3, 3, 3)}))
    assert costs(large).macs({}) > 4e8
    steps, batch = extent(large, Effort.BALANCED, None, None)
    assert steps <= 800 and batch < 32


# through the front door ---------------------------------------------------------------------------------------------


def test_the_extent_follows_the_samples() -> None:
    """Texts that are longer than what the model says make smaller batches, or fewer steps."""
    text = "(int64[N,T] ids) => (float[N,T,300] y) { e = Gather (table, ids) y = MatMul (e, w) }"
    proto = load(model(text, {"table": (300, 64), "w": (64, 300)}))
    given = [
        Samples(({"ids": np.zeros((8, length), np.int64)},), Judge((), "words", True), Origin.GENERATED_TEXT, "words")
        for length in (16, 32768)
    ]
    shapes = [sample_shapes(proto, one) for one in given]
    assert shapes == [{"ids": (1, 16)}, {"ids": (1, 32768)}]
    short, long = (extent(proto, Effort.BALANCED, one, None) for one in shapes)
    assert short == (800, 32) and long[0] * long[1] < 800 * 32 / 4


def test_fold_refines_and_keeps_statistics(tmp_path: Path) -> None:
    source = MODELS / "digits_resnet_bn.onnx"
    digits = load_digits().images[:192, None].astype(np.float32) / 8 - 1
    settings: dict[str, Any] = {"ratio": 0.5, "calibration": {"image": digits}, "samples": 192, "latency": False}
    plain = onnxfold.fold(source, **settings, method="fold", recovery="closed-form")
    target = tmp_path / "out.onnx"
    result = onnxfold.fold(source, target, **settings, method="fold", recovery="closed-form", refine=True, steps=30)
    report = result.report
    assert report.refinement is not None and report.refinement.kept
    assert report.check is not None and report.check.worst is not None
    assert plain.report.check is not None and plain.report.check.worst is not None
    assert report.check.worst.relative_l2 < plain.report.check.worst.relative_l2
    assert report.check.worst.relative_l2 == pytest.approx(report.refinement.after, rel=0.1)
    assert f"trained for {len(report.refinement.losses)} steps" in report.verdict
    before, after = arrays(plain.model), arrays(onnx.load(target))
    assert {n: a.shape for n, a in before.items()} == {n: a.shape for n, a in after.items()}
    statistics = [n for node in plain.model.graph.node if node.op_type == "BatchNormalization" for n in node.input[3:5]]
    assert statistics and all(np.array_equal(before[n], after[n]) for n in statistics)
    assert any(not np.array_equal(before[n], after[n]) for n in before)


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = str(MODELS / "digits_mlp.onnx"), str(tmp_path / "out.onnx")
    assert main([source, target, "--ratio", "0.5", "--steps", "5"]) == 2
    assert "--steps only works with --refine" in capsys.readouterr().err
    assert main([source, target, "--ratio", "0.5", "--refine", "--steps", "0"]) == 2
    assert "--steps must be a whole number of at least 1" in capsys.readouterr().err
    assert not Path(target).exists()
    assert main([source, target, "--ratio", "0.5", "--effort", "fast", "--refine"]) == 0
    assert "Training was not used: --effort fast makes no inputs" in " ".join(capsys.readouterr().out.split())
    assert Path(target).exists()


# the gradient of whole networks -------------------------------------------------------------------------------------


def off_differences(path: Path) -> float:
    """How far the gradient of the loss between a network and a disturbed one is from differences, as a share: along
    itself, for all weights and for some, the furthest."""
    original = load(path)
    compressed = load(disturbed(original.proto))
    specs = Session(original.proto.SerializeToString()).inputs
    shapes = {s.name: concrete_shape(s.shape, 2) for s in specs}
    rng = np.random.default_rng(0)
    feeds = {s.name: rng.standard_normal(shapes[s.name]).astype(np.float32) for s in specs}
    problem = pose(original, compressed, shapes, Counterparts(), "CPUExecutionProvider")
    loss, gradients = problem.evaluate(problem.start, feeds)
    assert loss > 1e-4 and problem.blocks > 0
    parts = [list(gradients), list(gradients)[::2], list(gradients)[1::2], list(gradients)[:1]]
    off = []
    for part in parts:
        square = sum(float(np.square(gradients[name], dtype=np.float64).sum()) for name in part)
        step = 3e-3 * loss / square  # the loss changes by 0.3 %

        def at(sign: int, part: list[str] = part, step: float = step) -> float:
            moved = {n: (problem.start[n] + sign * step * gradients[n]).astype(np.float32) for n in part}
            return problem.evaluate({**problem.start, **moved}, feeds)[0]

        off.append(abs((at(1) - at(-1)) / (2 * step * square) - 1))
    return float(np.max(off))  # nan, if one is


@pytest.mark.parametrize("path", sorted(MODELS.glob("*.onnx")), ids=lambda p: p.stem)
def test_gradient_of_the_digits_networks(path: Path) -> None:
    assert off_differences(path) < GRADIENT_RTOL


@pytest.mark.slow
@pytest.mark.parametrize("name", CIFAR)
def test_gradient_of_the_cifar_networks(name: str) -> None:
    path = SHARED / f"{name}.onnx"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    assert off_differences(path) < GRADIENT_RTOL


def test_a_wrong_gradient_of_a_network_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxfold.runtime.autodiff import conv_adjoints

    right = conv_adjoints._of_weight
    monkeypatch.setattr(
        conv_adjoints, "_of_weight", lambda ctx, *rest: ctx.b.op("Mul", [right(ctx, *rest), ctx.constant(1.05, 1)])
    )
    assert off_differences(MODELS / "digits_vgg.onnx") > GRADIENT_RTOL


def test_too_high_a_rate_is_lowered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the error grows, training goes back to the best weights and on at a quarter of the rate."""
    proto = model(CHAIN, SHAPES)
    off = disturbed(proto)
    monkeypatch.setattr(train, "_RELATIVE", np.inf)
    monkeypatch.setattr(train, "RATE", 0.6)
    found = train.refine(load(proto), off, samples(), train.TrainSettings(160, 32))
    assert max(error for _, error in found.errors) > 2 * found.before  # it was too high
    assert found.after < 0.7 * found.before
    monkeypatch.setattr(train, "_LOST", np.inf)
    without = train.refine(load(proto), off, samples(), train.TrainSettings(160, 32))
    assert without.after > found.after


def test_models_of_one_sample_take_as_many_for_a_step() -> None:
    proto = model(CHAIN, SHAPES)
    single = model(CHAIN.replace("[N,", "[1,"), SHAPES)
    off = disturbed(proto)
    one = disturbed(single)
    feeds = tuple({name: x[i : i + 1] for name, x in feed.items()} for feed in samples().fit for i in range(64))
    alone = replace(samples(), fit=feeds, judge=Judge(feeds[:16], "noise", True))
    found = train.refine(load(single), one, alone, train.TrainSettings(60, 32))
    assert found.after < 0.7 * found.before
    drawn = train.refine(load(single), one, alone, train.TrainSettings(60, 1))  # as many samples, one at a time
    assert np.std(np.diff(found.losses[30:])) < 0.7 * np.std(np.diff(drawn.losses[30:]))
    assert load(off).graph.inputs == load(one).graph.inputs
