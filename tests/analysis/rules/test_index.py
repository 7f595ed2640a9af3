"""Gather and scatter in all forms, OneHot, and operators that number, compare or draw."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import Case, assert_holds, constant, fold_by, given, node
from test_layout import cutting

NEXT = {"v": (6, 8, 1, 1), "u": (5, 6, 1, 1)}
KEPT = "f = Conv(g, v) a = Relu(f) y = Conv(a, u)"
ROWS = [[[[5, 0, 1]]]]

SCATTERED = """(float[2,3,6,6] x) => (float y) { a = Conv(x, w) b = Conv(x, u) {} r = Relu(t) y = Conv(r, v) }"""
HALF = {"w": (4, 3, 3, 3), "u": (4, 3, 3, 3), "v": (5, 8, 1, 1)}
OVER = {"w": (8, 3, 3, 3), "u": (4, 3, 3, 3), "v": (5, 8, 1, 1)}


def grid(*along: list[int]) -> np.ndarray:
    """Indices that go along some axes."""
    return np.stack(np.meshgrid(*along, indexing="ij"), axis=-1)


def scattered(name: str, body: str, groups: tuple[int, ...], weights: dict[str, tuple[int, ...]], **more: Any) -> Case:
    """Two convolutions, one written into the other's output or both into zeros."""
    return Case(f"scatter-nd-{name}", SCATTERED.replace("{}", body), weights, groups, **more)


OVERWRITTEN = cutting(
    "ScatterND-of-channels", f"""t = Transpose(h) s = Shape(t) d = Slice(s, one, end) n = Concat<axis=0>(two, d)
    c = Expand(half, n) q = Transpose<perm=[1,0,2,3]>(h) p = Shape(q) o = Slice(p, one, end) m = Concat<axis=0>(two, o)
    j = Expand(half, m) k = ScatterND(q, rows, j) g = Transpose<perm=[1,0,2,3]>(k) {KEPT}""", (6, 2, 6), weights=NEXT,
    values={"rows": [[3], [1]], "one": [1], "end": [9], "two": [2], "half": 0.5},
)  # fmt: skip
"""Channels that are overwritten, beside a list of lengths that plain numbers replace where all are known."""

