"""Channels followed through norms over all of them: both oracles hold, and means that are no norm stay as they are."""

from __future__ import annotations

from typing import Any

import pytest
from dependent import network, stream
from helpers import model
from onnx import ModelProto
from transformer import Style

from onnxfold.analysis.analyze import analyze
from onnxfold.model.model import Model, load
from onnxfold.testing import duplicate, permute

EXACT = 1e-5  # float32, sums in another order; measured 5e-7
WRONG = 1e-2  # what the control must show; measured 8e-2

WEIGHTS = {"w1": (8, 3, 1, 1), "g": (8,), "b": (8,), "w2": (4, 8, 1, 1), "m1": (5, 8), "m2": (8, 4), "dw": (8, 1, 1, 1)}
SINGLE = """(float[N,3,4,4] x) => (float[N,4,4,4] y) {
    h = Conv(x, w1)
    n = GroupNormalization<num_groups=1>(h, g, b)
    y = Conv(n, w2) }"""
WRITTEN = """(float[N,5] x) => (float y) {
    h = MatMul(x, m1)
    s = Mul(h, h)
    m = ReduceMean<axes=[-1], keepdims=1>(s)
    a = Add(m, e)
    r = Sqrt(a)
    d = Div(h, r)
    n = Mul(d, g)
    y = MatMul(n, m2) }"""
ADDED = WRITTEN.replace("Div(h, r)", "Add(h, r)")  # nothing is divided
OTHER = WRITTEN.replace("Div(h, r)", "Div(x, r)").replace("Mul(d, g)", "MatMul(d, m1)")  # something else is
SHARED = WRITTEN.replace("MatMul(n, m2)", "LayerNormalization(n, g, g)")


def small(text: str, opset: int) -> ModelProto:
    weights = {name: shape for name, shape in WEIGHTS.items() if name in text}
    return model(text, weights, {"e": [0.001]} if "(m, e)" in text else {}, opset=opset, ir_version=8)


@pytest.mark.parametrize(
    ("net", "style"),
    [("llama2", Style.DECOMPOSED), ("llama2", Style.FUSED), ("vit", Style.DYNAMO), ("gpt2-untied", Style.DECOMPOSED)],
    ids=str,
)
def test_streams_of_transformers(net: str, style: Style) -> None:
    proto, given = network(net, style)
    loaded = load(proto)
    assert stream(loaded).group.size == 32
    assert not any(g.size == 32 for g in analyze(loaded).groups), "only where it is asked for"
    both_hold(loaded, feeds=given)


def both_hold(loaded: Model, **how: Any) -> None:
    analysis = analyze(loaded, fold_residual=True)
    for oracle in (permute, duplicate):
        found = oracle(loaded, analysis, **how)
        assert found.error < EXACT and found.control > WRONG


@pytest.mark.parametrize(("text", "opset"), [(SINGLE, 21), (WRITTEN, 13)], ids=["group-norm-1", "written-out"])
def test_norms_between_layers(text: str, opset: int) -> None:
    loaded = load(small(text, opset))
    assert [g.size for g in analyze(loaded).groups] == []
    assert [g.size for g in analyze(loaded, fold_residual=True).groups] == [8]
    both_hold(loaded)


DEPTHWISE = """(float[N,3,4,4] x) => (float[N,4,4,4] y) {
    first = Conv(x, w1)
    own = Conv<group=8>(first, dw)
    h = Transpose<perm=[0,2,3,1]>(own)
    s = Mul(h, h)
    m = ReduceMean<axes=[-1], keepdims=1>(s)
    a = Add(m, e)
    r = Sqrt(a)
    n = Div(h, r)
    y = MatMul(n, m2) }"""
TURNS = WRITTEN.replace("Mul(d, g)", "Identity(d)")
"""Its basis may change: no number per channel is left."""


@pytest.mark.parametrize(
    ("text", "opset", "obstacle"),
    [
        (TURNS, 13, ""),
        (WRITTEN, 13, "Mul ('Mul#6') works on single channels"),
        (TURNS.replace("MatMul(x, m1)", "Gemm(x, m1, e)"), 13, "Gemm ('Gemm#0') works on single channels"),
        (TURNS.replace("MatMul(x, m1)", "Gemm(x, m1, b)"), 13, ""),
        (TURNS.replace("MatMul(n, m2)", "MatMul(t, m2)").replace("y =", "t = Tanh(n)\n y ="), 13, "Tanh ('Tanh#7')"),
        (SINGLE, 21, "GroupNormalization ('GroupNormalization#1') is no norm whose mean"),
        (DEPTHWISE, 13, "Conv ('Conv#1') works on single channels"),
    ],
)  # fmt: skip
def test_what_may_change_its_basis(text: str, opset: int, obstacle: str) -> None:
    found = stream(load(small(text, opset))).obstacle()
    assert found.startswith(obstacle) if obstacle else found == ""


@pytest.mark.parametrize("text", [ADDED, OTHER, SHARED], ids=["added", "other", "shared-scale"])
def test_what_is_no_norm_of_its_own_stays(text: str) -> None:
    assert not analyze(load(small(text, 17)), fold_residual=True).groups
