"""What follows a linear node, and that scale and shift are what the model computes there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from helpers import constant, model
from onnx import ModelProto, NodeProto, helper, numpy_helper

from onnxfold.model.linear import linear
from onnxfold.recovery.epilogue import Epilogue, Epilogues, reader_of
from onnxfold.runtime.session import Session

TAIL_ATOL = 2e-6  # float32 outputs of size 1. Measured under 1e-6

BN = "BatchNormalization"
NORM = {"scale1": (4,), "bias1": (4,), "mean1": (4,), "var1": (4,)}


def tail_of(proto: ModelProto, output: str) -> Epilogue:
    arrays = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    producer: NodeProto = next(n for n in proto.graph.node if output in n.output)
    node = linear(producer, arrays[producer.input[1]].shape)
    assert node is not None
    return Epilogues(proto.graph, reader_of(arrays)).epilogue(node)


def facts(epilogue: Epilogue) -> tuple[str, str, str, str]:
    return epilogue.mean, epilogue.added, epilogue.join, epilogue.other


# text, weights, the output looked at, (mean, added, join, other), the tensor that scale * output + shift is
CASES: Mapping[str, tuple[str, Mapping[str, Sequence[int]], str, tuple[str, str, str, str], str]] = {
    "nothing": (
        "(float[N,3,6,6] x) => (float y) { h = Conv (x, w, b) y = Relu (h) }",
        {"w": (4, 3, 3, 3), "b": (4,)}, "h", ("", "", "", ""), "h",
    ),
    "batch norm": (
        f"(float[N,3,6,6] x) => (float y) {{ h = Conv (x, w) n = {BN} (h, scale1, bias1, mean1, var1) y = Relu (n) }}",
        {"w": (4, 3, 3, 3), **NORM}, "h", ("mean1", "", "", ""), "n",
    ),
    "batch norm with an epsilon": (
        f"(float[N,3,6,6] x) => (float y) {{ h = Conv (x, w, b)"
        f" n = {BN} <epsilon=0.3> (h, scale1, bias1, mean1, var1) y = Relu (n) }}",
        {"w": (4, 3, 3, 3), "b": (4,), **NORM}, "h", ("mean1", "", "", ""), "n",
    ),
    "a mean that two share": (
        f"""(float[N,3,6,6] x) => (float y) {{
            h = Conv (x, w) n = {BN} (h, scale1, bias1, mean1, var1) g = Conv (x, v)
            m = {BN} (g, scale1, bias1, mean1, var1) y = Mul (n, m) }}""",
        {"w": (4, 3, 3, 3), "v": (4, 3, 3, 3), **NORM}, "h", ("", "", "", ""), "n",
    ),
    "batch norm of something else's statistics": (
        f"""(float[N,3,6,6] x, float[4] seen) => (float y) {{
            h = Conv (x, w) n = {BN} (h, scale1, bias1, seen, var1) y = Relu (n) }}""",
        {"w": (4, 3, 3, 3), **NORM}, "h", ("", "", "", ""), "h",
    ),
    "bias after a MatMul": (
        "(float[N,5,3] x) => (float y) { h = MatMul (x, w) s = Add (h, b) y = Relu (s) }",
        {"w": (3, 4), "b": (4,)}, "h", ("", "b", "", ""), "s",
    ),
    "bias before a MatMul in the sum": (
        "(float[N,5,3] x) => (float y) { h = MatMul (x, w) s = Add (b, h) y = Relu (s) }",
        {"w": (3, 4), "b": (1, 1, 4)}, "h", ("", "b", "", ""), "s",
    ),
    "bias after a convolution, normalized": (
        f"""(float[N,3,6,6] x) => (float y) {{
            h = Conv (x, w) s = Add (h, b) n = {BN} (s, scale1, bias1, mean1, var1) y = Relu (n) }}""",
        {"w": (4, 3, 3, 3), "b": (4, 1, 1), **NORM}, "h", ("mean1", "b", "", ""), "n",
    ),
    "a bias that two share": (
        "(float[N,5,3] x) => (float y) { h = MatMul (x, w) s = Add (h, b) t = Relu (s) y = Add (t, b) }",
        {"w": (3, 4), "b": (4,)}, "h", ("", "", "", ""), "h",
    ),
    "a constant per place, as long as the channels": (
        "(float[N,3,6,6] x) => (float y) { h = Conv (x, w) s = Add (h, b) y = Relu (s) }",
        {"w": (4, 3, 3, 3), "b": (4,)}, "h", ("", "", "", ""), "h",
    ),
    "a constant per token, as long as the channels": (
        "(float[N,4,3] x) => (float y) { h = MatMul (x, w) s = Add (h, b) y = Relu (s) }",
        {"w": (3, 4), "b": (4, 1)}, "h", ("", "", "", ""), "h",
    ),
    "one number for all": (
        "(float[N,5,3] x) => (float y) { h = MatMul (x, w) s = Add (h, b) y = Relu (s) }",
        {"w": (3, 4), "b": (1,)}, "h", ("", "", "", ""), "h",
    ),
    "join": (
        "(float[N,4,6,6] x) => (float y) { h = Conv (x, w, b) s = Add (h, x) y = Relu (s) }",
        {"w": (4, 4, 1, 1), "b": (4,)}, "h", ("", "", "s", "x"), "h",
    ),
    "join the other way, as a Sum": (
        "(float[N,4,6,6] x) => (float y) { h = Conv (x, w, b) s = Sum (x, h) y = Relu (s) }",
        {"w": (4, 4, 1, 1), "b": (4,)}, "h", ("", "", "s", "x"), "h",
    ),
    "join of two branches, normalized": (
        f"""(float[N,3,6,6] x) => (float y) {{
            h = Conv (x, w) n = {BN} (h, scale1, bias1, mean1, var1) g = Conv (x, v) s = Add (n, g) y = Relu (s) }}""",
        {"w": (4, 3, 3, 3), "v": (4, 3, 3, 3), **NORM}, "h", ("mean1", "", "s", "g"), "n",
    ),
    "join behind a bias": (
        "(float[N,5,4] x) => (float y) { h = MatMul (x, w) a = Add (h, b) s = Add (x, a) y = Relu (s) }",
        {"w": (4, 4), "b": (4,)}, "h", ("", "b", "s", "x"), "a",
    ),
    "a Gemm's join": (
        "(float[N,4] x) => (float y) { h = Gemm (x, w, b) s = Add (x, h) y = Relu (s) }",
        {"w": (4, 4), "b": (4,)}, "h", ("", "", "s", "x"), "h",
    ),
    "a sum with itself": (
        "(float[N,3,6,6] x) => (float y) { h = Conv (x, w, b) s = Add (h, h) y = Relu (s) }",
        {"w": (4, 3, 3, 3), "b": (4,)}, "h", ("", "", "", ""), "h",
    ),
    "a sum of three": (
        "(float[N,4,6,6] x) => (float y) { h = Conv (x, w, b) r = Relu (x) s = Sum (h, x, r) y = Relu (s) }",
        {"w": (4, 4, 1, 1), "b": (4,)}, "h", ("", "", "", ""), "h",
    ),
    "two consumers": (
        "(float[N,4,6,6] x) => (float y) { h = Conv (x, w, b) s = Add (h, x) r = Relu (h) y = Mul (s, r) }",
        {"w": (4, 4, 1, 1), "b": (4,)}, "h", ("", "", "", ""), "h",
    ),
    "the output itself": (
        "(float[N,4,6,6] x) => (float h, float y) { h = Conv (x, w, b) y = Add (h, x) }",
        {"w": (4, 4, 1, 1), "b": (4,)}, "h", ("", "", "", ""), "h",
    ),
    "an output behind the normalization": (
        f"""(float[N,4,6,6] x) => (float n, float y) {{
            h = Conv (x, w) n = {BN} (h, scale1, bias1, mean1, var1) y = Add (n, x) }}""",
        {"w": (4, 4, 1, 1), **NORM}, "h", ("mean1", "", "", ""), "n",
    ),
    "the join is an output": (
        "(float[N,4,6,6] x) => (float y) { h = Conv (x, w, b) y = Add (h, x) }",
        {"w": (4, 4, 1, 1), "b": (4,)}, "h", ("", "", "y", "x"), "h",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_tails(case: str) -> None:
    text, weights, output, wanted, seen = CASES[case]
    proto = model(text, weights)
    epilogue = tail_of(proto, output)
    assert facts(epilogue) == wanted
    names = list(dict.fromkeys([output, seen, *([epilogue.join] if epilogue.join else [])]))
    del proto.graph.output[:]
    for name in names:
        proto.graph.output.add(name=name)
    rng = np.random.default_rng(0)
    session = Session(proto.SerializeToString())
    feeds = {
        i.name: rng.standard_normal([d if isinstance(d, int) else 2 for d in i.shape]).astype(np.float32)
        for i in session.inputs
    }
    found = dict(zip(names, session.run(feeds), strict=True))
    shape = [1] * found[output].ndim
    shape[1 if any(n.op_type == "Conv" for n in proto.graph.node) else -1] = -1
    after = epilogue.scale.reshape(shape) * found[output] + epilogue.shift.reshape(shape)
    np.testing.assert_allclose(after, found[seen], atol=TAIL_ATOL)


def test_a_body_reads_too() -> None:
    """Who captures a tensor, or a constant, is a consumer like any other."""
    text = """(float[N,4] x, bool q) => (float y) {
        h = MatMul (x, w) s = Add (h, b) t = Add (s, x)
        i = If (q) < then_branch = one () => (float[N,4] o) { o = Relu (CAPTURED) },
                     else_branch = two () => (float[N,4] p) { p = Neg (x) } >
        y = Add (t, i) }"""
    weights = {"w": (4, 4), "b": (4,)}
    assert facts(tail_of(model(text.replace("CAPTURED", "x"), weights), "h")) == ("", "b", "t", "x")
    assert facts(tail_of(model(text.replace("CAPTURED", "h"), weights), "h")) == ("", "", "", "")
    assert facts(tail_of(model(text.replace("CAPTURED", "s"), weights), "h")) == ("", "b", "", "")
    assert facts(tail_of(model(text.replace("CAPTURED", "b"), weights), "h")) == ("", "", "", "")


SUMS = """(float[N,5,4] x) => (float y) {
    h = MatMul (x, w) y, m, v, s = com.microsoft.KIND (INPUTS) }"""
KINDS = {"SkipLayerNormalization": "gamma, beta", "SkipSimplifiedLayerNormalization": "gamma"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ["h, x", "x, h"])
@pytest.mark.parametrize("bias", ["", "b"])
def test_sums_inside_a_normalization(kind: str, order: str, bias: str) -> None:
    inputs = ", ".join(filter(None, (order, KINDS[kind], bias)))
    text = SUMS.replace("KIND", kind).replace("INPUTS", inputs)
    weights = {"w": (4, 4), "gamma": (4,), "beta": (4,), "b": (4,)}
    used = {name: shape for name, shape in weights.items() if name in ("w", *inputs.split(", "))}
    proto = model(text, used)
    epilogue = tail_of(proto, "h")
    assert facts(epilogue) == ("", bias, "s", "x")
    proto.graph.output.extend([helper.make_empty_tensor_value_info(name) for name in ("h", "s")])
    x = np.random.default_rng(0).standard_normal((2, 5, 4)).astype(np.float32)
    _, h, s = Session(proto.SerializeToString()).run({"x": x})
    np.testing.assert_allclose(epilogue.scale * h + epilogue.shift + x, s, atol=TAIL_ATOL)
    assert facts(tail_of(model(text.replace(", m, v, s =", " ="), used), "h")) == ("", bias, "", "x"), "no name"
    assert facts(tail_of(model(text.replace("(float y)", "(float y, float h)"), used), "h")) == ("", "", "", "")


@pytest.mark.parametrize("kind", ["BiasGelu", "FastGelu"])
def test_biases_inside_an_activation(kind: str) -> None:
    text = f"(float[N,5,3] x) => (float y) {{ h = MatMul (x, w) y = com.microsoft.{kind} (h, b) }}"
    weights = {"w": (3, 4), "b": (4,)}
    proto = model(text, weights)
    epilogue = tail_of(proto, "h")
    assert facts(epilogue) == ("", "b", "", "")
    assert np.array_equal(epilogue.shift, constant(proto, "b"))
    assert facts(tail_of(model(text.replace("(h, b)", "(h)"), weights), "h")) == ("", "", "", "")


def test_sums_behind_a_reshape() -> None:
    text = """(float[N,5,4] x) => (float y) {
        r = Reshape (x, rows) h = Gemm (r, w, b) t = Reshape (h, axes) s = Add (t, x) y = Relu (s) }"""
    proto = model(text, {"w": (4, 4), "b": (4,)}, {"rows": [-1, 4], "axes": [0, 5, 4]})
    assert facts(tail_of(proto, "h")) == ("", "", "s", "x")


def test_users() -> None:
    proto = model(CASES["two consumers"][0], CASES["two consumers"][1])
    epilogues = Epilogues(proto.graph, reader_of({"w": constant(proto, "w")}))
    assert [n.op_type for n in epilogues.users("h")] == ["Add", "Relu"]
    assert epilogues.users("nothing") == []
    assert linear(helper.make_node("Relu", ["h"], ["r"]), None) is None


@pytest.mark.parametrize("zero, join", [(128, "o"), (100, "o"), (0, ""), (255, ""), (3, "")])
def test_sums_behind_rounding(zero: int, join: str) -> None:
    """A pair that only rounds is passed; one whose zero is at the end of its range is a ReLU."""
    text = """(float[N,3,6,6] x) => (float y) { h = Conv (x, w) g = Conv (x, v) q = QuantizeLinear (h, s, z)
        d = DequantizeLinear (q, s, z) o = Add (d, g) y = Relu (o) }"""
    proto = model(text, {"w": (4, 3, 3, 3), "v": (4, 3, 3, 3)}, {"s": np.float32(0.1), "z": np.uint8(zero)})
    assert facts(tail_of(proto, "h")) == ("", "", join, "g" if join else "")