CASES = [
    scattered("interleaved", "s = ScatterND(z, i, a) t = ScatterND(s, j, b)", (4, 4), HALF,
              values={"i": grid([0, 1], [0, 2, 4, 6]), "j": grid([0, 1], [1, 3, 5, 7]),
                      "z": np.zeros((2, 8, 4, 4), np.float32)}, refused=("Conv mixes this axis",)),
    scattered("overwritten", "t = ScatterND(a, j, b)", (4, 4), OVER, values={"j": grid([0, 1], [7, 5, 3, 1])}),
    scattered("added", 't = ScatterND<reduction="add">(a, j, b)', (4, 4), OVER,
              values={"j": grid([0, 1], [0, 1, 2, 3])}),
    scattered("diagonal-is-kept", """c = Transpose<perm=[1,0,2,3]>(b) d = Slice(c, zero, one2) e = Squeeze(d, zero)
        f = ScatterND(a, j, e) k = Conv(f, k0) t = Tanh(k)""", (3, 6),
              {**OVER, "k0": (6, 8, 1, 1), "v": (5, 6, 1, 1)}, values={"j": [[0, 3], [1, 5]], "zero": [0], "one2": [1]},
              refused=("ScatterND mixes this axis",)),
    Case("scatter-nd-first-axis", """(float[2,3,6] x) => (float y) { h = MatMul(x, w) t = Transpose<perm=[2,0,1]>(h)
        b = MatMul(x, u) c = Transpose<perm=[2,0,1]>(b) s = ScatterND(t, j, c) d = Transpose<perm=[1,2,0]>(s)
        r = Relu(d) y = MatMul(r, v) }""", {"w": (6, 8), "u": (6, 3), "v": (8, 5)}, (3, 5), {"j": [[0], [1], [2]]}),
    cutting("gather-positions", "g = Gather<axis=2>(h, index) y = Conv(g, v)", (8,), values={"index": [0, 2, 3]},
            weights={"v": (5, 8, 1, 1)}),
    cutting("gather-one-position", "g = Gather<axis=-1>(h, index) y = Conv(g, v)", (8,), values={"index": 2},
            weights={"v": (5, 8, 1)}),
    *(Case(f"gather-{name}-of-heads", f"""(float[N,5,6] x) => (float[N,5,4] y) {{ h = MatMul(x, w) r = Reshape(h, split)
        q = Slice(r, zero, last, two, one) {keys} m = Mul(q, k) a = Softmax<axis=-1>(m) z = Mul(a, l)
        j = Reshape(z, join) y = MatMul(j, v) }}""", {"w": (6, 12), "v": (8, 4)}, (4,),
        {"split": [0, 0, 6, 2], "zero": [0], "last": [-2], "two": [2], "one": [1], "join": [0, 0, -1], **values},
        ("Gather mixes this axis",))
      for name, keys, values in (
          ("last", "k = Gather<axis=2>(r, i1) l = Gather<axis=2>(r, i2)", {"i1": [-2], "i2": [-1]}),
          ("numbered", "k0 = Gather<axis=2>(r, i1) l0 = Gather<axis=2>(r, i2) k = Unsqueeze(k0, two) "
           "l = Unsqueeze(l0, two)", {"i1": 4, "i2": 5}))),
    Case("gather-for-its-lengths", """(float[N,5,6] x) => (float[N,5,4] y) { h = MatMul(x, w)
        g = Gather<axis=2>(h, last) s = Shape(g) e = Expand(shift, s) f = Unsqueeze(e, two)
        r = Relu(h) a = Add(r, f) y = MatMul(a, v) }""",
         {"w": (6, 8), "v": (8, 4)}, (8,), {"last": -1, "two": [2], "shift": 0.5}),
    cutting("gather-channels-reversed", "g = Gather<axis=1>(h, index) f = Add(g, h) y = Conv(f, v)", (4,),
            values={"index": [7, 6, 5, 4, 3, 2, 1, 0]}, weights={"v": (5, 8, 1, 1)}),
    cutting("gather-channels-shuffled", """g = Gather<axis=1>(h, index) f = Conv<group=2>(g, u) a = Relu(f)
            e = Gather<axis=1>(a, index) y = Conv(e, v)""", (8, 8),
            values={"index": [0, 4, 1, 5, 2, 6, 3, 7]}, weights={"u": (8, 4, 1, 1), "v": (5, 8, 1, 1)}),
    cutting("gather-channels-interleaved", """k = Conv(h, t) g = Gather<axis=1>(k, even) b1 = Gather<axis=-3>(k, odd)
            s = Sigmoid(g) m = Mul(s, b1) y = Conv(m, u)""", (8, 6),
            values={"even": [0, 2, 4, 6, 8, 10], "odd": [1, -9, 5, 7, 9, -1]},
            weights={"t": (12, 8, 1, 1), "u": (5, 6, 1, 1)}),
    cutting("gather-channels-twice", "g = Gather<axis=1>(h, index) f = Relu(g) y = Conv(f, v)", (8,),
            values={"index": [0, 1, 2, 3, 4, 5, 6, 7, 3, 1, 0, 2, 5, 4, 7, 6]}, weights={"v": (5, 16, 1, 1)}),
    cutting("gather-computed-channels-is-kept", """s = Shape<start=1, end=2>(h) d = Div(s, eight)
            i = Concat<axis=0>(d, index) g = Gather<axis=1>(h, i) f = Conv(g, v) a = Relu(f) y = Conv(a, u)""", (6,),
            values={"index": [0, 2], "eight": [8]}, refused=("Gather mixes this axis",),
            weights={"v": (6, 3, 1, 1), "u": (5, 6, 1, 1)}),
    cutting("gather-one-channel", "g = Gather<axis=1>(h, index) f = Conv(g, v) a = Relu(f) y = Conv(a, u)",
            (7, 6), values={"index": [3]}, refused=("Gather",), weights={"v": (6, 1, 1, 1), "u": (5, 6, 1, 1)}),
    cutting("GatherElements", """e = Shape(h) z = Slice(e, zero, three) t = Concat<axis=0>(z, two) i = Expand(rows, t)
            g = GatherElements<axis=3>(h, i) y = Conv(g, v)""", (8,), weights={"v": (5, 8, 1, 1)},
            values={"rows": [[[[5, 0]]]], "zero": [0], "three": [3], "two": [2]},
            refused=("GatherElements mixes this axis",)),
    cutting("Gather-list-between-ones", "g = Gather<axis=1>(h, i) r = Reshape(g, s) y = Conv(r, v)", (8,),
            weights={"v": (5, 8, 1, 1)}, values={"i": [[[7], [0], [2], [1], [4], [3], [5], [6]]], "s": [0, -1, 6, 6]}),
    cutting("GatherElements-tiled-index", """e = Shape(h) z = Slice(e, zero, three) s = Concat<axis=0>(z, one)
            i = Tile(rows, s) g = GatherElements<axis=3>(h, i) y = Conv(g, v)""", (8,), weights={"v": (5, 8, 1, 1)},
            values={"rows": [[[[5, 0]]]], "zero": [0], "three": [3], "one": [1]},
            refused=("GatherElements mixes this axis",)),
    cutting("GatherElements-shorter-index-is-kept", f"""e = Shape<end=1>(h) t = Concat<axis=0>(e, rest)
            i = Expand(rows, t) g = GatherElements<axis=3>(h, i) {KEPT}""", (6,),
            weights={"v": (6, 4, 1, 1), "u": (5, 6, 1, 1)}, values={"rows": [[[[5, 0]]]], "rest": [4, 6, 2]},
            refused=("GatherElements mixes this axis",)),
    cutting("ScatterElements", """e = Shape(h) z = Slice(e, zero, three) t = Concat<axis=0>(z, two) i = Expand(rows, t)
            k = Expand(c, t) g = ScatterElements<axis=-1>(h, i, k) y = Conv(g, v)""", (8,),
            weights={"v": (5, 8, 1, 1), "c": (8, 1, 1)},
            values={"rows": [[[[5, 0]]]], "zero": [0], "three": [3], "two": [2]},
            refused=("ScatterElements mixes this axis",)),
    cutting("ScatterElements-of-channels-is-kept", f"""e = Shape<end=1>(h) t = Concat<axis=0>(e, rest)
            i = Expand(rows, t) c = Expand(half, t) g = ScatterElements<axis=1>(h, i, c) {KEPT}""", (6,), weights=NEXT,
            values={"rows": [[[[5]], [[0]]]], "rest": [2, 6, 6], "half": 0.5},
            refused=("ScatterElements mixes this axis",)),
    Case("Scatter-opset10", """(float[2,3,8,8] x) => (float y) {
        h = Conv(x, w) s = Slice(h, nought, two, last) q = Mul(s, four) k = Cast<to=7>(q) i = Sign(k)
        g = Scatter<axis=3>(h, i, s) y = Conv(g, v) }""", {"w": (8, 3, 3, 3), "v": (5, 8, 1, 1)}, (8,),
         {"nought": [0], "two": [2], "last": [3], "four": 4.0}, opset=10),
    cutting("GatherND", """t = Transpose<perm=[2,3,0,1]>(h) g = GatherND(t, rows) k = Transpose<perm=[1,2,0]>(g)
            y = Conv(k, v)""", (8,), weights={"v": (5, 8, 1)}, values={"rows": [[5, 0], [2, 3], [4, 4]]},
            refused=("Conv mixes this axis",)),
    cutting("GatherND-some-axes", """t = Transpose<perm=[2,3,0,1]>(h) g = GatherND(t, rows)
            k = Transpose<perm=[2,3,0,1]>(g) y = Conv(k, v)""", (8,), weights={"v": (5, 8, 1, 1)},
            values={"rows": [[5], [2], [4]]},
            refused=("Conv mixes this axis",)),
    Case("GatherND-batch", """(float[2,3,6,6] x) => (float y) {
        h = Conv(x, w) t = Transpose<perm=[0,2,3,1]>(h) g = GatherND<batch_dims=1>(t, rows) y = MatMul(g, v) }""",
         {"w": (8, 3, 3, 3), "v": (8, 5)}, (8,), {"rows": [[[1, 0], [2, 3]], [[0, 0], [3, 3]]]}),
    cutting("GatherND-of-channels-is-kept", f"""t = Transpose<perm=[1,0,2,3]>(h) k = GatherND(t, rows)
            g = Transpose<perm=[1,0,2,3]>(k) {KEPT}""", (6,), weights={"v": (6, 3, 1, 1), "u": (5, 6, 1, 1)},
            values={"rows": [[5], [0], [1]]}, refused=("GatherND mixes this axis",)),
    Case("ScatterND", """(float[2,3,6,6] x) => (float y) {
        h = Conv(x, w) t = Transpose<perm=[2,3,0,1]>(h) k = ScatterND(t, rows, c) g = Transpose<perm=[2,3,0,1]>(k)
        y = Conv(g, v) }""",
         {"w": (8, 3, 3, 3), "v": (5, 8, 1, 1), "c": (2, 4, 2, 8)}, (8,), {"rows": [[3], [1]]},
         refused=("Conv mixes this axis",)),
    OVERWRITTEN.of_batch(2),
    OVERWRITTEN.of_batch("M", groups=(6,), refused=("Expand takes this length from another axis",)),
    Case("OneHot", """(float[N,3] x) => (float y) {
        h = MatMul(x, w) s = Mul(h, four) i = Cast<to=7>(s) o = OneHot<axis=1>(i, depth, offon) y = MatMul(o, v) }""",
         {"w": (3, 8), "v": (8, 5)}, (8,), {"four": 4.0, "depth": 6, "offon": [0.0, 1.0]}),
    Case("Range-numbers", """(float[N,3] x) => (float y) <int64[8] r> {
        h = MatMul(x, w) e = Shape(h) n = Gather(e, one) r = Range(nought, n, one) i = Cast<to=1>(r) g = Mul(i, h)
        f = MatMul(g, k) a = Relu(f) y = MatMul(a, v) }""",
         {"w": (3, 8), "k": (8, 6), "v": (6, 5)}, (6,), {"one": 1, "nought": 0},
         refused=("Range returns positions along its axes",)),
    Case("EyeLike-numbers", """(float[8,3] x) => (float y) {
        h = MatMul(x, w) e = EyeLike(h) g = Add(h, e) f = MatMul(g, k) a = Relu(f) y = MatMul(a, v) }""",
         {"w": (3, 8), "k": (8, 6), "v": (6, 5)}, (6,), refused=("EyeLike returns positions along its axes",)),
    cutting("NonZero-compares", f"""p = NonZero(h) i = Cast<to=1>(p) s = ReduceMean<keepdims=0>(i) g = Mul(h, s)
            {KEPT}""",
            (6,), weights=NEXT, refused=("NonZero picks elements by comparing them",)),
    cutting("Unique-compares", f"""p = Unique<sorted=1>(h) s = ReduceMean<keepdims=0>(p) g = Mul(h, s) {KEPT}""",
            (6,), weights=NEXT, refused=("Unique picks elements by comparing them",)),
    Case("NonMaxSuppression-compares", """(float[1,6,3] x) => (float y) {
        b = MatMul(x, w) s = MatMul(x, k) t = Transpose<perm=[0,2,1]>(s) n = NonMaxSuppression(b, t, most)
        i = Cast<to=1>(n) m = ReduceMean<keepdims=0>(i) g = Mul(s, m) f = MatMul(g, u) a = Relu(f)
        y = MatMul(a, v) }""",
         {"w": (3, 4), "k": (3, 8), "u": (8, 6), "v": (6, 5)}, (6,), {"most": [3]},
         refused=("NonMaxSuppression picks elements by comparing them",)),
    *(cutting(f"{op}-draws", f"r = {op}<seed=1.0>(h) g = Add(h, r) {KEPT}", (6,), weights=NEXT,
              refused=(f"{op} draws random numbers",)) for op in ("RandomNormalLike", "RandomUniformLike")),
    *(cutting(f"{op}-draws", f"r = {op}<seed=1.0, shape=[1,8,1,1]>() g = Add(h, r) {KEPT}", (6,), weights=NEXT,
              refused=(f"{op} draws random numbers",)) for op in ("RandomNormal", "RandomUniform")),
    cutting("Bernoulli-draws", f"s = Sigmoid(h) g = Bernoulli<seed=1.0>(s) {KEPT}", (6,), weights=NEXT,
            refused=("Bernoulli draws random numbers",)),
    Case("Multinomial-draws", """(float[N,3] x) => (float y) {
        h = MatMul(x, w) d = Multinomial<seed=1.0, sample_size=4>(h) i = Cast<to=1>(d) f = MatMul(i, k) a = Relu(f)
        y = MatMul(a, v) }""", {"w": (3, 8), "k": (4, 6), "v": (6, 5)}, (6,),
         refused=("Multinomial draws random numbers",)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_case(case: Case, batch: str | int) -> None:
    assert_holds(case, batch)


def test_indices_are_numbered_anew() -> None:
    """Each Gather has a list of its own afterwards, in the element type of the old one."""
    case = next(case for case in CASES if case.name == "gather-channels-interleaved")
    after = fold_by({"Conv#1": [0, 1, 1, 2, 3, 4]}, case.model())
    assert (given(after, "Gather", 1), given(after, "Gather", 1, 1)) == ([0, 2, 4, 6, 8], [1, 3, 5, 7, 9])
    assert constant(after, node(after, "Gather").input[1]).dtype == np.int64


def test_columns_of_indices_are_numbered_anew() -> None:
    case = next(case for case in CASES if case.name == "scatter-nd-interleaved")
    after = fold_by({"Conv#0": [0, 1, 1, 2], "Conv#1": [0, 1, 2, 2]}, case.model())
    first, second = (constant(after, node(after, "ScatterND", which).input[1]) for which in (0, 1))
    np.testing.assert_array_equal(first, grid([0, 1], [0, 2, 5]))
    np.testing.assert_array_equal(second, grid([0, 1], [1, 3, 4]))


def test_the_position_that_is_picked_is_numbered_anew() -> None:
    cases = {case.name: case for case in CASES}
    after = fold_by({"MatMul#0": [0, 1, 1, 2]}, cases["gather-numbered-of-heads"].model())
    assert [int(constant(after, node(after, "Gather", which).input[1])) for which in (0, 1)] == [3, 4]
