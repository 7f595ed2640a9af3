"""Synthetic inputs of the small trained models: loss, match, determinism, the ways to random inputs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper, parser
from tiny import MODELS, net, reshaped_inside

import onnxfold
from onnxfold.calibration import samples
from onnxfold.calibration.origin import Origin
from onnxfold.calibration.samples import calibration_samples, synthetic_samples
from onnxfold.calibration.synthetic.synthesize import Extent, synthesize
from onnxfold.errors import RequestError
from onnxfold.model.model import Model, load
from onnxfold.options.choices import Effort
from onnxfold.runtime import session
from onnxfold.runtime.session import SHORT, Session

BN = MODELS / "digits_resnet_bn.onnx"
FUSED = MODELS / "digits_resnet_fused.onnx"
INVERTED = (Origin.BN_STATISTICS, Origin.CONV_PRIOR, Origin.CLASS_SPREAD)


def test_statistics_are_matched() -> None:
    few = synthesize(load(BN), Extent(count=32, steps=2))
    made = synthesize(load(BN), Extent(count=32, steps=40))
    assert made.origin is Origin.BN_STATISTICS
    assert made.note == ""
    assert made.feeds["image"].shape == (32, 1, 8, 8)
    assert made.feeds["image"].dtype == np.float32
    assert np.isfinite(made.feeds["image"]).all()
    assert len(made.losses) == 40
    assert made.losses[-1] < made.losses[0] / 2
    assert few.match is not None and made.match is not None
    assert few.match + 0.05 < made.match <= 1


def test_fused_models_have_a_prior() -> None:
    made = synthesize(load(FUSED), Extent(count=16, steps=20))
    assert made.origin is Origin.CONV_PRIOR
    assert made.match is None
    assert made.losses[-1] < made.losses[0]


def test_the_same_seed_gives_the_same_inputs() -> None:
    one, same, other = (synthesize(load(BN), Extent(count=8, steps=3), seed=s).feeds["image"] for s in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.1


def test_chunks_differ() -> None:
    x = synthesize(load(BN), Extent(count=72, steps=1)).feeds["image"]
    assert x.shape == (72, 1, 8, 8)
    assert np.abs(x[:8] - x[64:]).max() > 0.1


def test_input_range_is_found() -> None:
    proto = onnx.load(BN)  # the same network for pixels of 0..16 * 10
    first = next(n for n in proto.graph.node if "image" in n.input)
    first.input[list(first.input).index("image")] = "scaled"
    proto.graph.node.insert(0, onnx.helper.make_node("Div", ["image", "ten"], ["shifted"]))
    proto.graph.node.insert(1, onnx.helper.make_node("Sub", ["shifted", "eight"], ["scaled"]))
    for name, value in (("ten", 80.0), ("eight", 1.0)):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(value), name))
    made = synthesize(load(proto), Extent(count=32, steps=10))
    assert 20 < made.feeds["image"].std() < 200
    assert made.feeds["image"].mean() > 20


def test_class_scores_tell_the_scale_where_biases_do_not() -> None:
    """Never normalized, for pixels of 0..255 less their mean: its small biases would have the inputs small as well."""
    text = """(float[N,3,16,16] x) => (float y) {
        a = Conv <pads=[1,1,1,1]> (x, w1, b1) r = Relu (a) c = Conv <pads=[1,1,1,1]> (r, w2, b2) s = Relu (c)
        d = Conv <pads=[1,1,1,1]> (s, w3, b3) t = Relu (d) p = GlobalAveragePool (t) f = Flatten (p)
        y = Gemm <transB=1> (f, w4, b4) }"""
    shapes = {"w1": (16, 3, 3, 3), "w2": (16, 16, 3, 3), "w3": (16, 16, 3, 3), "w4": (10, 16)}
    rng = np.random.default_rng(0)
    values = {n: rng.standard_normal(s) * np.sqrt(2 / np.prod(s[1:])) for n, s in shapes.items()}
    values["w1"] = values["w1"] / 64
    values["w4"] = values["w4"] * 8
    values |= {f"b{n}": rng.standard_normal(len(values[f"w{n}"])) * 0.01 for n in range(1, 5)}
    proto = parser.parse_model('<ir_version: 8, opset_import: ["" : 17]> g ' + text)
    proto.graph.initializer.extend(numpy_helper.from_array(a.astype(np.float32), n) for n, a in values.items())
    x = synthesize(load(proto), Extent(count=16, steps=2)).feeds["x"]
    assert 32 < x.std() < 128


def test_half_precision_is_computed_in_float32() -> None:
    proto = onnx.load(BN)
    for tensor in proto.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            half = onnx.numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(onnx.numpy_helper.from_array(half, tensor.name))
    for value in [*proto.graph.input, *proto.graph.output]:
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    del proto.graph.value_info[:]
    made = synthesize(load(proto), Extent(count=8, steps=2))
    assert made.origin in INVERTED, made.note
    assert made.feeds["image"].dtype == np.float16


def test_no_clock_has_a_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that is twenty times as slow the same inputs are made, by as many steps."""
    quick = synthesize(load(BN), Extent(count=16, steps=4))
    clock = time.perf_counter
    monkeypatch.setattr(time, "perf_counter", lambda: 20 * clock())
    slow = synthesize(load(BN), Extent(count=16, steps=4))
    assert quick.losses == slow.losses and len(slow.losses) == 4
    assert all(np.array_equal(x, slow.feeds[name]) for name, x in quick.feeds.items())


