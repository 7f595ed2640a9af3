"""Gemm, MatMul, Einsum, and the fused forms of onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import (
    Case,
    as_constant_nodes,
    as_inputs,
    assert_holds,
    constant,
    fold_by,
    folds,
    model,
    newest_opset,
    oracles_hold,
)

from onnxfold.analysis.analyze import analyze
from onnxfold.analysis.rules.linear import subscripts
from onnxfold.model.model import load

GEMM = {"w": (3, 8), "b": (8,), "v": (8, 5)}
TEXT = "(float[N,3] x) => (float y) { h = Gemm(x, w, b) a = Relu(h) y = Gemm(a, v) }"
EINSUMS: tuple[tuple[str, str, dict[str, tuple[int, ...]], tuple[int, ...], tuple[str, ...]], ...] = (
    ("reads", 'y = Einsum<equation="bti,io->bto">(a, v)', {"v": (8, 5)}, (8,), ()),
    ("weight-first", 'y = Einsum<equation="oi,bti->otb">(v, a)', {"v": (5, 8)}, (8,), ()),
    ("spaces", 'y = Einsum<equation=" b t i , o i -> b t o ">(a, v)', {"v": (5, 8)}, (8,), ()),
    ("implicit", 'y = Einsum<equation="abi,ic">(a, v)', {"v": (8, 5)}, (8,), ()),
    ("ellipsis", 'y = Einsum<equation="...i,io->...o">(a, v)', {"v": (8, 5)}, (8,), ()),
    ("ellipsis-implicit", 'y = Einsum<equation="...i,ij">(a, v)', {"v": (8, 5)}, (8,), ()),
    ("transposes", 'e = Einsum<equation="bti->itb">(a) t = Transpose(e) y = MatMul(t, v)', {"v": (8, 5)}, (8,), ()),
    ("scales", 'e = Einsum<equation="bti,i->bti">(a, scale) y = MatMul(e, v)', {"scale": (8,), "v": (8, 5)}, (8,), ()),
    ("heads", '''e = Einsum<equation="bti,hdi->bhtd">(a, u) y = Einsum<equation="bhtd,hdo->bto">(e, v)''',
     {"u": (4, 6, 8), "v": (4, 6, 5)}, (8, 6, 4), ()),
    ("sums-channels", '''e = Einsum<equation="bti->bt">(a) t = Transpose<perm=[2,0,1]>(a) f = Mul(t, e)
        g = Transpose<perm=[1,2,0]>(f) y = MatMul(g, v)''', {"v": (8, 5)}, (), ("Einsum mixes this axis",)),
    ("scores", 'e = Einsum<equation="bqi,bki->bqk">(a, a) g = MatMul(e, u) f = Relu(g) y = MatMul(f, v)',
     {"u": (7, 6), "v": (6, 5)}, (6,), ("Einsum mixes this axis",)),
)  # fmt: skip

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
    Case("gemm-plus-its-input", """(float[N,3] x) => (float y) {
        h = Gemm(x, w, b) a = Relu(h) g = Gemm(a, u, a) y = Gemm(g, v) }""", {**GEMM, "u": (8, 8)}, (8,)),
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
    Case("attention-scores", """(float[N,7,3] x) => (float y) {
        q = MatMul(x, wq) k = MatMul(x, wk) t = Transpose<perm=[0,2,1]>(k) s = MatMul(q, t) p = Softmax(s)
        m = MatMul(x, wm) c = MatMul(p, m) y = MatMul(c, v) }""",
         {"wq": (3, 4), "wk": (3, 4), "wm": (3, 8), "v": (8, 5)}, (4, 8)),
    Case("transposed-weight", """(float[N,3] x) => (float y) {
        wt = Transpose(w) h = MatMul(x, wt) a = Relu(h) vt = Transpose<perm=[1,0]>(v) y = MatMul(a, vt) }""",
         {"w": (8, 3), "v": (5, 8)}, (8,)),
    Case("shared-with-its-transpose", """(float[N,3] x) => (float y) {
        h = MatMul(x, w) a = Relu(h) wt = Transpose(w) y = MatMul(a, wt) }""", {"w": (3, 8)},
         refused=("a weight that produces and consumes the same axis",)),
    Case("weight-twice", """(float[N,3] x, float[N,3] z) => (float y) {
        h = MatMul(x, w) a = Relu(h) g = MatMul(z, w) e = Tanh(g) f = Add(a, e) y = MatMul(f, v) }""",
         {"w": (3, 8), "v": (8, 5)}, (8,)),
    Case("recurrent-use", """(float[N,3] x) => (float y) {
        h = MatMul(x, w) a = Relu(h) g = MatMul(a, u) e = Relu(g) f = MatMul(e, u) d = Relu(f) y = MatMul(d, v) }""",
         {"w": (3, 8), "u": (8, 8), "v": (8, 5)}, (8,)),
    Case("lookup", """(int64[N,7] x) => (float y) {
        h = Gather(table, x) g = MatMul(h, w) a = Relu(g) y = MatMul(a, v) }""",
         {"table": (11, 6), "w": (6, 8), "v": (8, 5)}, (6, 8)),
    *(Case(f"einsum-{name}", f"""(float[N,7,3] x) => (float y) {{
        h = MatMul(x, w) a = Relu(h) {body} }}""", {"w": (3, 8), **weights}, groups, refused=refused)
      for name, body, weights, groups, refused in EINSUMS),
    Case("einsum-bilinear", """(float[N,3] x) => (float y) {
        h = MatMul(x, w) g = MatMul(x, u) y = Einsum<equation="bi,oij,bj->bo">(h, v, g) }""",
         {"w": (3, 8), "u": (3, 6), "v": (5, 8, 6)}, (8, 6)),
    Case("einsum-an-operand-twice", """(float[N,3] x) => (float y) {
        h = MatMul(x, w) g = Einsum<equation="bi,ij,bj->bi">(h, u, h) y = MatMul(g, v) }""",
         {"w": (3, 8), "u": (8, 8), "v": (8, 5)}, (8,)),
    Case("einsum-newest", """(float[N,7,3] x) => (float y) {
        h = Einsum<equation="bti,io->bto">(x, w) a = Relu(h) y = Einsum<equation="bti,oi->bto">(a, v) }""",
         {"w": (3, 8), "v": (5, 8)}, (8,), opset=newest_opset()),
    *(Case(f"FusedGemm-{transposed}", f"""(float[N,3] x) => (float[N,5] y) <float[N,8] a> {{
        a = com.microsoft.FusedGemm<transB={transposed}, activation="Relu">(x, w, b) y = Gemm(a, v) }}""",
         {"w": (8, 3) if transposed else (3, 8), "b": (8,), "v": (8, 5)}, (8,)) for transposed in (0, 1)),
    *(Case(f"FusedMatMul-{a}{b}", f"""(float[N,6,7,3] x) => (float[N,6,7,5] y) <float[N,6,7,8] e, float[N,6,7,5] y> {{
        h = MatMul(x, w) {"t = Transpose<perm=[0,1,3,2]>(h)" if a else "t = Relu(h)"}
        e = com.microsoft.FusedMatMul<transA={a}, transB={b}, alpha=0.5>(t, u) y = MatMul(e, v) }}""",
         {"w": (3, 9), "u": (8, 9) if b else (9, 8), "v": (8, 5)}, (9, 8)) for a in (0, 1) for b in (0, 1)),
    Case("FusedMatMul-scores", """(float[N,7,3] x) => (float[N,7,5] y) <float[N,7,7] s> {
        q = MatMul(x, wq) k = MatMul(x, wk) s = com.microsoft.FusedMatMul<transB=1>(q, k) p = Softmax(s)
        m = MatMul(x, wm) c = MatMul(p, m) y = MatMul(c, v) }""",
         {"wq": (3, 4), "wk": (3, 4), "wm": (3, 8), "v": (8, 5)}, (4, 8)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_case(case: Case, batch: str | int) -> None:
    assert_holds(case, batch)


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


@pytest.mark.parametrize("equation", ["bii,io->bo", "bti,io->btoo", "bt,io->bto"])
def test_equations_that_say_something_else(equation: str) -> None:
    """A diagonal is kept; what does not fit is refused."""
    text = f"""(float[2,8,3] x) => (float[2,A,B] y) <float[2,8,8] h> {{
        h = MatMul(x, w) e = Einsum<equation="{equation}">(h, u) y = MatMul(e, v) }}"""
    proto = model(text, {"w": (3, 8), "u": (8, 6), "v": (6, 5)})
    assert not [g for g in analyze(load(proto)).groups if g.size == 8]


@pytest.mark.parametrize(
    ("equation", "ranks", "rank", "expected"),
    [
        ("ij,jk->ik", [2, 2], 2, ([["i", "j"], ["j", "k"]], ["i", "k"])),
        ("ba", [2], 2, ([["b", "a"]], ["a", "b"])),
        ("...i,i", [3, 1], 2, ([["2", "1", "i"], ["i"]], ["2", "1"])),
        ("i...,...j->...", [3, 2], 2, ([["i", "2", "1"], ["1", "j"]], ["2", "1"])),
        ("a...b->b...a", [2], 2, ([["a", "b"]], ["b", "a"])),
    ],
)
def test_subscripts(equation: str, ranks: list[int], rank: int, expected: object) -> None:
    assert subscripts(equation, ranks, rank) == expected


def test_a_weight_that_is_an_input_stays_declared_as_it_is() -> None:
    """u makes 8 channels of one group and its transpose makes 6 of another: where one group alone shrinks, u gets new
    values under a name of their own, and the old ones stay for the transpose."""
    text = """(float[N,3] x) => (float y) {
        g = MatMul(x, w) e = Relu(g) h = MatMul(e, u) a = Relu(h) ut = Transpose(u) f = MatMul(a, ut) d = Tanh(f)
        y = MatMul(d, v) }"""
    proto = as_inputs(model(text, {"w": (3, 6), "u": (6, 8), "v": (6, 5)}), ["u"])
    oracles_hold(proto)
    folds(proto)
