"""Shapes that inference alone does not find: open inputs are probed at two lengths."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers import model, oracles_hold
from onnx import ModelProto, TensorProto, numpy_helper, parser

import onnxfold
from onnxfold.analysis.analyze import analyze
from onnxfold.analysis.costs import costs
from onnxfold.errors import ModelError, OnnxFoldError
from onnxfold.model.dimensions import Unnamed
from onnxfold.model.model import load
from onnxfold.model.shapes.inference import absurd, with_shapes

MLP = "m = MatMul(b, u) g = Relu(m) y = MatMul(g, v)"
WEIGHTS = {"u": (8, 12), "v": (12, 8)}


def net(inputs: str, body: str, **values: object) -> ModelProto:
    return model(f"({inputs}) => (float y) {{ {body} }}", WEIGHTS, values, batch="N")


def shape(proto: ModelProto, name: str) -> tuple[object, ...] | None:
    return load(proto).graph.tensor(name).shape


FOLDED = "s = Shape(x) d = Slice(s, o, w) p = ReduceProd<keepdims=1>(d) t = Concat<axis=0>(p, c) b = Reshape(x, t)"
LISTS = {"o": [0], "w": [2], "c": [8]}


def test_a_product_of_open_lengths_gets_a_name_of_its_own() -> None:
    proto = net("float[N,T,8] x", f"{FOLDED} {MLP}", **LISTS)
    joined, inner = shape(proto, "b") or ()
    assert inner == 8 and isinstance(joined, Unnamed)
    assert shape(proto, "m") == (joined, 12)
    oracles_hold(proto, groups=[12])


def test_lengths_that_come_back_get_their_name_again() -> None:
    back = "q = Concat<axis=0>(d, c) r = Reshape(g, q)"
    body = f"{FOLDED} m = MatMul(b, k) g = Relu(m) {back} n = MatMul(r, u) e = Relu(n) y = MatMul(e, v)"
    proto = model(f"(float[N,T,8] x) => (float y) {{ {body} }}", {**WEIGHTS, "k": (8, 8)}, LISTS, batch="N")
    assert shape(proto, "r") == ("N", "T", 8)
    oracles_hold(proto, groups=[8, 12])


@pytest.mark.parametrize("inputs", ["float[N,T,8] x", "float[1,T,8] x", "float[N,5,8] x", "float[N,N,8] x"])
def test_the_fold_runs_whatever_is_open(inputs: str) -> None:
    result = onnxfold.fold(net(inputs, f"{FOLDED} {MLP}", **LISTS), ratio=0.5, round_to=1, effort="fast", latency=False)
    assert [g.after for g in result.report.groups] == [6]


def test_a_dimension_that_nothing_tells_stays_open() -> None:
    proto = net(
        "float[N,T,8] x", f"z = NonZero(x) k = Transpose(z) b = GatherND(x, k) e = Unsqueeze(b, o) {MLP}", o=[1]
    )
    assert (shape(proto, "b") or (0,))[0] not in ("N", "T") and shape(proto, "x") == ("N", "T", 8)


def test_given_shapes_are_not_varied() -> None:
    proto = net("float[N,T,8] x", f"{FOLDED} {MLP}", **LISTS)
    assert load(proto, {"x": (2, 3, 8)}).graph.tensor("m").shape == (6, 12)


def test_lengths_that_only_some_models_take() -> None:
    """A table of 32 positions: the evaluator of more fails, and what is known without it stays."""
    body = f"n = Shape<start=1, end=2>(x) e = Slice(table, o, n, one) a = Add(x, e) {FOLDED.replace('(x', '(a')} {MLP}"
    proto = model(
        f"(float[N,T,8] x) => (float[A,B] y) {{ {body} }}", {**WEIGHTS, "table": (1, 32, 8)}, {**LISTS, "one": [1]},
        batch="N",
    )  # fmt: skip
    found = load(proto).graph
    assert found.tensor("x").shape == ("N", "T", 8) and (found.tensor("m").shape or ())[-1] == 12
    oracles_hold(proto, {"x": (2, 5, 8)}, groups=[12])


def test_a_list_of_numbers_is_no_shape() -> None:
    """Short integral floats count as lengths where they meet lengths, and as data elsewhere."""
    proto = model("(float[N,8] b) => (float y) { d = Mul(b, two) m = MatMul(d, u) g = Relu(m) y = MatMul(g, v) }",
                  WEIGHTS, {"two": np.array([2.0], np.float32)}, batch="N")  # fmt: skip
    assert load(proto).graph.tensor("d").shape == ("N", 8)
    oracles_hold(proto, groups=[12])


@pytest.mark.parametrize("op", ["Constant", "initializer"])
def test_a_list_as_long_as_no_list_is(op: str) -> None:
    """onnx's data propagation would make a shape of 2^40 zeros (found by mutation): refused at once."""
    short = "k = Constant<value = int64[1] {3}>()" if op == "Constant" else ""
    body = f"{short} z = ConstantOfShape(k) c = Cast<to=7>(z) s = Slice(c, o, one) r = Concat<axis=0>(s, rest)"
    given = {} if op == "Constant" else {"k": [3]}
    proto = net("float[N,8] b", f"{body} d = Reshape(b, r) {MLP}", o=[0], one=[1], rest=[8], **given)
    (held,) = [n.attribute[0].t for n in proto.graph.node if n.op_type == "Constant"] or [
        t for t in proto.graph.initializer if t.name == "k"
    ]
    held.CopyFrom(numpy_helper.from_array(np.array([2**40]), held.name))
    with pytest.raises(ModelError, match="constant 'z' would have 1099511627776 elements"):
        load(proto)