SHORT_NETS = {
    "two inputs, nothing to match": (
        "(float[N,4] x, float[N,4] z) => (float[N,1] y) { a = Add (x, z) y = ReduceMean <axes: ints = [1]> (a) }",
        {"x": (5, 4), "z": (5, 4)}, "neither",
    ),
    "flags": (
        "(int64[N,6] x) => (float[N,6] y) { y = Cast <to: int = 1> (x) }",
        {"x": (5, 6)}, "no floating-point",
    ),
    "regression": (
        "(float[N,4] x) => (float[N,1] y) { y = ReduceMean <axes: ints = [1]> (x) }",
        {"x": (5, 4)}, "neither",
    ),
    "what is matched depends on no input": (
        "(float[N,4] x) => (float[2,4] y) <float[2,4] w = {1,2,3,4,5,6,7,8}> "
        "{ s = Size (x) z = Sub (s, s) f = Cast <to: int = 1> (z) y = Add (w, f) }",
        {"x": (5, 4)}, "",
    ),
    "cannot be differentiated": (
        "(float[N,5,8,8] x) => (float[N,4] y) <float[1,5] r = {0,0,0,4,4}> "
        "{ m = ReduceMean <axes: ints = [0], keepdims: int = 1> (x) p = MaxRoiPool <pooled_shape: ints = [1,1]> (m, r) "
        "q = Flatten (p) k = Concat <axis: int = 1> (q, q) f = Flatten (x) z = ReduceMean <axes: ints = [1]> (f) "
        "c = Concat <axis: int = 1> (z, z, z, z) s = ReduceMean <axes: ints = [1]> (k) y = Add (c, s) }",
        {"x": (5, 5, 8, 8)}, "",
    ),
}  # fmt: skip


def parsed(text: str) -> onnx.ModelProto:
    return parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> agraph {text}')


@pytest.mark.parametrize("name", SHORT_NETS)
def test_random_inputs_where_inversion_does_not_apply(name: str) -> None:
    text, shapes, reason = SHORT_NETS[name]
    made = synthesize(load(parsed(text)), Extent(count=5, steps=2))
    assert made.origin is Origin.RANDOM
    assert reason in made.note and made.note.startswith("no deep inversion")
    assert {n: x.shape for n, x in made.feeds.items()} == shapes
    assert made.match is None and made.losses == () and not made.apart


# several inputs, and models that take one sample at a time -----------------------------------------------------------


