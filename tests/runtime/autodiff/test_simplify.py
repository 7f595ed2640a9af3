"""A graph without the axis of seeds computes the same, under the same names where these are needed."""

from __future__ import annotations

import numpy as np
import pytest
from differences import normal
from onnx import parser

from onnxfold.runtime.autodiff.simplify import without_seed_axis
from onnxfold.runtime.session import Session

HEAD = '<ir_version: 8, opset_import: ["" : 18]> agraph (float[2,3] x, float[3] c)'
SHAPE = "s = Constant <value = int64[3] {2, 3, 1}> () t = Constant <value = int64[2] {2, 3}> ()"
ONE = "one = Constant <value_ints: ints = [-1]> ()"
BODIES = {
    "there and back": f"{SHAPE} a = Reshape (x, s) b = Reshape (a, t) y = Relu (b)",
    "sums": f"{SHAPE} {ONE} a = Reshape (x, s) d = Unsqueeze (c, one) b = Sum (a, a, d, a)"
    " e = Reshape (b, t) y = Neg (e)",
    "expand": f"{SHAPE} a = Reshape (x, s) b = Expand (a, s) e = Mul (b, b) y = Reshape (e, t)",
    "sum of one": f"{SHAPE} {ONE} a = Reshape (x, s) e = ReduceSum <keepdims: int = 0> (a, one) y = Exp (e)",
    "real sum": f"{ONE} e = ReduceSum <keepdims: int = 1> (x, one) f = Identity (e) y = Mul (f, x)",
    "an output": f"{SHAPE} a = Reshape (x, s) y = Identity (a)",
    "a scalar": f"{SHAPE} k = Constant <value_float: float = 3.0> () a = Reshape (x, s)"
    " b = Mul (a, k) y = Reshape (b, t)",
    "captured": f"{SHAPE} a = Reshape (x, s) q = Constant <value = bool[1] {{1}}> () p = Squeeze (q)"
    " y = If (p) <then_branch = g () => (float[2,3,1] u) { u = Mul (a, a) },"
    " else_branch = h () => (float[2,3,1] v) { v = Neg (a) }>",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_the_same_numbers(body: str) -> None:
    proto = parser.parse_model(f"{HEAD} => (float[N] y) {{ {body} }}")
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    feeds = {"x": normal(2, 3), "c": normal(3, seed=2)}
    before = Session(proto.SerializeToString()).run(feeds)[0]
    without_seed_axis(proto)
    after = Session(proto.SerializeToString()).run(feeds)[0]
    assert after.shape == before.shape
    np.testing.assert_allclose(after, before, rtol=1e-6)


def test_what_goes() -> None:
    proto = parser.parse_model(f"{HEAD} => (float[2,3] y) {{ {BODIES['sums']} }}")
    without_seed_axis(proto)
    kinds = [n.op_type for n in proto.graph.node if n.op_type != "Constant"]
    assert kinds == ["Add", "Add", "Add", "Neg"]
