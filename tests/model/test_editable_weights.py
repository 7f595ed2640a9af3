"""Weights that are written back."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import model
from onnx import ModelProto, numpy_helper

from onnxfold.model.editable_weights import Weights, without_traces
from onnxfold.model.model import load


def linear() -> ModelProto:
    return model("(float[N,4] x) => (float[N,3] y) { y = MatMul(x, w) }", {"w": (4, 3)})


def test_traces_become_zero_and_all_else_stays() -> None:
    """Products with denormal numbers take a processor many times as long."""
    proto = linear()
    value = np.array([[1e-44, -2e-40, 1e-31], [1e-29, -1.0, 0.0], [3.0, -1e-20, 5.0], [1.0, 2.0, 3.0]], np.float32)
    Weights(proto, load(proto)).write("w", value)
    (written,) = (numpy_helper.to_array(t) for t in proto.graph.initializer if t.name == "w")
    assert (written[0] == 0).all() and np.array_equal(written[1:], value[1:])


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_traces_of_any_type(kind: type[np.floating]) -> None:
    value = np.array([0.5, 6e-5, 0.0], kind)
    assert without_traces(value) is value, "the least numbers of float16 are none"
    if kind is not np.float16:
        assert without_traces(np.array([1e-35], kind))[0] == 0
