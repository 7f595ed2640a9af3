"""What is written is the user's own file with the merged tensors in it: everything else stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from tiny import MODELS, SHAPES, TEXT, fold, net, weights

from onnxfold.runtime.session import Session

WEIGHTS = ("w1", "b1", "w2", "b2", "w3", "b3")


def folded(proto: ModelProto, **options: Any) -> ModelProto:
    """`proto` at half its width; it must not change itself, and the result must pass all checks."""
    before = proto.SerializeToString(deterministic=True)
    result = fold(proto, ratio=0.5, latency=False, provenance=False, **options)
    assert proto.SerializeToString(deterministic=True) == before, "the model given was changed"
    assert result.report.check is not None and result.report.check.passed
    assert result.report.check.providers[0].status == "ok", result.report.check
    onnx.checker.check_model(result.model)  # the full check is part of the verdict
    assert sum(g.before - g.after for g in result.report.groups) > 0
    return result.model


def tensors(proto: ModelProto) -> dict[str, TensorProto]:
    return {t.name: t for t in proto.graph.initializer}


def array(proto: ModelProto, name: str) -> np.ndarray:
    return numpy_helper.to_array(tensors(proto)[name])


def without_values(proto: ModelProto, *names: str) -> ModelProto:
    """A copy without the contents of `names`, and without the lengths of declared shapes that folding changes."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    for tensor in copy.graph.initializer:
        if tensor.name in (names or WEIGHTS):
            for field in ("dims", "raw_data", "float_data"):
                tensor.ClearField(field)
    return copy


# one feature a model ------------------------------------------------------------------------------------------------

Change = Callable[[ModelProto], Any]


def add(proto: ModelProto, *nodes: NodeProto, **more: np.ndarray) -> None:
    proto.graph.node.extend(nodes)
    proto.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in more.items())


def doc_strings(p: ModelProto) -> None:
    for i, thing in enumerate([p, p.graph, *p.graph.node, *p.graph.initializer, *p.graph.input, *p.graph.output]):
        thing.doc_string = f"note {i}"


def metadata(p: ModelProto) -> None:
    for i, thing in enumerate([p, p.graph, *p.graph.node, *p.graph.initializer, *p.graph.input]):
        entry = thing.metadata_props.add()
        entry.key, entry.value = "key", f"value {i}"


def producer(p: ModelProto) -> None:
    p.producer_name, p.producer_version, p.domain, p.model_version = "exporter", "1.2.3", "org.example", 42


def opsets(p: ModelProto) -> None:
    p.opset_import.extend([helper.make_opsetid("ai.onnx.ml", 3), helper.make_opsetid("com.microsoft", 1)])


def function(p: ModelProto) -> None:
    p.ir_version = 9
    body = [helper.make_node("Relu", ["i"], ["o"])]
    made = helper.make_function("custom", "Twin", ["i"], ["o"], body, [helper.make_opsetid("", 17)])
    made.doc_string = "a function"
    p.functions.append(made)
    node = p.graph.node[-1]
    node.output[0] = "q"
    add(p, helper.make_node("Twin", ["q"], ["y"], domain="custom"))


def quantization(p: ModelProto) -> None:
    note = p.graph.quantization_annotation.add(tensor_name="w1")
    entry = note.quant_parameter_tensor_names.add()
    entry.key, entry.value = "SCALE_TENSOR", "scale"
    add(p, scale=np.float32([0.5]))


def unused(p: ModelProto) -> None:
    add(p, nobody=np.arange(12, dtype=np.float32).reshape(3, 4))


def sparse(p: ModelProto) -> None:
    values = numpy_helper.from_array(np.float32([1, 2]), "shift")
    indices = numpy_helper.from_array(np.int64([1, 7]), "shift_indices")
    p.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [10]))
    p.graph.node[-1].output[0] = "q"
    add(p, helper.make_node("Add", ["q", "shift"], ["y"]))


