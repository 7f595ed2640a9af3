"""Gemm and MatMul."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import Case, as_constant_nodes, as_inputs, constant, fold_by, folds, holds, keep_first, model, oracles_hold

GEMM = {"w": (3, 8), "b": (8,), "v": (8, 5)}
TEXT = "(float[N,3] x) => (float y) { h = Gemm(x, w, b) a = Relu(h) y = Gemm(a, v) }"

CASES = [
    Case("gemm", TEXT, GEMM, (8,)),
    Case("gemm-opset7", "(float[N,3] x) => (float y) { h = Gemm(x, w, b) a = Relu(h) y = Gemm(a, v, c) }",
         {**GEMM, "c": (5,)}, (8,), opset=7),
    Case("gemm-no-bias", "(float[N,3] x) => (float y) { h = Gemm(x, w) a = Relu(h) y = Gemm(a, v) }",
         {"w": (3, 8), "v": (8, 5)}, (8,)),
    Case("gemm-transposed", """(float[N,3] x) => (float y) {
        h = Gemm<transB=1, alpha=0.5, beta=2.0>(x, w, b) a = Relu(h) y = Gemm<transB=1>(a, v) }""",
         {"w": (8, 3), "b": (8,), "v": (5, 8)}, (8,)),
    Case("gemm-trans-a", """(float[3,N] x) => (float y) {
        h = Gemm<transA=1, transB=1>(x, w, b) a = Relu(h) t = Transpose(a) y = Gemm<transA=1>(t, v) }""",
         {"w": (8, 3), "b": (8,), "v": (8, 5)}, (8,)),
    Case("gemm-weight-first", """(float[3,7] x) => (float y) {
        h = Gemm(w, x, b) a = Relu(h) y = Gemm(v, a) }""",
         {"w": (8, 3), "b": (8, 1), "v": (5, 8)}, (8,)),
    Case("gemm-scalar-bias", """(float[N,3] x) => (float y) { h = Gemm(x, w, b) a = Relu(h) y = Gemm(a, v) }""",
         {**GEMM, "b": ()}, (8,)),
    Case("gemm-row-bias", """(float[N,3] x) => (float y) { h = Gemm(x, w, b) a = Relu(h) y = Gemm(a, v) }""",
         {**GEMM, "b": (1, 8)}, (8,)),
    Case("gemm-bias-of-a-branch", """(float[N,3] x) => (float y) {
        g = Gemm(x, u) h = Gemm(x, w, g) a = Relu(h) y = Gemm(a, v) }""",
         {"w": (3, 8), "u": (3, 8), "v": (8, 5)}, (8,)),
    Case("matmul", "(float[N,3] x) => (float y) { m = MatMul(x, w) h = Add(m, b) a = Relu(h) y = MatMul(a, v) }",
         GEMM, (8,)),
    Case("matmul-bias-first", "(float[N,3] x) => (float y) { m = MatMul(x, w) h = Add(b, m) y = MatMul(h, v) }",
         GEMM, (8,)),
    Case("matmul-3d", """(float[N,7,3] x) => (float y) {
        m = MatMul(x, w) h = Add(m, b) a = Relu(h) y = MatMul(a, v) }""", GEMM, (8,)),
    Case("matmul-4d", """(float[N,2,7,3] x) => (float y) {
        m = MatMul(x, w) h = Add(m, b) a = Relu(h) y = MatMul(a, v) }""", GEMM, (8,)),
    Case("matmul-open-length", """(float[N,T,3] x) => (float y) {
        m = MatMul(x, w) h = Add(m, b) a = Relu(h) y = MatMul(a, v) }""", GEMM, (8,)),
    Case("matmul-weight-first", "(float[N,3,7] x) => (float y) { h = MatMul(w, x) a = Relu(h) y = MatMul(v, a) }",
         {"w": (8, 3), "v": (5, 8)}, (8,)),
    Case("matmul-vector-reads", "(float[N,3] x) => (float y) { h = MatMul(x, w) a = Relu(h) y = MatMul(a, v) }",
         {"w": (3, 8), "v": (8,)}, (8,)),
    Case("matmul-vector-in", "(float[3] x) => (float y) { h = MatMul(x, w) a = Relu(h) y = MatMul(a, v) }",
         {"w": (3, 8), "v": (8, 5)}, (8,)),
    Case("matmul-stacked-weight", """(float[N,4,7,3] x) => (float y) {
        h = MatMul(x, w) a = Relu(h) y = MatMul(a, v) }""",
         {"w": (4, 3, 8), "v": (1, 8, 5)}, (8,), refused=("a graph input",)),
    Case("gated-mlp", """(float[N,7,3] x) => (float y) {
        g = MatMul(x, wg) s = Sigmoid(g) a = Mul(g, s) u = MatMul(x, wu) h = Mul(a, u) y = MatMul(h, v) }""",
         {"wg": (3, 8), "wu": (3, 8), "v": (8, 5)}, (8,)),
    Case("attention-scores-are-kept", """(float[N,7,3] x) => (float y) {
        q = MatMul(x, wq) k = MatMul(x, wk) t = Transpose<perm=[0,2,1]>(k) s = MatMul(q, t) p = Softmax(s)
        m = MatMul(x, wm) c = MatMul(p, m) y = MatMul(c, v) }""",
         {"wq": (3, 4), "wk": (3, 4), "wm": (3, 8), "v": (8, 5)}, (8,), refused=("MatMul mixes this axis",)),
    Case("transposed-weight", """(float[N,3] x) => (float y) {
        wt = Transpose(w) h = MatMul(x, wt) a = Relu(h) vt = Transpose<perm=[1,0]>(v) y = MatMul(a, vt) }""",
         {"w": (8, 3), "v": (5, 8)}, (8,)),
    Case("shared-with-its-transpose", """(float[N,3] x) => (float y) {
        h = MatMul(x, w) a = Relu(h) wt = Transpose(w) y = MatMul(a, wt) }""", {"w": (3, 8)}, (8,)),
    Case("weight-twice", """(float[N,3] x, float[N,3] z) => (float y) {
        h = MatMul(x, w) a = Relu(h) g = MatMul(z, w) e = Tanh(g) f = Add(a, e) y = MatMul(f, v) }""",
         {"w": (3, 8), "v": (8, 5)}, (8,)),
    Case("recurrent-use", """(float[N,3] x) => (float y) {
        h = MatMul(x, w) a = Relu(h) g = MatMul(a, u) e = Relu(g) f = MatMul(e, u) d = Relu(f) y = MatMul(d, v) }""",
         {"w": (3, 8), "u": (8, 8), "v": (8, 5)}, (8,)),
    Case("lookup", """(int64[N,7] x) => (float y) {
        h = Gather(table, x) g = MatMul(h, w) a = Relu(g) y = MatMul(a, v) }""",
         {"table": (11, 6), "w": (6, 8), "v": (8, 5)}, (6, 8)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_case(case: Case, batch: str | int) -> None:
    holds(case, batch)


@pytest.mark.parametrize("form", [as_inputs, as_constant_nodes], ids=["inputs", "nodes"])
def test_forms_of_weights(form: object, batch: str | int) -> None:
    proto = form(model(TEXT, GEMM, batch=batch), list(GEMM))  # type: ignore[operator]
    oracles_hold(proto, groups=[8])
    folds(proto)


def test_what_makes_is_averaged_and_what_reads_is_summed() -> None:
    before = model(TEXT, GEMM)
    after = fold_by({"Gemm#0": [0, 0, 1, 1, 1, 2, 3, 3]}, before)
    w, b, v = (constant(before, name) for name in "wbv")
    parts = [[0, 1], [2, 3, 4], [5], [6, 7]]
    np.testing.assert_allclose(constant(after, "w"), np.stack([w[:, p].mean(1) for p in parts], 1), rtol=1e-6)
    np.testing.assert_allclose(constant(after, "b"), [b[p].mean() for p in parts], rtol=1e-6)
    np.testing.assert_allclose(constant(after, "v"), np.stack([v[p].sum(0) for p in parts]), rtol=1e-5)


def test_a_shared_weight_and_its_transpose_go_apart() -> None:
    """w makes 8 channels and its transpose reads them: as stored once, both are pruned alike."""
    case = next(c for c in CASES if c.name == "shared-with-its-transpose")
    after = keep_first(5, case.model())
    makes, reads = (constant(after, n.input[1]) for n in after.graph.node if n.op_type == "MatMul")
    np.testing.assert_array_equal(makes.T, reads)
    assert "Transpose" not in [n.op_type for n in after.graph.node]


def test_a_weight_that_is_an_input_stays_declared_as_it_is() -> None:
    """u makes 8 channels of one group and its transpose makes 6 of another: where one group alone shrinks, u gets new
    values under a name of their own, and the old ones stay for the transpose."""
    text = """(float[N,3] x) => (float y) {
        g = MatMul(x, w) e = Relu(g) h = MatMul(e, u) a = Relu(h) ut = Transpose(u) f = MatMul(a, ut) d = Tanh(f)
        y = MatMul(d, v) }"""
    proto = as_inputs(model(text, {"w": (3, 6), "u": (6, 8), "v": (6, 5)}), ["u"])
    oracles_hold(proto)
    folds(proto)
