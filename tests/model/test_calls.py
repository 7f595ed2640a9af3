"""Functions of a model: opened when it is read, put back where nothing inside them changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers import fold_by, folds, oracles_hold
from onnx import ModelProto, numpy_helper, parser

import onnxfold
from onnxfold.analysis.analyze import analyze
from onnxfold.analysis.costs import count_parameters
from onnxfold.model.calls import Opened, opened_calls
from onnxfold.model.model import load
from onnxfold.runtime.session import Session
from onnxfold.transform.edits import edits
from onnxfold.transform.emit import emit

CONV_ACT = """<domain: "my.fn", opset_import: ["" : 17]> ConvAct (X, W, B) => (Y) {
    c = Conv<pads=[1,1,1,1]>(X, W, B) Y = Relu(c) }"""
LEAKY = """<domain: "my.fn", opset_import: ["" : 17]> Act <slope: float = 0.25> (X) => (Y) {
    Y = LeakyRelu<alpha: float = @slope>(X) }"""
MLP = """<domain: "my.fn", opset_import: ["" : 17, "my.fn" : 1]> Mlp <slope> (X, W, V) => (Y) {
    h = MatMul(X, W) a = my.fn.Act<slope: float = @slope>(h) Y = MatMul(a, V) }"""
DEEP = """<domain: "my.fn", opset_import: ["" : 17]> Deep <wide> (X, W) => (Y) {
    Y = Conv<group: int = @wide>(X, W) }"""
SPLIT = """<domain: "my.fn", opset_import: ["" : 17]> Halves (X) => (A, B) {
    sizes = Constant<value = int64[2] {4, 4}>() A, B = Split<axis=1>(X, sizes) }"""
CHOSEN = """<domain: "my.fn", opset_import: ["" : 17]> Chosen (C, X, W) => (Y) {
    h = MatMul(X, W)
    Y = If(C) <then_branch = yes () => (r) { r = Relu(h) }, else_branch = no () => (r) { r = Tanh(h) }> }"""
TWO_CONVS = (
    "(float[N,3,6,6] x) => (float[N,4,6,6] y) { a = my.fn.ConvAct(x, w, b) c = my.fn.ConvAct(a, u, d) y = Conv(c, v) }"
)
CONVS = {"w": (8, 3, 3, 3), "b": (8,), "u": (8, 8, 3, 3), "d": (8,), "v": (4, 8, 1, 1)}


def net(text: str, functions: Sequence[str], weights: Mapping[str, Sequence[int]], **values: object) -> ModelProto:
    """A model from its text, with functions and random weights."""
    head = '<ir_version: 8, opset_import: ["" : 17, "my.fn" : 1]>'
    proto = parser.parse_model(f"{head} agraph {text}")
    proto.functions.extend(parser.parse_function(function) for function in functions)
    rng = np.random.default_rng(0)
    for name, size in weights.items():
        array = rng.standard_normal(size) / np.sqrt(max(1, np.prod(size[1:])))
        proto.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), n) for n, v in values.items())
    onnx.checker.check_model(proto)
    return proto


def calls(proto: ModelProto) -> list[str]:
    return [node.op_type for node in proto.graph.node]


def held(name: str, *size: int) -> str:
    """A constant of random floats, as a node of a function."""
    values = np.random.default_rng(len(name) + size[0]).standard_normal(size).ravel() / np.sqrt(size[0])
    return f"{name} = Constant<value = float[{','.join(map(str, size))}] {{{', '.join(map(str, values))}}}>()"


BLOCK = f"""<domain: "my.fn", opset_import: ["" : 17]> Block (X) => (Y) {{ {held("W", 6, 8)} {held("V", 8, 6)}
    h = MatMul(X, W) a = Relu(h) m = MatMul(a, V) Y = Add(m, X) }}"""
GATED = f"""<domain: "my.fn", opset_import: ["" : 17]> Gated (X) => (Y) {{ {held("W", 6, 16)} {held("V", 8, 6)}
    sizes = Constant<value = int64[2] {{8, 8}}>() h = MatMul(X, W) a, b = Split<axis=1>(h, sizes) s = Sigmoid(a)
    g = Mul(s, b) m = MatMul(g, V) Y = Add(m, X) }}"""
NETS = {
    "weights-inside": (
        net("(float[N,6] x) => (float[N,6] y) { a = my.fn.Block(x) b = my.fn.Block(a) y = my.fn.Block(b) }",
            [BLOCK], {}), [8]),
    "weights-and-sizes-inside": (
        net("(float[N,6] x) => (float[N,6] y) { a = my.fn.Gated(x) y = my.fn.Gated(a) }", [GATED], {}), [8]),
    "weights-as-inputs": (net(TWO_CONVS, [CONV_ACT], CONVS), [8, 8]),
    "nested-with-attributes": (
        net("(float[N,6] x) => (float[N,5] y) { y = my.fn.Mlp<slope = 0.1>(x, w, v) }", [LEAKY, MLP],
            {"w": (6, 8), "v": (8, 5)}), [8]),
    "default-attribute": (
        net("(float[N,6] x) => (float[N,5] y) { h = MatMul(x, w) a = my.fn.Act(h) y = MatMul(a, v) }", [LEAKY],
            {"w": (6, 8), "v": (8, 5)}), [8]),
    "group-as-attribute": (
        net("""(float[N,3,6,6] x) => (float[N,4,6,6] y) {
                h = Conv(x, w) a = my.fn.Deep<wide = 8>(h, u) y = Conv(a, v) }""", [DEEP],
            {"w": (8, 3, 1, 1), "u": (8, 1, 1, 1), "v": (4, 8, 1, 1)}), [8]),
    "sizes-inside": (
        net("""(float[N,6] x) => (float[N,5] y) {
                h = MatMul(x, w) a, b = my.fn.Halves(h) s = Sigmoid(a) g = Mul(s, b) y = MatMul(g, v) }""", [SPLIT],
            {"w": (6, 8), "v": (4, 5)}), [4]),
    "branches-inside": (
        net("(float[N,6] x) => (float[N,5] y) { y = my.fn.Mix(c, x, w, v) }",
            [CHOSEN, """<domain: "my.fn", opset_import: ["" : 17, "my.fn" : 1]> Mix (C, X, W, V) => (Y) {
                a = my.fn.Chosen(C, X, W) Y = MatMul(a, V) }"""], {"w": (6, 8), "v": (8, 5)}, c=np.array(True)), []),
}  # fmt: skip
GATE = ["Constant", "MatMul", "Split", "Sigmoid", "Mul", "MatMul", "Add"]
KEPT = {
    "weights-inside": ["Block", "Block", "Block"], "weights-and-sizes-inside": [*GATE, *GATE],
    "weights-as-inputs": ["ConvAct", "ConvAct", "Conv"], "nested-with-attributes": ["Mlp"],
    "default-attribute": ["MatMul", "Act", "MatMul"], "group-as-attribute": ["Conv", "Conv", "Conv"],
    "sizes-inside": ["MatMul", "Constant", "Split", "Sigmoid", "Mul", "MatMul"], "branches-inside": ["Mix"],
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_calls_are_analyzed_through(name: str) -> None:
    proto, groups = NETS[name]
    found = oracles_hold(proto, groups=groups)
    assert found.parameters == count_parameters(load(proto).proto)
    folds(proto)


@pytest.mark.parametrize("name", NETS)
def test_calls_are_put_back_where_nothing_inside_changed(name: str) -> None:
    proto, groups = NETS[name]
    loaded = load(proto)
    found = analyze(loaded)
    untouched = loaded.entry.back(emit(loaded, edits(loaded, found, {})))
    assert untouched.SerializeToString(deterministic=True) == proto.SerializeToString(deterministic=True)
    if groups:
        size = groups[0]
        folded = fold_by({found.groups[0].name: [0, 0, *range(1, size - 1)]}, proto)
        back = loaded.entry.back(folded)
        onnx.checker.check_model(back, full_check=True)
        assert calls(back) == KEPT[name]
        assert {f.name for f in back.functions} == {n.op_type for n in back.graph.node if n.domain} | (
            {"Act"} if name.startswith("nested") else set()
        )


def test_weights_of_a_function_are_folded_where_they_are() -> None:
    """One weight for all three calls, before and after."""
    proto = NETS["weights-inside"][0]
    loaded = load(proto)
    found = analyze(loaded)
    assert found.parameters == count_parameters(proto) == 2 * 6 * 8
    folded = fold_by({found.groups[0].name: [0, 0, 1, 2, 3, 4, 4, 5]}, proto)
    back = loaded.entry.back(folded)
    assert not back.graph.initializer
    shapes = [list(n.attribute[0].t.dims) for n in back.functions[0].node if n.op_type == "Constant"]
    assert shapes == [[6, 6], [6, 6]]
    x = {"x": np.random.default_rng(0).standard_normal((3, 6)).astype(np.float32)}
    here, there = (Session(p.SerializeToString()).run(x)[0] for p in (folded, back))
    np.testing.assert_array_equal(here, there)


def test_the_file_keeps_its_functions(tmp_path: Path) -> None:
    onnx.save(NETS["weights-as-inputs"][0], tmp_path / "in.onnx")
    result = onnxfold.fold(
        tmp_path / "in.onnx", tmp_path / "out.onnx", ratio=0.25, round_to=1, effort="fast", latency=False
    )
    before, after = (onnx.load(tmp_path / f"{name}.onnx") for name in ("in", "out"))
    assert after.SerializeToString() == result.model.SerializeToString()
    assert [f.SerializeToString() for f in after.functions] == [f.SerializeToString() for f in before.functions]
    assert [n.SerializeToString() for n in after.graph.node] == [n.SerializeToString() for n in before.graph.node]
    assert {t.name: list(t.dims) for t in after.graph.initializer} == {
        "w": [6, 3, 3, 3], "b": [6], "u": [6, 6, 3, 3], "d": [6], "v": [4, 6, 1, 1]
    }  # fmt: skip
    assert result.report.before.parameters == sum(int(np.prod(size)) for size in CONVS.values())


@pytest.mark.parametrize("external", [False, True])
def test_a_result_can_be_saved_again(external: bool, tmp_path: Path) -> None:
    """What was put back stays as it is."""
    onnx.save(NETS["weights-inside"][0], tmp_path / "in.onnx")
    result = onnxfold.fold(tmp_path / "in.onnx", ratio=0.25, round_to=1, effort="fast", latency=False)
    result.save(tmp_path / "out.onnx", external_data=external)
    saved = onnx.load(tmp_path / "out.onnx")
    assert [list(n.attribute[0].t.dims) for n in saved.functions[0].node[:2]] == [[6, 6], [6, 6]]
    x = {"x": np.random.default_rng(0).standard_normal((3, 6)).astype(np.float32)}
    here, there = (Session(p.SerializeToString()).run(x)[0] for p in (result.model, saved))
    np.testing.assert_array_equal(here, there)


def test_declared_lengths_inside_a_function_go_where_they_changed() -> None:
    proto = ModelProto()
    proto.CopyFrom(NETS["weights-as-inputs"][0])
    proto.ir_version = 10
    proto.functions[0].value_info.append(onnx.helper.make_tensor_value_info("c", 1, ["N", 8, 6, 6]))
    loaded = load(proto)
    back = loaded.entry.back(fold_by({analyze(loaded).groups[0].name: [0, 0, 1, 2, 3, 4, 5, 6]}, proto))
    assert not back.functions[0].value_info and proto.functions[0].value_info


@pytest.mark.parametrize(
    "function",
    [
        CONV_ACT.replace('"" : 17', '"" : 9').replace("Y = Relu(c)", "d = Softmax(c) Y = Relu(d)"),
        CONV_ACT.replace("Y = Relu(c)", "Y = Relu(c) Z = Identity(c)").replace("=> (Y)", "=> (Y, X)"),
    ],
    ids=["in-an-opset-of-another-meaning", "an-input-that-is-an-output"],
)
def test_functions_that_cannot_be_opened_are_kept(function: str) -> None:
    text = "(float[N,3,6,6] x) => (float[N,4,6,6] y) { a = my.fn.ConvAct(x, w, b) c = Conv(a, u) y = Conv(c, v) }"
    proto = net(text, [CONV_ACT], {"w": (8, 3, 3, 3), "b": (8,), "u": (8, 8, 1, 1), "v": (4, 8, 1, 1)})
    del proto.functions[:]
    proto.functions.append(parser.parse_function(function))
    assert opened_calls(proto) == (proto, Opened())
