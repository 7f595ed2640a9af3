"""Reductions, Softmax and its like, LayerNormalization."""

from __future__ import annotations

import pytest
from helpers import Case, assert_holds, newest_opset, oracles_hold

CONV = {"w": (8, 3, 3, 3), "b": (8,), "v": (8, 5)}
HEAD = {"w": (8, 3, 3, 3), "u": (8, 8, 1, 1), "v": (5, 8, 1, 1)}
REDUCTIONS = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSum", "ReduceSumSquare",
)  # fmt: skip

OWN = ("SimplifiedLayerNormalization", "LayerNormalization")
SKIP = ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization")


def between(name: str, body: str, opset: int = 17, **more: object) -> Case:
    """A Conv of 8 channels, `body` from h [N,8,6,6] to a [N,8], and a Gemm that reads them."""
    text = f"(float[N,3,8,8] x) => (float y) {{ h = Conv(x, w, b) {body} y = Gemm(a, v) }}"
    return Case(name, text, CONV, (8,), opset=opset, **more)  # type: ignore[arg-type]


def kept(name: str, body: str, reason: str, opset: int = 17, weights: object = None, **more: object) -> Case:
    """`body` from h to g keeps the 8 channels of h; the 8 that the next Conv makes are a group."""
    text = f"""(float[N,3,8,8] x) => (float y) {{
        h = Conv(x, w) {body} f = Conv(g, u) a = Relu(f) y = Conv(a, v) }}"""
    return Case(name, text, {**HEAD, **(weights or {})}, (8,), opset=opset, refused=(reason,), **more)  # type: ignore


