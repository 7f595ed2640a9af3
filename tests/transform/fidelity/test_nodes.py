"""Nodes on branches that the fold does not touch: names, attributes, absent inputs, constants, custom operators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bystanders import FOLDED, Feature, add_nodes, add_weight, behind, beside, declare, initializer, stays
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper

node = helper.make_node
KIND = helper.make_tensor_value_info


# names ----------------------------------------------------------------------------------------------------------------


def names(p: ModelProto) -> None:
    for number, one in enumerate(p.graph.node):
        one.name = f"layer {number}/näme:0 (?*[\U0001f600\n"


def empty_names(p: ModelProto) -> None:
    """Present, but empty."""
    for one in p.graph.node:
        one.ClearField("name") if one.HasField("name") else setattr(one, "name", "")


def duplicate_names(p: ModelProto) -> None:
    for one in p.graph.node:
        one.name = "the same"


def node_named_like_a_tensor(p: ModelProto) -> None:
    for one, name in zip(p.graph.node, ("w1", "h", "x"), strict=True):
        one.name = name


def names_of_tensors(p: ModelProto) -> None:
    """Of tensors beside the fold."""
    beside(p, node("Neg", ["s"], ["/a/b:0 ü\t"]), node("Neg", ["/a/b:0 ü\t"], ["t"]))


def names_the_fold_might_use(p: ModelProto) -> None:
    for name in ("w1_folded", "w1_folded1", "Gemm_sizes", "h_folded"):
        add_weight(p, name, np.float32([1, 2]))


# attributes -----------------------------------------------------------------------------------------------------------


def custom(p: ModelProto, *attributes: AttributeProto) -> None:
    """A node of a domain that nobody knows, which may hold any attribute."""
    p.opset_import.append(helper.make_opsetid("org.example", 1))
    one = node("Thing", ["s"], ["t"], domain="org.example")
    one.attribute.extend(attributes)
    beside(p, one)


def custom_operator(p: ModelProto) -> None:
    custom(p)


def empty_lists(p: ModelProto) -> None:
    kinds = (AttributeProto.INTS, AttributeProto.FLOATS, AttributeProto.STRINGS, AttributeProto.TENSORS)
    custom(p, *(AttributeProto(name=f"list {kind}", type=kind) for kind in kinds))


def bytes_that_are_no_text(p: ModelProto) -> None:
    custom(p, helper.make_attribute("one", b"\xff\xfe\x00"), helper.make_attribute("many", [b"\xff", b"", b"a\x00"]))


def tensor_attributes(p: ModelProto) -> None:
    one, two = (helper.make_tensor(n, TensorProto.INT8, [2], [1, -1]) for n in ("a", "b"))
    custom(p, helper.make_attribute("one", one), helper.make_attribute("many", [one, two]))


def graph_attributes(p: ModelProto) -> None:
    made = helper.make_graph([node("Neg", ["s"], ["o"])], "g", [], [KIND("o", TensorProto.FLOAT, None)])
    custom(p, helper.make_attribute("one", made), helper.make_attribute("many", [made, made]))


def type_attributes(p: ModelProto) -> None:
    made = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.STRING, ["N"]))
    many = AttributeProto(name="many", type=AttributeProto.TYPE_PROTOS)
    many.type_protos.extend([made, made])
    custom(p, helper.make_attribute("one", made), many)


def sparse_attributes(p: ModelProto) -> None:
    made = sparse("")
    many = AttributeProto(name="many", type=AttributeProto.SPARSE_TENSORS)
    many.sparse_tensors.extend([made, made])
    custom(p, helper.make_attribute("one", made), many)


def extreme_numbers(p: ModelProto) -> None:
    """NaN with a payload, -0, denormals, the largest integers."""
    odd = AttributeProto(name="odd", type=AttributeProto.FLOATS)
    odd.floats.extend(np.uint32([0x7FC12345, 0x80000000, 1, 0xFF800000]).view(np.float32).tolist())
    custom(p, odd, helper.make_attribute("large", [2**63 - 1, -(2**63)]), helper.make_attribute("zero", -0.0))


def attribute_order(p: ModelProto) -> None:
    """As given, not by name."""
    custom(p, *(helper.make_attribute(name, 1) for name in "zay"))


def default_attributes(p: ModelProto) -> None:
    """Written out, though they say what is so anyway; also on a node whose weights are folded."""
    p.graph.node[0].attribute.extend([helper.make_attribute("alpha", 1.0), helper.make_attribute("transA", 0)])


def contrib_operator(p: ModelProto) -> None:
    p.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    beside(p, node("QuickGelu", ["s"], ["t"], domain="com.microsoft", alpha=1.5))


def ml_operator(p: ModelProto) -> None:
    p.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    beside(p, node("Scaler", ["s"], ["t"], domain="ai.onnx.ml", offset=[1.0, 2.0, 3.0], scale=[2.0, 0.5, 1.0]))


# inputs and outputs ---------------------------------------------------------------------------------------------------


def absent_input_in_the_middle(p: ModelProto) -> None:
    add_weight(p, "high", np.float32(1))
    beside(p, node("Clip", ["s", "", "high"], ["t"]))


def absent_inputs_at_the_end(p: ModelProto) -> None:
    beside(p, node("Clip", ["s", "", ""], ["t"]))


def absent_outputs(p: ModelProto) -> None:
    """The first of two is not wanted, and inputs in the middle are not given."""
    rng = np.random.default_rng(0)
    for name, shape in (("w", (1, 6, 3)), ("recurrent", (1, 6, 2)), ("start", (1, 1, 2))):
        add_weight(p, name, rng.standard_normal(shape).astype(np.float32))
    p.graph.input.append(KIND("steps", TensorProto.FLOAT, [5, 1, 3]))
    gru = node("GRU", ["steps", "w", "recurrent", "", "", "start"], ["", "last"], hidden_size=2)
    p.graph.node.append(gru)
    p.graph.output.append(KIND("last", TensorProto.FLOAT, [1, 1, 2]))


def absent_output_at_the_end(p: ModelProto) -> None:
    beside(p, node("Dropout", ["s"], ["t", ""]))


def unread_outputs(p: ModelProto) -> None:
    add_weight(p, "two", np.int64([2]))
    p.graph.node.append(node("TopK", ["y", "two"], ["values", "best"]))
    declare(p, "values", TensorProto.FLOAT, ["N", 2])


def unread_node_on_the_chain(p: ModelProto) -> None:
    """It reads what is folded, and nobody reads it: it stays, and its declared shape follows."""
    p.graph.node.insert(2, node("Neg", ["h"], ["nobody"]))


def input_passed_to_an_output(p: ModelProto) -> None:
    p.graph.input.append(KIND("s", TensorProto.FLOAT, ["N", 3]))
    p.graph.output.append(KIND("s", TensorProto.FLOAT, ["N", 3]))


def input_that_nobody_reads(p: ModelProto) -> None:
    p.graph.input.append(KIND("s", TensorProto.FLOAT, ["N", 3]))


def output_in_the_middle(p: ModelProto) -> None:
    """An output that other nodes read."""
    beside(p, node("Neg", ["s"], ["minus"]), node("Neg", ["minus"], ["t"]))
    p.graph.output.append(KIND("minus", TensorProto.FLOAT, ["N", 3]))


def same_output_twice(p: ModelProto) -> None:
    """A weight that is an output as well."""
    p.graph.output.append(KIND("b2", TensorProto.FLOAT, [4]))


def node_order(p: ModelProto) -> None:
    """Branches interleaved, which a sort might part."""
    beside(p, node("Neg", ["s"], ["s2"]), node("Abs", ["s2"], ["t"]))
    nodes = list(p.graph.node)
    del p.graph.node[:]
    p.graph.node.extend(nodes[i] for i in (3, 0, 1, 4, 2))


def same_computation_twice(p: ModelProto) -> None:
    """Not merged."""
    beside(p, node("Neg", ["s"], ["m1"]), node("Neg", ["s"], ["m2"]), node("Add", ["m1", "m2"], ["t"]))


def identities(p: ModelProto) -> None:
    """Not removed."""
    behind(p, node("Identity", ["q"], ["q2"]), node("Dropout", ["q2"], ["q3"]), node("Identity", ["q3"], ["y"]))


def computed_constants(p: ModelProto) -> None:
    """Not precomputed."""
    add_weight(p, "k", np.float32([1, 2, 3]))
    beside(p, node("Neg", ["k"], ["k2"]), node("Exp", ["k2"], ["k3"]), node("Add", ["s", "k3"], ["t"]))


# constants ------------------------------------------------------------------------------------------------------------


def sparse(name: str) -> Any:
    """[0, 5, 0] with one value stored."""
    values = helper.make_tensor(name, TensorProto.FLOAT, [1], [5.0])
    return helper.make_sparse_tensor(values, helper.make_tensor("", TensorProto.INT64, [1], [1]), [3])


def constant(p: ModelProto, kind: str, value: Any) -> None:
    one = node("Constant", [], ["k"], **{kind: value})
    beside(p, one, node("Neg", ["s"], ["t"]))
    if kind in ("value", "value_float", "value_floats"):
        p.graph.node[-1].CopyFrom(node("Add", ["s", "k"], ["t"]))


CONSTANTS = {
    "value": helper.make_tensor("named", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0]),
    "value_float": 2.5,
    "value_floats": [1.0, 2.0, 3.0],
    "value_int": 7,
    "value_ints": [1, 2],
    "value_string": b"\xff\xfe",
    "value_strings": [b"a", b"\xff", b""],
    "sparse_value": sparse("k"),
}


def empty_constant(p: ModelProto) -> None:
    one = node("Constant", [], ["k"])
    one.attribute.add(name="value_ints", type=AttributeProto.INTS)
    beside(p, one, node("Neg", ["s"], ["t"]))


def folded_constants(p: ModelProto) -> None:
    """The folded weights in Constant nodes, with names of their own and notes."""
    nodes = list(p.graph.node)
    del p.graph.node[:]
    for name in ("w1", "b1", "w2"):
        held = initializer(p, name)
        held.doc_string = f"weight {name}"
        p.graph.node.append(node("Constant", [], [name], name=f"constant/{name}", value=held, doc_string="a constant"))
        p.graph.initializer.remove(held)
    p.graph.node.extend(nodes)


def unused_constant(p: ModelProto) -> None:
    value = numpy_helper.from_array(np.arange(3.0))
    p.graph.node.insert(0, node("Constant", [], ["nobody"], value=value))


def random_numbers(p: ModelProto) -> None:
    """An operator without inputs that is no constant."""
    beside(p, node("RandomUniformLike", ["s"], ["r2"], seed=1.0), node("Mul", ["s", "r2"], ["t"]))


def shape_arithmetic(p: ModelProto) -> None:
    """Lengths of tensors beside the fold, computed."""
    add_nodes(p, """(float[N,3] s) => (float[N,3] t) {
        shape = Shape (s)  first = Gather (shape, zero)  rows = Unsqueeze (first, nought)
        whole = Concat <axis = 0> (rows, minus)  t = Reshape (s, whole)
    }""", {"zero": np.array(0), "nought": np.array([0]), "minus": np.array([-1])})  # fmt: skip


RUN: list[Feature] = [
    names, empty_names, node_named_like_a_tensor, names_of_tensors, names_the_fold_might_use,
    default_attributes, contrib_operator, ml_operator,
    absent_input_in_the_middle, absent_inputs_at_the_end, absent_outputs, absent_output_at_the_end, unread_outputs,
    unread_node_on_the_chain, input_passed_to_an_output, input_that_nobody_reads, output_in_the_middle,
    same_output_twice, node_order, same_computation_twice, identities, computed_constants,
    empty_constant, folded_constants, unused_constant, random_numbers, shape_arithmetic,
]  # fmt: skip
NOT_RUN: list[Feature] = [
    custom_operator, empty_lists, bytes_that_are_no_text, tensor_attributes, graph_attributes, type_attributes,
    sparse_attributes, extreme_numbers, attribute_order, duplicate_names,
]  # fmt: skip


@pytest.mark.parametrize("feature", RUN, ids=lambda f: f.__name__)
def test_node(tmp_path: Path, feature: Feature) -> None:
    stays(tmp_path, feature)


@pytest.mark.parametrize("feature", NOT_RUN, ids=lambda f: f.__name__)
def test_what_onnxruntime_does_not_run(tmp_path: Path, feature: Feature) -> None:
    """The report says so, and everything is emitted all the same."""
    stays(tmp_path, feature, runs=False)


@pytest.mark.parametrize("kind", CONSTANTS)
def test_constant(tmp_path: Path, kind: str) -> None:
    stays(tmp_path, lambda p: constant(p, kind, CONSTANTS[kind]))


# integers and lists that the fold changes -----------------------------------------------------------------------------


def reshaped(p: ModelProto) -> TensorProto:
    """A Reshape on the folded chain; the lengths it is told."""
    p.graph.node[2].input[0] = "r3"
    p.graph.node.insert(2, node("Reshape", ["r", "target"], ["r3"], name="reshape", doc_string="as it is"))
    return add_weight(p, "target", np.int64([0, 8]))


def in_a_constant(p: ModelProto, name: str, **value: Any) -> None:
    """The initializer `name` in a Constant node instead; `value`: how it is given, if not as tensor."""
    given = value or {"value": initializer(p, name)}
    p.graph.node.insert(0, node("Constant", [], [name], name=f"constant/{name}", doc_string="a constant", **given))
    p.graph.node[0].attribute[0].doc_string = "a list"
    p.graph.initializer.remove(initializer(p, name))


def counted_raw(p: ModelProto) -> None:
    reshaped(p).doc_string = "batch, channels"


def counted_typed(p: ModelProto) -> None:
    reshaped(p).CopyFrom(helper.make_tensor("target", TensorProto.INT64, [2], [0, 8]))
    initializer(p, "target").doc_string = "batch, channels"


def counted_in_a_constant(p: ModelProto) -> None:
    reshaped(p).doc_string = "batch, channels"
    in_a_constant(p, "target")


def counted_in_a_list(p: ModelProto) -> None:
    reshaped(p)
    in_a_constant(p, "target", value_ints=[0, 8])


def folded_list(p: ModelProto) -> None:
    in_a_constant(p, "b1", value_floats=numpy_helper.to_array(initializer(p, "b1")).tolist())


CHANGED: list[Feature] = [counted_raw, counted_typed, counted_in_a_constant, counted_in_a_list, folded_list]


@pytest.mark.parametrize("feature", CHANGED, ids=lambda f: f.__name__)
def test_values_change_where_they_stand(tmp_path: Path, feature: Feature) -> None:
    stays(tmp_path, feature, weights={**FOLDED, "target": (2,)})
