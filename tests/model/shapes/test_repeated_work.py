"""Inference is asked no more than it takes: weights stay out of it, and what was answered once is kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from helpers import model
from onnx import ModelProto, helper, numpy_helper

from onnxfold.model.graph import hollow, skeleton
from onnxfold.model.model import load
from onnxfold.model.shapes import inference, resolve
from onnxfold.model.shapes.inference import Bounds, negative
from onnxfold.runtime.probe_inputs import probe
from onnxfold.runtime.session import InputSpec

LAYERS = 6


def in_constants() -> ModelProto:
    """A Conv whose weight is in a Constant node, and a list of lengths in another."""
    proto = model("(float[N,3,8,8] x) => (float[N,2304] y) { c = Conv(x, w) y = Reshape(c, s) }", {}, {}, batch="N")
    values = {"w": np.ones((64, 3, 3, 3), np.float32), "s": np.array([0, -1])}
    for name, value in values.items():
        node = helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))
        proto.graph.node.insert(0, node)
    return proto


def test_weights_stay_out_of_what_inference_sees() -> None:
    proto = in_constants()
    bare = hollow(proto)
    assert len(bare.SerializeToString()) < 2000 < 4 * 64 * 27 < len(skeleton(proto).SerializeToString())
    found = load(proto)
    assert found.graph.tensor("w").shape == (64, 3, 3, 3) and found.graph.tensor("y").shape == ("N", 64 * 36)
    assert found.constants.array("w").sum() == 64 * 27 and found.constants.array("s").tolist() == [0, -1]
    (node,) = [n for n in found.graph.nodes if n.outputs == ("w",)]
    assert np.asarray(numpy_helper.to_array(node.attrs["value"])).shape == (64, 3, 3, 3)


def test_a_scalar_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its shape has no axes: nothing about it is open, and no other lengths are tried."""
    body = "t = ReduceSum<keepdims = 0>(b) z = Mul(x, t) y = MatMul(z, u)"
    proto = model(f"(float[N,T,8] x) => (float y) {{ {body} }}", {"b": (4,), "u": (8, 12)}, {}, batch="N")
    monkeypatch.setattr(resolve, "_evaluated", lambda *_: pytest.fail("tried at other lengths"))
    graph = load(proto).graph
    assert graph.tensor("t").shape == () and graph.tensor("y").shape == ("N", "T", 12)


def test_layers_that_are_alike_are_asked_about_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = inference._inferred

    def counted(graph: Any, node: Any, proto: Any, data: Mapping[str, Any]) -> Any:
        asked.append(node.op)
        return real(graph, node, proto, data)

    monkeypatch.setattr(inference, "_inferred", counted)
    steps = " ".join(
        f"s{i} = Shape(x{i}) d{i} = Slice(s{i}, o, w) p{i} = Concat<axis=0>(d{i}, c) r{i} = Reshape(x{i}, p{i}) "
        f"x{i + 1} = Relu(r{i})"
        for i in range(LAYERS)
    )
    proto = model(
        f"(float[N,T,8] x0) => (float y) {{ {steps} y = MatMul(x{LAYERS}, u) }}", {"u": (8, 4)},
        {"o": [0], "w": [2], "c": [8]}, batch="N",
    )  # fmt: skip
    graph = load(proto).graph
    assert {graph.tensor(f"r{i}").shape for i in range(LAYERS)} == {("N", "T", 8)}
    assert asked.count("Relu") <= 3, "not once for every layer"


@pytest.mark.parametrize("side", [8, 5, 4, 3, 2, 1])
def test_bounds_say_what_each_graph_alone_says(side: int) -> None:
    body = "c = Conv(x, w) d = Slice(c, a, b, e) y = Conv(d, v)"
    lists = {"a": [0], "b": [2], "e": [2]}
    proto = model(f"(float[1,3,H,H] x) => (float y) {{ {body} }}", {"w": (4, 3, 5, 5), "v": (4, 4, 1, 1)}, lists)
    shapes = {"x": (1, 3, side, side)}
    bounds = Bounds(skeleton(proto))
    bounds.negative({"x": (1, 3, 2, 2)})
    assert bounds.negative() == negative(skeleton(proto)) == "", "what was asked before leaves nothing"
    assert bounds.negative(shapes) == negative(skeleton(proto, shapes))
    assert bool(bounds.negative(shapes)) == (side < 5 - 1)


def test_a_graph_is_evaluated_once_for_the_same_shapes() -> None:
    found = load(in_constants())
    one = found.at({"x": (2, 3, 8, 8)})
    assert found.at({"x": (2, 3, 8, 8)}) is one and one.tensor("c").shape == (2, 64, 6, 6)
    assert found.at({"x": (4, 3, 8, 8)}).tensor("c").shape == (4, 64, 6, 6)


def test_drawn_noise_repeats_along_long_axes() -> None:
    spec = InputSpec("x", np.float32, (1, 4, 100))
    whole, part = probe([spec], batch=1)["x"], probe([spec], batch=1, drawn=16)["x"]
    assert part.shape == whole.shape == (1, 4, 100) and part.dtype == np.float32
    assert np.array_equal(part[..., :16], part[..., 16:32]) and not np.array_equal(whole[..., :16], whole[..., 16:32])
    assert len(np.unique(part[0, :, :16])) > 32


def test_onnx_reads_what_is_hollow() -> None:
    inferred = onnx.shape_inference.infer_shapes(hollow(in_constants())).graph
    (found,) = [v for v in inferred.value_info if v.name == "c"]
    assert [d.dim_value for d in found.type.tensor_type.shape.dim[1:]] == [64, 6, 6]