def denotations(p: ModelProto) -> None:
    p.graph.input[0].type.denotation = "IMAGE"
    for dim, name in zip(p.graph.input[0].type.tensor_type.shape.dim, ("BATCH", "CHANNEL", "H", "W"), strict=True):
        dim.denotation = f"DATA_{name}"


def subgraph(p: ModelProto) -> None:
    p.graph.node[-1].output[0] = "q"
    kind = helper.make_tensor_value_info
    one = helper.make_graph(
        [helper.make_node("Add", ["q", "inner"], ["o"], name="deep", doc_string="inside")], "one", [],
        [kind("o", TensorProto.FLOAT, ["N", 10])], [numpy_helper.from_array(np.ones(10, np.float32), "inner")],
    )  # fmt: skip
    two = helper.make_graph(
        [helper.make_node("Identity", ["q"], ["o2"])], "two", [], [kind("o2", TensorProto.FLOAT, ["N", 10])]
    )
    add(p, helper.make_node("If", ["yes"], ["y"], then_branch=one, else_branch=two), yes=np.array(True))


def other_attributes(p: ModelProto) -> None:
    """Attributes that no consumer of ours understands: empty lists, text that is no UTF-8."""
    node = p.graph.node[1]
    node.domain, node.op_type = "", "Relu"
    add(p, helper.make_node("Constant", [], ["text"], value_string=b"\xff\xfe"))
    add(p, helper.make_node("Identity", ["text"], ["unread"]))


def ir_version(p: ModelProto) -> None:
    p.ir_version = 7


def node_names(p: ModelProto) -> None:
    for i, node in enumerate(p.graph.node):
        node.name = f"the {i}th node"


def declared_untouched(p: ModelProto) -> None:
    p.graph.value_info.extend(
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 10]), helper.make_tensor_value_info("y2", 1, [3])]
    )
    p.graph.node[-1].output[0] = "z"
    add(p, helper.make_node("Identity", ["z"], ["y"]))


FEATURES: list[Change] = [
    doc_strings, metadata, producer, opsets, function, quantization, unused, sparse, denotations, subgraph,
    other_attributes, ir_version, node_names, declared_untouched,
]  # fmt: skip


@pytest.mark.parametrize("feature", FEATURES, ids=lambda f: f.__name__)
def test_stays(feature: Change) -> None:
    proto = net()
    feature(proto)
    result = folded(proto)
    assert without_values(result) == without_values(proto)
    assert array(result, "w2").shape == (8, 8, 3, 3)


def test_declared_shapes_follow() -> None:
    """Declared shapes of folded tensors have the new lengths; open dimensions stay open."""
    proto = onnx.shape_inference.infer_shapes(net())
    assert {v.name for v in proto.graph.value_info} >= {"a", "f"}
    result = folded(proto)
    shapes = {
        v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in result.graph.value_info
    }
    assert shapes["a"] == ["N", 8, 6, 6] and shapes["f"] == ["N", 8]
    assert [v.name for v in result.graph.value_info] == [v.name for v in proto.graph.value_info]
    assert result.graph.input == proto.graph.input and result.graph.output == proto.graph.output


def without_group(node: NodeProto) -> NodeProto:
    """A copy without the number of groups, which follows the channels of a depthwise convolution."""
    copy = NodeProto()
    copy.CopyFrom(node)
    for attribute in copy.attribute:
        if attribute.name == "group" and attribute.i > 1:
            attribute.i = 0
    return copy


@pytest.mark.parametrize("name", ["digits_mlp", "digits_mobilenet", "digits_resnet_fused", "digits_vgg"])
def test_trained_models_keep_all_but_weights(name: str) -> None:
    proto = onnx.load(MODELS / f"{name}.onnx")
    result = folded(proto)
    assert list(map(without_group, result.graph.node)) == list(map(without_group, proto.graph.node))
    assert [t.name for t in result.graph.initializer] == [t.name for t in proto.graph.initializer]
    for field in ("input", "output", "name", "doc_string", "metadata_props", "quantization_annotation"):
        assert getattr(result.graph, field) == getattr(proto.graph, field)
    for field in ("ir_version", "opset_import", "producer_name", "producer_version", "metadata_props", "functions"):
        assert getattr(result, field) == getattr(proto, field)


