"""BatchNormalization, InstanceNormalization, GroupNormalization, LRN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from helpers import Case, assert_holds, attribute, constant, fold_by, given, keep_first, model, oracles_hold

from onnxfold.analysis.analyze import analyze
from onnxfold.model.model import load

BN = {"scale": (8,), "shift": (8,), "mean": (8,), "var": (8,)}
CONV = {"w": (8, 3, 3, 3), "v": (5, 8, 1, 1)}
TEXT = """(float[N,3,6,6] x) => (float y) {
    h = Conv(x, w) g = BatchNormalization(h, scale, shift, mean, var) a = Relu(g) y = Conv(a, v) }"""

WIDE = {"w": (16, 3, 3, 3), "v": (5, 16, 1, 1), "scale": (16,), "shift": (16,)}
EACH = {"gamma": (16, 1, 1), "beta": (16, 1, 1), "w": (16, 3, 3, 3), "v": (5, 16, 1, 1)}
G4 = "GroupNormalization<num_groups=4>(h, scale, shift)"
AFFINE = "m = Mul(b, gamma) g = Add(m, beta)"
ONES = {"ones": np.ones(4, np.float32), "zeros": np.zeros(4, np.float32)}
DEVIATION = """c = Sub(r, m0) q = Mul(c, c) m1 = ReduceMean<axes=[{axes}]>(q) e = Add(m1, eps) d = Sqrt(e)
    i = Div(c, d)"""
WRITTEN = "m0 = ReduceMean<axes=[{axes}]>(r) " + DEVIATION
GROUPED: dict[str, tuple[str, dict[str, Any]]] = {
    "operator": (f"g = {G4}", {"weights": WIDE, "opset": 21}),
    "operator-opset18": ("g = GroupNormalization<num_groups=4>(h, scale, shift)",
                         {"weights": {**WIDE, "scale": (4,), "shift": (4,)}, "opset": 18}),
    "instance": (
        f"r = Reshape(h, to) i = InstanceNormalization(r, ones, zeros) s = Shape(h) b = Reshape(i, s) {AFFINE}",
                 {"values": {"to": [0, 4, -1], **ONES}}),
    "instance-back-by-numbers": (
        f"r = Reshape(h, to) i = InstanceNormalization(r, ones, zeros) b = Reshape(i, back) {AFFINE}",
        {"values": {"to": [0, 4, 64], "back": [0, 16, 4, 4], **ONES}}),
    "layer-norm": (f"r = Reshape(h, to) i = LayerNormalization<axis=-1>(r, n) b = Reshape(i, back) {AFFINE}",
                   {"values": {"to": [0, 4, 64], "back": [0, 16, 4, 4], "n": np.ones(64, np.float32)}}),
    "written-out-flat": (f"r = Reshape(h, to) {WRITTEN.format(axes=-1)} b = Reshape(i, back) {AFFINE}",
                         {"values": {"to": [0, 4, -1], "back": [0, 16, 4, 4], "eps": 1e-5}}),
    "written-out": (f"r = Reshape(h, to) {WRITTEN.format(axes='2, 3, 4')} s = Shape(h) b = Reshape(i, s) {AFFINE}",
                    {"values": {"to": [0, 4, 4, 4, 4], "eps": 1e-5}}),
    "written-out-channels-last": (
        f"""t = Transpose<perm=[0,2,3,1]>(h) r = Reshape(t, to) {WRITTEN.format(axes='1, 2, 4')} s = Shape(t)
            k = Reshape(i, s) b = Transpose<perm=[0,3,1,2]>(k) {AFFINE}""",
        {"values": {"to": [0, 4, 4, 4, 4], "eps": 1e-5}}),
}  # fmt: skip
"""GroupNorm of 16 channels in 4 blocks, from h to g."""


def grouped(name: str, body: str, values: Mapping[str, Any] | None = None, opset: int = 17, **weights: Any) -> Case:
    """Whole blocks fold, like heads."""
    text = f"(float[N,3,6,6] x) => (float[N,5,4,4] y) {{ h = Conv(x, w) {body} f = Relu(g) y = Conv(f, v) }}"
    return Case(f"group-{name}", text, weights.get("weights", EACH), (4,), values or {}, opset=opset)


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
    Case("group-of-all-is-kept", """(float[N,3,6,6] x) => (float y) <float[N,8,4,4] g> {
        h = Conv(x, w) g = GroupNormalization<num_groups=1>(h, scale, shift) f = Conv(g, u) a = Relu(f)
        y = Conv(a, v) }""", {**CONV, "u": (8, 8, 1, 1), "scale": (8,), "shift": (8,)}, (8,), opset=21,
         refused=("GroupNormalization mixes this axis",)),
    *(grouped(name, body, **how) for name, (body, how) in GROUPED.items()),
    Case("group-of-a-residual", f"""(float[N,3,6,6] x) => (float[N,5,4,4] y) {{
        h = Conv(x, w) g = {G4} a = Relu(g) f = Conv(a, u) j = Add(f, h)
        k = GroupNormalization<num_groups=4>(j, scale, shift) d = Relu(k) y = Conv(d, v) }}""",
         {**WIDE, "u": (16, 16, 1, 1)}, (4,), opset=21),
    Case("group-across-a-concat", """(float[N,3,6,6] x) => (float[N,5,4,4] y) {
        h = Conv(x, w) f = Conv(x, u) e = Concat<axis=1>(h, f) g = GroupNormalization<num_groups=12>(e, scale, shift)
        a = Relu(g) y = Conv(a, v) }""",
         {"w": (16, 3, 3, 3), "u": (8, 3, 3, 3), "v": (5, 24, 1, 1), "scale": (24,), "shift": (24,)}, (8, 4), opset=21),
    Case("group-over-two-sizes", f"""(float[N,3,6,6] x) => (float[N,5,4,4] y) {{
        h = Conv(x, w) g = {G4} k = GroupNormalization<num_groups=8>(g, scale, shift) a = Relu(k) y = Conv(a, v) }}""",
         WIDE, (4,), opset=21),
    Case("what-lies-inside-blocks", """(float[N,3,6,6] x) => (float y) {
        h = Conv(x, w) r = Reshape(h, to) i = Softmax<axis=1>(r) b = Reshape(i, back) f = Conv(b, u)
        a = Relu(f) y = Conv(a, v) }""", {"w": (24, 3, 3, 3), "u": (6, 24, 1, 1), "v": (5, 6, 1, 1)}, (6, 6),
         {"to": [0, 4, -1], "back": [0, 24, 4, 4]}),
    Case("blocks-that-cross-channels", """(float[N,3,6,6] x) => (float y) {
        h = Conv(x, w) r = Reshape(h, to) i = InstanceNormalization(r, ones, zeros) b = Reshape(i, back) f = Conv(b, u)
        a = Relu(f) y = Conv(a, v) }""", {"w": (24, 3, 3, 3), "u": (6, 24, 1, 1), "v": (5, 6, 1, 1)}, (6,),
         {"to": [0, 16, -1], "back": [0, 24, 4, 4], "ones": np.ones(16, np.float32), "zeros": np.zeros(16, np.float32)},
         ("Reshape mixes this axis",)),
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


def test_a_group_norm_says_how_many_blocks_are_left() -> None:
    """Also where a Reshape says it, and what it is per block is cut too."""
    operator, reshaped = (next(case for case in CASES if case.name == f"group-{n}") for n in ("operator", "instance"))
    labels = {"Conv#0": [0, 1, 0, 2]}
    after = fold_by(labels, operator.model())
    assert (attribute(after, "GroupNormalization", "num_groups"), len(constant(after, "scale"))) == (3, 12)
    after = fold_by(labels, reshaped.model())
    assert (given(after, "Reshape", 1), len(constant(after, "ones")), constant(after, "gamma").shape) == (
        [0, 3, -1], 3, (12, 1, 1)
    )  # fmt: skip


@pytest.mark.parametrize("sides", ["H,W", "6,W"])
def test_group_norm_by_reshape_of_images_of_any_size(sides: str) -> None:
    case = next(case for case in CASES if case.name == "group-instance")
    proto = model(case.text.replace("6,6", sides), case.weights, case.values)
    oracles_hold(proto, {"x": (2, 3, 6, 9)}, groups=[4])


TURNED = "t = Transpose<perm=[0,2,3,1]>(h) k = {} g = Transpose<perm=[0,3,1,2]>(k)"
GROUP_NORM = "com.microsoft.GroupNorm<groups=4, channels_last={last}>({x}, scale, shift)"
SKIPPING = {**WIDE, "u": (16, 3, 3, 3), "bias": (16,)}
TWIN = grouped("twin", f"g = {G4}", weights=WIDE, opset=21)
ELSEWHERE = [
    (grouped("microsoft", f"g = {GROUP_NORM.format(last=0, x='h')}", weights=WIDE), TWIN),
    (grouped("channels-last", TURNED.format(GROUP_NORM.format(last=1, x="t")), weights=WIDE), TWIN),
    (grouped("skip", """f1 = Conv(x, u)
        k, s = com.microsoft.SkipGroupNorm<groups=4, channels_last=0>(h, scale, shift, f1, bias) g = Add(k, s)""",
             weights=SKIPPING),
     grouped("skip-twin", """f1 = Conv(x, u) s0 = Add(h, f1) c1 = Unsqueeze(bias, ones) s = Add(s0, c1)
        k = GroupNormalization<num_groups=4>(s, scale, shift) g = Add(k, s)""", {"ones": [1, 2]},
             weights=SKIPPING, opset=21)),
]  # fmt: skip


@pytest.mark.parametrize("pair", ELSEWHERE, ids=lambda pair: pair[0].name)
def test_what_only_other_providers_run_folds_as_its_twin(pair: tuple[Case, Case]) -> None:
    fused, plain = (case.model() for case in pair)
    folded, expected = (fold_by({"Conv#0": [0, 1, 0, 2]}, proto) for proto in (fused, plain))
    assert [group.size for group in analyze(load(folded)).groups] == [3]
    for name in pair[0].weights:
        np.testing.assert_array_equal(constant(folded, name), constant(expected, name))
