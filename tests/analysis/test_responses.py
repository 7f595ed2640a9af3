"""Global response normalization: the mean over channels counts every channel for as many as it stands for."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import Case, assert_holds, constant, fold_by, model, node

from onnxfold.analysis.analyze import analyze
from onnxfold.model.model import load
from onnxfold.transform.edits import edits
from onnxfold.transform.emit import emit

LAST = {"w": (6, 8), "b": (8,), "gamma": (8,), "beta": (8,), "v": (8, 5)}
FIRST = {"w": (8, 3, 1, 1), "b": (8,), "gamma": (8, 1, 1), "beta": (8, 1, 1), "v": (5, 8, 1, 1)}
SCALED = "e = Add(m, eps) q = Div(r, e) s = Mul(a, q) t = Mul(s, gamma) u = Add(t, beta) z = Add(u, a)"
L2 = "r = ReduceL2<axes=[{places}]>(a)"
MEAN = "m = ReduceMean<axes=[{channel}]>(r)"


def last(
    name: str, strength: str, mean: str = MEAN, opset: int = 17, groups: tuple[int, ...] = (8,), **more: object
) -> Case:
    """Channels last, as transformers has it."""
    body = f"{strength} {mean} {SCALED}".format(places="1, 2", channel=-1)
    text = f"(float[N,4,4,6] x) => (float y) {{ h = MatMul(x, w) k = Add(h, b) a = Tanh(k) {body} y = MatMul(z, v) }}"
    return Case(name, text, LAST, groups, {"eps": 1e-6, **more.pop("values", {})}, opset=opset, **more)  # type: ignore[arg-type, dict-item]


def first(name: str, strength: str, mean: str = MEAN) -> Case:
    """Channels on axis 1, as timm has it in convolutions."""
    body = f"{strength} {mean} {SCALED}".format(places="2, 3", channel=1)
    text = f"(float[N,3,4,4] x) => (float y) {{ h = Conv(x, w, b) a = Tanh(h) {body} y = Conv(z, v) }}"
    return Case(name, text, FIRST, (8,), {"eps": 1e-6})


AXES = {"places": [1, 2], "channel": [3], "two": 2.0, "half": 0.5}
CASES = [
    last("channels-last", L2),
    last("opset13", L2, opset=13),
    last("opset18", "r = ReduceL2(a, places)", "m = ReduceMean(r, channel)", 18,
         values={key: AXES[key] for key in ("places", "channel")}),
    last("square-root-of-squares", "c = Mul(a, a) d = ReduceSum(c, places) r = Sqrt(d)", values={"places": [1, 2]}),
    last("power", "c = Pow(a, two) d = ReduceSum(c, places) r = Pow(d, half)",
         values={key: AXES[key] for key in ("places", "two", "half")}),
    last("sum-of-squares", "d = ReduceSumSquare<axes=[{places}]>(a) r = Sqrt(d)"),
    first("channels-first", L2),
    *(last(f"sum-{name}", L2, f"k1 = ReduceSum(r, channel) {mean}", values={"channel": [3], **values})
      for name, mean, values in (
          ("divided", "m = Div(k1, c)", {"c": 8.0}), ("times", "m = Mul(k1, c)", {"c": 0.125}),
          ("by-a-shape", "s1 = Shape(a) s2 = Gather<axis=0>(s1, at) c = Cast<to=1>(s2) m = Div(k1, c)", {"at": 3}))),
    last("sum-of-squares-over-sums", "c = Pow(a, two) d = ReduceSum(c, places) r = Sqrt(d)",
         "k1 = ReduceSum(r, channel) m = Div(k1, n)", values={"places": [1, 2], "channel": [3], "two": 2.0, "n": 8.0}),
    last("sum-of-channels-is-kept", "r = ReduceSum(a, places)", "m = ReduceSum(r, channel)", groups=(),
         values={"places": [1, 2], "channel": [3]}, refused=("ReduceSum mixes this axis",)),
    last("mean-of-channels-is-kept", "r = ReduceMean<axes=[{places}]>(a)", groups=(),
         refused=("ReduceMean mixes this axis",)),
    last("mean-of-squares-is-kept", "r = Mul(a, a)", groups=(), refused=("ReduceMean mixes this axis",)),
    last("largest-is-kept", L2, "m = ReduceMax<axes=[{channel}]>(r)", groups=(),
         refused=("ReduceMax mixes this axis",)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_case(case: Case) -> None:
    assert_holds(case, "N")


def test_a_mul_before_the_mean_says_how_many_each_channel_stands_for() -> None:
    after = fold_by({"MatMul#0": [0, 0, 0, 1, 2, 3, 4, 5]}, CASES[0].model())
    factors = constant(after, node(after, "Mul").input[1])
    np.testing.assert_allclose(factors, np.array([3, 1, 1, 1, 1, 1]) * 6 / 8, rtol=1e-6)
    again = fold_by({"MatMul#0": [0, 1, 2, 3, 4, 0]}, after)
    before, behind = (constant(again, node(again, "Mul", which).input[1]) for which in (0, 1))
    np.testing.assert_allclose(before * behind, np.array([4, 1, 1, 1, 1]) * 5 / 8, rtol=1e-6)


def test_without_a_merge_nothing_is_added() -> None:
    loaded = load(CASES[0].model())
    found = analyze(loaded)
    assert len(found.means) == 1
    untouched = emit(loaded, edits(loaded, found, {}))
    assert untouched.SerializeToString() == loaded.proto.SerializeToString()


def test_half_precision() -> None:
    """The factors have the element type of what they multiply."""
    text = """(float[N,4,4,6] x) => (float y) { h = MatMul(x, w) k = Cast<to=10>(h) r = ReduceL2<axes=[1, 2]>(k)
        m = ReduceMean<axes=[3]>(r) q = Div(r, m) s = Mul(k, q) t = Cast<to=1>(s) y = MatMul(t, v) }"""
    after = fold_by({"MatMul#0": [0, 0, 1, 2, 3, 4, 5, 6]}, model(text, {"w": (6, 8), "v": (8, 5)}))
    assert constant(after, node(after, "Mul").input[1]).dtype == np.float16
