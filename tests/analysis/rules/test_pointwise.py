"""Operators that act on every element alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import Case, assert_holds, constant, fold_by, model, newest_opset, oracles_hold
from onnx import numpy_helper
from onnx.defs import onnx_opset_version
from onnx.reference import ReferenceEvaluator

from onnxfold.analysis.analyze import analyze
from onnxfold.model.model import load

CONV = {"w": (8, 3, 3, 3), "b": (8,), "v": (5, 8, 1, 1)}


def between(name: str, body: str, opset: int = 17, groups: tuple[int, ...] = (8,), **more: Any) -> Case:
    """A Conv of 8 channels, `body` from h to a, and a Conv that reads them."""
    text = f"(float[N,3,6,6] x) => (float y) {{ h = Conv(x, w, b) {body} y = Conv(a, v) }}"
    weights = {**CONV, **more.pop("weights", {})}
    return Case(name, text, weights, groups, opset=opset, **more)


PLAIN = (
    "Abs", "Asinh", "Atan", "Celu", "Cos", "Cosh", "Elu", "Erf", "Exp", "HardSigmoid", "HardSwish", "Identity",
    "LeakyRelu", "Neg", "Relu", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Tanh",
    "ThresholdedRelu", "Dropout", "Ceil", "Floor", "Round", "Clip",
)  # fmt: skip
WITHIN_0_1 = ("Acos", "Asin", "Atanh", "Log", "Reciprocal", "Sqrt", "Tan")
NEW = (("Mish", 18), ("Gelu", 20), ("Swish", 24))
MICROSOFT = ("Gelu", "FastGelu", "QuickGelu")
TWO = ("Add", "Div", "Max", "Mean", "Min", "Mul", "Sub", "Sum")
COMPARE = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
LOGIC = ("And", "Or", "Xor")
BITS = ("BitwiseAnd", "BitwiseOr", "BitwiseXor")

CASES = [
    *(between(op, f"g = Mul(h, four) a = {op}(g)", values={"four": 4.0}) for op in PLAIN),
    *(between(op, f"g = Sigmoid(h) a = {op}(g)") for op in WITHIN_0_1),
    *(between(op, f"a = {op}(h)", opset) for op, opset in NEW if opset <= newest_opset()),
    *(Case(f"{op}-microsoft", f"""(float[N,3,6,6] x) => (float[N,5,4,4] y) <float[N,8,4,4] a> {{
        h = Conv(x, w, b) a = com.microsoft.{op}(h) y = Conv(a, v) }}""", CONV, (8,)) for op in MICROSOFT),
    Case("BiasGelu-microsoft", """(float[N,7,3] x) => (float[N,7,5] y) <float[N,7,8] a> {
        h = MatMul(x, w) a = com.microsoft.BiasGelu(h, b) y = MatMul(a, v) }""",
        {"w": (3, 8), "b": (8,), "v": (8, 5)}, (8,)),
    between("Acosh", "g = Exp(h) f = Add(g, one) a = Acosh(f)", values={"one": 1.0}),
    between("Cast", "g = Mul(h, four) f = Cast<to=7>(g) a = Cast<to=1>(f)", values={"four": 4.0}),
    between("CastLike", "g = Mul(h, four) f = CastLike(g, like) a = Cast<to=1>(f)", values={"four": 4.0, "like": 1}),
    between("CastLike-h", "g = Neg(h) a = CastLike(h, g)"),
    between("IsNaN", "g = Sqrt(h) f = IsNaN(g) a = Cast<to=1>(f)"),
    between("IsInf", "g = Relu(h) f = Log(g) e = IsInf(f) a = Cast<to=1>(e)"),
    between("Not", "g = Greater(h, zero) f = Not(g) a = Cast<to=1>(f)", values={"zero": 0.0}),
    between("BitwiseNot", "g = Mul(h, four) f = Cast<to=6>(g) e = BitwiseNot(f) a = Cast<to=1>(e)", 18,
            values={"four": 4.0}),
    *(between(f"{op}-weight", f"a = {op}(h, c)", weights={"c": (8, 1, 1)}) for op in TWO),
    *(between(f"{op}-scalar", f"a = {op}(c, h)", weights={"c": (1,)}) for op in TWO),
    *(between(f"{op}-branch", f"g = Conv(x, w2) a = {op}(h, g)", weights={"w2": (8, 3, 3, 3)}) for op in TWO),
    between("Mod", "a = Mod<fmod=1>(h, scale)", weights={"scale": (1, 8, 1, 1)}),
    between("Pow", "g = Abs(h) a = Pow(g, scale)", weights={"scale": (8, 1, 1)}),
    *(between(op, f"g = {op}(h, c) a = Cast<to=1>(g)", weights={"c": (8, 1, 1)}) for op in COMPARE if op != "Equal"),
    between("Equal", "g = Sign(h) f = Equal(g, one) a = Cast<to=1>(f)", values={"one": 1.0}),
    *(between(op, f"g = Less(h, c) f = Greater(h, d) e = {op}(g, f) a = Cast<to=1>(e)",
              weights={"c": (8, 1, 1), "d": (1, 8, 1, 1)}) for op in LOGIC),
    *(between(op, f"k = Mul(h, four) g = Cast<to=6>(k) f = Cast<to=6>(h) e = {op}(g, f) a = Cast<to=1>(e)", 18,
              values={"four": 4.0}) for op in BITS),
    between("Where", "g = Less(h, c) a = Where(g, h, d)", weights={"c": (8, 1, 1), "d": (1, 8, 1, 1)}),
    between("PRelu-channels", "a = PRelu(h, s)", weights={"s": (8, 1, 1)}),
    between("PRelu-one", "a = PRelu(h, s)", weights={"s": (1,)}),
    between("PRelu-opset7", "a = PRelu(h, s)", 7, weights={"s": (8, 1, 1)}),
    between("Sum-three", "g = Conv(x, w2) f = Conv(x, w3) a = Sum(h, g, f)",
            weights={"w2": (8, 3, 3, 3), "w3": (8, 3, 3, 3)}),
    between("Clip-bounds", "a = Clip(h, low, high)", values={"low": -0.5, "high": 0.5}),
    between("Clip-no-lower-bound", "a = Clip(h, , high)", values={"high": 0.5}),
    *(between(f"Clip-attributes-opset{v}", "a = Clip<min=-0.5, max=0.5>(h)", v) for v in (7, 9, 10)),
    *(between(f"Dropout-ratio-opset{v}", "a = Dropout<ratio=0.3>(h)", v) for v in (7, 11)),
    between("Dropout-mask", "g, m = Dropout(h, r) f = Cast<to=1>(m) a = Mul(g, f)", values={"r": 0.3}),
    between("Dropout-idle-mask-opset9", "a, m = Dropout<ratio=0.3>(h)", 9),
    between("residual", "g = Relu(h) f = Conv(g, u) a = Add(h, f)", weights={"u": (8, 8, 1, 1)}),
    between("residual-inner", "g = Conv(h, u) f = Relu(g) e = Conv(f, t) a = Add(h, e)", groups=(8, 6),
            weights={"u": (6, 8, 1, 1), "t": (8, 6, 1, 1)}),
    between("squeeze-excite",
            "p = GlobalAveragePool(h) q = Conv(p, s1) r = Relu(q) s = Conv(r, s2) t = Sigmoid(s) a = Mul(h, t)",
            groups=(8, 4), weights={"s1": (4, 8, 1, 1), "s2": (8, 4, 1, 1)}),
    between("size-one-channel", "g = Conv(h, s1) f = Sigmoid(g) a = Mul(h, f)", weights={"s1": (1, 8, 1, 1)}),
    between("weight-over-space", "a = Mul(c, h)", refused=("Conv mixes this axis",), weights={"c": (8, 4, 4)}),
    between("same-tensor-twice", "a = Mul(h, h)"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_case(case: Case) -> None:
    assert_holds(case, "N")


@pytest.mark.parametrize("case", [c for c in CASES if c.name not in (*PLAIN[1:], *WITHIN_0_1, *LOGIC, *BITS)], ids=str)
def test_case_with_a_static_batch(case: Case) -> None:
    """Of the families that differ in one word, one each."""
    assert_holds(case, 2)


def gated(name: str, gate: str, plain: str, opset: int = 17, **weights: tuple[int, ...]) -> tuple[Case, Case]:
    """A gated MLP with one of the operators that only other providers run, and the same written out."""
    one, other = (
        Case(name, f"(float[N,3,6] x) => (float[N,3,5] y) {{ {body} y = MatMul(a, v) }}", weights, (8,), opset=opset)
        for body in (gate, plain)
    )
    return one, other


ONE, TWO_SIDES = {"w": (6, 16), "v": (8, 5)}, {"w": (6, 8), "u": (6, 8), "v": (8, 5)}
SIDES = "h = MatMul(x, w) k = MatMul(x, u)"
GATED = "s = Sigmoid(h) t = Mul(h, s) a = Mul(t, k)"
HALVES = "g = MatMul(x, w) h, k = Split<axis=2>(g, parts)"
ELSEWHERE = [
    *(gated("SwiGLU", f"{SIDES} a = SwiGLU(h, k)", f"{SIDES} {GATED}", 28, **TWO_SIDES)
      for _ in range(onnx_opset_version() >= 28)),
    gated("SwiGLU-microsoft", f"{SIDES} a = com.microsoft.SwiGLU(h, k)", f"{SIDES} {GATED}", **TWO_SIDES),
    gated("SwiGLU-of-halves", "g = MatMul(x, w) a = com.microsoft.SwiGLU(g)",
          f"g = MatMul(x, w) h, k = Split<axis=2>(g) {GATED}", 11, **ONE),
    gated("BiasSplitGelu", "g = MatMul(x, w) a = com.microsoft.BiasSplitGelu(g, b)",
          f"f = MatMul(x, w) g = Add(f, b) h, k = Split<axis=2>(g) {GATED}", 11, b=(16,), **ONE),
]  # fmt: skip


@pytest.mark.parametrize("pair", ELSEWHERE, ids=lambda pair: pair[0].name)
def test_what_only_other_providers_run_folds_as_if_it_were_written_out(pair: tuple[Case, Case]) -> None:
    fused, plain = (case.model() for case in pair)
    oracles_hold(plain, groups=[8])
    labels = {"MatMul#0": [0, 1, 2, 3, 0, 1, 2, 4]}
    folded, expected = fold_by(labels, fused), fold_by(labels, plain)
    assert [g.size for g in analyze(load(folded)).groups] == [5]
    for name in pair[0].weights:
        np.testing.assert_array_equal(constant(folded, name), constant(expected, name))


@pytest.mark.skipif(onnx_opset_version() < 28, reason="onnx has SwiGLU since opset 28")
def test_swiglu() -> None:
    """onnxruntime runs it on no CPU yet: onnx's own evaluator does."""
    text = f"(float[N,3,6] x) => (float[N,3,5] y) {{ {SIDES} a = SwiGLU<alpha=1.5>(h, k) y = MatMul(a, v) }}"
    before = model(text, TWO_SIDES, opset=28, ir_version=10)
    columns = np.repeat(constant(before, "w")[:, :4], 2, axis=1), np.repeat(constant(before, "u")[:, :4], 2, axis=1)
    for name, value in zip("wu", columns, strict=True):
        next(t for t in before.graph.initializer if t.name == name).CopyFrom(numpy_helper.from_array(value, name))
    after = fold_by({"MatMul#0": [0, 0, 1, 1, 2, 2, 3, 3]}, before)
    assert constant(after, "v").shape == (4, 5)
    x = {"x": np.random.default_rng(0).standard_normal((2, 3, 6)).astype(np.float32)}
    (expected,), (found,) = (ReferenceEvaluator(proto).run(None, x) for proto in (before, after))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_before_opset_7_broadcasting_was_not_numpys() -> None:
    text = "(float[2,3,6,6] x) => (float y) { h = Conv(x, w) a = Add<broadcast=1, axis=1>(h, c) y = Conv(a, v) }"
    found = oracles_hold(model(text, {"w": (8, 3, 3, 3), "c": (8,), "v": (5, 8, 1, 1)}, opset=6), groups=[])
    assert [r.kind for r in found.refusals] == ["no rule for Add", "a graph output"]


def test_integer_weights_are_kept() -> None:
    text = """(float[N,3,6,6] x) => (float y) {
        h = Conv(x, w) g = Cast<to=7>(h) f = Mul(g, c) e = Cast<to=1>(f) y = Conv(e, v) }"""
    weights = {"w": (8, 3, 3, 3), "v": (5, 8, 1, 1)}
    found = oracles_hold(model(text, weights, {"c": [[[i]] for i in range(8)]}), groups=[])
    assert "a constant that is not floating point" in [r.kind for r in found.refusals]
