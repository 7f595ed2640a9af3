"""Inputs that are made where the user gives none."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxfold.errors import RequestError
from onnxfold.model.graph import read_graph
from onnxfold.runtime.probe_inputs import index_limits, probe, tokens
from onnxfold.runtime.session import InputSpec


@pytest.mark.parametrize("shape", [(2**30, 3, 2**31), (1, 2**62), ("N", 2**31)])
def test_no_input_is_larger_than_memory_can_be(shape: tuple[int | str, ...]) -> None:
    """Damaged models declare such lengths: numpy would raise a ValueError, or fill the memory."""
    for kind in (np.float32, np.int64):
        spec = InputSpec("x", kind, shape)
        with pytest.raises(RequestError, match=r"input 'x' of shape \[.* is too large to create.*`input_shapes`"):
            probe([spec])
        with pytest.raises(RequestError, match="too large"):
            tokens([spec], {"x": 300}, batch=2)
    assert probe([InputSpec("x", np.float32, ("N", 3))], batch=2)["x"].shape == (2, 3)


@pytest.mark.parametrize(("axis", "limits"), [(0, {"i": 30}), (-1, {"i": 4}), (2, {}), (-3, {})])
def test_an_axis_that_a_table_does_not_have_limits_nothing(axis: int, limits: dict[str, int]) -> None:
    text = f"(int64[N] i, float[30,4] t) => (float[N,4] y) {{ y = Gather<axis = {axis}>(t, i) }}"
    graph = read_graph(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> g {text}'))
    assert index_limits(graph) == limits
