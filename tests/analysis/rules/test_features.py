"""Preparation of features: samples pass, and features where every one is treated alike."""

from __future__ import annotations

import pytest
from helpers import Case, assert_holds

WEIGHTS = {"w": (6, 8), "u": (8, 8), "v": (8, 5)}
SCALES = "offset=[0.5, 0.1, 0.2, 0.3, 0.4, 0.6], scale=[2.0, 0.5, 1.0, 3.0, 0.7, 1.5]"


def first(op: str, groups: tuple[int, ...] = (8,)) -> Case:
    """The operator in front of a network, as exporters of scikit-learn pipelines write it."""
    body = f"p = ai.onnx.ml.{op}(x) h = MatMul(p, w) a = Relu(h) y = MatMul(a, v)"
    return Case(
        f"first-{op.partition('<')[0]}", f"(float[N,6] x) => (float[N,5] y) {{ {body} }}", WEIGHTS, groups, opset=15
    )


def inside(name: str, op: str, groups: tuple[int, ...], refused: tuple[str, ...] = ()) -> Case:
    """The operator between two layers."""
    body = f"h = MatMul(x, w) p = ai.onnx.ml.{op}(h) a = MatMul(p, u) b = Relu(a) y = MatMul(b, v)"
    return Case(
        f"inside-{name}", f"(float[N,6] x) => (float[N,5] y) {{ {body} }}", WEIGHTS, groups, opset=15, refused=refused
    )


EIGHT = ", ".join(f"{0.5 + i / 8}" for i in range(8))
CASES = [
    first(f"Scaler<{SCALES}>"),
    first('Normalizer<norm="L2">'),
    first("Imputer<imputed_value_floats=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6], replaced_value_float=0.0>"),
    first("Binarizer<threshold=0.5>"),
    first("FeatureVectorizer<inputdimensions=[6]>"),
    inside("one-scale", "Scaler<offset=[0.5], scale=[2.0]>", (8, 8)),
    inside("a-scale-each", f"Scaler<offset=[{EIGHT}], scale=[{EIGHT}]>", (8,), ("ai.onnx.ml.Scaler mixes this axis",)),
    inside("normalized", 'Normalizer<norm="L1">', (8,), ("ai.onnx.ml.Normalizer mixes this axis",)),
    Case("two-inputs", """(float[N,6] x, float[N,2] z) => (float[N,5] y) {
        p = ai.onnx.ml.FeatureVectorizer<inputdimensions=[6, 2]>(x, z) a = MatMul(p, u) b = Relu(a)
        y = MatMul(b, v) }""",
         {"u": (8, 8), "v": (8, 5)}, (8,), opset=15),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_case(case: Case) -> None:
    assert_holds(case, "N")
