"""BatchNormalization that a fold leaves behind a convolution becomes part of it, where that is exact."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from helpers import model
from onnx import ModelProto, TensorProto, helper
from tiny import MODELS, main

import onnxfold
from onnxfold.runtime.session import Session
from onnxfold.transform.normalization import without_normalization

RESNET = MODELS / "digits_resnet_bn.onnx"
FAST: dict[str, Any] = {"effort": "fast", "latency": False}
ROUNDING = 1e-5  # float32; measured 3e-7
TEXT = """(float[2,3,6,6] x) => (float[2,4,4,4] y) {
    a = Conv(x, w BIAS)
    n = BatchNormalization<epsilon: float = 0.01>(a, gamma, beta, mean, var)
    y = Relu(n)
}"""
SHAPES = {"w": (4, 3, 3, 3), **{name: (4,) for name in ("gamma", "beta", "mean", "var")}}


def network(bias: bool = True, text: str = TEXT) -> ModelProto:
    shapes = {**SHAPES, "b": (4,)} if bias else SHAPES
    proto = model(text.replace("BIAS", ", b" if bias else ""), shapes)
    for tensor in proto.graph.initializer:
        if tensor.name == "var":  # drawn from a normal distribution like the others
            values = np.abs(onnx.numpy_helper.to_array(tensor)) + np.float32(0.5)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, "var"))
    return proto


def operators(proto: ModelProto) -> list[str]:
    return [node.op_type for node in proto.graph.node]


def differ(a: ModelProto, b: ModelProto) -> float:
    x = np.random.default_rng(1).standard_normal((2, 3, 6, 6)).astype(np.float32)
    expected, found = (Session(proto.SerializeToString()).run({"x": x})[0] for proto in (a, b))
    return float(np.linalg.norm(expected - found) / np.linalg.norm(expected))


@pytest.mark.parametrize("bias", [True, False])
def test_what_it_computes_stays(bias: bool) -> None:
    proto = network(bias)
    before = proto.SerializeToString()
    made = without_normalization(proto, {"w"})
    onnx.checker.check_model(made, full_check=True)
    assert operators(made) == ["Conv", "Relu"] and proto.SerializeToString() == before
    assert {t.name for t in made.graph.initializer} == {"w", "b" if bias else "beta"}
    assert differ(proto, made) < ROUNDING
    wrong = ModelProto.FromString(made.SerializeToString())  # the comparison sees a bias that is off
    next(t for t in wrong.graph.initializer if len(t.dims) == 1).raw_data = np.ones(4, "<f4").tobytes()
    assert differ(proto, wrong) > 100 * ROUNDING


def test_what_no_fold_changed_stays_as_it_is() -> None:
    proto = network()
    assert without_normalization(proto, {"other"}) is proto
    assert without_normalization(proto, {"gamma"}) is not proto


def _second_user(proto: ModelProto) -> None:
    proto.graph.node.append(helper.make_node("Abs", ["a"], ["z"]))


def _shown(proto: ModelProto) -> None:
    proto.graph.output.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, [2, 4, 4, 4]))


def _given(proto: ModelProto) -> None:
    proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, SHAPES["w"]))


def _used_twice(proto: ModelProto) -> None:
    proto.graph.node.append(helper.make_node("Abs", ["gamma"], ["z"]))


def _training(proto: ModelProto) -> None:
    proto.graph.node[1].attribute.append(helper.make_attribute("training_mode", 1))


def _negative(proto: ModelProto) -> None:
    var = next(t for t in proto.graph.initializer if t.name == "var")
    var.CopyFrom(onnx.numpy_helper.from_array(np.full(4, -1, np.float32), "var"))


def _outside(proto: ModelProto) -> None:
    next(t for t in proto.graph.initializer if t.name == "w").data_location = TensorProto.EXTERNAL


def _in_a_body(proto: ModelProto) -> None:
    body = helper.make_graph(
        [helper.make_node("Abs", ["a"], ["inner"])], "body", [], [helper.make_empty_tensor_value_info("inner")]
    )
    proto.graph.node.append(helper.make_node("If", ["flag"], ["z"], then_branch=body, else_branch=body))


@pytest.mark.parametrize(
    "change", [_second_user, _shown, _given, _used_twice, _training, _negative, _outside, _in_a_body]
)
def test_where_something_else_wants_it(change: Callable[[ModelProto], None]) -> None:
    proto = network()
    change(proto)
    assert without_normalization(proto, {"w"}) is proto


def test_a_fold_takes_it_in_where_it_changed_something() -> None:
    groups = [g.name for g in onnxfold.inspect(RESNET).groups]
    given: dict[str, Any] = {"ratio": 0.5, "include": [f"^{groups[0]}$"], **FAST}
    made, kept = (onnxfold.fold(RESNET, keep_bn=keep, **given) for keep in (False, True))
    before = operators(onnx.load(RESNET)).count("BatchNormalization")
    assert operators(kept.model).count("BatchNormalization") == before
    assert 0 < operators(made.model).count("BatchNormalization") < before
    images = np.random.default_rng(0).standard_normal((4, 1, 8, 8)).astype(np.float32)
    a, b = (Session(one.model.SerializeToString()).run({"image": images})[0] for one in (kept, made))
    assert np.linalg.norm(a - b) < ROUNDING * np.linalg.norm(a)
    source, own = (
        {t.name: t.SerializeToString() for t in one.graph.initializer} for one in (onnx.load(RESNET), made.model)
    )
    uses = Counter(name for node in made.model.graph.node for name in node.input)
    for node in made.model.graph.node:  # one shares its bias with another, by way of an Identity
        if node.op_type == "BatchNormalization":
            shared = any(name not in own or uses[name] > 1 for name in node.input[1:])
            assert shared or all(own[name] == source[name] for name in node.input[1:])


def test_the_command_line(tmp_path: Any) -> None:
    target = str(tmp_path / "out.onnx")
    for more, there in ((["--keep-bn"], True), ([], False)):
        assert main([str(RESNET), target, "--ratio", "0.5", "-q", *more]) == 0
        assert (operators(onnx.load(target)).count("BatchNormalization") == 10) == there