CASES = [
    *(between(f"{op}-attribute", f"k = Sigmoid(h) a = {op}<axes=[2,3], keepdims=0>(k)", 17 if op != "ReduceSum" else 12)
      for op in REDUCTIONS),
    *(between(f"{op}-input", f"k = Sigmoid(h) a = {op}<keepdims=0>(k, axes)", 18, values={"axes": [2, 3]})
      for op in REDUCTIONS),
    between("negative-axes", "a = ReduceMean<axes=[-1,-2], keepdims=0>(h)"),
    between("one-by-one", "k = ReduceMax<axes=[3], keepdims=0>(h) a = ReduceMean<axes=[-1], keepdims=0>(k)"),
    between("keepdims", "k = ReduceMean<axes=[2,3], keepdims=1>(h) a = Flatten(k)"),
    between("keepdims-by-default", "k = ReduceMean<axes=[2,3]>(h) a = Squeeze(k, axes)", values={"axes": [2, 3]}),
    between("no-axes-changes-nothing", """k = ReduceSum<noop_with_empty_axes=1>(h)
        a = ReduceMean<axes=[2,3], keepdims=0>(k)""", 13),
    between("newest", "a = ReduceMean<keepdims=0>(h, axes)", newest_opset(), values={"axes": [-1, 2]}),
    between("ArgMax-of-space", "k = ArgMax<axis=3, keepdims=0>(h) j = Cast<to=1>(k) "
            "a = ReduceMean<axes=[2], keepdims=0>(j)"),
    between("ArgMin-of-space", "k = ArgMin<axis=-1>(h) j = Cast<to=1>(k) a = ReduceMean<axes=[2,3], keepdims=0>(j)"),
    *(between(f"{op}-over-space", f"k = {op}(h) t = Reshape(m, s) j = Mul(k, t) "
              "a = ReduceL2<axes=[2,3], keepdims=0>(j)", refused=(f"{op} mixes this axis",),
              values={"m": [float(i) for i in range(36)], "s": [1, 1, 6, 6]}) for op in ("Softmax", "LogSoftmax")),
    between("Hardmax-over-space", "k = Hardmax(h) j = Mul(k, m) a = ReduceMax<axes=[2,3], keepdims=0>(j)",
            values={"m": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]}),
    between("softmax-axis-3-opset11", "k = Softmax<axis=3>(h) a = ReduceMax<axes=[2,3], keepdims=0>(k)", 11),
    between("LayerNormalization-over-space", "k = LayerNormalization<axis=-1>(h, m, m) "
            "a = ReduceMax<axes=[2,3], keepdims=0>(k)", values={"m": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]}),
    *([between("RMSNormalization-over-space", "k = RMSNormalization<axis=2>(h, m) "
               "a = ReduceMax<keepdims=0>(k, axes)", 23,
               values={"m": [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]] * 6, "axes": [2, 3]})]
      if newest_opset() >= 23 else []),
    between("LayerNormalization-statistics", "k, m, s = LayerNormalization<axis=2>(h, one, nought) j = Mul(k, s) "
            "i = Add(j, m) a = ReduceMax<axes=[2,3], keepdims=0>(i)",
            values={"one": [[1.0] * 6] * 6, "nought": [[0.0] * 6] * 6}),
    kept("mean-of-channels", "k = ReduceMean<axes=[1]>(h) g = Sub(h, k)", "ReduceMean mixes this axis"),
    kept("mean-of-all", "k = ReduceMean(h) g = Sub(h, k)", "ReduceMean mixes this axis"),
    kept("ArgMax-of-channels", "k = ArgMax<axis=1>(h) j = Cast<to=1>(k) g = Sub(h, j)", "ArgMax mixes this axis"),
    *(kept(f"{op}-of-channels", f"g = {op}<axis=1>(h)", f"{op} mixes this axis")
      for op in ("Softmax", "LogSoftmax", "Hardmax")),
    kept("softmax-old-mixes-all-behind", "g = Softmax(h)", "Softmax mixes this axis", 12),
    kept("LayerNormalization-of-channels", """t = Transpose<perm=[0,2,3,1]>(h) k = LayerNormalization(t, scale, shift)
        g = Transpose<perm=[0,3,1,2]>(k)""", "LayerNormalization mixes this axis",
         weights={"scale": (8,), "shift": (8,)}),
    between("LpNormalization-over-space", "k = LpNormalization<axis=3, p=1>(h) "
            "a = ReduceMax<axes=[2,3], keepdims=0>(k)"),
    kept("LpNormalization-of-channels", "g = LpNormalization<axis=1>(h)", "LpNormalization mixes this axis"),
    Case("MeanVarianceNormalization-of-every-channel", """(float[N,3,8,8] x) => (float y) <float[N,8,6,6] k> {
        h = Conv(x, w, b) k = MeanVarianceNormalization<axes=[0,2,3]>(h) a = ReduceMax<axes=[2,3], keepdims=0>(k)
        y = Gemm(a, v) }""", CONV, (8,)),
    Case("MeanVarianceNormalization-of-channels", """(float[N,3,8,8] x) => (float y) <float[N,8,6,6] g> {
        h = Conv(x, w) g = MeanVarianceNormalization<axes=[1,2,3]>(h) f = Conv(g, u) a = Relu(f) y = Conv(a, v) }""",
         HEAD, (8,), refused=("MeanVarianceNormalization mixes this axis",)),
    between("CumSum-over-space", "k = CumSum<reverse=1>(h, axis) a = ReduceMax<axes=[2,3], keepdims=0>(k)",
            values={"axis": -1}),
    kept("CumSum-of-channels", "g = CumSum(h, axis)", "CumSum mixes this axis", values={"axis": 1}),
    between("TopK-over-space", "k, i = TopK<axis=2>(h, two) j = Cast<to=1>(i) e = Mul(k, j) "
            "a = ReduceMax<axes=[2,3], keepdims=0>(e)", values={"two": [2]}),
    kept("TopK-of-channels", "g, i = TopK<axis=1>(h, eight)", "TopK mixes this axis", values={"eight": [8]}),
    between("Trilu-over-space", "k = Trilu(h) a = ReduceMax<axes=[2,3], keepdims=0>(k)"),
    kept("Trilu-of-channels", """t = Transpose<perm=[0,2,3,1]>(h) k = Trilu<upper=0>(t)
         g = Transpose<perm=[0,3,1,2]>(k)""", "Trilu mixes this axis"),
    between("Compress-space", "k = Compress<axis=-1>(h, chosen) a = ReduceMax<axes=[2,3], keepdims=0>(k)",
            values={"chosen": [True, False, True]}),
    kept("Compress-all", "k = Compress(h, chosen) m = ReduceMax(k) g = Mul(h, m)", "Compress mixes this axis",
         values={"chosen": [False, True]}),
    *(Case(f"{op}-over-positions", f"""(float[N,7,3] x) => (float y) <float[N,8,7] k, float[N,8,7] sum> {{
        h = MatMul(x, w) t = Transpose<perm=[0,2,1]>(h) m = MatMul(x, u) r = Transpose<perm=[0,2,1]>(m)
        k, , , sum = com.microsoft.{op}(t, r, scale) e = Add(k, sum) f = Transpose<perm=[0,2,1]>(e)
        y = MatMul(f, v) }}""", {"w": (3, 8), "u": (3, 8), "v": (8, 5), "scale": (7,)}, (8,)) for op in SKIP),
    *(Case(f"{op}-of-channels", f"""(float[N,7,3] x) => (float y) <float[N,7,8] k> {{
        h = MatMul(x, w) m = MatMul(x, u) k = com.microsoft.{op}(h, m, scale) e = MatMul(k, s) a = Relu(e)
        y = MatMul(a, v) }}""", {"w": (3, 8), "u": (3, 8), "s": (8, 6), "v": (6, 5), "scale": (8,)}, (6,),
           refused=(f"com.microsoft.{op} mixes this axis",)) for op in SKIP),
    # onnxruntime's own, in the default domain of a model that onnx's checker would refuse
    *(Case(f"{op}-own", f"""(float[N,7,3] x) => (float y) <float[N,7,8] a> {{ h = MatMul(x, w) a = {op}(h, scale)
        y = MatMul(a, v) }}""", {"w": (3, 8), "v": (8, 5), "scale": (8,)}, (), opset=16,
           refused=(f"{op} mixes this axis",)) for op in OWN),
    kept("Det", "k = Det(h) m = Unsqueeze(k, axes) g = Mul(h, m)", "no rule for Det", values={"axes": [2, 3]}),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_case(case: Case, batch: str | int) -> None:
    assert_holds(case, batch)


