"""What is in reach, and what it costs that the rest is not."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import model
from onnx import ModelProto, helper

from onnxfold import fold, inspect
from onnxfold.analysis.pins import Refusal

CHAIN = {"w": (6, 3, 1, 1), "u": (9, 6, 1, 1), "v": (5, 9, 1, 1)}


def chain(first: str, second: str) -> ModelProto:
    text = f"""(float[2,3,6,6] x) => (float[2,5,6,6] y) {{
        h = Conv(x, w) a = {first}(h) g = Conv(a, u) f = {second}(g) y = Conv(f, v) }}"""
    return model(text, CHAIN)


def test_all_of_a_plain_chain_is_in_reach() -> None:
    found = inspect(chain("Relu", "Tanh"))
    assert found.coverage is not None
    assert found.coverage.parameters == found.coverage.macs == 1.0
    assert [(r.kind, r.parameters) for r in found.refusals] == [("a graph output", 0)]


def test_what_is_kept_is_charged_to_what_keeps_it() -> None:
    """w [6,3] and u [9,6] meet at the LRN, u and v [5,9] at the Tanh: only w lies in no group."""
    found = inspect(chain("LRN<size=3>", "Tanh"))
    assert found.coverage is not None
    assert found.coverage.parameters == found.coverage.macs == pytest.approx(1 - 18 / (18 + 54 + 45))
    assert {r.kind: (r.channels, r.parameters) for r in found.refusals if r.parameters} == {
        next(r.kind for r in found.refusals if "LRN" in r.kind): (6, 18)
    }


def test_what_makes_an_output_is_charged_to_what_it_reads() -> None:
    found = inspect(chain("Tanh", "Softmax<axis=1>"))
    assert found.refusals[0] == Refusal("Softmax mixes this axis", 9, ("Softmax#3",), 45)


def test_weights_inside_bodies_are_counted() -> None:
    """Also of a body that is not opened: one that holds a sparse weight."""
    text = """(float[2,3] x, bool c) => (float[2,5] y) {
        h = MatMul(x, w) a = Relu(h) m = MatMul(a, v)
        z = If(c) <then_branch = yes () => (float[5] r) { r = Constant<value_floats=[1.0,2.0,3.0,4.0,5.0]>() },
                   else_branch = no () => (float[5] r) <float[5] k = {1.0,2.0,3.0,4.0,5.0}> { r = Identity(k) }>
        y = Add(m, z) }"""
    proto = model(text, {"w": (3, 8), "v": (8, 5)})
    values, places = (helper.make_tensor(n, kind, [1], [1]) for n, kind in (("s", 1), ("at", 7)))
    for attribute in next(node for node in proto.graph.node if node.op_type == "If").attribute:
        attribute.g.sparse_initializer.append(helper.make_sparse_tensor(values, places, [5]))
    found = inspect(proto)
    assert {r.kind: r.parameters for r in found.refusals}["a weight inside the body of If"] >= 5


def test_a_weight_that_no_rule_speaks_of() -> None:
    found = inspect(model("(float[2,3] x) => (float[2,1] y) { d = Det(w) m = MatMul(x, v) y = Add(m, d) }",
                          {"w": (4, 4), "v": (3, 1)}))  # fmt: skip
    assert found.refusals[0].parameters in (3, 16) and sum(r.parameters for r in found.refusals) <= 19


def test_empty_constants_are_in_no_group() -> None:
    """Before opset 13 a Resize always has a region of interest, an empty one mostly; its mean is no number."""
    text = """(float[2,3,6,6] x) => (float[2,5,12,12] y) {
        h = Conv(x, w) a = Resize<mode="nearest">(h, roi, scales) y = Conv(a, v) }"""
    values = {"roi": np.zeros(0, np.float32), "scales": [1.0, 1.0, 2.0, 2.0]}
    found = inspect(model(text, {"w": (6, 3, 1, 1), "v": (5, 6, 1, 1)}, values, opset=11))
    assert found.coverage is not None
    assert found.coverage.parameters == 1.0  # scales are a setting, not a weight


def test_nothing_is_in_reach_without_groups() -> None:
    """The scale and shift of a norm over groups of channels, written as a LayerNormalization, lie in no group."""
    text = """(float[N,3,4,4] x) => (float[N,5,4,4] y) {
        h = Conv<pads=[1,1,1,1]>(x, w) there = Constant<value_ints=[-1,32]>() back = Constant<value_ints=[-1,8,4,4]>()
        r = Reshape(h, there) n = LayerNormalization(r, s, b) a = Reshape(n, back) y = Conv(a, v) }"""
    found = inspect(model(text, {"w": (8, 3, 3, 3), "s": (32,), "b": (32,), "v": (5, 8, 1, 1)}, opset=17))
    assert found.coverage is not None
    assert not found.groups
    assert found.coverage.parameters == found.coverage.macs == 0.0


def test_products_of_constants_cost_nothing() -> None:
    """A low-rank update of a weight is computed once, and is no part of an inference, before or after a fold."""
    text = """(float[2,16] x) => (float[2,5] y) {
        d = MatMul(a, b) w = Add(v, d) h = MatMul(x, w) r = Relu(h) y = MatMul(r, u) }"""
    proto = model(text, {"a": (16, 4), "b": (4, 16), "v": (16, 16), "u": (16, 5)})
    done = fold(proto, ratio=0.5, effort="fast", round_to=1, latency=False)
    assert done.report.before.macs == 2 * (16 * 16 + 16 * 5)
    assert done.report.after is not None
    assert done.report.after.macs == 2 * (16 * 8 + 8 * 5) == inspect(done.model).before.macs


@pytest.mark.parametrize("width", ["n", "16"])
def test_the_body_of_a_scan_counts_once_for_every_step(width: str) -> None:
    text = f"""(float[10,{width},20] x) => (float[10,{width},5] y) {{
        h = MatMul(x, w)
        y = Scan<num_scan_inputs=1, body = step (float[{width},32] one) => (float[{width},5] o)
                 {{ a = MatMul(one, u) r = Relu(a) o = MatMul(r, v) }}>(h) }}"""
    found = inspect(model(text, {"w": (20, 32), "u": (32, 64), "v": (64, 5)}), input_shapes={"x": (10, 16, 20)})
    assert found.before.macs == 10 * 16 * (20 * 32 + 32 * 64 + 64 * 5)
