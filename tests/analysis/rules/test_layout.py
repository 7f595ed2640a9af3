"""Concat, Split, Slice, Pad, Transpose, Expand, ConstantOfShape, Tile, DepthToSpace and back, ReverseSequence."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx
import pytest
from helpers import (
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
    run,
)

from onnxfold.analysis.analyze import analyze
from onnxfold.model.model import load

cutting = partial(behind_conv, 8)  # `body` is from h [N,8,6,6] to y


def slicing(name: str, start: int, end: int, groups: tuple[int, ...], axis: int = 1, opset: int = 17) -> Case:
    """h[start:end] of 8 channels, read by a Conv; all of h read by another, so that nothing is idle."""
    size = len(range(8)[start:end])
    refused = ("tied to an axis of length 1",) if size == 1 else ()
    weights = {"v": (5, size, 1, 1), "u": (5, 8, 1, 1)}
    rest = "f = Conv(g, v) e = Conv(h, u) y = Add(f, e)"
    if opset < 10:
        body = f"g = Slice<starts=[{start}], ends=[{end}], axes=[{axis}]>(h) {rest}"
        return cutting(name, body, groups, opset, weights=weights, refused=refused)
    values = {"starts": [start], "ends": [end], "axes": [axis]}
    body = f"g = Slice(h, starts, ends, axes) {rest}"
    return cutting(name, body, groups, opset, weights=weights, values=values, refused=refused)


DENSE = """(float[N,3,8,8] x) => (float y) {
    h0 = Conv<pads=[1,1,1,1]>(x, w0) a0 = Relu(h0) h1 = Conv<pads=[1,1,1,1]>(a0, w1)
    c1 = Concat<axis=1>(h0, h1) a1 = Relu(c1) h2 = Conv<pads=[1,1,1,1]>(a1, w2)
    c2 = Concat<axis=1>(c1, h2) a2 = Relu(c2) p = GlobalAveragePool(a2) y = Conv(p, v) }"""
SPLIT = "p, q = Split<axis=1>(h, sizes) g = Conv(p, u) f = Conv(q, v) y = Add(g, f)"
EQUAL = "p, q = Split<axis=1>(h) g = Conv(p, u) f = Conv(q, v) y = Add(g, f)"
HALVES = {"u": (5, 4, 1, 1), "v": (5, 4, 1, 1)}
SHORTCUT = """(float[N,3,8,8] x) => (float y) {
    h = Conv<pads=[1,1,1,1]>(x, w) a = Relu(h) g = Conv<pads=[1,1,1,1], strides=[2,2]>(a, u)
    s = Slice(a, starts, ends, axes, steps) p = Pad(s, pads) e = Add(g, p) y = Conv(e, v) }"""
END = 2**63 - 1

STRANGERS = cutting(
    "constant-of-a-strangers-shape", """f = Conv(x, u) s = Shape(f) e = ConstantOfShape(s) g = Add(h, e) d = Conv(g, v)
    i = Conv(f, t) y = Mul(d, i)""", (8, 8), weights={"u": (8, 3, 3, 3), "v": (5, 8, 1, 1), "t": (5, 8, 1, 1)},
)  # fmt: skip
"""A list of lengths that plain numbers replace where all are known."""

CASES = [
    cutting("concat", "f = Conv(x, u) g = Concat<axis=1>(h, f) y = Conv(g, v)", (8, 6),
            weights={"u": (6, 3, 3, 3), "v": (5, 14, 1, 1)}),
    cutting("concat-opset4-form", "f = Conv(x, u) g = Concat<axis=1>(h, f) y = Conv(g, v)", (8, 6), opset=7,
            weights={"u": (6, 3, 3, 3), "v": (5, 14, 1, 1)}),
    cutting("concat-negative-axis", "f = Conv(x, u) g = Concat<axis=-3>(h, f) y = Conv(g, v)", (8, 6),
            weights={"u": (6, 3, 3, 3), "v": (5, 14, 1, 1)}),
    cutting("concat-with-itself", "g = Concat<axis=1>(h, h) y = Conv(g, v)", (8,), weights={"v": (5, 16, 1, 1)}),
    cutting("concat-crelu", "n = Neg(h) g = Concat<axis=1>(h, n) a = Relu(g) y = Conv(a, v)", (8,),
            weights={"v": (5, 16, 1, 1)}),
    cutting("concat-over-space", "f = Conv(x, u) g = Concat<axis=2>(h, f) y = Conv(g, v)", (8,),
            weights={"u": (8, 3, 3, 3), "v": (5, 8, 1, 1)}),
    cutting("concat-single", "g = Concat<axis=1>(h) y = Conv(g, v)", (8,), weights={"v": (5, 8, 1, 1)}),
    Case("densenet", DENSE, {"w0": (8, 3, 3, 3), "w1": (4, 8, 3, 3), "w2": (6, 12, 3, 3), "v": (5, 18, 1, 1)},
         (8, 4, 6)),
    cutting("concat-of-one-channel-each", """f = Conv(x, u) g = Conv(x, t) d = Conv(x, s) e = Concat<axis=1>(f, g, d)
            i = Add(e, h) y = Conv(i, v)""",
            (6,), weights={"u": (1, 3, 3, 3), "t": (1, 3, 3, 3), "s": (6, 3, 3, 3), "v": (5, 8, 1, 1)},
            refused=("tied to an axis of length 1",)),
    cutting("split-sizes", SPLIT, (3, 5), values={"sizes": [3, 5]}, weights={"u": (5, 3, 1, 1), "v": (5, 5, 1, 1)}),
    cutting("split-sizes-opset11", SPLIT.replace("<axis=1>(h, sizes)", "<axis=1, split=[3,5]>(h)"), (3, 5), opset=11,
            weights={"u": (5, 3, 1, 1), "v": (5, 5, 1, 1)}),
    cutting("split-equal", EQUAL, (4, 4), weights=HALVES),
    cutting("split-equal-opset7", EQUAL, (4, 4), opset=7, weights=HALVES),
    cutting("split-negative-axis", EQUAL.replace("axis=1", "axis=-3"), (4, 4), weights=HALVES),
    cutting("split-equal-opset18", EQUAL.replace("axis=1", "axis=1, num_outputs=2"), (4, 4), opset=18, weights=HALVES),
    cutting("split-gate", "p, q = Split<axis=1>(h) s = Sigmoid(p) g = Mul(s, q) y = Conv(g, v)", (4,),
            weights={"v": (5, 4, 1, 1)}),
    cutting("split-rounded-up-opset18", """p, q, r = Split<axis=1, num_outputs=3>(h) g = Conv(p, u) f = Conv(q, v)
            e = Conv(r, t) y = Sum(g, f, e)""", (3, 3, 2), opset=18,
            weights={"u": (5, 3, 1, 1), "v": (5, 3, 1, 1), "t": (5, 2, 1, 1)}),
    cutting("split-single-channels", """p, q = Split<axis=1>(h, sizes) o, r = Split<axis=1>(p, ones) g = Conv(q, v)
            f = Mul(o, r) e = Mul(g, f) d = Add(e, r) y = Relu(d)""", (6,), values={"sizes": [2, 6], "ones": [1, 1]},
            weights={"v": (5, 6, 1, 1)}, refused=("tied to an axis of length 1",)),
    cutting("split-of-space", """p, q = Split<axis=3>(h) g = Add(p, q) y = Conv(g, v)""", (8,),
            weights={"v": (5, 8, 1, 1)}),
    cutting("csp", """p, q = Split<axis=1>(h) g = Conv(q, u) a = Relu(g) e = Add(q, a) f = Concat<axis=1>(p, q, e)
            y = Conv(f, v)""", (4, 4), weights={"u": (4, 4, 1, 1), "v": (5, 12, 1, 1)}),
    slicing("slice-begin", 3, END, (3, 5)),
    slicing("slice-end", 0, 3, (3, 5)),
    slicing("slice-middle", 2, 5, (5, 3)),
    slicing("slice-negative-begin", -3, END, (5, 3)),
    slicing("slice-negative-end", 0, -3, (5, 3)),
    slicing("slice-negative-both", -6, -2, (4, 4)),
    slicing("slice-exact-end", 2, 8, (2, 6)),
    slicing("slice-negative-axis", 2, 6, (4, 4), axis=-3),
    slicing("slice-attributes-opset9", 2, 6, (4, 4), opset=9),
    slicing("slice-attributes-opset9-negative", -6, -2, (4, 4), opset=9),
    slicing("slice-to-one-channel", 3, 4, (7,), axis=1),
    cutting("slice-no-axes", "g = Slice(h, starts, ends) f = Conv(g, v) e = Conv(h, u) y = Mul(f, e)", (3, 5),
            values={"starts": [0, 3, 0, 0], "ends": [END, END, 9, 6]}, weights={"v": (5, 5, 1, 1), "u": (5, 8, 1, 1)}),
    *(cutting(f"slice-channels-{name}", """g = Slice(h, starts, ends, axes, steps) f = Conv(g, v) a = Relu(f)
            y = Conv(a, u)""", groups, values={"starts": [start], "ends": [end], "axes": [1], "steps": [step]},
              weights={"v": (6, left, 1, 1), "u": (5, 6, 1, 1)})
      for name, start, end, step, left, groups in (
          ("with-step", 0, 8, 2, 4, (4, 6)), ("with-step-behind", 1, END, 2, 4, (4, 6)),
          ("with-step-short-end", 0, -1, 4, 2, (2, 6)), ("reversed", -1, -END, -1, 8, (8, 6)),
          ("reversed-by-numbers", 7, -9, -1, 8, (8, 6)))),
    *(cutting(f"slice-channels-{name}-is-kept", """g = Slice(h, starts, ends, axes, steps) f = Conv(g, v) a = Relu(f)
            y = Conv(a, u)""", (6,), refused=("Slice mixes this axis",),
              values={"starts": [start], "ends": [end], "axes": [1], "steps": [step]},
              weights={"v": (6, left, 1, 1), "u": (5, 6, 1, 1)})
      for name, start, end, step, left in (
          ("uneven-step", 0, 8, 3, 3), ("step-over-a-part", 0, 6, 2, 3), ("step-from-behind", -7, END, 2, 4),
          ("step-beyond-the-first", 3, END, 2, 3), ("reversed-part", 5, -END, -1, 6),
          ("backwards-by-two", -1, -END, -2, 4))),
    cutting("slice-interleaved-gate", """k = Conv(h, t) g = Slice(k, zero, end, axes, steps)
            b1 = Slice(k, one, end, axes, steps) s = Sigmoid(g) m = Mul(s, b1) y = Conv(m, u)""", (8, 6),
            values={"zero": [0], "one": [1], "end": [END], "axes": [1], "steps": [2]},
            weights={"t": (12, 8, 1, 1), "u": (5, 6, 1, 1)}),
    cutting("slice-flip-and-couple", """f = Slice(h, last, end, axes, steps) p, q = Split<axis=1>(f, sizes) s = Tanh(p)
            m = Mul(q, s) c = Concat<axis=1>(p, m) y = Conv(c, u)""", (4,),
            values={"last": [-1], "end": [-END], "axes": [1], "steps": [-1], "sizes": [4, 4]},
            weights={"u": (5, 8, 1, 1)}),
    cutting("slice-space-reversed", "g = Slice(h, starts, ends, axes, steps) f = Add(g, h) y = Conv(f, v)", (8,),
            values={"starts": [-1], "ends": [-100], "axes": [3], "steps": [-1]}, weights={"v": (5, 8, 1, 1)}),
    Case("resnet-option-a", SHORTCUT, {"w": (4, 3, 3, 3), "u": (12, 4, 3, 3), "v": (5, 12, 1, 1)}, (4, 8),
         {"starts": [0, 0], "ends": [END, END], "axes": [2, 3], "steps": [2, 2], "pads": [0, 4, 0, 0, 0, 4, 0, 0]}),
    cutting("pad-space", "g = Pad(h, pads) y = Conv(g, v)", (8,), values={"pads": [0, 0, 1, 1, 0, 0, 1, 1]},
            weights={"v": (5, 8, 3, 3)}),
    cutting("pad-space-reflect", "g = Pad<mode=\"reflect\">(h, pads) y = Conv(g, v)", (8,),
            values={"pads": [0, 0, 1, 1, 0, 0, 1, 1]}, weights={"v": (5, 8, 3, 3)}),
    cutting("pad-channels", "g = Pad(h, pads, one) y = Conv(g, v)", (8,),
            values={"pads": [0, 2, 0, 0, 0, 3, 0, 0], "one": 1.0}, weights={"v": (5, 13, 1, 1)}),
    cutting("pad-channels-opset10", "g = Pad<pads=[0,2,0,0,0,3,0,0], value=1.0>(h) y = Conv(g, v)", (8,), opset=10,
            weights={"v": (5, 13, 1, 1)}),
    cutting("pad-channels-axes", "g = Pad(h, pads, , axes) y = Conv(g, v)", (8,), opset=18,
            values={"pads": [1, 2], "axes": [-3]}, weights={"v": (5, 11, 1, 1)}),
    cutting("pad-channels-reflect-is-kept", """g = Pad<mode="reflect">(h, pads) f = Conv(g, v) a = Relu(f)
            y = Conv(a, u)""", (6,), values={"pads": [0, 2, 0, 0, 0, 3, 0, 0]}, refused=("Pad mixes this axis",),
            weights={"v": (6, 13, 1, 1), "u": (5, 6, 1, 1)}),
    cutting("pad-crops-is-kept", "g = Pad(h, pads) f = Conv(g, v) a = Relu(f) y = Conv(a, u)", (6,),
            values={"pads": [0, -1, 0, 0, 0, 0, 0, 0]}, refused=("Pad mixes this axis",),
            weights={"v": (6, 7, 1, 1), "u": (5, 6, 1, 1)}),
    cutting("pad-one-channel", "f = Conv(x, s) g = Pad(f, pads) e = Add(g, h) y = Conv(e, v)", (7,),
            values={"pads": [0, 3, 0, 0, 0, 4, 0, 0]}, weights={"s": (1, 3, 3, 3), "v": (5, 8, 1, 1)},
            refused=("tied to an axis of length 1",)),
    cutting("transpose", """t = Transpose<perm=[0,2,3,1]>(h) m = MatMul(t, k) a = Relu(m)
            r = Transpose<perm=[0,3,1,2]>(a) y = Conv(r, v)""", (8, 6), weights={"k": (8, 6), "v": (5, 6, 1, 1)}),
    cutting("transpose-default", "t = Transpose(h) r = Transpose(t) y = Conv(r, v)", (8,), weights={"v": (5, 8, 1, 1)}),
    cutting("expand-like", """p = GlobalAveragePool(h) e = Expand(p, s) f = Mul(e, h) y = Conv(f, v)""", (8,),
            values={"s": [1, 1, 6, 6]}, weights={"v": (5, 8, 1, 1)}),
    cutting("expand-shorter", "p = GlobalAveragePool(h) e = Expand(p, s) f = Mul(e, h) y = Conv(f, v)", (8,),
            values={"s": [6, 1]}, weights={"v": (5, 8, 1, 1)}),
    cutting("expand-names-the-channels", "p = GlobalAveragePool(h) e = Expand(p, s) f = Mul(e, h) y = Conv(f, v)", (8,),
            values={"s": [8, 6, 6]}, weights={"v": (5, 8, 1, 1)}),
    cutting("expand-one-channel", "m = Conv(x, s1) e = Expand(m, s) f = Mul(e, h) y = Conv(f, v)", (8,),
            values={"s": [1, 8, 1, 1]}, weights={"s1": (1, 3, 3, 3), "v": (5, 8, 1, 1)}),
    cutting("expand-by-shape", "p = GlobalAveragePool(h) s = Shape(h) e = Expand(p, s) f = Mul(e, h) y = Conv(f, v)",
            (8,), weights={"v": (5, 8, 1, 1)}),
    cutting("expand-a-number", "k = ReduceMean<keepdims=0>(x) e = Expand(k, s) f = Add(e, h) y = Conv(f, v)", (8,),
            values={"s": [8, 6, 6]}, weights={"v": (5, 8, 1, 1)}),
    cutting("constant-of-shape", """s = Shape<end=1>(h) t = Concat<axis=0>(s, rest) e = ConstantOfShape(t) f = Cos(e)
            g = Add(f, h) y = Conv(g, v)""", (8,), values={"rest": [8, 6, 6]}, weights={"v": (5, 8, 1, 1)}),
    cutting("constant-of-the-shape", "s = Shape(h) e = ConstantOfShape(s) f = Cos(e) g = Add(f, h) y = Conv(g, v)",
            (8,), weights={"v": (5, 8, 1, 1)}),
    STRANGERS.of_batch(2),
    STRANGERS.of_batch("M", groups=(), refused=("ConstantOfShape takes this length from another axis",)),
    cutting("tile-space", "p = GlobalAveragePool(h) e = Tile(p, s) f = Mul(e, h) y = Conv(f, v)", (8,),
            values={"s": [1, 1, 6, 6]}, weights={"v": (5, 8, 1, 1)}),
    cutting("tile-channels", "g = Tile(h, s) f = Conv(g, v) a = Relu(f) y = Conv(a, u)", (8, 6),
            values={"s": [1, 2, 1, 1]}, weights={"v": (6, 16, 1, 1), "u": (5, 6, 1, 1)}),
    cutting("tile-to-channels", """p = GlobalAveragePool(x) q = Slice(p, zero, one, one) t = Tile(q, s)
            f = Mul(t, h) y = Conv(f, v)""", (8,), weights={"v": (5, 8, 1, 1)},
            values={"zero": [0], "one": [1], "s": [1, 8, 6, 6]}),
    cutting("tile-to-computed-channels", """p = GlobalAveragePool(x) q = Slice(p, zero, one, one) e = Shape(h)
            c = Slice(e, one, two) s = Concat<axis=0>(one, c, six, six) t = Tile(q, s) f = Mul(t, h) y = Conv(f, v)""",
            (8,), values={"zero": [0], "one": [1], "two": [2], "six": [6]}, weights={"v": (5, 8, 1, 1)}),
    cutting("tile-as-repeat-interleave", """e = Shape(h) c = Gather(e, two) k = Concat<axis=0>(one, c)
            o = OneHot(two, five, k) s = Reshape(o, five) q = Unsqueeze(h, two) t = Tile(q, s) z = Reshape(t, joined)
            f = Conv(z, v) y = Relu(f)""", (8,), weights={"v": (5, 8, 6, 1)},
            values={"two": [2], "one": [1], "five": [5], "joined": [0, 0, -1, 6]}),
    cutting("tile-by-a-number-of-channels", """e = Shape(h) c = Slice(e, one, two) s = Concat<axis=0>(one, c, one, one)
            t = Tile(x, s) f = Conv(t, v) g = Conv(h, u) p = GlobalAveragePool(f) y = Add(p, g)""", (8,),
            values={"one": [1], "two": [2]}, weights={"v": (5, 24, 1, 1), "u": (5, 8, 1, 1)}),
    *(cutting(f"depth-to-space-{mode}", f"""g = Conv(h, u, c) a = DepthToSpace<blocksize=2, mode="{mode}">(g)
            y = Conv(a, v)""", (8, 6), weights={"u": (24, 8, 1, 1), "c": (24,), "v": (5, 6, 1, 1)})
      for mode in ("DCR", "CRD")),
    cutting("depth-to-space-opset7", "g = Conv(h, u, c) a = DepthToSpace<blocksize=2>(g) y = Conv(a, v)", (8, 6), 7,
            weights={"u": (24, 8, 1, 1), "c": (24,), "v": (5, 6, 1, 1)}),
    cutting("depth-to-space-one-channel", "g = Conv(h, u) a = DepthToSpace<blocksize=2>(g) y = Relu(a)", (8,),
            weights={"u": (4, 8, 1, 1)}, refused=("tied to an axis of length 1",)),
    cutting("space-to-depth", "a = SpaceToDepth<blocksize=2>(h) y = Conv(a, v)", (8,), weights={"v": (5, 32, 1, 1)}),
    cutting("space-to-depth-and-back", """a = SpaceToDepth<blocksize=3>(h) f = Relu(a)
            d = DepthToSpace<blocksize=3>(f) y = Conv(d, v)""", (8,), weights={"v": (5, 8, 1, 1)}),
    Case("reverse-sequence", """(float[7,2,3] x) => (float y) {
        h = MatMul(x, w) a = ReverseSequence<time_axis=0, batch_axis=1>(h, lengths) y = MatMul(a, v) }""",
         {"w": (3, 8), "v": (8, 5)}, (8,), {"lengths": [4, 7]}),
    Case("reverse-sequence-of-channels-is-kept", """(float[2,3,2] x) => (float y) {
        h = Conv(x, w) a = ReverseSequence<time_axis=1, batch_axis=0>(h, lengths) f = Conv(a, u) e = Relu(f)
        y = Conv(e, v) }""", {"w": (8, 3, 1), "u": (6, 8, 1), "v": (5, 6, 1)}, (6,), {"lengths": [3, 8]},
         refused=("ReverseSequence mixes this axis",)),
    cutting("newest", """p, q = Split<axis=1, num_outputs=2>(h) g = Pad(p, pads, , axes) f = Concat<axis=1>(g, q)
            y = Conv(f, v)""", (4, 4), opset=newest_opset(), values={"pads": [1, 2], "axes": [1]},
            weights={"v": (5, 11, 1, 1)}),
]  # fmt: skip
case = by_name(CASES)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_case(case: Case, batch: str | int) -> None:
    assert_holds(case, batch)


def test_sizes_of_split_are_recounted() -> None:
    assert given(keep_first(2, case("split-sizes").model()), "Split", 1) == [2, 2]
    assert attribute(keep_first(2, case("split-sizes-opset11").model()), "Split", "split") == [2, 2]


def test_equal_parts_that_become_unequal_get_sizes() -> None:
    first, second = "Conv#0", "Conv#0:2"
    for name in ("split-equal", "split-equal-opset18"):
        after = fold_by({first: [0, 1, 1, 1], second: [0, 1, 2, 1]}, case(name).model())
        assert given(after, "Split", 1) == [2, 3]
        assert attribute(after, "Split", "num_outputs") is None
        assert constant(after, "u").shape[1] == 2
        onnx.checker.check_model(after, full_check=True)
    after = fold_by({second: [0, 1, 2, 1]}, case("split-equal-opset7").model())
    assert attribute(after, "Split", "split") == [4, 3]


def test_equal_parts_that_stay_are_left_alone() -> None:
    before = case("csp").model()
    after = fold_by({}, before)
    assert after.SerializeToString() == before.SerializeToString()


@pytest.mark.parametrize(
    ("name", "keep", "start", "end"),
    [
        ("slice-begin", 2, 2, END),
        ("slice-end", 2, 0, 2),
        ("slice-negative-begin", 2, -2, END),
        ("slice-negative-end", 4, 0, -3),
        ("slice-exact-end", 1, 1, 8),
    ],
)
def test_bounds_of_slice_are_recounted(name: str, keep: int, start: int, end: int) -> None:
    after = keep_first(keep, case(name).model())
    assert (given(after, "Slice", 1), given(after, "Slice", 2)) == ([start], [end])


def test_bounds_of_slice_in_the_middle() -> None:
    before = case("slice-middle").model()  # [2:5]: the group around it has 5 channels, the one inside 3
    around, inside = analyze(load(before)).groups
    after = fold_by({around.name: [0, 0, 1, 2, 2]}, before)
    assert (given(after, "Slice", 1), given(after, "Slice", 2)) == ([1], [4])
    after = fold_by({inside.name: [0, 0, 1]}, before)
    assert (given(after, "Slice", 1), given(after, "Slice", 2)) == ([2], [4])


@pytest.mark.parametrize("name", ["slice-negative-begin", "slice-negative-end", "slice-attributes-opset9-negative"])
def test_negative_bounds_follow_what_lies_behind_them(name: str) -> None:
    """A bound counted from the end moves when channels behind it go, though none before it do."""
    before = case(name).model()
    for group in analyze(load(before)).groups:
        labels = np.minimum(np.arange(group.size), group.size - 2)
        after = fold_by({group.name: labels}, before)
        onnx.checker.check_model(after, full_check=True)
        assert [x.shape for x in run(load(before), after)] == [x.shape for x in run(load(before), before)]


def test_padding_of_the_shortcut_is_recounted() -> None:
    """12 channels in three blocks of 4: padding, the stage before, padding."""
    before = case("resnet-option-a").model()
    found = analyze(load(before))
    stage, padded = found.groups
    after = fold_by({stage.name: [0, 0, 1, 2]}, before)
    assert given(after, "Pad", 1) == [0, 4, 0, 0, 0, 4, 0, 0]
    assert constant(after, "v").shape[1] == 11
    after = fold_by({padded.name: [0, 0, 1, 1, 2, 2, 3, 3]}, before)
    assert given(after, "Pad", 1) == [0, 2, 0, 0, 0, 2, 0, 0]
    after = fold_by({padded.name: [0, 1, 2, 3, 4, 4, 4, 4]}, before)
    assert given(after, "Pad", 1) == [0, 4, 0, 0, 0, 1, 0, 0]


def test_padding_of_old_opsets_is_an_attribute() -> None:
    before = case("pad-channels-opset10").model()
    after = keep_first(5, before)
    assert attribute(after, "Pad", "pads") == [0, 2, 0, 0, 0, 3, 0, 0]
    assert constant(after, "v").shape[1] == 10


def test_expand_is_recounted() -> None:
    assert given(keep_first(5, case("expand-names-the-channels").model()), "Expand", 1) == [5, 6, 6]
    assert given(keep_first(5, case("expand-one-channel").model()), "Expand", 1) == [1, 5, 1, 1]


def test_one_list_of_sizes_for_two_splits() -> None:
    text = """(float[N,3,8,8] x) => (float y) {
        h = Conv(x, w) g = Conv(x, u) p, q = Split<axis=1>(h, sizes) r, s = Split<axis=1>(g, sizes)
        e = Conv(p, k) f = Conv(q, l) i = Conv(r, m) j = Conv(s, n) y = Sum(e, f, i, j) }"""
    weights = {"w": (8, 3, 3, 3), "u": (8, 3, 3, 3), "k": (5, 3, 1, 1), "l": (5, 5, 1, 1), "m": (5, 3, 1, 1),
               "n": (5, 5, 1, 1)}  # fmt: skip
    proto = model(text, weights, {"sizes": [3, 5]})
    oracles_hold(proto, groups=[3, 5, 3, 5])
    folds(proto)
    after = fold_by({"Conv#0": [0, 1, 1]}, proto)
    assert (given(after, "Split", 1), given(after, "Split", 1, 1)) == ([2, 5], [3, 5])
    assert node(after, "Split").input[1] != node(after, "Split", 1).input[1]


def test_computed_bounds_are_refused(batch: str | int) -> None:
    text = """(float[N,3,8,8] x, int64[1] starts) => (float[N,5,6,6] y) <float[N,8,6,6] g> {
        h = Conv(x, w) g = Slice(h, starts, ends, axes) f = Conv(g, u) a = Relu(f) y = Conv(a, v) }"""
    weights = {"w": (8, 3, 3, 3), "u": (8, 8, 1, 1), "v": (5, 8, 1, 1)}
    found = analyze(load(model(text, weights, {"ends": [8], "axes": [1]}, batch=batch)))
    assert [g.size for g in found.groups] == [8]
    assert "Slice has bounds computed at run time" in [r.kind for r in found.refusals]


PARTS_ALONG_TIME = {
    "concat": """g = Conv(h, u) f = Conv(h, v) j = Concat<axis=2>(g, f)""",
    "split": """g = Conv(h, u) a, c = Split<axis=2, num_outputs=2>(g) j = Add(a, c)""",
}


@pytest.mark.parametrize("op", PARTS_ALONG_TIME)
def test_parts_along_an_open_axis_share_their_channels(op: str) -> None:
    """Both parts follow, also where it is open how long each is; the second once stayed when the first shrank."""
    text = f"(float[N,3,L] x) => (float[N,5,M] y) {{ h = Conv(x, w) {PARTS_ALONG_TIME[op]} y = Conv(j, o) }}"
    weights = {"w": (6, 3, 1), "u": (8, 6, 1), "v": (8, 6, 1), "o": (5, 8, 1)}
    proto = model(text, {n: s for n, s in weights.items() if n != "v" or op == "concat"}, opset=18)
    oracles_hold(proto, groups=[6, 8])
    folds(proto)
