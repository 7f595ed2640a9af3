"""Quantized weights and activations: the oracles hold as they do for floats, since the integers leave room."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from helpers import Case, assert_holds, newest_opset, runs
from packing import Bits, Pack, Packed

CONV = {"w": (8, 3, 3, 3), "b": (8,), "v": (5, 8, 1, 1)}
IN, OUT = "q = QuantizeLinear(x, s, z)", "y = DequantizeLinear(o, s, z)"
QCONV = {"w": Pack(), "b": Pack(of="w"), "v": Pack()}
INTEGERS = "w_q, w_s, w_z"
FORMATS = [
    *((bits, zeros, False) for bits in (4, 8) for zeros in ("", "packed", "flat")),
    (4, "float", False), (4, "", True), (4, "float", True),  # of 8 bits, onnxruntime's CPU runs none of these
]  # fmt: skip
BLOCKED = ((ml_dtypes.int4, 0, 7), (ml_dtypes.uint4, 8, 7), (np.int8, 0, 127), (np.uint8, 120, 127))


def weights_only(name: str, packs: dict[str, Pack], opset: int = 17) -> Packed:
    """Two convolutions with quantized weights on floats."""
    text = "(float[N,3,6,6] x) => (float y) { h = Conv(x, w, b) a = Relu(h) y = Conv(a, v) }"
    return Packed(name, text, CONV, (8,), opset=opset, packs=packs)


def between(name: str, body: str, groups: tuple[int, ...] = (8,), **more: object) -> Packed:
    """QLinearConv of 8 channels, `body` from h to a (uint8), and one that reads them."""
    text = f"""(float[N,3,6,6] x) => (float y) <uint8[N,8,4,4] a> {{ {IN}
        h = QLinearConv(q, s, z, {INTEGERS}, s, z, b_q) {body} o = QLinearConv(a, s, z, v_q, v_s, v_z, s, z) {OUT} }}"""
    weights, packs = {**CONV, **more.pop("weights", {})}, {**QCONV, **more.pop("packs", {})}  # type: ignore[dict-item]
    return Packed(name, text, weights, groups, packs=packs, **more)  # type: ignore[arg-type]


def pair(scale: str = "s", zero: str = "z", axis: str = "") -> str:
    return f"k = QuantizeLinear{axis}(h, {scale}, {zero}) a = DequantizeLinear{axis}(k, {scale}, {zero})"


def activations(name: str, body: str, **more: object) -> Packed:
    """A pair of QuantizeLinear and DequantizeLinear between two convolutions of floats."""
    text = f"(float[N,3,6,6] x) => (float y) {{ h = Conv(x, w, b) {body} y = Conv(a, v) }}"
    return Packed(name, text, CONV, more.pop("groups", (8,)), **more)  # type: ignore[arg-type]


def nbits(name: str, how: Bits, bias: bool = False) -> Packed:
    """An MLP of 40 hidden units: two blocks and a half of 16."""
    zero, mixed = "{0}_z" if how.zeros else "", "{0}_g" if how.mixed else ""
    rest = f", {zero}, {mixed}, " if bias else f", {zero}, {mixed}" if mixed else f", {zero}" if zero else ""
    w, v = (rest.format(weight) for weight in "wv")
    said = f"bits={how.bits}, block_size={how.block}"
    text = f"""(float[N,3,20] x) => (float[N,3,5] y) {{
        h = com.microsoft.MatMulNBits<K=20, N=40, {said}>(x, w_q, w_s{w}{"b" if bias else ""}) a = Sigmoid(h)
        y = com.microsoft.MatMulNBits<K=40, N=5, {said}>(a, v_q, v_s{v}{"c" if bias else ""}) }}"""
    biases = {"b": (40,), "c": (5,)} if bias else {}
    return Packed(name, text, {"w": (40, 20), "v": (5, 40), **biases}, (40,), packs={"w": how, "v": how})


UINT8 = Pack(None, np.uint8, 128)
SCALED = {
    "by-both": "{h}k = Mul({h}t, {w}_s) {y} = Mul({h}g, {h}k)",
    "by-both-turned": "{h}k = Mul({w}_s, {h}t) {y} = Mul({h}k, {h}g)",
    "apart": "{h}k = Mul({h}g, {h}t) {y} = Mul({h}k, {w}_s)",
}
"""How what operators on integers give becomes floats again: {h}g times the scales {h}t of the input and {w}_s."""


def dynamic(name: str, op: str, scaled: str, *packs: Pack) -> Packed:
    """Two layers as quantize_dynamic writes them, with a bias and Relu between."""

    def layer(x: str, w: str, y: str) -> str:
        made = scaled.format(h=x, w=w, y=y) if w == "w" else SCALED["by-both"].format(h=x, w=w, y=y)
        front = "w_u = Unsqueeze(w_s, spread)" if "w_u" in made else ""
        zero = "" if w == "w" and "w_u" in made else f", {w}_z"  # of convolutions, onnxruntime takes only one for all
        return f"""{front} {x}q, {x}t, {x}p = DynamicQuantizeLinear({x}) {x}i = {op}({x}q, {w}_q, {x}p{zero})
            {x}g = Cast<to=1>({x}i) {made}"""

    image = op == "ConvInteger"
    shape, weights = ("3,6,6", CONV) if image else ("3", {**LINEAR, "b": (8,)})
    layers = f"{layer('x', 'w', 'h')} k = Add(h, b) a = Relu(k) {layer('a', 'v', 'y')}"
    sizes, values = {**weights, "b": (8, 1, 1) if image else (8,)}, {"spread": [1, 2]} if "w_u" in layers else {}
    text = f"(float[N,{shape}] x) => (float y) {{ {layers} }}"
    return Packed(name, text, sizes, (8,), values, packs=dict(zip("wv", packs, strict=True)))


LINEAR = {"w": (3, 8), "v": (8, 5)}
YOUNG = [
    Packed("ConvInteger-static", f"""(float[N,3,6,6] x) => (float y) {{ {IN} h = ConvInteger(q, w_q, z)
        g = Cast<to=1>(h) f = Mul(g, s) y = Conv(f, v) }}""", {"w": (8, 3, 3, 3), "v": (5, 8, 1, 1)}, (8,),
        packs={"w": Pack(None)}),
    dynamic("ConvInteger", "ConvInteger", SCALED["by-both"], Pack(None), Pack(None)),
    dynamic("ConvInteger-per-channel", "ConvInteger", SCALED["apart"].replace("{w}_s", "{w}_u"), Pack(0), Pack(None)),
]  # fmt: skip
"""Not every version of onnxruntime has convolutions of signed integers on a CPU."""
CASES = [
    weights_only("weights-per-channel", {"w": Pack(), "v": Pack()}),
    weights_only("weights-per-tensor", {"w": Pack(None), "v": Pack(None)}),
    weights_only("weights-per-input-channel", {"w": Pack(1), "v": Pack(1, even=True)}),
    weights_only("weights-uint8", {"w": Pack(None, np.uint8, 128), "v": Pack(0, np.uint8, 128)}),
    weights_only("weights-zero-points", {"w": Pack(0, np.int8, (0, 1, 2, 3, -1, -2, -3, -4), 100)}),
    weights_only("weights-bias-of-its-own", {"w": Pack(), "b": Pack(None, np.int32, most=2**20)}),
    weights_only("weights-mixed", {"v": Pack()}),
    *(weights_only(f"weights-{np.dtype(t)}", {"w": Pack(dtype=t, most=32767), "v": Pack(None, t, most=32767)}, 21)
      for t in (np.int16,) if newest_opset() >= 21),
    Packed("grouped", """(float[N,3,6,6] x) => (float y) {
        h = Conv(x, w) a = Relu(h) g = Conv<group=2>(a, u) f = Relu(g) y = Conv(f, v) }""",
        {"w": (8, 3, 3, 3), "u": (8, 4, 1, 1), "v": (5, 8, 1, 1)}, (8, 8),
        packs={"w": Pack(), "u": Pack(), "v": Pack()}),
    Packed("depthwise", """(float[N,3,6,6] x) => (float y) {
        h = Conv(x, w) a = Relu(h) g = Conv<group=8>(a, u, c) f = Relu(g) y = Conv(f, v) }""",
        {"w": (8, 3, 3, 3), "u": (8, 1, 3, 3), "c": (8,), "v": (5, 8, 1, 1)}, (8,),
        packs={"w": Pack(), "u": Pack(spare=False), "v": Pack()}),
    *(Packed(f"transpose-{axis}", """(float[N,3,6,6] x) => (float y) {
        h = ConvTranspose(x, w) a = Relu(h) y = ConvTranspose(a, v) }""",
        {"w": (3, 8, 2, 2), "v": (8, 5, 2, 2)}, (8,), packs={"w": Pack(axis), "v": Pack(axis, even=axis == 0)})
      for axis in (0, 1, None)),
    Packed("transpose-grouped", """(float[N,3,6,6] x) => (float y) {
        h = Conv(x, w) a = Relu(h) g = ConvTranspose<group=2>(a, u) f = Relu(g) y = Conv(f, v) }""",
        {"w": (8, 3, 3, 3), "u": (8, 4, 2, 2), "v": (5, 8, 1, 1)}, (8, 8),
        packs={"w": Pack(), "u": Pack(1, np.int16, most=32767, even=True), "v": Pack()}, opset=21),
    *(Packed(f"gemm-{axis}", """(float[N,3] x) => (float y) {
        h = Gemm<transB=1>(x, w, b) a = Relu(h) y = Gemm(a, v) }""",
        {"w": (8, 3), "b": (8,), "v": (8, 5)}, (8,), packs={"w": Pack(axis), "v": Pack(axis, even=axis == 0)})
      for axis in (0, 1)),
    # not in 8 bits: of those onnxruntime 1.31 makes MatMulNBits, which is off by 1e-3 on either side
    Packed("gemm-per-tensor", """(float[N,3] x) => (float y) { h = Gemm<transB=1>(x, w, b) y = Gemm(h, v) }""",
        {"w": (8, 3), "b": (8,), "v": (8, 5)}, (8,), opset=21,
        packs={name: Pack(None, np.int16, most=32767) for name in "wv"}),
    Packed("matmul", "(float[N,4,3] x) => (float y) { h = MatMul(x, w) a = Relu(h) y = MatMul(a, v) }", LINEAR, (8,),
           packs={"w": Pack(1), "v": Pack(1)}),
    Packed("embedding", """(int64[N,4] i) => (float y) { h = Gather(w, i) a = Relu(h) y = MatMul(a, v) }""",
        {"w": (7, 8), "v": (8, 5)}, (8,), packs={"w": Pack(None), "v": Pack(1)}),
    Packed("used-twice", """(float[N,3,8,8] x) => (float y) {
        h = Conv(x, w) a = Relu(h) g = Conv<pads=[1,1,1,1]>(a, u) e = Relu(g) f = Conv<pads=[1,1,1,1]>(e, u)
        d = Relu(f) y = Conv(d, v) }""",
        {"w": (8, 3, 3, 3), "u": (8, 8, 3, 3), "v": (5, 8, 1, 1)}, (8,),
        packs={"w": Pack(), "u": Pack(), "v": Pack()}),
    Packed("pairs-with-integer-bias", f"""(float[N,3,6,6] x) => (float y) {{ {IN} r = DequantizeLinear(q, s, z)
        h = Conv(r, w, b) {pair()} o = Conv(a, v) p = QuantizeLinear(o, s, z) y = DequantizeLinear(p, s, z) }}""",
        CONV, (8,), packs=QCONV),
    activations("pair", pair(), packs={"w": Pack(), "v": Pack()}),
    activations("pair-scale-of-one", pair("s1", "z1", "<axis=1>"),
                values={"s1": np.full(1, 0.05, np.float32), "z1": np.full(1, 128, np.uint8)}),
    activations("pair-per-channel", pair("s1", "z1", "<axis=1>"),
                values={"s1": np.linspace(0.02, 0.04, 8, dtype=np.float32), "z1": np.full(8, 128, np.uint8)}),
    activations("pair-zero-points", pair("s1", "z1", "<axis=1>"), groups=(),
                values={"s1": np.full(8, 0.05, np.float32), "z1": np.arange(8, dtype=np.uint8)},
                refused=("a constant that is not floating point",)),
    Packed("quantized-in-the-graph", """(float[N,3,6,6] x) => (float y) { h = Conv(x, w, b) a = Relu(h)
        k = QuantizeLinear(v, s, z) d = DequantizeLinear(k, s, z) y = Conv(a, d) }""", CONV, (),
        refused=("Conv mixes this axis",)),
    Packed("microsoft-pair", """(float[N,3,6,6] x) => (float y) <uint8[N,8,4,4] k, float[N,8,4,4] a> {
        h = Conv(x, w) k = com.microsoft.QuantizeLinear(h, s, z) a = com.microsoft.DequantizeLinear(k, s, z)
        y = Conv(a, v) }""", {"w": (8, 3, 3, 3), "v": (5, 8, 1, 1)}, (8,)),
    between("qlinear-conv", "a = Identity(h)"),
    between("qlinear-conv-per-tensor", "a = Identity(h)", packs={"w": Pack(None), "b": Pack(of="w"), "v": Pack(None)}),
    between("qlinear-conv-grouped", """g = QLinearConv<group=2>(h, s, z, u_q, u_s, u_z, s, z)
            a = QLinearConv<group=8>(g, s, z, d_q, d_s, d_z, s, z, e_q)""", (8, 8),
            weights={"u": (8, 4, 1, 1), "d": (8, 1, 1, 1), "e": (8,)},
            packs={"u": Pack(), "d": Pack(spare=False), "e": Pack(of="d")}),
    between("qlinear-conv-pool", "a = MaxPool<kernel_shape=[1,1]>(h)"),
    between("QLinearSigmoid", "a = com.microsoft.QLinearSigmoid(h, s, z, t, z)",
            values={"t": np.float32(0.004)}),
    between("QLinearLeakyRelu", "a = com.microsoft.QLinearLeakyRelu<alpha=0.1>(h, s, z, s, z)"),
    *(between(op, f"""g = QLinearConv(q, s, z, u_q, u_s, u_z, s, z)
              a = com.microsoft.{op}(h, s, z, g, s, z, s, z)""", weights={"u": (8, 3, 3, 3)}, packs={"u": Pack()})
      for op in ("QLinearAdd", "QLinearMul")),
    between("QLinearAveragePool", "a = com.microsoft.QLinearAveragePool<kernel_shape=[1,1]>(h, s, z, s, z)"),
    Packed("QLinearGlobalAveragePool", f"""(float[N,3,6,6] x) => (float y) <uint8[N,8,1,1] a> {{ {IN}
        h = QLinearConv(q, s, z, {INTEGERS}, s, z, b_q)
        a = com.microsoft.QLinearGlobalAveragePool<channels_last=0>(h, s, z, s, z)
        o = QLinearConv(a, s, z, v_q, v_s, v_z, s, z) {OUT} }}""", CONV, (8,), packs=QCONV),
    Packed("QLinearConcat", f"""(float[N,3,6,6] x) => (float y) <uint8[N,14,4,4] a> {{ {IN}
        h = QLinearConv(q, s, z, {INTEGERS}, s, z) g = QLinearConv(q, s, z, u_q, u_s, u_z, s, z)
        a = com.microsoft.QLinearConcat<axis=1>(s, z, h, s, z, g, s, z)
        o = QLinearConv(a, s, z, v_q, v_s, v_z, s, z) {OUT} }}""",
        {"w": (8, 3, 3, 3), "u": (6, 3, 3, 3), "v": (5, 14, 1, 1)}, (8, 6),
        packs={"w": Pack(), "u": Pack(), "v": Pack()}),
    *(Packed(f"QLinearMatMul-{axis}", f"""(float[N,4,3] x) => (float y) {{ {IN}
        h = QLinearMatMul(q, s, z, {INTEGERS}, s, z) a = Identity(h) o = QLinearMatMul(a, s, z, v_q, v_s, v_z, s, z)
        {OUT} }}""", LINEAR, (8,), packs={"w": Pack(axis), "v": Pack(axis)}) for axis in (1, None)),
    *(Packed(f"QGemm-{axis}", f"""(float[N,3] x) => (float y) <uint8[N,8] h, uint8[N,5] o> {{ {IN}
        h = com.microsoft.QGemm<transB=1>(q, s, z, {INTEGERS}, b_q, s, z)
        o = com.microsoft.QGemm<transB=1>(h, s, z, v_q, v_s, v_z, , s, z) {OUT} }}""",
        {"w": (8, 3), "b": (8,), "v": (5, 8)}, (8,),
        packs={"w": Pack(axis), "b": Pack(axis, of="w"), "v": Pack(axis)}) for axis in (0, None)),
    Case("MatMulBnb4-is-kept", """(float[N,2,6] x) => (float[N,2,8] y) {
        h = MatMul(x, w) a = com.microsoft.MatMulBnb4<N=16, K=8, block_size=16, quant_type=1>(h, codes, scales)
        b = Relu(a) f = MatMul(b, u) g = Relu(f) y = MatMul(g, v) }""", {"w": (6, 8), "scales": (8,), "u": (16, 6),
        "v": (6, 8)}, (6,), {"codes": np.arange(64, dtype=np.uint8)},
        ("com.microsoft.MatMulBnb4 has a weight of 4-bit codes",)),
    *(Packed(f"DynamicQuantizeMatMul-{axis}", """(float[N,3] x) => (float[N,5] y) <float[N,8] h> {
        h = com.microsoft.DynamicQuantizeMatMul(x, w_q, w_s, w_z, b)
        y = com.microsoft.DynamicQuantizeMatMul(h, v_q, v_s, v_z) }""",
        {"w": (3, 8), "b": (8,), "v": (8, 5)}, (8,), packs={"w": Pack(axis), "v": Pack(axis)}) for axis in (1, None)),
    Packed("MatMulIntegerToFloat", f"""(float[N,3] x) => (float[N,5] y) <float[N,8] h> {{ {IN}
        h = com.microsoft.MatMulIntegerToFloat(q, w_q, s, w_s, z, w_z, b) y = MatMul(h, v) }}""",
        {"w": (3, 8), "b": (8,), "v": (8, 5)}, (8,), packs={"w": Pack(1)}),
    *(nbits(f"MatMulNBits-{bits}{zeros}-{mixed}-{bias}", Bits(bits, zeros=zeros, mixed=mixed), bias)
      for bits, zeros, mixed in FORMATS for bias in (False, True)),
    *(Packed(f"blocks-{np.dtype(t)}-{zero}", """(float[N,20] x) => (float[N,5] y) {
        h = MatMul(x, w) a = Sigmoid(h) y = Gemm<transB=1>(a, v) }""", {"w": (20, 40), "v": (5, 40)}, (40,), opset=21,
        ir_version=10, packs={w: Pack(axis, t, zero, most, block=16, even=True) for w, axis in (("w", 0), ("v", 1))})
      for t, zero, most in BLOCKED if newest_opset() >= 21),
    *(case for case in YOUNG if runs(case)),
    *(dynamic(f"MatMulInteger-{name}-{axis}", "MatMulInteger", scaled, Pack(axis), Pack(axis))
      for name, scaled in SCALED.items() for axis in (1, None)),
    dynamic("MatMulInteger-zero-points", "MatMulInteger", SCALED["by-both"],
            Pack(1, np.uint8, tuple(range(120, 128)), 90), UINT8),
    dynamic("ConvInteger-uint8", "ConvInteger", SCALED["by-both"], UINT8, UINT8),
    Packed("MatMulInteger-no-scale", """(float[N,3] x) => (float y) { h = MatMul(x, u)
        q, t, p = DynamicQuantizeLinear(h) i = MatMulInteger(q, w_q, p) g = Cast<to=1>(i) f = Mul(g, t)
        y = MatMul(f, v) }""", {"u": (3, 6), "w": (6, 8), "v": (8, 5)}, (), packs={"w": Pack(None)},
        refused=("MatMulInteger holds integer weights, but not their scale",)),
    *(Packed(f"MatMulInteger-{name}", f"""(float[8,3] x) => (float y) {{ q, t, p = DynamicQuantizeLinear(x)
        i = MatMulInteger(q, w_q, p) g = Cast<to=1>(i) k = Mul(t, {scale}) f = Mul(g, k) {more} y = MatMul(f, v) }}""",
        {"w": (3, 8), "v": (8, 5)}, (), {"e": np.full((8, 1), 0.5, np.float32)}, packs={"w": Pack(1)},
        refused=(f"MatMulInteger {why}",))
      for name, scale, more, why in (
          ("scale-of-rows", "e", "", "holds integer weights, but not their scale"),
          ("integers-used-too", "w_s", "z = Cast<to=1>(i)", "holds integer weights, but not their scale"),
          ("scale-used-too", "w_s", "z = Mul(t, w_s)", "has a scale that others use"))),
]  # fmt: skip


@pytest.mark.parametrize("batch", ["N", 2])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_case(case: Packed, batch: str | int) -> None:
    assert_holds(case, batch)
