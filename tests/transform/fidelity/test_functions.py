"""Local functions on a branch that the fold does not touch, or behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bystanders import Feature, behind, beside, note, stays, unknown
from onnx import AttributeProto, FunctionProto, ModelProto, TensorProto, helper

node = helper.make_node
ONNX = helper.make_opsetid("", 21)
OURS = helper.make_opsetid("custom", 1)


def add(p: ModelProto, name: str, *body: Any, **more: Any) -> FunctionProto:
    """The function `custom.name` from i to o."""
    if all(o.domain != "custom" for o in p.opset_import):
        p.opset_import.append(OURS)
    imports = more.pop("opset_imports", [ONNX])
    p.functions.append(helper.make_function("custom", name, ["i"], ["o"], body, imports, **more))
    return p.functions[-1]


def call(p: ModelProto, name: str, **attributes: Any) -> Any:
    made = node(name, ["s"], ["t"], domain="custom", **attributes)
    beside(p, made)
    return p.graph.node[-1]


def beside_the_fold(p: ModelProto) -> None:
    add(p, "Twice", node("Add", ["i", "i"], ["o"]))
    call(p, "Twice")


def behind_the_fold(p: ModelProto) -> None:
    add(p, "Twice", node("Add", ["i", "i"], ["o"]))
    behind(p, node("Twice", ["q"], ["y"], domain="custom"))


def never_called(p: ModelProto) -> None:
    add(p, "Twice", node("Add", ["i", "i"], ["o"]))


def called_twice(p: ModelProto) -> None:
    add(p, "Twice", node("Add", ["i", "i"], ["o"]))
    beside(p, node("Twice", ["s"], ["s2"], domain="custom"), node("Twice", ["s2"], ["t"], domain="custom"))


def overloads(p: ModelProto) -> None:
    """Two functions of one name."""
    add(p, "Change", node("Add", ["i", "i"], ["o"])).overload = "twice"
    add(p, "Change", node("Neg", ["i"], ["o"])).overload = "negative"
    call(p, "Change").overload = "negative"


def nested(p: ModelProto) -> None:
    """One calls the other; the outer one comes first in the file."""
    add(p, "Outer", node("Inner", ["i"], ["m"], domain="custom"), node("Neg", ["m"], ["o"]), opset_imports=[ONNX, OURS])
    add(p, "Inner", node("Add", ["i", "i"], ["o"]))
    call(p, "Outer")


def attribute_with_default(p: ModelProto) -> None:
    add(p, "Leaky", leaky(), attribute_protos=[helper.make_attribute("slope", 0.25)])
    call(p, "Leaky")


def attribute_given(p: ModelProto) -> None:
    add(p, "Leaky", leaky(), attributes=["slope"])
    call(p, "Leaky", slope=0.5)


def leaky() -> Any:
    """A node whose attribute is that of the function."""
    made = node("LeakyRelu", ["i"], ["o"])
    made.attribute.add(name="alpha", ref_attr_name="slope", type=AttributeProto.FLOAT)
    return made


def other_opset(p: ModelProto) -> None:
    """An older opset inside the function than outside."""
    p.opset_import[0].version = 22
    add(p, "Twice", node("Add", ["i", "i"], ["o"]))
    call(p, "Twice")


def declared_inside(p: ModelProto) -> None:
    found = add(p, "Deep", node("Add", ["i", "i"], ["m"]), node("Neg", ["m"], ["o"]))
    found.value_info.append(helper.make_tensor_value_info("m", TensorProto.FLOAT, ["N", 3]))
    call(p, "Deep")


def constants_inside(p: ModelProto) -> None:
    value = helper.make_tensor("", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0])
    add(p, "Shift", node("Constant", [], ["k"], value=value), node("Add", ["i", "k"], ["o"]))
    call(p, "Shift")


def same_name_as_an_operator(p: ModelProto) -> None:
    """`custom.Relu` is not Relu: nothing may take it for one."""
    add(p, "Relu", node("Neg", ["i"], ["o"]))
    behind(p, node("Relu", ["q"], ["y"], domain="custom"))


def documented(p: ModelProto) -> None:
    found = add(p, "Twice", node("Add", ["i", "i"], ["o"], name="the sum", doc_string="inside"))
    found.doc_string = "doubles"
    note(found.metadata_props)
    note(found.node[0].metadata_props)
    unknown(found)
    call(p, "Twice")


def body_inside(p: ModelProto) -> None:
    """A function that holds an If."""
    kind = helper.make_tensor_value_info("b", TensorProto.FLOAT, None)
    one = helper.make_graph([node("Neg", ["i"], ["b"])], "one", [], [kind])
    two = helper.make_graph([node("Abs", ["i"], ["b"])], "two", [], [kind])
    yes = helper.make_tensor("", TensorProto.BOOL, [], [True])
    add(p, "Choose", node("Constant", [], ["c"], value=yes), node("If", ["c"], ["o"], then_branch=one, else_branch=two))
    call(p, "Choose")


FEATURES: list[Feature] = [
    beside_the_fold, behind_the_fold, never_called, called_twice, overloads, nested, attribute_with_default,
    attribute_given, other_opset, declared_inside, constants_inside, same_name_as_an_operator, documented, body_inside,
]  # fmt: skip


@pytest.mark.parametrize("feature", FEATURES, ids=lambda f: f.__name__)
def test_function(tmp_path: Path, feature: Feature) -> None:
    stays(tmp_path, feature)