# how weights are stored ---------------------------------------------------------------------------------------------

TYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "double": np.float64}
# rounding of the stored type on top of the float32 result; float64 is computed as such
ROUNDING = {"float16": 2**-10, "bfloat16": 2**-7, "double": 1e-6}


@pytest.mark.parametrize("kind", TYPES)
def test_element_types(kind: str) -> None:
    """Merged in float32 (or in double), written in the type that was there."""
    text = TEXT.replace("float[", f"{kind}[")
    plain, narrow = net(), net(text, dtype=TYPES[kind])
    for tensor in plain.graph.initializer:  # the same values, so that the same channels are merged
        tensor.CopyFrom(numpy_helper.from_array(array(narrow, tensor.name).astype(np.float32), tensor.name))
    result = fold(narrow, ratio=0.5, latency=False, recovery="none", allow_unmeasured=True).model
    expected = fold(plain, ratio=0.5, latency=False, recovery="none").model
    for name in WEIGHTS:
        found, wanted = array(result, name), array(expected, name)
        assert found.dtype == TYPES[kind] and tensors(result)[name].data_type == tensors(narrow)[name].data_type
        assert found.shape == wanted.shape
        error = np.abs(found.astype(np.float64) - wanted).max() / np.abs(wanted).max()
        assert error <= ROUNDING[kind], (name, error)


def test_typed_fields_instead_of_raw_bytes() -> None:
    proto, raw = net(), net()
    for tensor in proto.graph.initializer:
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(helper.make_tensor(tensor.name, tensor.data_type, tensor.dims, values.ravel().tolist()))
    result, wanted = folded(proto, exclude=["Conv#2"]), folded(raw, exclude=["Conv#2"])
    assert all(np.array_equal(array(result, n), array(wanted, n)) for n in WEIGHTS)
    assert tensors(result)["w3"] == tensors(proto)["w3"], "untouched: still in its typed field"
    assert not tensors(result)["w1"].float_data


def test_constant_nodes_are_edited_in_place() -> None:
    proto = net()
    kept = {t.name: t for t in proto.graph.initializer}
    constants = []
    for name, tensor in kept.items():
        tensor.doc_string = f"doc of {name}"
        constants.append(helper.make_node("Constant", [], [name], name=f"const {name}", value=tensor))
    nodes = list(proto.graph.node)
    del proto.graph.node[:], proto.graph.initializer[:]
    proto.graph.node.extend([*constants, *nodes])
    result = folded(proto)
    assert not result.graph.initializer
    assert [(n.name, n.op_type, list(n.input), list(n.output)) for n in result.graph.node] == [
        (n.name, n.op_type, list(n.input), list(n.output)) for n in proto.graph.node
    ]
    held = {n.output[0]: n.attribute[0].t for n in result.graph.node if n.op_type == "Constant"}
    assert list(held["w2"].dims) == [8, 8, 3, 3]
    assert all(t.name == n and t.doc_string == f"doc of {n}" for n, t in held.items())


@pytest.mark.parametrize("version", [3, 8])
def test_weights_that_are_graph_inputs(version: int) -> None:
    """The declared shape of such an input follows its weight."""
    proto = net()
    proto.ir_version = version
    if version == 3:
        del proto.opset_import[:]
        proto.opset_import.append(helper.make_opsetid("", 8))
        proto.graph.node[5].attribute.append(helper.make_attribute("axis", 1))
    for name in WEIGHTS:
        proto.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPES[name]))
    result = folded(proto)
    assert [v.name for v in result.graph.input] == ["x", *WEIGHTS]
    for value in result.graph.input[1:]:
        declared = [d.dim_value for d in value.type.tensor_type.shape.dim]
        assert declared == list(tensors(result)[value.name].dims)
    assert result.graph.input[0] == proto.graph.input[0]