def test_softmax_means_something_else_since_opset_13() -> None:
    """The same text: over the last axis alone since opset 13, over the channels too before."""
    body = "k = Softmax(h) a = ReduceMax<axes=[2,3], keepdims=0>(k)"
    oracles_hold(between("", body, 13).model(), groups=[8])
    oracles_hold(between("", body, 12).model(), groups=[])


def test_statistics_of_layer_normalization_follow_the_channels(batch: str | int) -> None:
    """The mean that LayerNormalization also outputs is read by itself."""
    text = """(float[N,3,8,8] x) => (float y, float z) {
        h = Conv(x, w, b) k, m, s = LayerNormalization<axis=2>(h, one, nought) j = ReduceMax<axes=[2,3], keepdims=0>(k)
        y = Gemm(j, v) i = Squeeze(m, axes) z = Gemm(i, t) }"""
    values = {"one": [[1.0] * 6] * 6, "nought": [[0.0] * 6] * 6, "axes": [2, 3]}
    assert_holds(Case("", text, {**CONV, "t": (8, 4)}, (8,), values), batch)


def test_computed_axes_are_refused() -> None:
    text = "k = ReduceMean<keepdims=1>(h, axes) g = Sub(h, k)"
    case = kept("", text, "ReduceMean has axes computed at run time", 18)
    inner = "<float[N,A,B,C] k, float[N,8,6,6] g>"
    with_input = case.text.replace("x) => (float y)", f"x, int64[1] axes) => (float[N,5,P,Q] y) {inner}")
    assert_holds(
        Case("", with_input, case.weights, (8,), opset=18, refused=("ReduceMean has axes computed at run time",)), 2
    )
