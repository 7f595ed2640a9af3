"""BatchNormalization, InstanceNormalization, GroupNormalization, LRN."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import Case, assert_holds, constant, keep_first, model, oracles_hold

from onnxfold.analysis.analyze import analyze
from onnxfold.model.model import load

BN = {"scale": (8,), "shift": (8,), "mean": (8,), "var": (8,)}
CONV = {"w": (8, 3, 3, 3), "v": (5, 8, 1, 1)}
TEXT = """(float[N,3,6,6] x) => (float y) {
    h = Conv(x, w) g = BatchNormalization(h, scale, shift, mean, var) a = Relu(g) y = Conv(a, v) }"""

CASES = [
    *(Case(f"batch-opset{v}", TEXT, {**CONV, **BN}, (8,), opset=v) for v in (7, 9, 14, 15)),
    Case("batch-first", """(float[N,3,6,6] x) => (float y) {
        n = BatchNormalization(x, s3, b3, m3, var3) h = Conv(n, w) a = Relu(h) y = Conv(a, v) }""",
         {**CONV, "s3": (3,), "b3": (3,), "m3": (3,), "var3": (3,)}, (8,)),
    Case("batch-2d", """(float[N,3] x) => (float y) {
        h = Gemm(x, w, b) g = BatchNormalization(h, scale, shift, mean, var) a = Relu(g) y = Gemm(a, v) }""",
         {"w": (3, 8), "b": (8,), "v": (8, 5), **BN}, (8,)),
    Case("batch-3d", """(float[N,3,9] x) => (float y) {
        h = Conv(x, w) g = BatchNormalization(h, scale, shift, mean, var) a = Relu(g) y = Conv(a, v) }""",
         {"w": (8, 3, 3), "v": (5, 8, 3), **BN}, (8,)),
    Case("batch-of-a-concat", """(float[N,3,6,6] x) => (float y) {
        h = Conv(x, w) f = Conv(x, u) e = Concat<axis=1>(h, f)
        g = BatchNormalization(e, scale, shift, mean, var) a = Relu(g) y = Conv(a, v) }""",
         {"w": (8, 3, 3, 3), "u": (6, 3, 3, 3), "v": (5, 14, 1, 1), "scale": (14,), "shift": (14,), "mean": (14,),
          "var": (14,)}, (8, 6)),
    Case("batch-parameters-shared", """(float[N,3,6,6] x) => (float y) {
        h = Conv(x, w) g = BatchNormalization(h, scale, shift, mean, var) a = Relu(g)
        f = Conv(a, u) e = BatchNormalization(f, scale, shift, mean, var) d = Relu(e) y = Conv(d, v) }""",
         {"w": (8, 3, 3, 3), "u": (8, 8, 1, 1), "v": (5, 8, 1, 1), **BN}, (8,)),
    Case("batch-one-array-for-two-parameters", """(float[N,3,6,6] x) => (float y) {
        h = Conv(x, w) g = BatchNormalization(h, scale, mean, mean, scale) a = Relu(g) y = Conv(a, v) }""",
         {**CONV, "scale": (8,), "mean": (8,)}, (8,)),
    Case("batch-training-is-kept", """(float[N,3,6,6] x) => (float y) {
        h = Conv(x, w) g, m, s = BatchNormalization<training_mode=1>(h, scale, shift, mean, var)
        f = Conv(g, u) a = Relu(f) y = Conv(a, v) }""",
         {"w": (8, 3, 3, 3), "u": (8, 8, 1, 1), "v": (5, 8, 1, 1), **BN}, (8,), opset=15,
         refused=("BatchNormalization is in training mode",)),
    Case("instance", """(float[N,3,6,6] x) => (float y) {
        h = Conv(x, w) g = InstanceNormalization(h, scale, shift) a = Relu(g) y = Conv(a, v) }""",
         {**CONV, "scale": (8,), "shift": (8,)}, (8,)),
    Case("instance-opset7", """(float[N,3,6,6] x) => (float y) {
        h = Conv(x, w) g = InstanceNormalization(h, scale, shift) a = Relu(g) y = Conv(a, v) }""",
         {**CONV, "scale": (8,), "shift": (8,)}, (8,), opset=7),
    Case("group-of-one-channel", """(float[N,3,6,6] x) => (float y) <float[N,8,4,4] g> {
        h = Conv(x, w) g = GroupNormalization<num_groups=8>(h, scale, shift) a = Relu(g) y = Conv(a, v) }""",
         {**CONV, "scale": (8,), "shift": (8,)}, (8,), opset=21),
    Case("group-is-kept", """(float[N,3,6,6] x) => (float y) <float[N,8,4,4] g> {
        h = Conv(x, w) g = GroupNormalization<num_groups=2>(h, scale, shift) f = Conv(g, u) a = Relu(f)
        y = Conv(a, v) }""", {**CONV, "u": (8, 8, 1, 1), "scale": (8,), "shift": (8,)}, (8,), opset=21,
         refused=("GroupNormalization mixes this axis",)),
    Case("LRN-of-channels", """(float[N,3,6,6] x) => (float y) {
        h = Conv(x, w) g = LRN<size=3, alpha=0.5>(h) f = Conv(g, u) a = Relu(f) y = Conv(a, v) }""",
         {**CONV, "u": (8, 8, 1, 1)}, (8,), refused=("LRN mixes this axis",)),
    Case("LRN-beside-channels", """(float[N,3,6,6] x) => (float y) {
        h = Conv(x, w) t = Transpose<perm=[0,2,3,1]>(h) g = LRN<size=3, alpha=0.5>(t) s = Transpose<perm=[0,3,1,2]>(g)
        y = Conv(s, v) }""", CONV, (8,)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_case(case: Case, batch: str | int) -> None:
    assert_holds(case, batch)


def test_normalization_with_a_parameter_per_position_is_kept() -> None:
    text = """(float[N,3,6,6] x) => (float y) {
        h = Conv(x, w) g = BatchNormalization<spatial=0>(h, scale, shift, mean, var) a = Relu(g) y = Conv(a, v) }"""
    sizes = dict.fromkeys(("scale", "shift", "mean", "var"), (8, 4, 4))
    found = analyze(load(model(text, {**CONV, **sizes}, opset=7)))
    assert not found.groups
    assert "BatchNormalization normalizes every position by itself (spatial=0)" in [r.kind for r in found.refusals]


def test_parameters_are_named_for_recovery() -> None:
    found = analyze(load(model(TEXT.replace("Normalization(", "Normalization<epsilon=0.01>("), {**CONV, **BN})))
    (norm,) = found.norms
    assert (norm.scale, norm.bias, norm.mean, norm.var) == ("scale", "shift", "mean", "var")
    assert norm.epsilon == pytest.approx(0.01)
    assert len(norm.axis) == 8


def test_parameters_from_outside_are_no_parameters() -> None:
    """A scale that the caller gives at run time is a graph input: its channels are kept."""
    text = TEXT.replace("x) =>", "x, float[8] scale) =>")
    weights = {**CONV, **BN}
    del weights["scale"]
    found = oracles_hold(model(text, weights), groups=[])
    assert not found.norms
    assert "a graph input" in [r.kind for r in found.refusals]


def test_all_parameters_are_cut_alike() -> None:
    before = model(TEXT, {**CONV, **BN})
    after = keep_first(5, before)
    for name in BN:
        np.testing.assert_array_equal(constant(after, name), constant(before, name)[:5])