# shared weights -----------------------------------------------------------------------------------------------------


def test_one_weight_used_twice() -> None:
    """Both uses see the folded weight, stored once."""
    text = """<ir_version: 8, opset_import: ["" : 17]> agraph (float[N,3,8,8] x) => (float[N,10] y) {
        a = Conv <kernel_shape: ints = [3,3], pads: ints = [1,1,1,1]> (x, w1, b1)
        r = Relu (a)
        c = Conv <kernel_shape: ints = [3,3], pads: ints = [1,1,1,1]> (r, w2, b2)
        s = Relu (c)
        d = Conv <kernel_shape: ints = [3,3], pads: ints = [1,1,1,1]> (s, w2, b2)
        p = GlobalAveragePool (d)
        f = Flatten (p)
        y = Gemm <transB: int = 1> (f, w3, b3)
    }"""
    proto = net(text)
    result = fold(proto, ratio=0.5, latency=False).model
    onnx.checker.check_model(result, full_check=True)
    assert [t.name for t in result.graph.initializer] == list(WEIGHTS)
    assert array(result, "w2").shape[0] == array(result, "w2").shape[1] == array(result, "w1").shape[0]
    x = np.zeros((1, 3, 8, 8), np.float32)
    assert Session(result.SerializeToString()).run({"x": x})[0].shape == (1, 10)


def test_weight_shared_with_what_cannot_be_folded() -> None:
    """The bias b1 is also an output of its own: that keeps its bytes, and the convolution gets a shorter copy."""
    proto = net()
    proto.graph.node.append(helper.make_node("Identity", ["b1"], ["seen"]))
    proto.graph.output.append(helper.make_tensor_value_info("seen", TensorProto.FLOAT, [16]))
    result = folded(proto)
    assert tensors(result)["b1"] == tensors(proto)["b1"]
    x = np.zeros((1, 3, 8, 8), np.float32)
    _, seen = Session(result.SerializeToString()).run({"x": x})
    assert np.array_equal(seen, array(proto, "b1"))
    bias = next(n.input[2] for n in result.graph.node if n.output[0] == "a")
    assert array(result, "w1").shape[0] == array(result, bias).shape[0]


def test_untouched_weights_are_the_same_bytes() -> None:
    proto = net()
    result = folded(proto, include=["Conv#0"])
    for name in ("b2", "w3", "b3"):
        assert tensors(result)[name] == tensors(proto)[name]
    assert array(result, "w2").shape == (16, 8, 3, 3)


# what it means ------------------------------------------------------------------------------------------------------


def test_equal_channels_are_merged_without_error(tmp_path: Path) -> None:
    """Every channel of both convolutions twice: half the width computes the same."""
    half = weights({**SHAPES, "w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 8, 3, 3), "b2": (8,), "w3": (10, 8)})
    twice = {
        "w1": np.repeat(half["w1"], 2, 0), "b1": np.repeat(half["b1"], 2),
        "w2": np.repeat(np.repeat(half["w2"], 2, 0), 2, 1) / 2, "b2": np.repeat(half["b2"], 2),
        "w3": np.repeat(half["w3"], 2, 1) / 2, "b3": half["b3"],
    }  # fmt: skip
    proto = net(shapes={})
    proto.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in twice.items())
    result = fold(proto, ratio=0.5, latency=False)
    worst = result.report.check and result.report.check.worst
    assert worst and worst.relative_l2 < 1e-5  # float32, sums in another order; measured 4e-7
    assert array(result.model, "w1").shape[0] == 8


def test_nodes_out_of_order() -> None:
    """onnxruntime takes nodes in any order, so we do; they come back in an order that the checker takes."""
    proto, shuffled = net(), net()
    nodes = list(shuffled.graph.node)
    del shuffled.graph.node[:]
    shuffled.graph.node.extend(reversed(nodes))
    result = folded(shuffled)
    assert sorted(n.output[0] for n in result.graph.node) == sorted(n.output[0] for n in proto.graph.node)
