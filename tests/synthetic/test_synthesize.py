"""Synthetic inputs of the small trained models: loss, match, determinism, time limit, the ways to random inputs."""

from __future__ import annotations

import time

import numpy as np
import onnx
import pytest
from onnx import parser
from tiny import MODELS, net

from onnxfold import inputs
from onnxfold.errors import RequestError
from onnxfold.model import load
from onnxfold.synthetic import synthesize

BN = MODELS / "digits_resnet_bn.onnx"
FUSED = MODELS / "digits_resnet_fused.onnx"


def test_statistics_are_matched() -> None:
    few = synthesize(load(BN), count=32, steps=2)
    made = synthesize(load(BN), count=32, steps=40)
    assert made.kind == "deep inversion from BatchNormalization statistics"
    assert made.note == ""
    assert made.feeds["image"].shape == (32, 1, 8, 8)
    assert made.feeds["image"].dtype == np.float32
    assert np.isfinite(made.feeds["image"]).all()
    assert len(made.losses) == 40
    assert made.losses[-1] < made.losses[0] / 2
    assert few.match is not None and made.match is not None
    assert few.match + 0.05 < made.match <= 1


def test_fused_models_have_a_prior() -> None:
    made = synthesize(load(FUSED), count=16, steps=20)
    assert made.kind == "deep inversion from convolution weights and biases"
    assert made.match is None
    assert made.losses[-1] < made.losses[0]


def test_the_same_seed_gives_the_same_inputs() -> None:
    one, same, other = (synthesize(load(BN), count=8, steps=3, seed=s).feeds["image"] for s in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.1


def test_chunks_differ() -> None:
    x = synthesize(load(BN), count=72, steps=1).feeds["image"]
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
    made = synthesize(load(proto), count=32, steps=10)
    assert 20 < made.feeds["image"].std() < 200
    assert made.feeds["image"].mean() > 20


def test_half_precision_is_computed_in_float32() -> None:
    proto = onnx.load(BN)
    for tensor in proto.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            half = onnx.numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(onnx.numpy_helper.from_array(half, tensor.name))
    for value in [*proto.graph.input, *proto.graph.output]:
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    del proto.graph.value_info[:]
    made = synthesize(load(proto), count=8, steps=2)
    assert made.kind.startswith("deep inversion"), made.note
    assert made.feeds["image"].dtype == np.float16


def test_time_limit() -> None:
    begin = time.perf_counter()
    made = synthesize(load(BN), count=64, steps=100_000, seconds=1.5)
    assert time.perf_counter() - begin < 60  # preparing the gradient comes on top, on a slow machine too
    assert made.kind.startswith("deep inversion")
    assert "time limit" in made.note
    assert 0 < len(made.losses) < 100_000


SHORT_NETS = {
    "two inputs": (
        "(float[N,4] x, float[N,4] z) => (float[N,4] y) { y = Add (x, z) }",
        {"x": (5, 4), "z": (5, 4)}, "2 inputs",
    ),
    "token ids": (
        "(int64[N,6] ids) => (float[N,6,4] y) <float[3,4] w = {1,2,3,4,5,6,7,8,9,10,11,12}> { y = Gather (w, ids) }",
        {"ids": (5, 6)}, "no floating-point",
    ),
    "regression": (
        "(float[N,4] x) => (float[N,1] y) { y = ReduceMean <axes: ints = [1]> (x) }",
        {"x": (5, 4)}, "neither",
    ),
    "no batch axis": (
        "(float[2,4] x, float s) => (float[2,4] y) { y = Mul (x, s) }",
        {"x": (2, 4), "s": ()}, "2 inputs",
    ),
    "cannot be differentiated": (
        "(float[N,3,8,8] x) => (float[N,4] y) <float[1,5] r = {0,0,0,4,4}> "
        "{ m = ReduceMean <axes: ints = [0], keepdims: int = 1> (x) p = MaxRoiPool <pooled_shape: ints = [1,1]> (m, r) "
        "q = Flatten (p) k = Concat <axis: int = 1> (q, q) f = Flatten (x) z = ReduceMean <axes: ints = [1]> (f) "
        "c = Concat <axis: int = 1> (z, z, z, z) s = ReduceMean <axes: ints = [1]> (k) y = Add (c, s) }",
        {"x": (5, 3, 8, 8)}, "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SHORT_NETS)
def test_random_inputs_where_inversion_does_not_apply(name: str) -> None:
    text, shapes, reason = SHORT_NETS[name]
    proto = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> agraph {text}')
    made = synthesize(load(proto), count=5, steps=2)
    assert made.kind == inputs.DESCRIPTION
    assert reason in made.note and made.note.startswith("no deep inversion")
    assert {n: x.shape for n, x in made.feeds.items()} == shapes
    assert made.match is None and made.losses == ()
    if name == "token ids":
        assert made.feeds["ids"].min() >= 0 and made.feeds["ids"].max() <= 2


def test_a_network_without_statistics_is_spread_over_its_classes() -> None:
    made = synthesize(load(MODELS / "digits_mlp.onnx"), count=16, steps=5)
    assert made.kind == "deep inversion from class spread"
    assert next(iter(made.feeds.values())).shape == (16, 64)


def test_open_image_sizes_can_be_given() -> None:
    made = synthesize(load(net()), count=8, steps=1, input_shapes={"x": (1, 3, 8, 8)})
    assert made.feeds["x"].shape == (8, 3, 8, 8)


@pytest.mark.parametrize(("count", "steps"), [(0, 1), (1, 0), (-1, 5)])
def test_nonsense_is_refused(count: int, steps: int) -> None:
    with pytest.raises(RequestError, match="at least one"):
        synthesize(load(BN), count=count, steps=steps)
