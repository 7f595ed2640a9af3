"""Reshape, Flatten, Squeeze, Unsqueeze, and lengths that the graph computes."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from helpers import (
    CONV,
    Case,
    assert_holds,
    attribute,
    behind_conv,
    by_name,
    constant,
    fold_by,
    folds,
    given,
    keep_first,
    model,
    newest_opset,
    node,
    oracles_hold,
)  # fmt: skip

from onnxfold.analysis.analyze import analyze
from onnxfold.analysis.rules.reshape import segments
from onnxfold.model.model import load

between = partial(behind_conv, 4)  # `body` is from h [N,8,2,2] to y
HEAD = {"v": (32, 5)}
SMALL = {"v": (8, 5)}
SHAPE_OF = "s = Shape(h) n = Gather(s, zero) m = Unsqueeze(n, zeros)"
ZERO = {"zero": 0, "zeros": [0]}

CASES = [
    between("flatten", "a = Flatten(h) y = Gemm(a, v)", weights=HEAD),
    between("flatten-bias", "a = Flatten(h) g = Gemm(a, u, c) f = Relu(g) y = Gemm(f, v)", (8, 6),
            weights={"u": (32, 6), "c": (6,), "v": (6, 5)}),
    between("flatten-one-position", "g = GlobalAveragePool(h) a = Flatten(g) y = Gemm(a, v)", weights=SMALL),
    between("flatten-negative-axis", "a = Flatten<axis=-3>(h) y = Gemm(a, v)", weights=HEAD),
    between("flatten-opset7", "a = Flatten(h) y = Gemm(a, v, c)", opset=7, weights={**HEAD, "c": (5,)}),
    between("flatten-newest", "a = Flatten(h) y = Gemm(a, v)", opset=newest_opset(), weights=HEAD),
    between("flatten-channels-last", """t = Transpose<perm=[0,2,3,1]>(h) a = Flatten(t) y = Gemm(a, v)""",
            weights=HEAD),
    between("reshape-0-and-rest", "a = Reshape(h, t) y = Gemm(a, v)", values={"t": [0, -1]}, weights=HEAD),
    between("reshape-rest-and-number", "a = Reshape(h, t) y = Gemm(a, v)", values={"t": [-1, 32]}, weights=HEAD),
    between("reshape-0-and-number", "a = Reshape(h, t) y = Gemm(a, v)", values={"t": [0, 32]}, weights=HEAD),
    between("reshape-opset7", "a = Reshape(h, t) y = Gemm(a, v, c)", values={"t": [-1, 32]}, opset=7,
            weights={**HEAD, "c": (5,)}),
    between("reshape-zeros-copy", "a = Reshape(h, t) g = MatMul(a, k) f = Reshape(g, r) y = Conv(f, v)",
            values={"t": [0, 0, -1], "r": [0, 0, 2, 3]}, weights={"k": (4, 6), "v": (5, 8, 1, 1)},
            refused=("Conv mixes this axis",)),
    between("reshape-names-the-channels", "a = Reshape(h, t) g = Relu(a) y = Conv(g, v)", values={"t": [-1, 8, 4]},
            weights={"v": (5, 8, 1)}),
    between("channels-last-tokens", """t = Transpose<perm=[0,2,3,1]>(h) a = Reshape(t, s) y = MatMul(a, v)""",
            values={"s": [0, 4, 8]}, weights=SMALL),
    between("channels-last-tokens-rest", """t = Transpose<perm=[0,2,3,1]>(h) a = Reshape(t, s) y = MatMul(a, v)""",
            values={"s": [0, -1, 8]}, weights=SMALL),
    between("channels-last-flat", """t = Transpose<perm=[0,2,3,1]>(h) a = Reshape(t, s) y = MatMul(a, v)""",
            values={"s": [0, -1]}, weights=HEAD),
    between("tokens-and-back", """a = Reshape(h, s) t = Transpose<perm=[0,2,1]>(a) m = MatMul(t, k) g = Relu(m)
            u = Transpose<perm=[0,2,1]>(g) f = Reshape(u, r) y = Conv(f, v)""", (8, 6),
            values={"s": [0, 8, 4], "r": [0, 6, 2, 2]}, weights={"k": (8, 6), "v": (5, 6, 1, 1)}),
    between("pixel-shuffle-by-hand", """g = Conv(h, k) a = Reshape(g, s) t = Transpose<perm=[0,1,4,2,5,3]>(a)
            f = Reshape(t, r) y = Conv(f, v)""", (8, 6),
            values={"s": [0, 6, 2, 2, 2, 2], "r": [0, 6, 4, 4]}, weights={"k": (24, 8, 1, 1), "v": (5, 6, 1, 1)}),
    between("two-by-two-kept-where-both-are-mixed", """a = Reshape(h, s) m = Softmax<axis=1>(a) k = Softmax<axis=2>(m)
            f = Reshape(k, r) g = Conv(f, t) y = Conv(g, v)""", (6,),
            values={"s": [0, 2, 4, 4], "r": [0, 8, 2, 2]}, weights={"t": (6, 8, 1, 1), "v": (5, 6, 1, 1)},
            refused=("Softmax mixes this axis",)),
    between("heads", """g = Conv(h, k) a = Reshape(g, s) f = Softmax<axis=3>(a) e = Reshape(f, r) y = Conv(e, v)""",
            (8, 6), values={"s": [0, 2, 6, 4], "r": [0, 12, 2, 2]},
            weights={"k": (12, 8, 1, 1), "v": (5, 12, 1, 1)}),
    between("computed-number", f"{SHAPE_OF} t = Concat<axis=0>(m, c) a = Reshape(h, t) y = Gemm(a, v)", weights=HEAD,
            values={**ZERO, "c": [32]}),
    between("computed-rest", f"{SHAPE_OF} t = Concat<axis=0>(m, c) a = Reshape(h, t) y = Gemm(a, v)", weights=HEAD,
            values={**ZERO, "c": [-1]}),
    Case("computed-opset11", """(float[N,3,4,4] x) => (float[N,5] y) { h = Conv(x, w, b) s = Shape(h)
            n = Gather(s, zero) m = Unsqueeze<axes=[0]>(n) t = Concat<axis=0>(m, c) a = Reshape(h, t)
            y = Gemm(a, v) }""",
         {**CONV, **HEAD}, (8,), {"zero": 0, "c": [32]}, opset=11),
    between("computed-slice", "s = Shape(h) m = Slice(s, zeros, one) t = Concat<axis=0>(m, c) a = Reshape(h, t) "
            "y = Gemm(a, v)", weights=HEAD, values={"zeros": [0], "one": [1], "c": [32]}),
    between("computed-shape-15", "m = Shape<start=0, end=1>(h) t = Concat<axis=0>(m, c) a = Reshape(h, t) "
            "y = Gemm(a, v)", weights=HEAD, values={"c": [32]}),
    between("computed-channels", """s = Shape(h) m = Slice(s, zeros, two) t = Concat<axis=0>(m, c) a = Reshape(h, t)
            y = Conv(a, v)""", weights={"v": (5, 8, 1)}, values={"zeros": [0], "two": [2], "c": [-1]}),
    between("computed-product", f"""{SHAPE_OF} one = Constant<value_int=1>() o = Gather(s, one)
            p = Mul(o, four) q = Unsqueeze(p, zeros) t = Concat<axis=0>(m, q) a = Reshape(h, t) y = Gemm(a, v)""",
            weights=HEAD, values={**ZERO, "four": 4}),
    between("computed-shuffle", f"""{SHAPE_OF} one = Constant<value_int=1>() o = Gather(s, one) q = Div(o, two)
            r = Unsqueeze(q, zeros) t = Concat<axis=0>(m, twos, r, space) a = Reshape(h, t)
            e = Transpose<perm=[0,2,1,3,4]>(a) f = Reshape(e, back) y = Conv(f, v)""", (4,),
            weights={"v": (5, 8, 1, 1)},
            values={**ZERO, "two": 2, "twos": [2], "space": [2, 2], "back": [0, -1, 2, 2]}),
    between("computed-from-another", """f = Conv(x, u) s = Shape(f) a = Reshape(h, s) e = Add(a, f) y = Conv(e, v)""",
            weights={"u": (8, 3, 3, 3), "v": (5, 8, 1, 1)}),
    between("computed-from-a-stranger", """f = Conv(x, u) s = Shape(f) a = Reshape(h, s) d = Conv(a, v) e = Conv(f, t)
            y = Sub(d, e)""", (8, 8),
            weights={"u": (8, 3, 3, 3), "v": (5, 8, 1, 1), "t": (5, 8, 1, 1)}),
    between("computed-halves-part", """s = Shape(h) o = Gather(s, ones) q = Div(o, twos)
            e = Slice(h, zeros, q, ones) f = Slice(h, q, o, ones) g = Conv(e, u) d = Conv(f, v) c = Add(g, d)
            y = Conv(c, t)""", (4, 4, 6),
            weights={"u": (6, 4, 1, 1), "v": (6, 4, 1, 1), "t": (5, 6, 1, 1)},
            values={"zeros": [0], "ones": [1], "twos": [2]}),
    between("computed-half-twice", """s = Shape(h) o = Gather(s, ones) q = Div(o, twos) r = Mul(q, twos)
            e = Slice(h, zeros, r, ones) y = Conv(e, u)""",
            weights={"u": (5, 8, 1, 1)}, values={"zeros": [0], "ones": [1], "twos": [2]}),
    between("computed-halves-rounded-up", """s = Shape(h) o = Gather(s, ones) p = Add(o, ones) r = Div(p, twos)
            q = Mul(r, ones) e = Slice(h, zeros, q, ones) t = Mul(r, twos) f = Slice(h, q, t, ones) g = Mul(e, f)
            y = Conv(g, u)""", (4,),
            weights={"u": (5, 4, 1, 1)}, values={"zeros": [0], "ones": [1], "twos": [2]}),
    between("computed-halves-that-belong-together", """s = Shape(h) o = Gather(s, ones) q = Div(o, twos)
            e = Slice(h, zeros, q, ones) f = Slice(h, q, o, ones) g = Mul(e, f) y = Conv(g, u)""", (4,),
            weights={"u": (5, 4, 1, 1)}, values={"zeros": [0], "ones": [1], "twos": [2]}),
    between("squeeze", "g = GlobalAveragePool(h) a = Squeeze(g, axes) y = Gemm(a, v)", values={"axes": [2, -1]},
            weights=SMALL),
    between("squeeze-opset11", "g = GlobalAveragePool(h) a = Squeeze<axes=[2,3]>(g) y = Gemm(a, v)", opset=11,
            weights=SMALL),
    between("unsqueeze", "g = ReduceMean<axes=[2,3], keepdims=0>(h) a = Unsqueeze(g, axes) e = Mul(a, h) "
            "y = Conv(e, v)", values={"axes": [-1, 2]}, weights={"v": (5, 8, 1, 1)}),
    between("unsqueeze-opset11", "g = ReduceMean<axes=[2,3], keepdims=0>(h) a = Unsqueeze<axes=[2,3]>(g) e = Mul(a, h) "
            "y = Conv(e, v)", opset=11, weights={"v": (5, 8, 1, 1)}),
    between("unsqueeze-in-front", "a = Unsqueeze(h, axes) e = Squeeze(a, axes) y = Conv(e, v)", values={"axes": [0]},
            weights={"v": (5, 8, 1, 1)}),
    between("length-becomes-a-float", """s = Shape(h) o = Gather(s, one) q = Cast<to=1>(o) r = Sqrt(q) e = Div(h, r)
            f = Conv(e, u) g = Relu(f) y = Conv(g, v)""", values={"one": 1},
            weights={"u": (6, 8, 1, 1), "v": (5, 6, 1, 1)}, groups=(8, 6)),
    between("size-of-the-input", """s = Size(x) q = Cast<to=1>(s) e = Div(h, q) f = Conv(e, u) g = Relu(f)
            y = Conv(g, v)""", weights={"u": (6, 8, 1, 1), "v": (5, 6, 1, 1)}, groups=(8, 6)),
    between("length-becomes-half-a-float", """s = Shape(h) o = Gather(s, one) q = Cast<to=10>(o) p = Cast<to=1>(q)
            r = Reciprocal(p) i = Reciprocal(q) l = Cast<to=1>(i) e = Mul(h, r) j = Mul(e, l) f = Conv(j, u) g = Relu(f)
            y = Conv(g, v)""", values={"one": 1}, weights={"u": (6, 8, 1, 1), "v": (5, 6, 1, 1)}, groups=(8, 6)),
    between("length-without-a-rule", """s = Shape(h) o = Gather(s, one) z = Constant<value_int=0>()
            d = Constant<value_int=1>() r = Range(z, o, d) q = Cast<to=1>(r) i = Reshape(q, t) e = Mul(h, i)
            f = Conv(e, u) g = Relu(f) y = Conv(g, v)""", values={"one": 1, "t": [1, -1, 1, 1]},
            weights={"u": (6, 8, 1, 1), "v": (5, 6, 1, 1)}, groups=(6,),
            refused=("Range returns positions",)),
    between("tensordot", """k = Transpose<perm=[0,2,3,1]>(h) s = Shape(k) n = Cast<to=6>(s) d = Gather(n, front)
            e = Gather(n, last) p = ReduceProd<keepdims=0>(d) q = ReduceProd<keepdims=0>(e) pp = Unsqueeze(p, zeros)
            qq = Unsqueeze(q, zeros) t = Concat<axis=0>(pp, qq) tt = Cast<to=7>(t) a = Reshape(k, tt) m = MatMul(a, u)
            r = Cast<to=6>(c)
            j = Concat<axis=0>(d, r) jj = Cast<to=7>(j) g = Reshape(m, jj) f = Relu(g) y = MatMul(f, v)""", (8, 6),
            values={"zeros": [0], "front": [0, 1, 2], "last": [3], "c": [6]},
            weights={"u": (8, 6), "v": (6, 5)}),
    between("lengths-in-float", """s = Shape(h) n = Cast<to=1>(s) d = Slice(n, zeros, ones) t = Concat<axis=0>(d, c)
            i = Cast<to=7>(t) a = Reshape(h, i) y = Gemm(a, v)""", weights=HEAD,
            values={"zeros": [0], "ones": [1], "c": np.array([32], np.float32)}),
    between("expand-as-pytorch-writes-it", """g = GlobalAveragePool(h) s = Shape(h) e = Shape(s)
            f = ConstantOfShape<value=int64[1] {1}>(e) i = Mul(f, negative) j = Equal(s, i) k = Where(j, f, s)
            a = Expand(g, k) m = Mul(a, h) y = Conv(m, v)""", weights={"v": (5, 8, 1, 1)}, values={"negative": -1}),
    between("expand-by-what-is-asked-for", """g = GlobalAveragePool(h) s = Shape(h) o = Gather(s, ones)
            t = Concat<axis=0>(c, o, two, two) j = Equal(t, c) f = ConstantOfShape<value=int64[1] {1}>(four)
            k = Where(j, f, t) a = Expand(g, k) m = Mul(a, h) y = Conv(m, v)""", weights={"v": (5, 8, 1, 1)},
            values={"c": [-1], "ones": [1], "two": [2], "four": [4]}),
    between("a-length-that-is-compared", """s = Shape(h) o = Gather(s, one) j = Equal(o, eight) k = Where(j, h, twice)
            y = Conv(k, v)""", (), weights={"v": (5, 8, 1, 1), "twice": (1, 8, 2, 2)}, values={"one": 1, "eight": 8},
            refused=("Where uses this length as a number",)),
    between("batch-becomes-a-float", """s = Shape(h) o = Gather(s, zero) q = Cast<to=1>(o) e = Div(h, q)
            y = Conv(e, v)""", values={"zero": 0}, weights={"v": (5, 8, 1, 1)}),
]  # fmt: skip
case = by_name(CASES)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_case(case: Case, batch: str | int) -> None:
    assert_holds(case, batch)


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("reshape-0-and-rest", [0, -1]),
        ("reshape-rest-and-number", [-1, 20]),
        ("reshape-0-and-number", [0, 20]),
        ("reshape-names-the-channels", [-1, 5, 4]),
        ("channels-last-tokens", [0, 4, 5]),
        ("channels-last-flat", [0, -1]),
    ],
)
def test_targets_are_recounted(name: str, target: list[int]) -> None:
    after = keep_first(5, case(name).model())
    assert given(after, "Reshape", 1) == target


@pytest.mark.parametrize("name", ["computed-number", "computed-opset11", "computed-slice", "computed-shape-15"])
def test_the_number_in_a_computed_target_is_recounted(name: str) -> None:
    after = keep_first(5, case(name).model())
    assert given(after, "Concat", 1) == [20]


def test_flatten_that_joins_batch_and_channels_keeps_them(batch: str | int) -> None:
    body = "(float[N,3,4,4] x) => (float y) { h = Conv(x, w, b) t = Flatten<axis=2>(h) a = MatMul(t, k) y = Relu(a) }"
    found = oracles_hold(model(body, {**CONV, "k": (4, 4)}, batch=batch), groups=[])
    assert "a graph output" in [r.kind for r in found.refusals]


def test_a_static_batch_stays_in_the_target() -> None:
    text = "(float[2,3,4,4] x) => (float y) { h = Conv(x, w, b) a = Reshape(h, t) y = Gemm(a, v) }"
    proto = model(text, {**CONV, **HEAD}, {"t": [2, 32]})
    oracles_hold(proto, groups=[8])
    folds(proto)
    assert given(keep_first(5, proto), "Reshape", 1) == [2, 20]


def test_a_target_for_two_reshapes_parts() -> None:
    """One initializer [0, 32]: after folding one of the two branches each Reshape has its own."""
    text = """(float[N,3,4,4] x) => (float y) {
        h = Conv(x, w, b) g = Conv(x, u) a = Reshape(h, t) c = Reshape(g, t) d = Gemm(a, v) e = Gemm(c, k)
        y = Add(d, e) }"""
    proto = model(text, {**CONV, "u": (8, 3, 3, 3), "v": (32, 5), "k": (32, 5)}, {"t": [0, 32]})
    oracles_hold(proto, groups=[8, 8])
    folds(proto)
    loaded = load(proto)
    assert [g.name for g in analyze(loaded).groups] == ["Conv#0", "Conv#1"]
    after = keep_first(5, proto)
    assert given(after, "Reshape", 1) == given(after, "Reshape", 1, 1) == [0, 20]


def test_a_target_in_a_constant_node() -> None:
    text = """(float[N,3,4,4] x) => (float y) {
        h = Conv(x, w, b) t = Constant<value_ints=[-1,32]>() a = Reshape(h, t) y = Gemm(a, v) }"""
    proto = model(text, {**CONV, **HEAD})
    oracles_hold(proto, groups=[8])
    folds(proto)
    after = keep_first(5, proto)
    assert given(after, "Reshape", 1) == [-1, 20]
    assert attribute(after, "Constant", "value_ints") == [-1, 20], "edited where it stands"


def test_flattened_rows_stay_together() -> None:
    before = case("flatten").model()
    after = keep_first(5, before)
    np.testing.assert_array_equal(constant(after, "v"), constant(before, "v")[:20])


def test_channels_last_rows_are_interleaved() -> None:
    before = case("flatten-channels-last").model()
    after = keep_first(5, before)
    rows = [8 * position + channel for position in range(4) for channel in range(5)]
    np.testing.assert_array_equal(constant(after, "v"), constant(before, "v")[rows])


def test_a_shape_that_is_an_output_keeps_its_channels() -> None:
    text = "(float[N,3,4,4] x) => (float y, int64[4] s) { h = Conv(x, w, b) s = Shape(h) y = Conv(h, v) }"
    found = oracles_hold(model(text, {**CONV, "v": (5, 8, 1, 1)}), groups=[])
    assert "Shape uses this length as a number" in [r.kind for r in found.refusals]


@pytest.mark.parametrize(("batch", "groups"), [("N", [6]), (2, [8, 6])])
def test_a_size_that_becomes_a_float(batch: str | int, groups: list[int]) -> None:
    """It keeps its value where that is known; an open one keeps the channels."""
    text = """(float[N,3,8,8] x) => (float y) { h = Conv(x, w, b) s = Size(h) q = Cast<to=1>(s) e = Div(h, q)
        f = Conv(e, u) g = Relu(f) y = Conv(g, v) }"""
    proto = model(text, {**CONV, "u": (6, 8, 1, 1), "v": (5, 6, 1, 1)}, batch=batch)
    found = oracles_hold(proto, groups=groups)
    assert ("Div uses this length as a number" in [r.kind for r in found.refusals]) == (batch == "N")


def test_a_scale_by_a_length_stays_what_it_was() -> None:
    """The model computes the square root of 8 channels; with 5 of them left it still divides by that of 8."""
    before = case("length-becomes-a-float").model()
    first, second = analyze(load(before)).groups
    after = fold_by({first.name: [0, 0, 0, 1, 2, 3, 4, 4]}, before)
    given = constant(after, node(after, "Sqrt").input[0])
    assert given.dtype == np.float32 and given.item() == 8.0
    assert not any(n.op_type in ("Shape", "Gather") for n in after.graph.node)
    after = fold_by({second.name: [0, 0, 1, 2, 3, 4]}, before)
    assert any(n.op_type == "Shape" for n in after.graph.node), "nothing it is computed from has changed"


@pytest.mark.parametrize("name", ["r", "q"])
def test_a_length_inside_a_body_keeps_its_channels(name: str) -> None:
    """Also where both branches call their result alike."""
    text = """(float[N,3,4,4] x, bool c) => (float[N,5,2,2] y) {
        h = Conv(x, w, b) s = Shape(h) o = Gather(s, one)
        f = If(c) <then_branch = yes () => (float r) { r = Cast<to=1>(o) },
                   else_branch = no () => (float r) { r = Constant<value_float=1.0>() }>
        g = Conv(h, v) y = Mul(g, f) }"""
    text = text.replace("(float r) { r = Constant", f"(float {name}) {{ {name} = Constant")
    found = analyze(load(model(text, {**CONV, "v": (5, 8, 1, 1)}, {"one": 1})))
    assert not found.groups
    assert "Cast uses this length as a number" in [r.kind for r in found.refusals]


def test_a_target_from_outside_is_refused() -> None:
    text = """(float[N,3,4,4] x, int64[2] t) => (float[N,5] y) <float[N,32] a> {
        h = Conv(x, w, b) a = Reshape(h, t) g = Gemm(a, u) f = Relu(g) y = Gemm(f, v) }"""
    found = analyze(load(model(text, {**CONV, "u": (32, 6), "v": (6, 5)})))
    assert [g.size for g in found.groups] == [6]
    assert "Reshape has a shape computed at run time" in [r.kind for r in found.refusals]


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (("N", 8, 4, 4), ("N", 128), [([0], [0]), ([1, 2, 3], [1])]),
        (("N", 8, 4, 4), (None, 128), [([1, 2, 3], [1])]),
        ((2, 8, 4, 4), (2, 8, 16), [([0], [0]), ([1], [1]), ([2, 3], [2])]),
        ((2, 16, 3), (2, 2, 8, 3), [([0], [0]), ([2], [3]), ([1], [1, 2])]),
        ((2, 8, 3), (2, 3, 8), [([0], [0]), ([1, 2], [1, 2])]),
        (("N", "T", 8), ("N", "T", 2, 4), [([0], [0]), ([1], [1]), ([2], [2, 3])]),
        (("N", None, 8), ("N", None, 8), [([0], [0]), ([2], [2])]),
        (("N", 8), ("M", 8), [([1], [1])]),
        ((4, 4), (4, 4), [([0], [0]), ([1], [1])]),
        ((6,), (2, 3), [([0], [0, 1])]),
        ((0, 4), (0, 8), [([0], [0])]),
    ],
)
def test_segments(x: tuple[Any, ...], y: tuple[Any, ...], expected: list[Any]) -> None:
    assert list(segments(x, y)) == expected


def test_names_of_nodes_do_not_matter() -> None:
    proto = case("flatten").model()
    for i, n in enumerate(proto.graph.node):
        n.name = f"layer{i}"
    found = oracles_hold(proto, groups=[8])
    assert found.groups[0].name == "layer0"
    assert node(keep_first(4, proto), "Gemm").name == "layer2"
