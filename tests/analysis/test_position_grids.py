"""Tensors written as a whole by ScatterND, with indices that a graph counts up for every axis (an open batch)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from helpers import folds, model, oracles_hold
from onnx import ModelProto

from onnxfold.analysis.analyze import analyze
from onnxfold.model.model import load

NET = """(float[N,5,6] x) => (float[N,5,4] y) {{
    h = MatMul(x, w) z = MatMul(x, w2) u = Tanh(h) s = Shape(z)
    s0 = Gather<axis=0>(s, n0) s1 = Gather<axis=0>(s, n1) s2 = Gather<axis=0>(s, n2)
    r0 = Range(n0, s0, n1) r1 = Range(n0, s1, n1) r2 = Range({start}, s2, n1)
    a0 = Reshape(r0, to3) a1 = Reshape(r1, to2) b0 = Add(a0, a1) b1 = Add(b0, r2) t = Shape(b1)
    e0 = Expand(a0, t) e1 = Expand(a1, t) e2 = Expand(r2, t)
    i0 = Unsqueeze(e0, last) i1 = Unsqueeze(e1, last) i2 = Unsqueeze(e2, last)
    i = Concat<axis=-1>({order}) o = ScatterND(z, i, u) {more} y = MatMul({out}, v) }}"""
USUAL = {"start": "n0", "order": "i0, i1, i2", "more": "", "out": "o"}
WEIGHTS = {"w": (6, 8), "w2": (6, 8), "v": (8, 4)}
VALUES = {"n0": 0, "n1": 1, "n2": 2, "to3": [-1, 1, 1], "to2": [-1, 1], "last": [-1]}


def net(**other: str) -> ModelProto:
    values: Mapping[str, Any] = VALUES
    return model(NET.format(**{**USUAL, **other}), WEIGHTS, values)


def test_what_is_written_is_the_result() -> None:
    oracles_hold(net(), groups=[8])
    folds(net())


@pytest.mark.parametrize(
    "other",
    [
        {"more": "f = Cast<to=1>(r2) g = Add(o, f)", "out": "g"},  # positions are numbers too
        {"more": "f = Cast<to=1>(b1) g = Add(o, f)", "out": "g"},
        {"order": "i0, i1, i1"},
        {"start": "n1", "more": "k = Relu(o)", "out": "k"},
    ],
    ids=["read", "read-in-a-sum", "twice", "from-1"],
)
def test_other_uses_and_other_indices_keep_it(other: dict[str, str]) -> None:
    assert 8 not in [group.size for group in analyze(load(net(**other))).groups]
