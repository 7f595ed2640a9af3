"""Notes that people and tools leave in a model: documentation, metadata, versions, annotations of all kinds."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bystanders import (
    Feature,
    add_weight,
    base,
    beside,
    declare,
    difference,
    fold_files,
    note,
    plain,
    stays,
    unknown,
)
from onnx import ModelProto, TensorProto, helper

AXES = {"w1": 0, "b1": 0, "w2": 1}  # which the fold shortens
IR_VERSIONS = {
    3: 8,
    4: 9,
    5: 10,
    6: 11,
    7: 13,
    8: 17,
    9: 20,
    10: 21,
    11: 23,
    12: 24,
    13: 25,
}  # with an opset of its time


def with_function(p: ModelProto) -> ModelProto:
    """A function `custom.Twice` on a branch of its own."""
    p.opset_import.append(helper.make_opsetid("custom", 1))
    body = [helper.make_node("Add", ["i", "i"], ["o"])]
    p.functions.append(helper.make_function("custom", "Twice", ["i"], ["o"], body, [helper.make_opsetid("", 21)]))
    beside(p, helper.make_node("Twice", ["s"], ["t"], domain="custom"))
    return p


def with_body(p: ModelProto) -> Any:
    """An If on a branch of its own; the body that runs."""
    kind = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Add", ["s", "one"], ["o"])], "body", [], [kind("o", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])], value_info=[kind("o", TensorProto.FLOAT, None)],
    )  # fmt: skip
    other = helper.make_graph(
        [helper.make_node("Neg", ["s"], ["o"])], "other", [], [kind("o", TensorProto.FLOAT, ["N", 3])]
    )
    add_weight(p, "yes", np.array(True))
    beside(p, helper.make_node("If", ["yes"], ["t"], then_branch=body, else_branch=other))
    return next(a.g for a in p.graph.node[-1].attribute if a.name == "then_branch")


# where a note can be put
PLACES: dict[str, Any] = {
    "model": lambda p: p,
    "graph": lambda p: p.graph,
    "node": lambda p: p.graph.node[0],
    "node_beside": lambda p: p.graph.node[1],
    "folded_weight": lambda p: p.graph.initializer[0],
    "weight": lambda p: p.graph.initializer[3],
    "input": lambda p: p.graph.input[0],
    "output": lambda p: p.graph.output[0],
    "folded_value": lambda p: p.graph.value_info[0],
    "value": lambda p: declare(p, "y", TensorProto.FLOAT, ["N", 4]),
    "function": lambda p: with_function(p).functions[0],
    "function_node": lambda p: with_function(p).functions[0].node[0],
    "function_call": lambda p: with_function(p).graph.node[-1],
    "body": with_body,
    "body_node": lambda p: with_body(p).node[0],
    "body_weight": lambda p: with_body(p).initializer[0],
    "body_value": lambda p: with_body(p).value_info[0],
    "body_output": lambda p: with_body(p).output[0],
}
# where there is room for a field of a newer onnx only
MORE_PLACES: dict[str, Any] = {
    "attribute": lambda p: p.graph.node[0].attribute[0],
    "dimension": lambda p: p.graph.input[0].type.tensor_type.shape.dim[0],
    "folded_dimension": lambda p: p.graph.value_info[0].type.tensor_type.shape.dim[0],
    "type": lambda p: p.graph.input[0].type,
    "opset": lambda p: p.opset_import[0],
}


def notes(p: ModelProto, place: str) -> None:
    """Metadata, documentation, and a field that this onnx does not know."""
    thing = PLACES[place](p)
    note(thing.metadata_props)
    note(thing.metadata_props, "empty", "")
    note(thing.metadata_props, "n\u00e4me/\u00fc.weight", "a\nb")
    thing.doc_string = "what it is:\n\tna\u00efve \U0001f600"
    unknown(thing)


def from_the_future(p: ModelProto, place: str) -> None:
    """A field that this onnx does not know."""
    unknown(MORE_PLACES[place](p))


def documented_attribute(p: ModelProto) -> None:
    p.graph.node[0].attribute[0].doc_string = "as PyTorch stores its weights"


def empty_documentation(p: ModelProto) -> None:
    """Present, but empty: not the same bytes as absent."""
    for thing in (p, p.graph, *p.graph.node, *p.graph.initializer, *p.graph.input):
        thing.doc_string = ""


def producer(p: ModelProto) -> None:
    p.producer_name, p.producer_version, p.domain, p.model_version = "exporter", "1.2.3", "org.example", 42


def negative_model_version(p: ModelProto) -> None:
    p.model_version = -(2**63)


def graph_name(p: ModelProto) -> None:
    p.graph.name = "a graph/with:a näme"


def ir_version(p: ModelProto, version: int) -> None:
    """With every initializer an input too where there was no other way."""
    p.ir_version, p.opset_import[0].version = version, IR_VERSIONS[version]
    p.producer_name = f"exporter of IR {version}"
    if version < 4:
        for tensor in p.graph.initializer:
            p.graph.input.append(helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, tensor.dims))


def unused_opsets(p: ModelProto) -> None:
    """Imports of domains that no node uses, one of them not known to anybody."""
    p.opset_import.extend(
        helper.make_opsetid(*o) for o in (("ai.onnx.ml", 3), ("com.microsoft", 1), ("org.example.nobody", 7))
    )


def opset_order(p: ModelProto) -> None:
    """The default domain need not come first."""
    p.opset_import.insert(0, helper.make_opsetid("ai.onnx.ml", 3))


def spelled_out_domain(p: ModelProto) -> None:
    p.opset_import[0].domain = "ai.onnx"


def spelled_out_domain_of_nodes(p: ModelProto) -> None:
    for node in p.graph.node:
        node.domain = "ai.onnx"


def spelled_out_domain_of_constants(p: ModelProto) -> None:
    """Where a constant is computed, too."""
    p.opset_import[0].domain = "ai.onnx"
    add_weight(p, "shift", np.float32([1, 2, 3]))
    add_weight(p, "end", np.int64([3]))
    beside(
        p, helper.make_node("Reshape", ["shift", "end"], ["k"], domain="ai.onnx"),
        helper.make_node("Add", ["s", "k"], ["t"], domain="ai.onnx"),
    )  # fmt: skip


def domain_absent(p: ModelProto) -> None:
    """Not the same bytes as present and empty."""
    for node in p.graph.node:
        assert node.HasField("domain")
        node.ClearField("domain")


def quantization_annotation(p: ModelProto) -> None:
    """On a tensor that is not folded, and on one that is."""
    for name in ("b2", "r"):
        found = p.graph.quantization_annotation.add(tensor_name=name)
        note(found.quant_parameter_tensor_names, "SCALE_TENSOR", f"{name}_scale")
        note(found.quant_parameter_tensor_names, "ZERO_POINT_TENSOR", f"{name}_zero")
        add_weight(p, f"{name}_scale", np.float32(0.5))
        add_weight(p, f"{name}_zero", np.int8(0))


def type_denotation(p: ModelProto) -> None:
    p.graph.input[0].type.denotation = "TENSOR"
    p.graph.output[0].type.denotation = "org.example.LOGITS"
    p.graph.value_info[0].type.denotation = "TENSOR"


def dimension_denotation(p: ModelProto) -> None:
    """Also on dimensions of tensors that are folded."""
    for value in (p.graph.input[0], p.graph.output[0], p.graph.value_info[1]):
        value.type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    p.graph.input[0].type.tensor_type.shape.dim[1].denotation = "DATA_FEATURE"


def names_of_dimensions(p: ModelProto) -> None:
    for value in (p.graph.input[0], p.graph.output[0], *p.graph.value_info):
        value.type.tensor_type.shape.dim[0].dim_param = "2*batch + übrige"


def dimensions_without_anything(p: ModelProto) -> None:
    for value in (p.graph.input[0], p.graph.output[0], *p.graph.value_info):
        value.type.tensor_type.shape.dim[0].Clear()


def open_channels(p: ModelProto) -> None:
    """A length that was not declared is not declared afterwards."""
    p.graph.value_info[0].type.tensor_type.shape.dim[1].Clear()


def training_info(p: ModelProto) -> None:
    kind = helper.make_tensor_value_info
    for number in (1, 2):
        step = p.training_info.add()
        step.initialization.CopyFrom(
            helper.make_graph(
                [helper.make_node("ConstantOfShape", ["four"], ["zero"])], "init", [],
                [kind("zero", TensorProto.FLOAT, [4])], [helper.make_tensor("four", TensorProto.INT64, [1], [4])],
            )
        )  # fmt: skip
        step.algorithm.CopyFrom(
            helper.make_graph(
                [helper.make_node("Add", ["b2", "rate"], ["next"])], f"step {number}", [],
                [kind("next", TensorProto.FLOAT, [4])], [helper.make_tensor("rate", TensorProto.FLOAT, [], [0.5])],
            )
        )  # fmt: skip
        note(step.initialization_binding, "b2", "zero")
        note(step.update_binding, "b2", "next")


def device_configurations(p: ModelProto) -> None:
    """Which device a node is for, and how its tensors are cut."""
    p.ir_version, p.opset_import[0].version = 11, 23
    p.configuration.add(name="pair", num_devices=2, device=["cuda:0", "cuda:1"])
    given = p.graph.node[0].device_configurations.add(configuration_id="pair", pipeline_stage=1)
    sharding = given.sharding_spec.add(tensor_name="x", device=[0, 1])
    group = sharding.index_to_device_group_map.add(key=0)
    group.value.extend([0, 1])
    sharding.sharded_dim.add(axis=0).simple_sharding.add(dim_param="N", num_shards=2)


FEATURES: list[Feature] = [
    documented_attribute, empty_documentation, producer, negative_model_version, graph_name, unused_opsets,
    opset_order, spelled_out_domain, spelled_out_domain_of_nodes, spelled_out_domain_of_constants, domain_absent,
    quantization_annotation,
    type_denotation, dimension_denotation, names_of_dimensions, dimensions_without_anything, training_info,
    device_configurations,
]  # fmt: skip


@pytest.mark.parametrize("feature", FEATURES, ids=lambda f: f.__name__)
def test_annotation(tmp_path: Path, feature: Feature) -> None:
    stays(tmp_path, feature)


def test_open_channels(tmp_path: Path) -> None:
    stays(tmp_path, open_channels, declared={"r": 1})


@pytest.mark.parametrize("field", [2, 6, 10], ids=["producer", "node", "graph"])
def test_text_that_is_none(tmp_path: Path, field: int) -> None:
    """Bytes that are no UTF-8, where nobody needs to read them."""
    proto = base()
    thing: Any = {2: proto, 6: proto.graph.node[0], 10: proto.graph}[field]
    unknown(thing, field, b"\xff\xfe")
    folded = fold_files(tmp_path, proto)
    assert difference(folded, explain=False) == ""
    assert folded.after.SerializeToString().count(b"\xff\xfe") == 1
    assert difference(folded.like(plain()), explain=False)


@pytest.mark.parametrize("place", PLACES)
def test_notes(tmp_path: Path, place: str) -> None:
    stays(tmp_path, partial(notes, place=place))


@pytest.mark.parametrize("place", MORE_PLACES)
def test_fields_of_a_newer_onnx(tmp_path: Path, place: str) -> None:
    stays(tmp_path, partial(from_the_future, place=place))


@pytest.mark.parametrize("version", IR_VERSIONS)
def test_ir_version(tmp_path: Path, version: int) -> None:
    stays(tmp_path, partial(ir_version, version=version), declared=AXES | {"h": 1, "r": 1})
