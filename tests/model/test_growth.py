"""The size of a constant is known before it is computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from onnxfold import ModelError
from onnxfold.model.growth import GROWS, elements
from onnxfold.model.model import load

CASES = {
    "Expand": [np.ones((3, 1)), np.array([2, 1, 4])],
    "Tile": [np.ones((2, 3)), np.array([4, 5])],
    "Pad": [np.ones((2, 3)), np.array([1, 0, 2, 4])],
    "Range": [np.array(2), np.array(11), np.array(4)],
    "OneHot": [np.array([1, 2, 0]), np.array(7), np.array([0.0, 1.0])],
    "ConstantOfShape": [np.array([3, 0 + 5])],
    "Resize": [np.ones((1, 1, 2, 3), np.float32), np.zeros(0, np.float32), np.array([1.0, 1.0, 2.5, 3.0], np.float32)],
    "DFT": [np.ones((1, 5, 1), np.float32), np.array(12)],
    "HannWindow": [np.array(9)],
    "HammingWindow": [np.array(9)],
    "BlackmanWindow": [np.array(9)],
    "MelWeightMatrix": [
        np.array(8),
        np.array(16),
        np.array(8192),
        np.array(0.0, np.float32),
        np.array(4096.0, np.float32),
    ],
}


def graph(op: str, inputs: list[Any]) -> onnx.ModelProto:
    names = [f"i{at}" for at in range(len(inputs))]
    nodes = [onnx.helper.make_node(op, names, ["c"]), onnx.helper.make_node("Identity", ["x"], ["y"])]
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy")
    weights = [onnx.numpy_helper.from_array(np.asarray(x), n) for n, x in zip(names, inputs, strict=True)]
    made = onnx.helper.make_graph(nodes, "g", [x], [y], weights)
    return onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize("op", CASES)
def test_as_many_elements_as_are_computed(op: str) -> None:
    proto = graph(op, CASES[op])
    loaded = load(proto)
    assert elements(loaded.graph.nodes[0], loaded.constants.array) == loaded.constants.array("c").size


def test_all_operators_that_grow_have_a_rule_or_take_a_matrix() -> None:
    assert GROWS - {"EyeLike", "Upsample"} <= CASES.keys()


@pytest.mark.parametrize(
    ("op", "inputs"),
    [("Expand", [np.ones(1, np.float32), np.array([1, 1, 2147483648])]), ("Range", [0, 1 << 40, 1]),
     ("Tile", [np.ones(1, np.float32), np.array([1 << 40])]),
     ("Resize", [np.ones((1, 1, 2, 2), np.float32), np.zeros(0, np.float32), np.zeros(0, np.float32),
                 np.array([1, 1, 40000, 40000])]),
     ("DFT", [np.ones((1, 2, 1), np.float32), np.array(10**9)])],
)  # fmt: skip
def test_a_constant_that_no_memory_holds_is_refused(op: str, inputs: list[Any]) -> None:
    """When the file is read: onnxruntime would make it, and take all memory."""
    with pytest.raises(ModelError, match=rf"constant 'c' would have \d+ elements \({op}\)"):
        load(graph(op, [np.asarray(x) for x in inputs]))
