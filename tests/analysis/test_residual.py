"""Channels followed through norms over all of them: both oracles hold, and means that are no norm stay as they are."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from dependent import network, stream
from helpers import constant, model
from onnx import ModelProto
from transformer import Style

from onnxfold.analysis.analyze import analyze
from onnxfold.folding.merge import pruning
from onnxfold.model.model import Model, load
from onnxfold.planning.residual import measured
from onnxfold.testing import duplicate, permute
from onnxfold.transform.edits import edits
from onnxfold.transform.emit import emit

EXACT = 1e-5  # float32, sums in another order; measured 5e-7
WRONG = 1e-2  # what the control must show; measured 8e-2

WEIGHTS = {"w1": (8, 3, 1, 1), "g": (8,), "b": (8,), "w2": (4, 8, 1, 1), "m1": (5, 8), "m2": (8, 4), "dw": (8, 1, 1, 1)}
SINGLE = """(float[N,3,4,4] x) => (float[N,4,4,4] y) {
    h = Conv(x, w1)
    n = GroupNormalization<num_groups=1>(h, g, b)
    y = Conv(n, w2) }"""
ALL = """(float[N,3,4,4] x) => (float[N,4,4,4] y) {{
    h = Conv(x, w1)
    {}
    m = Mul(k, g3)
    n = Add(m, b3)
    y = Conv(n, w2) }}"""
OF_ALL = {
    "operator": ("k = GroupNormalization<num_groups=1>(h, g, b)", 21),
    "opset18": ("k = GroupNormalization<num_groups=1>(h, one, zero)", 18),
    "instance": ("r = Reshape(h, to) i = InstanceNormalization(r, one, zero) s = Shape(h) k = Reshape(i, s)", 17),
    "layer-norm": ("r = Reshape(h, to) i = LayerNormalization<axis=-1>(r, n128) k = Reshape(i, back)", 17),
    "written-out": ("""m0 = ReduceMean<axes=[1, 2, 3]>(h) c = Sub(h, m0) q = Mul(c, c)
        m1 = ReduceMean<axes=[1, 2, 3]>(q) a = Add(m1, e) d = Sqrt(a) k = Div(c, d)""", 17),
}  # fmt: skip
"""GroupNorm of one group of all channels, from h to k."""
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


def of_all(name: str) -> Model:
    body, opset = OF_ALL[name]
    shapes = {"w1": (8, 3, 1, 1), "w2": (4, 8, 1, 1), "g3": (8, 1, 1), "b3": (8, 1, 1), "g": (8,), "b": (8,)}
    values = {"to": [0, 1, 128], "back": [0, 8, 4, 4], "e": 1e-5, "one": [1.0], "zero": [0.0], "n128": [1.0] * 128}
    used = set(re.findall(r"\w+", body)) | {"w1", "w2", "g3", "b3"}
    weights, given = ({n: v for n, v in some.items() if n in used} for some in (shapes, values))
    return load(model(ALL.format(body), weights, given, opset=opset))


@pytest.mark.parametrize("name", OF_ALL)
def test_one_group_of_all_channels(name: str) -> None:
    loaded = of_all(name)
    found = analyze(loaded)
    assert not found.groups
    assert [r.kind for r in found.refusals if "Norm" in r.kind or "Mean" in r.kind] == [
        f"{loaded.graph.nodes[found_at(loaded)].op} mixes this axis"
    ]
    assert [g.size for g in analyze(loaded, fold_residual=True).groups] == [8]
    both_hold(loaded)


def found_at(loaded: Model) -> int:
    """The number of the first node that is a norm, or the mean of one."""
    return next(n.index for n in loaded.graph.nodes if "Norm" in n.op or n.op == "ReduceMean")


@pytest.mark.parametrize("name", ["operator", "instance", "layer-norm"])
def test_a_norm_over_pixels_makes_up_for_channels_that_are_gone(name: str) -> None:
    """By the variance over all channels and pixels of an image, in relation to that over those that are left."""
    loaded = of_all(name)
    found, feeds = stream(loaded), {"x": np.random.default_rng(0).normal(size=(1, 3, 4, 4)).astype(np.float32)}
    (spread,) = measured(found, [feeds])
    w = loaded.constants.array("w1")[:, :, 0, 0].astype(np.float64)
    h = np.einsum("oc,nchw->ohw", w, feeds["x"].astype(np.float64))
    keep = [0, 2, 3, 7]
    assert spread.factor(np.eye(8)[keep]) == pytest.approx(h.var() / h[keep].var(), rel=1e-5)


def test_scales_that_norms_share_are_their_own_after_a_fold() -> None:
    """Exporters store ones and zeros once: each norm gets the factor that makes up for what is gone there."""
    text = """(float[N,3,4,4] x) => (float[N,4,4,4] y) {
        h = Conv(x, w1) r = Reshape(h, to) i = InstanceNormalization(r, one, zero) k = Reshape(i, back) n = Relu(k)
        f = Conv(n, u) r2 = Reshape(f, to) i2 = InstanceNormalization(r2, one, zero) k2 = Reshape(i2, back)
        y = Conv(k2, w2) }"""
    weights = {"w1": (8, 3, 1, 1), "u": (8, 8, 1, 1), "w2": (4, 8, 1, 1)}
    values = {"to": [0, 1, -1], "back": [0, 8, 4, 4], "one": [1.0], "zero": [0.0]}
    loaded = load(model(text, weights, values))
    found = analyze(loaded, fold_residual=True)
    keep = np.array([0, 1, 4, 6])
    merges = {
        g.name: replace(pruning(keep, 8), squares={out: f})
        for g, out, f in zip(found.groups, ("i", "i2"), (4.0, 0.25), strict=True)
    }
    after = emit(loaded, edits(loaded, found, merges))
    scales = [constant(after, n.input[1])[0] for n in after.graph.node if n.op_type == "InstanceNormalization"]
    assert scales == pytest.approx([0.5, 2.0])


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
