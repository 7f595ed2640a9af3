"""Weights that stand on one stored tensor, by way of Identity, Transpose, Cast, Reshape...: tied weights stay tied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from helpers import constant, folds, halved, model, oracles_hold, refused_for
from onnx import ModelProto
from tiny import fold

from onnxfold.analysis.analyze import analyze
from onnxfold.analysis.costs import costs, count_parameters, weight_bytes
from onnxfold.model.model import load

BOTH = "a weight that produces and consumes the same axis"
GROWS = "would grow if it were written back"
BLOCK = """(float[N,6] x) => (float y) {{
    {first} h = MatMul(x, A) r = Relu(h) g = MatMul(r, B) c = LpNormalization<axis=-1>(g)
    {more} d = MatMul(c, {a}) e = Relu(d) y = MatMul(e, {b}) }}"""
WIDE = {"A": (6, 16), "B": (16, 6)}
TURNED = {"A": (6, 16), "B": (6, 16)}


def block(more: str, a: str, b: str, first: str = "") -> str:
    """A block used twice, as in ALBERT: its weights `A` and `B`, then `a` and `b`."""
    return BLOCK.format(first=first, more=more, a=a, b=b)


CASES: Mapping[str, tuple[str, Mapping[str, Sequence[int]], Mapping[str, Any]]] = {
    "direct": (block("", "A", "B"), WIDE, {}),
    "identity": (block("a = Identity(A) b = Identity(B)", "a", "b"), WIDE, {}),
    "identities": (block("s = Identity(A) a = Identity(s) b = Identity(B)", "a", "b"), WIDE, {}),
    "factor": (block("a = Mul(A, half) b = Div(B, half)", "a", "b"), WIDE, {"half": [[0.5]]}),
    "factor-first": (block("a = Mul(half, A) b = Mul(half, B)", "a", "b"), WIDE, {"half": 0.5}),
    "transposed-twice": (
        block("s = Transpose(A) a = Transpose(s) t = Identity(B) b = Transpose<perm=[0,1]>(t)", "a", "b"), WIDE, {},
    ),
    "squeezed": (
        block("s = Unsqueeze(A, zero) a = Squeeze(s, zero) t = Unsqueeze(B, one) b = Squeeze(t, one)", "a", "b"),
        WIDE, {"zero": [0], "one": [1]},
    ),
    "reshaped": (
        block("s = Reshape(A, wide) a = Reshape(s, flat) t = Flatten<axis=1>(B) b = Reshape(t, all)", "a", "b"),
        WIDE, {"wide": [6, 1, 16], "flat": [0, 16], "all": [16, -1]},
    ),
    "cast": (
        block("s = Cast<to=11>(A) a = Cast<to=1>(s) t = Cast<to=11>(B) b = Cast<to=1>(t)", "a", "b"), WIDE, {},
    ),
    "three-uses": (
        """(float[N,6] x) => (float y) {
            a = Identity(A) b = Identity(B) s = Identity(a) t = Identity(B)
            h = MatMul(x, A) r = Relu(h) g = MatMul(r, B) c = LpNormalization<axis=-1>(g)
            d = MatMul(c, a) e = Relu(d) i = MatMul(e, b) k = LpNormalization<axis=-1>(i)
            l = MatMul(k, s) m = Relu(l) y = MatMul(m, t) }""", WIDE, {},
    ),
}  # fmt: skip
TRANSPOSED = {
    "gemm": """(float[N,6] x) => (float y) {
        t = Transpose(A) h = MatMul(x, A) r = Relu(h) c = MatMul(r, B) n = LpNormalization<axis=-1>(c)
        d = Gemm<transB=1>(n, t) e = Relu(d) y = MatMul(e, C) }""",
    "first": """(float[N,6] x) => (float y) {
        t = Transpose(A) n = LpNormalization<axis=-1>(x) d = Gemm<transB=1>(n, t) e = Relu(d) c = MatMul(e, C)
        k = LpNormalization<axis=-1>(c) h = MatMul(k, A) r = Relu(h) y = MatMul(r, B) }""",
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_tied_stays_tied(name: str, batch: str | int) -> None:
    """One group for all uses; the stored tensors stay one each, half as wide, and the steps read them."""
    proto = model(*CASES[name], batch=batch)
    found = oracles_hold(proto, groups=[16])
    folds(proto)
    after = shrunk(proto)
    assert [n.op_type for n in after.graph.node] == [n.op_type for n in proto.graph.node]
    assert constant(after, "A").shape == (6, 8) and constant(after, "B").shape == (8, 6)
    assert count_parameters(after) - scalars(after) == (count_parameters(proto) - scalars(proto)) // 2
    assert found.parameters == 2 * 6 * 16  # each counts once
    assert costs(load(proto)).params({}) == found.parameters


def shrunk(proto: ModelProto) -> ModelProto:
    """The model with all groups pruned to their first half; it must be smaller."""
    after = halved(proto)
    assert count_parameters(after) < count_parameters(proto) and weight_bytes(after) < weight_bytes(proto)
    return after


def scalars(proto: ModelProto) -> int:
    """How many numbers are no weights."""
    return sum(t.name == "half" for t in proto.graph.initializer)


@pytest.mark.parametrize("name", TRANSPOSED)
def test_turned_for_the_same_purpose(name: str) -> None:
    proto = model(TRANSPOSED[name], {"A": (6, 16), "B": (16, 6), "C": (16, 6)})
    oracles_hold(proto, groups=[16])
    folds(proto)
    assert constant(shrunk(proto), "A").shape == (6, 8)


def test_the_same_as_a_weight_used_twice() -> None:
    """A weight by another name is folded as the weight itself would be: the same channels, the same values."""
    direct, by_name = (
        fold(model(*CASES[name]), ratio=0.25, round_to=1, latency=False) for name in ("direct", "identity")
    )
    for name in ("A", "B"):
        np.testing.assert_array_equal(constant(direct.model, name), constant(by_name.model, name))


@pytest.mark.parametrize("use", ["Identity", "Transpose"])
def test_what_one_use_produces_and_another_consumes_is_kept(use: str) -> None:
    """An embedding that is the head's weight too: the stream that both share stays, all else folds."""
    turned = "transB=1" if use == "Identity" else "transB=0"
    text = f"""(int64[7] x) => (float[7,11] y) {{
        t = {use}(E) h = Gather(E, x) g = MatMul(h, w) a = Relu(g) f = MatMul(a, v) i = Add(f, h)
        y = Gemm<{turned}>(i, t) }}"""
    proto = model(text, {"E": (11, 8), "w": (8, 6), "v": (6, 8)})
    found = oracles_hold(proto, groups=[6])
    assert BOTH in [r.kind for r in found.refusals]
    folds(proto)
    np.testing.assert_array_equal(constant(shrunk(proto), "E"), constant(proto, "E"))