def test_all_floating_point_inputs_are_found_together() -> None:
    """y = x - z spreads over its classes by what both do."""
    text = """(float[N,4] x, int64 k, float[N,4] z, float s) => (float[N,4] y) {
        d = Sub (x, z) f = Cast <to: int = 1> (k) h = Mul (f, zero) g = Add (d, h) y = Mul (g, s) }"""
    proto = parsed(text.replace("float s", "float[N,1] s"))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0), "zero"))
    made = synthesize(load(proto), Extent(count=16, steps=40))
    assert made.origin is Origin.CLASS_SPREAD, made.note
    assert {n: x.shape for n, x in made.feeds.items()} == {"x": (16, 4), "k": (), "z": (16, 4), "s": (16, 1)}
    assert made.losses[-1] < made.losses[0] / 2
    wide = np.argmax((made.feeds["x"] - made.feeds["z"]) * made.feeds["s"], axis=1)
    assert len(set(wide.tolist())) == 4  # every class has its samples


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples that decisions are measured on take no minutes."""
    monkeypatch.setitem(samples.SYNTHETIC, Effort.BALANCED, (16, 2))
    monkeypatch.setattr(samples, "_PICTURES", 64)


@pytest.mark.usefixtures("few")
def test_states_without_a_batch_axis() -> None:
    """Statistics of a model that runs step by step: every sample is a set of inputs of its own."""
    text = """(float[1,3,8,8] x, float[2,5] state) => (float[1,8,8,8] y, float[2,5] next) {
        c = Conv <pads: ints = [1,1,1,1]> (x, w) n = BatchNormalization (c, g, b, m, v)
        t = ReduceMean <keepdims: int = 0> (state) y = Mul (n, t) next = Relu (state) }"""
    proto = parsed(text)
    rng = np.random.default_rng(0)
    arrays = {
        "w": rng.standard_normal((8, 3, 3, 3)), "g": np.ones(8), "b": rng.standard_normal(8),
        "m": np.zeros(8), "v": np.ones(8),
    }  # fmt: skip
    for name, value in arrays.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(value.astype(np.float32), name))
    model = load(proto)
    made = synthesize(model, Extent(count=6, steps=4))
    assert made.origin is Origin.BN_STATISTICS, made.note
    assert made.apart
    assert {n: x.shape for n, x in made.feeds.items()} == {"x": (6, 1, 3, 8, 8), "state": (6, 2, 5)}
    found = synthetic_samples(model, Effort.BALANCED, 0, None)
    assert found.trusted and found.fit and found.check
    for feed in (*found.fit, *found.check):
        assert {n: x.shape for n, x in feed.items()} == {"x": (1, 3, 8, 8), "state": (2, 5)}
        Session(proto.SerializeToString()).run(feed)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("declared", [1, "N"])
def test_a_batch_of_one_inside(declared: int | str) -> None:
    """A channel shuffle exported for one image: its Reshape takes no second one, whatever the input says."""
    proto = reshaped_inside(BN, [1, -1, 8, 8])
    dims = proto.graph.input[0].type.tensor_type.shape.dim
    dims[0].Clear()
    if isinstance(declared, int):
        dims[0].dim_value = declared
    else:
        dims[0].dim_param = declared
    model = load(proto)
    made = synthesize(model, Extent(count=4, steps=3))
    assert made.origin is Origin.BN_STATISTICS, made.note
    assert made.apart and made.feeds["image"].shape == (4, 1, 1, 8, 8)
    images = np.random.default_rng(0).standard_normal((48, 1, 8, 8)).astype(np.float32)
    for found in synthetic_samples(model, Effort.BALANCED, 0, None), calibration_samples(model, images, 48, None, None):
        assert len(found.check) > 1 and {f["image"].shape for f in (*found.fit, *found.check)} == {(1, 1, 8, 8)}
    report = onnxfold.fold(model.proto, ratio=0.3, calibration=images, refine=True, steps=4, latency=False).report
    assert report.settings["samples_used"] and report.check is not None and report.check.worst is not None
    assert report.refinement is not None and len(report.refinement.losses) == 4


def test_normalization_of_sequences_behind_computed_shapes() -> None:
    """[N, C, L] whose shape onnx's own inference does not find."""
    text = """(float[N,6,5] x) => (float[N,4] y) {
        s = Shape (x) b = Gather (s, zero) u = Unsqueeze (b, first) t = Concat <axis: int = 0> (u, six, five)
        r = Reshape (x, t) n = BatchNormalization (r, g, o, m, v) k = Relu (n)
        f = Flatten (k) y = MatMul (f, w) }"""
    proto = parsed(text)
    rng = np.random.default_rng(0)
    arrays = {
        "g": np.ones(6, np.float32), "o": rng.standard_normal(6).astype(np.float32), "m": np.zeros(6, np.float32),
        "v": np.full(6, 4, np.float32), "w": rng.standard_normal((30, 4)).astype(np.float32),
        "zero": np.array(0), "first": np.array([0]), "six": np.array([6]), "five": np.array([-1]),
    }  # fmt: skip
    for name, value in arrays.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    made = synthesize(load(proto), Extent(count=16, steps=30))
    assert made.origin is Origin.BN_STATISTICS, made.note
    assert made.losses[-1] < made.losses[0] / 2


