"""Convolutions of every kind."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from helpers import (
    Case,
    as_constant_nodes,
    as_inputs,
    assert_holds,
    attribute,
    by_name,
    constant,
    folds,
    keep_first,
    model,
    newest_opset,
    oracles_hold,
    runs,
)

from onnxfold.analysis.analyze import analyze
from onnxfold.model.model import load

SHUFFLE = """g = Reshape(f, split) e = Transpose<perm=[0,2,1,3,4]>(g) d = Reshape(e, join)"""
SHUFFLE_INTS = {"split": [0, 2, 8, 6, 6], "join": [0, 16, 6, 6]}

DEFORMED = "(float[N,3,6,6] x, float[N,OFFSETS,4,4] o) => (float y) { h = Conv(x, w0)"
YOUNG = [
    Case("deform", DEFORMED.replace("OFFSETS", "18") + """ d = DeformConv<kernel_shape=[3,3]>(h, w, o, b) a = Relu(d)
        y = Conv(a, v) }""", {"w0": (8, 3, 1, 1), "w": (12, 8, 3, 3), "b": (12,), "v": (5, 12, 1, 1)}, (8, 12),
         opset=19),
    *(Case("causal-opset27", """(float[N,3,9] x) => (float[N,5,9] y) { h = Conv(x, w0)
        o, s = CausalConvWithState<activation="silu">(h, w, b) y = Conv(o, v) }""",
           {"w0": (8, 3, 1), "w": (8, 1, 3), "b": (8,), "v": (5, 8, 1)}, (8,), opset=27)
      for _ in range(newest_opset() >= 27)),
    Case("deform-offset-groups", DEFORMED.replace("OFFSETS", "36").replace("o)", "o, float[N,18,4,4] m)")
         + """ d = DeformConv<kernel_shape=[3,3], offset_group=2>(h, w, o, , m) a = Relu(d) y = Conv(a, v) }""",
         {"w0": (8, 3, 1, 1), "w": (12, 8, 3, 3), "v": (5, 12, 1, 1)}, (8, 12), opset=19),
    Case("causal-with-state", """(float[N,3,9] x) => (float[N,5,9] y) { h = Conv(x, w0)
        o, s = com.microsoft.CausalConvWithState<activation="silu">(h, w, b) y = Conv(o, v) }""",
         {"w0": (8, 3, 1), "w": (8, 1, 3), "b": (8,), "v": (5, 8, 1)}, (8,)),
    Case("causal-with-state-handed-in", """(float[N,3,9] x, float[N,8,2] past) => (float[N,5,9] y, float[N,8,2] s) {
        h = Conv(x, w0) o, s = com.microsoft.CausalConvWithState(h, w, b, past) a = Relu(o) y = Conv(a, v) }""",
         {"w0": (8, 3, 1), "w": (8, 1, 3), "b": (8,), "v": (5, 8, 1)}, ()),
]  # fmt: skip
"""Operators that not every version of onnxruntime has on a CPU."""


CASES = [
    *(case for case in YOUNG if runs(case)),
    Case("grouped-of-a-concat", """(float[N,3,6,6] x) => (float y) { a = Conv(x, w) b = Conv(x, u)
        c = Concat<axis=1>(a, b) r = Relu(c) g = Conv<group=2>(r, k) t = Relu(g) y = Conv(t, v) }""",
         {"w": (8, 3, 3, 3), "u": (8, 3, 3, 3), "k": (6, 8, 1, 1), "v": (5, 6, 1, 1)}, (8, 6)),
    Case("grouped-of-an-uneven-concat", """(float[N,3,6,6] x) => (float y) { a = Conv(x, w) b = Conv(x, u)
        c = Concat<axis=1>(a, b) r = Relu(c) g = Conv<group=2>(r, k) t = Relu(g) y = Conv(t, v) }""",
         {"w": (9, 3, 3, 3), "u": (7, 3, 3, 3), "k": (6, 8, 1, 1), "v": (5, 6, 1, 1)}, (7, 6)),
    Case("plain", """(float[N,3,6,6] x) => (float y) {
        h = Conv<pads=[1,1,1,1]>(x, w, b) a = Relu(h) y = Conv<strides=[2,2]>(a, v, c) }""",
        {"w": (8, 3, 3, 3), "b": (8,), "v": (5, 8, 3, 3), "c": (5,)}, (8,)),
    Case("no-bias", "(float[N,3,6,6] x) => (float y) { h = Conv(x, w) a = Relu(h) y = Conv(a, v) }",
        {"w": (8, 3, 3, 3), "v": (5, 8, 3, 3)}, (8,)),
    Case("one-dimensional", "(float[N,3,16] x) => (float y) { h = Conv(x, w, b) a = Relu(h) y = Conv(a, v) }",
        {"w": (8, 3, 3), "b": (8,), "v": (5, 8, 3)}, (8,)),
    Case("three-dimensional", "(float[N,3,5,5,5] x) => (float y) { h = Conv(x, w, b) a = Relu(h) y = Conv(a, v) }",
        {"w": (8, 3, 3, 3, 3), "b": (8,), "v": (5, 8, 3, 3, 3)}, (8,)),
    Case("open-image-size", "(float[N,3,H,W] x) => (float y) { h = Conv(x, w, b) a = Relu(h) y = Conv(a, v) }",
        {"w": (8, 3, 3, 3), "b": (8,), "v": (5, 8, 3, 3)}, (8,)),
    Case("chain", """(float[N,3,8,8] x) => (float y) {
        h = Conv(x, w) a = Relu(h) g = Conv(a, u, b) e = Relu(g) y = Conv(e, v) }""",
        {"w": (8, 3, 3, 3), "u": (6, 8, 3, 3), "b": (6,), "v": (5, 6, 1, 1)}, (8, 6)),
    Case("depthwise", """(float[N,3,6,6] x) => (float y) {
        h = Conv(x, w, b) a = Relu(h) g = Conv<group=8>(a, d, c) e = Relu(g) y = Conv(e, v) }""",
        {"w": (8, 3, 3, 3), "b": (8,), "d": (8, 1, 3, 3), "c": (8,), "v": (5, 8, 1, 1)}, (8,)),
    Case("depthwise-multiplier-2", """(float[N,3,6,6] x) => (float y) {
        h = Conv(x, w, b) a = Relu(h) g = Conv<group=8>(a, d, c) e = Relu(g) y = Conv(e, v) }""",
        {"w": (8, 3, 3, 3), "b": (8,), "d": (16, 1, 3, 3), "c": (16,), "v": (5, 16, 1, 1)}, (8,)),
    Case("depthwise-residual", """(float[N,3,6,6] x) => (float y) {
        h = Conv(x, w) g = Conv<group=8, pads=[1,1,1,1]>(h, d) e = Add(g, h) y = Conv(e, v) }""",
        {"w": (8, 3, 3, 3), "d": (8, 1, 3, 3), "v": (5, 8, 1, 1)}, (8,)),
    *(Case(f"grouped-{g}", f"""(float[N,3,6,6] x) => (float y) {{
        h = Conv(x, w, b) a = Relu(h) g = Conv<group={g}>(a, u, c) e = Relu(g) y = Conv(e, v) }}""",
        {"w": (8, 3, 3, 3), "b": (8,), "u": (12, 8 // g, 3, 3), "c": (12,), "v": (5, 12, 1, 1)}, (8, 12))
      for g in (2, 4)),
    Case("grouped-input-is-the-graphs", """(float[N,4,6,6] x) => (float y) {
        h = Conv<group=2>(x, w) a = Relu(h) y = Conv(a, v) }""",
        {"w": (8, 2, 3, 3), "v": (5, 8, 1, 1)}, (8,)),
    Case("grouped-chain", """(float[N,3,6,6] x) => (float y) {
        h = Conv(x, w) a = Relu(h) g = Conv<group=2>(a, u) e = Relu(g) f = Conv<group=4>(e, t) d = Relu(f)
        y = Conv(d, v) }""",
        {"w": (8, 3, 3, 3), "u": (16, 4, 1, 1), "t": (8, 4, 3, 3), "v": (5, 8, 1, 1)}, (8, 16, 8)),
    Case("grouped-residual", """(float[N,3,6,6] x) => (float y) {
        h = Conv(x, w) g = Conv<group=2>(h, u) e = Add(g, h) y = Conv(e, v) }""",
        {"w": (8, 3, 3, 3), "u": (8, 4, 1, 1), "v": (5, 8, 1, 1)}, (8,)),
    Case("grouped-depthwise-grouped", """(float[N,3,6,6] x) => (float y) {
        h = Conv(x, w) g = Conv<group=2>(h, u) f = Conv<group=16>(g, d) e = Relu(f) c = Conv<group=2>(e, t)
        y = Conv(c, v) }""",
        {"w": (8, 3, 3, 3), "u": (16, 4, 1, 1), "d": (16, 1, 3, 3), "t": (8, 8, 1, 1), "v": (5, 8, 1, 1)},
        (8, 16, 8)),
    Case("channel-shuffle", f"""(float[N,3,8,8] x) => (float y) {{
        h = Conv(x, w) c = Conv<group=2>(h, u) f = Relu(c) {SHUFFLE} b = Conv<group=2>(d, t) y = Conv(b, v) }}""",
        {"w": (8, 3, 3, 3), "u": (16, 4, 1, 1), "t": (8, 8, 1, 1), "v": (5, 8, 1, 1)}, (8, 8, 8), SHUFFLE_INTS),
    Case("shared-weight", """(float[N,3,8,8] x) => (float y) {
        h = Conv(x, w) a = Relu(h) g = Conv<pads=[1,1,1,1]>(a, u) e = Relu(g) f = Conv<pads=[1,1,1,1]>(e, u)
        d = Relu(f) y = Conv(d, v) }""",
        {"w": (8, 3, 3, 3), "u": (8, 8, 3, 3), "v": (5, 8, 1, 1)}, (8,)),
    Case("shared-head", """(float[N,3,8,8] x) => (float y, float z) {
        h = Conv(x, w) a = Relu(h) g = Conv(x, u) e = Relu(g) y = Conv(a, v) z = Conv(e, v) }""",
        {"w": (8, 3, 3, 3), "u": (8, 3, 3, 3), "v": (5, 8, 1, 1)}, (8,)),
    Case("shared-first", """(float[N,3,8,8] x, float[N,3,8,8] x2) => (float y) {
        h = Conv(x, w, b) g = Conv(x2, w, b) e = Concat<axis=1>(h, g) y = Conv(e, v) }""",
        {"w": (8, 3, 3, 3), "b": (8,), "v": (5, 16, 1, 1)}, (8,)),
    Case("shared-bias", """(float[N,3,8,8] x) => (float y) {
        h = Conv(x, w, b) a = Relu(h) g = Conv(a, u, b) e = Relu(g) y = Conv(e, v) }""",
        {"w": (8, 3, 3, 3), "b": (8,), "u": (8, 8, 1, 1), "v": (5, 8, 1, 1)}, (8,)),
    Case("transpose", """(float[N,3,6,6] x) => (float y) {
        h = ConvTranspose<strides=[2,2]>(x, w, b) a = Relu(h) y = ConvTranspose(a, v, c) }""",
        {"w": (3, 8, 2, 2), "b": (8,), "v": (8, 5, 3, 3), "c": (5,)}, (8,)),
    Case("transpose-1d-no-bias", """(float[N,3,6] x) => (float y) {
        h = ConvTranspose(x, w) a = Relu(h) y = Conv(a, v) }""",
        {"w": (3, 8, 2), "v": (5, 8, 3)}, (8,)),
    Case("transpose-depthwise", """(float[N,3,6,6] x) => (float y) {
        h = Conv(x, w) a = Relu(h) g = ConvTranspose<group=8, strides=[2,2]>(a, d, c) e = Relu(g) y = Conv(e, v) }""",
        {"w": (8, 3, 3, 3), "d": (8, 1, 2, 2), "c": (8,), "v": (5, 8, 1, 1)}, (8,)),
    Case("transpose-depthwise-multiplier-2", """(float[N,3,6,6] x) => (float y) {
        h = Conv(x, w) a = Relu(h) g = ConvTranspose<group=8>(a, d, c) e = Relu(g) y = Conv(e, v) }""",
        {"w": (8, 3, 3, 3), "d": (8, 2, 2, 2), "c": (16,), "v": (5, 16, 1, 1)}, (8, 16)),
    *(Case(f"transpose-grouped-{g}", f"""(float[N,3,6,6] x) => (float y) {{
        h = Conv(x, w) a = Relu(h) g = ConvTranspose<group={g}>(a, u, c) e = Relu(g) y = Conv(e, v) }}""",
        {"w": (8, 3, 3, 3), "u": (8, 12 // g, 2, 2), "c": (12,), "v": (5, 12, 1, 1)}, (8, 12)) for g in (2, 4)),
    Case("transposed-weight", """(float[N,3,6,6] x) => (float y) {
        wt = Transpose<perm=[1,0,2,3]>(w) h = Conv(x, wt) a = Relu(h) y = Conv(a, v) }""",
        {"w": (3, 8, 3, 3), "v": (5, 8, 1, 1)}, (8,)),
    Case("reshaped-weight", """(float[N,3,6,6] x) => (float y) {
        wr = Reshape(w, s) h = Conv(x, wr) a = Relu(h) y = Conv(a, v) }""",
        {"w": (8, 27), "v": (5, 8, 1, 1)}, (8,), {"s": [8, 3, 3, 3]}),
    Case("identity-bias", """(float[N,3,6,6] x) => (float y) {
        b2 = Identity(b) h = Conv(x, w, b2) a = Relu(h) g = Conv(a, u, b) y = Conv(g, v) }""",
        {"w": (8, 3, 3, 3), "b": (8,), "u": (8, 8, 1, 1), "v": (5, 8, 1, 1)}, (8, 8)),
    Case("unsqueezed-bias", """(float[N,3,6,6] x) => (float y) {
        c = Unsqueeze(b, axes) h = Conv(x, w) g = Add(h, c) a = Relu(g) y = Conv(a, v) }""",
        {"w": (8, 3, 3, 3), "b": (8,), "v": (5, 8, 1, 1)}, (8,), {"axes": [1, 2]}),
    Case("computed-depthwise", """(float[N,3,6,6] x) => (float y) {
        dt = Mul(d, s) h = Conv(x, w) g = Conv<group=8>(h, dt) y = Conv(g, v) }""",
        {"w": (8, 3, 3, 3), "d": (8, 1, 3, 3), "s": (8, 1, 1, 1), "v": (5, 8, 1, 1)}, (8,)),
    Case("inputs-ir-3", """(float[N,3,6,6] x) => (float y) {
        h = Conv(x, w, b) a = Relu(h) g = Conv<group=8>(a, d) y = Conv(g, v) }""",
        {"w": (8, 3, 3, 3), "b": (8,), "d": (8, 1, 3, 3), "v": (5, 8, 1, 1)}, (8,), opset=9, ir_version=3),
    Case("two-branches", """(float[N,3,6,6] x) => (float y, float z) {
        h = Conv(x, w) a = Relu(h) y = Conv(a, v) z = Conv(a, u) }""",
        {"w": (8, 3, 3, 3), "v": (5, 8, 1, 1), "u": (4, 8, 3, 3)}, (8,)),
    *(Case(f"fused-{activation}", f"""(float[N,3,6,6] x) => (float[N,5,4,4] y) <float[N,8,4,4] a> {{
        a = com.microsoft.FusedConv<activation="{activation}"{more}>(x, w, b) y = Conv(a, v) }}""",
        {"w": (8, 3, 3, 3), "b": (8,), "v": (5, 8, 1, 1)}, (8,))
      for activation, more in (("Relu", ""), ("LeakyRelu", ", activation_params=[0.2]"))),
    Case("fused-sum", """(float[N,3,6,6] x) => (float[N,5,6,6] y) <float[N,6,6,6] h, float[N,8,6,6] a> {
        h = com.microsoft.FusedConv<activation="Relu", pads=[1,1,1,1]>(x, w) z = Conv<pads=[1,1,1,1]>(x, k)
        a = com.microsoft.FusedConv<activation="Relu", pads=[1,1,1,1]>(h, u, b, z) y = Conv(a, v) }""",
        {"w": (6, 3, 3, 3), "k": (8, 3, 3, 3), "u": (8, 6, 3, 3), "b": (8,), "v": (5, 8, 1, 1)}, (6, 8)),
    *(Case(f"fused-sum-of-its-input-{g}", f"""(float[N,3,6,6] x) => (float[N,5,6,6] y) <float[N,8,6,6] a> {{
        h = Conv<pads=[1,1,1,1]>(x, w)
        a = com.microsoft.FusedConv<activation="Relu", pads=[1,1,1,1], group={g}>(h, u, b, h) y = Conv(a, v) }}""",
        {"w": (8, 3, 3, 3), "u": (8, 8 // g, 3, 3), "b": (8,), "v": (5, 8, 1, 1)}, (8,)) for g in (1, 2, 8)),
    Case("fused-depthwise", """(float[N,3,6,6] x) => (float[N,5,4,4] y) <float[N,8,4,4] a> {
        h = Conv(x, w) a = com.microsoft.FusedConv<group=8, activation="Relu", pads=[1,1,1,1]>(h, d, b)
        y = Conv(a, v) }""",
        {"w": (8, 3, 3, 3), "d": (8, 1, 3, 3), "b": (8,), "v": (5, 8, 1, 1)}, (8,)),
]  # fmt: skip
case = by_name(CASES)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_case(case: Case, batch: str | int) -> None:
    assert_holds(case, batch)


@pytest.mark.parametrize("name", ["plain", "depthwise", "grouped-2", "transpose-grouped-2", "shared-head"])
def test_weights_in_constant_nodes(name: str, batch: str | int) -> None:
    proto = case(name).model(batch)
    as_constant_nodes(proto, list(case(name).weights))
    oracles_hold(proto, groups=case(name).groups)
    folds(proto)


@pytest.mark.parametrize("name", ["plain", "depthwise", "grouped-2"])
def test_weights_that_the_caller_may_override(name: str, batch: str | int) -> None:
    proto = as_inputs(case(name).model(batch), case(name).weights)
    oracles_hold(proto, groups=case(name).groups)
    folds(proto)
    folded = keep_first(2, proto)
    shapes = {t.name: list(t.dims) for t in folded.graph.initializer}
    for value in folded.graph.input:
        dims = [d.dim_value for d in value.type.tensor_type.shape.dim]
        assert value.name == "x" or dims == shapes[value.name]


def test_depthwise_group_is_recounted() -> None:
    folded = keep_first(5, case("depthwise").model())
    assert attribute(folded, "Conv", "group", 1) == 5
    assert constant(folded, "d").shape == (5, 1, 3, 3)


def test_depthwise_multiplier_keeps_its_pairs() -> None:
    before = case("depthwise-multiplier-2").model()
    folded = keep_first(5, before)
    assert attribute(folded, "Conv", "group", 1) == 5
    np.testing.assert_array_equal(constant(folded, "d"), constant(before, "d")[:10])
    np.testing.assert_array_equal(constant(folded, "v"), constant(before, "v")[:, :10])


def test_group_of_a_grouped_convolution_stays() -> None:
    before = case("grouped-2").model()
    folded = keep_first(3, before)  # of every cell: 2 x 3 channels in, 2 x 3 out
    assert attribute(folded, "Conv", "group", 1) == 2
    assert constant(folded, "u").shape == (6, 3, 3, 3)
    rows = [0, 1, 2, 6, 7, 8]
    np.testing.assert_array_equal(constant(folded, "u"), constant(before, "u")[rows][:, :3])
    np.testing.assert_array_equal(constant(folded, "w"), constant(before, "w")[[0, 1, 2, 4, 5, 6]])


def test_the_channels_of_grouped_convolutions_are_in_blocks() -> None:
    found = analyze(load(case("grouped-chain").model()))
    assert [g.blocks for g in found.groups] == [2, 4, 4]
    found = analyze(load(case("channel-shuffle").model()))
    assert [g.blocks for g in found.groups] == [2, 2, 2]


def test_a_shuffled_group_keeps_equally_many_in_every_block() -> None:
    """The 16 channels are 8 pairs, one of each block; the next convolution reads 4 pairs with each of its blocks."""
    folded = keep_first(3, case("channel-shuffle").model())
    assert constant(folded, "u").shape == (12, 3, 1, 1)
    assert constant(folded, "t").shape == (6, 6, 1, 1)
    shapes = [constant(folded, n.input[1]).tolist() for n in folded.graph.node if n.op_type == "Reshape"]
    assert [s[1:] for s in shapes] == [[2, 6, 6, 6], [12, 6, 6]]


def test_blocks_that_cannot_stay_equal_by_themselves_are_tied() -> None:
    """4 of 8 channels of the second block are the graph's input: in both blocks, only the other 4 fold, in pairs."""
    text = """(float[N,3,6,6] x, float[N,4,6,6] z) => (float y) {
        h = Conv<pads=[1,1,1,1]>(x, w) f = Concat<axis=1>(h, z) g = Conv<group=2>(f, u) y = Conv(g, v) }"""
    weights = {"w": (12, 3, 3, 3), "u": (8, 8, 1, 1), "v": (5, 8, 1, 1)}
    found = oracles_hold(model(text, weights), groups=[4, 8])
    assert [group.blocks for group in found.groups] == [1, 2]
    assert "its blocks would end up with different sizes" not in [r.kind for r in found.refusals]


@pytest.mark.parametrize("opset", range(7, newest_opset() + 1))
def test_every_opset(opset: int, batch: str | int) -> None:
    text = """(float[N,3,8,8] x) => (float y) {
        h = Conv<pads=[1,1,1,1]>(x, w) g = BatchNormalization(h, scale, shift, mean, var) f = Relu(g)
        e = MaxPool<kernel_shape=[2,2], strides=[2,2]>(f) d = Conv(e, u, b) c = Relu(d) a = Flatten(c)
        y = Gemm<transB=1>(a, v, o) }"""
    weights = {"w": (8, 3, 3, 3), "scale": (8,), "shift": (8,), "mean": (8,), "var": (8,), "u": (6, 8, 3, 3),
               "b": (6,), "v": (10, 24), "o": (10,)}  # fmt: skip
    proto = model(text, weights, opset=opset, ir_version=3 if opset < 9 else 8, batch=batch)
    oracles_hold(proto, groups=[8, 6])
    folds(proto)
    assert onnx.ModelProto.FromString(keep_first(4, proto).SerializeToString()).opset_import[0].version == opset