def test_to_the_end_is_no_length() -> None:
    """2^63 - 1 ends a Slice, but is no target of a Reshape (found by mutation: gigabytes of zeros)."""
    lists = {"o": [0], "one": [1], "rest": [-1, 8], "last": [2**63 - 1]}
    proto = net("float[N,8] b", f"s = Slice(b, o, last, one) d = Reshape(s, rest) {MLP.replace('(b', '(d')}", **lists)
    assert load(proto).graph.tensor("m").shape == ("N", 12)
    (rest,) = [t for t in proto.graph.initializer if t.name == "rest"]
    rest.CopyFrom(numpy_helper.from_array(np.array([2**63 - 1, 8]), "rest"))
    with pytest.raises(OnnxFoldError):
        onnxfold.fold(proto, ratio=0.3, effort="fast", latency=False)


@pytest.mark.parametrize(
    ("value", "found"), [([2**40], True), ([2**63 - 1, 3], False), ([-(2**31)], False), ([7], False)]
)
def test_which_lengths_are_absurd(value: list[int], found: bool) -> None:
    assert absurd(np.array(value)) is found


@pytest.mark.parametrize("side", [8, 0])
def test_a_kernel_larger_than_its_image(side: int) -> None:
    """onnxruntime ends the process where a Slice cuts such a tensor (found by mutation). Of an input of length 0, which
    stands for any, nothing is known."""
    proto = model(f"(float[N,3,{side},{side}] x) => (float y) {{ h = Conv(x, w) y = Relu(h) }}", {"w": (4, 3, 20, 3)})
    if side:
        with pytest.raises(ModelError, match="'h' would be -11 long"):
            load(proto)
    else:
        load(proto)


def test_what_a_slice_cuts_is_looked_at_before_it() -> None:
    """Inference would end the process (found by mutation): also behind another Slice, which needs inference first."""
    text = """(float[1,3,32,32] x) => (float y) <int64[1] one = {1}, int64[1] all = {2147483647}, int64[1] a = {2}>
    { g = Conv(x, v) s = Slice(g, one, all, a) h = Conv<dilations = [1, 100]>(s, w) y = Slice(h, one, all, a) }"""
    with pytest.raises(ModelError, match="'h' would be -168 long"):
        load(model(text, {"v": (4, 3, 1, 1), "w": (4, 4, 3, 3)}))


@pytest.mark.parametrize("scale", [np.inf, np.nan, -2.0, 1e30])
def test_scales_that_are_no_scales(scale: float) -> None:
    proto = model("(float[1,3,8,8] x) => (float[1,3,a,b] y) { y = Resize(x, , scales) }", {})
    proto.graph.initializer.append(numpy_helper.from_array(np.array([1, 1, scale, 2], np.float32), "scales"))
    with pytest.raises(ModelError, match="Resize gives 'y' an impossible length: its scales must be numbers above 0"):
        load(proto)


def test_a_multiple_that_only_its_consumer_fixes() -> None:
    """x [1, N, 6] is flattened to 6 times N for a Gemm of 24 (found by mutation): unfoldable there, and no error."""
    text = "(float[1,N,6] x) => (float[1,5] y) { f = Flatten (x) h = Gemm <transB: int = 1> (f, v) y = MatMul (h, w) }"
    found = analyze(load(model(text, {"v": (8, 24), "w": (8, 5)})))
    assert [group.size for group in found.groups] == [8]


def test_products_of_scalars_have_no_price() -> None:
    """Gemm and LSTM want matrices; where something else stands there (found by mutation), nothing is counted."""
    text = """(float[1,4] x) => (float[1,6] y) <float s = {1.0}, float t = {2.0}> {
    z = Gemm (s, t) h = MatMul (x, w) g = Mul (h, z) y = MatMul (g, v) }"""
    prices = costs(load(model(text, {"w": (4, 8), "v": (8, 6)})))
    assert prices.macs({}) == 4 * 8 + 8 * 6


def outside(held: TensorProto) -> None:
    held.ClearField("raw_data")
    held.ClearField("int64_data")
    held.data_location = TensorProto.EXTERNAL
    held.external_data.add(key="location", value="weights.bin")


def of_another_length(held: TensorProto) -> None:
    held.ClearField("dims")


@pytest.mark.parametrize("damaged", [outside, of_another_length])
def test_integers_of_a_node_that_cannot_be_read_are_refused(
    damaged: Callable[[TensorProto], None], tmp_path: Path
) -> None:
    """A Constant node whose list is in another file, or is none: onnx's own error came out of the guess whether it is
    absurd."""
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[2,3] x) => (float[N,M] y) {
        k = Constant<value = int64[2] {3, 2}>() y = Reshape(x, k) }"""
    proto = parser.parse_model(text)
    damaged(proto.graph.node[0].attribute[0].t)
    (tmp_path / "in.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError):
        load(tmp_path / "in.onnx")


@pytest.mark.parametrize(("length", "followed"), [(64, True), (2**40, False)])
def test_values_that_would_be_lists_without_end_are_not_followed(
    length: int, followed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnx makes a list of what Expand makes of integers: 23 GB of a mutant's."""
    proto = model("(float[N,3] x) => (float y) { e = Expand(one, n) s = Shape(e) y = Reshape(x, s) }", values={
        "one": [1], "n": [length],
    })  # fmt: skip
    asked = []
    monkeypatch.setattr(onnx.shape_inference, "infer_shapes", lambda m, **how: asked.append(how) or m)
    assert with_shapes(proto) is proto
    assert asked == [{"data_prop": followed}]