def test_a_network_without_statistics_is_spread_over_its_classes() -> None:
    made = synthesize(load(MODELS / "digits_mlp.onnx"), Extent(count=16, steps=5))
    assert made.origin is Origin.CLASS_SPREAD
    assert next(iter(made.feeds.values())).shape == (16, 64)


def test_open_image_sizes_can_be_given() -> None:
    made = synthesize(load(net()), Extent(count=8, steps=1), input_shapes={"x": (1, 3, 8, 8)})
    assert made.feeds["x"].shape == (8, 3, 8, 8)


@pytest.mark.parametrize(("count", "steps"), [(0, 1), (1, 0), (-1, 5)])
def test_nonsense_is_refused(count: int, steps: int) -> None:
    with pytest.raises(RequestError, match="at least one"):
        synthesize(load(BN), Extent(count=count, steps=steps))


NOTHING_TO_AIM_AT = """<ir_version: 8, opset_import: ["" : 17]> agraph (float[N,5,8,8] x) => (float[N,10,4,4] y) {
    a = Conv (x, w1) r = Relu (a) y = Conv (r, w2) }"""


@pytest.mark.usefixtures("few")
def test_the_report_says_why_inputs_are_random() -> None:
    blind = onnxfold.fold(
        net(NOTHING_TO_AIM_AT, {"w1": (16, 5, 3, 3), "w2": (10, 16, 3, 3)}), ratio=0.5, latency=False
    ).report
    seeing = onnxfold.fold(net(), ratio=0.5, latency=False).report
    reasons = []
    for report in (blind, seeing):
        assert report.check is not None
        reasons.append([note for note in report.check.notes if note.startswith("no deep inversion: it has neither")])
    assert len(reasons[0]) == 1 and not reasons[1]
    assert blind.settings["samples"] == Origin.RANDOM.text and not blind.settings["samples_used"]
    assert seeing.settings["samples"] == Origin.PICTURES.text and seeing.settings["samples_used"]


def test_cuda_makes_the_inputs_where_it_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No machine here has it: what is tested is who is asked, and that the CPU does it where CUDA does not start."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    asked: list[str] = []
    real = samples.synthesize

    def spy(model: Model, extent: Extent, *, provider: str, **how: Any) -> Any:
        asked.append(provider)
        return real(model, Extent(count=16, steps=2), provider=SHORT["cpu"], **how)

    monkeypatch.setattr(samples, "synthesize", spy)
    model = load(MODELS / "digits_mlp.onnx")
    for seed, providers in enumerate(([], [SHORT["cpu"]], [SHORT["cpu"], SHORT["cuda"]])):
        synthetic_samples(model, Effort.BALANCED, seed, None, providers=providers)
    starts = SHORT["cuda"] in ort.get_available_providers()
    assert asked == [SHORT["cpu"], SHORT["cpu"], SHORT["cuda"] if starts else SHORT["cpu"]]
    started = session.Session.of
    monkeypatch.setattr(session.Session, "of", lambda model, provider=SHORT["cpu"]: started(model, SHORT["cpu"]))
    synthetic_samples(model, Effort.BALANCED, 3, None, providers=[SHORT["cuda"]])
    assert asked[-1] == SHORT["cuda"]