def test_a_use_that_nothing_can_change_keeps_the_others() -> None:
    """The weight is an output of the model, by another name."""
    text = block("a = Identity(A)", "A", "B").replace("(float y)", "(float y, float[6,16] a)")
    found = analyze(load(model(text, WIDE)))
    assert not found.groups
    assert "a graph output" in [r.kind for r in found.refusals]


@pytest.mark.parametrize("other", ["Abs(A)", "Mul(A, mask)", "Softmax(A)"])
def test_what_cannot_be_written_back_keeps_what_it_is_computed_from(other: str) -> None:
    """Folding either would store both."""
    proto = model(block(f"a = {other}", "a", "B"), WIDE, {"mask": np.float32(np.random.default_rng(0).random((6, 16)))})
    if "mask" in other:  # as many numbers again: both could be stored
        oracles_hold(proto, groups=[16])
        return
    found = analyze(load(proto))
    assert not found.groups
    refused_for(found, [GROWS])


def test_a_weight_cut_in_pieces_does_not_grow() -> None:
    """Each piece becomes a tensor of its own, also those that stay."""
    text = """(float[N,6] x) => (float y) {
        q, k = Split<axis=1>(A, half) h = MatMul(x, q) r = Relu(h) c = MatMul(r, B) d = MatMul(c, k) y = Softmax(d) }"""
    proto = model(text, {"A": (6, 24), "B": (12, 6)}, {"half": [12, 12]})
    oracles_hold(proto, groups=[12, 6])
    folds(proto)


def test_grouped_convolutions_of_one_weight() -> None:
    """Blocked axes are tied as they are; another division of the same weight keeps both."""
    text = """(float[N,8,4,4] x) => (float y) {{
        s = Identity(w) h = Conv<group={g}>(x, w) r = Relu(h) p = Conv(r, u) q = Softmax<axis=1>(p)
        i = Conv<group={other}>(q, s) k = Relu(i) y = Conv(k, v) }}"""
    weights = {"w": (16, 4, 1, 1), "u": (8, 16, 1, 1), "v": (5, 16, 1, 1)}
    proto = model(text.format(g=2, other=2), weights)
    oracles_hold(proto, groups=[16])
    folds(proto)
    assert constant(shrunk(proto), "w").shape == (8, 4, 1, 1)


def test_vectors_follow_their_weights() -> None:
    """A bias by another name in layers that have nothing to do with each other: two groups, and two biases."""
    text = """(float[N,6] x) => (float y) {
        c = Identity(b) h = Gemm(x, w, b) r = Relu(h) g = MatMul(r, u) s = Softmax(g)
        i = Gemm(s, k, c) j = Relu(i) y = MatMul(j, v) }"""
    proto = model(text, {"w": (6, 16), "b": (16,), "u": (16, 6), "k": (6, 16), "v": (16, 5)})
    oracles_hold(proto, groups=[16, 16])
    folds(proto)
    tied = model(
        block("a = Identity(A) b = Identity(B) s = Identity(z)", "a", "b")
        .replace("h = MatMul(x, A)", "h = Gemm(x, A, z)")
        .replace("d = MatMul(c, a)", "d = Gemm(c, a, s)"),
        {**WIDE, "z": (16,)},
    )
    oracles_hold(tied, groups=[16])
    assert len(shrunk(tied).graph.initializer) == 3  # one group, one bias


@pytest.mark.parametrize("refine", [False, True])
@pytest.mark.parametrize("name", ["identity", "cast", "reshaped"])
def test_repaired_and_trained_weights_stay_tied(name: str, refine: bool) -> None:
    """Neither least squares nor training give a use of its own values."""
    x = np.random.default_rng(0).standard_normal((64, 6)).astype(np.float32)
    proto = model(*CASES[name], batch=4)
    result = fold(proto, ratio=0.5, round_to=1, latency=False, calibration={"x": x}, refine=refine)
    assert [t.name for t in result.model.graph.initializer] == [t.name for t in proto.graph.initializer]
    assert [n.op_type for n in result.model.graph.node] == [n.op_type for n in proto.graph.node]
    assert count_parameters(result.model) == count_parameters(proto) // 2
    assert result.report.check is not None and result.report.check.passed
