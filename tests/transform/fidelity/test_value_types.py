"""Values that are no tensors: sequences, maps, optional and sparse values; and tensors of strings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bystanders import Feature, add_nodes, add_weight, base, behind, beside, declare, stays
from onnx import ModelProto, TensorProto, TypeProto, helper

import onnxfold

node = helper.make_node
ROWS = helper.make_tensor_type_proto(TensorProto.FLOAT, ["N", 3])


def output(p: ModelProto, name: str, kind: TypeProto) -> None:
    p.graph.output.append(helper.make_value_info(name, kind))


def sequence_inside(p: ModelProto) -> None:
    add_weight(p, "zero", np.int64(0))
    p.graph.value_info.append(helper.make_value_info("both", helper.make_sequence_type_proto(ROWS)))
    beside(p, node("SequenceConstruct", ["s", "s"], ["both"]), node("SequenceAt", ["both", "zero"], ["t"]))


def sequence_output(p: ModelProto) -> None:
    beside(p, node("Neg", ["s"], ["t"]), node("SequenceConstruct", ["s", "t"], ["both"]))
    output(p, "both", helper.make_sequence_type_proto(ROWS))


def sequence_of_the_folded_chain(p: ModelProto) -> None:
    behind(p, node("SequenceConstruct", ["q", "q"], ["both"]), node("ConcatFromSequence", ["both"], ["y"], axis=0))


def sequence_input(p: ModelProto) -> None:
    p.graph.input.append(helper.make_value_info("given", helper.make_sequence_type_proto(ROWS)))
    p.graph.node.append(node("SequenceLength", ["given"], ["many"]))
    output(p, "many", helper.make_tensor_type_proto(TensorProto.INT64, []))


def empty_sequence(p: ModelProto) -> None:
    p.graph.node.extend(
        [node("SequenceEmpty", [], ["none"], dtype=TensorProto.INT32), node("SequenceLength", ["none"], ["many"])]
    )
    output(p, "many", helper.make_tensor_type_proto(TensorProto.INT64, []))


def split_to_sequence(p: ModelProto) -> None:
    beside(
        p, node("SplitToSequence", ["s"], ["rows"], axis=1, keepdims=1),
        node("ConcatFromSequence", ["rows"], ["t"], axis=1),
    )  # fmt: skip


def optional_inside(p: ModelProto) -> None:
    p.graph.value_info.append(helper.make_value_info("maybe", helper.make_optional_type_proto(ROWS)))
    beside(p, node("Optional", ["s"], ["maybe"]), node("OptionalGetElement", ["maybe"], ["t"]))


def optional_nothing(p: ModelProto) -> None:
    """Made from a type, which is an attribute."""
    p.graph.node.extend(
        [node("Optional", [], ["maybe"], type=ROWS), node("OptionalHasElement", ["maybe"], ["is_there"])]
    )
    output(p, "is_there", helper.make_tensor_type_proto(TensorProto.BOOL, []))


def optional_input(p: ModelProto) -> None:
    p.graph.input.append(helper.make_value_info("maybe", helper.make_optional_type_proto(ROWS)))
    p.graph.node.append(node("OptionalHasElement", ["maybe"], ["is_there"]))
    output(p, "is_there", helper.make_tensor_type_proto(TensorProto.BOOL, []))


def map_output(p: ModelProto) -> None:
    """What scikit-learn's converters end in: a sequence of maps from labels to probabilities."""
    p.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    p.graph.node.append(
        node("ZipMap", ["y"], ["scores"], domain="ai.onnx.ml", classlabels_strings=["a", "b", "c", "d"])
    )
    kind = helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    output(p, "scores", helper.make_sequence_type_proto(kind))


def map_input(p: ModelProto) -> None:
    p.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    kind = helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    p.graph.input.append(helper.make_value_info("words", kind))
    p.graph.node.append(node("DictVectorizer", ["words"], ["row"], domain="ai.onnx.ml", string_vocabulary=["a", "b"]))
    output(p, "row", helper.make_tensor_type_proto(TensorProto.FLOAT, [1, 2]))


def string_input(p: ModelProto) -> None:
    p.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    p.graph.input.append(helper.make_tensor_value_info("word", TensorProto.STRING, ["N"]))
    p.graph.node.append(
        node("LabelEncoder", ["word"], ["number"], domain="ai.onnx.ml", keys_strings=["a", "b"], values_int64s=[1, 2])
    )
    output(p, "number", helper.make_tensor_type_proto(TensorProto.INT64, ["N"]))


def string_output(p: ModelProto) -> None:
    p.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    p.graph.node.extend(
        [
            node("ArgMax", ["y"], ["best"], axis=1, keepdims=0),
            node(
                "LabelEncoder", ["best"], ["word"], domain="ai.onnx.ml", keys_int64s=[0, 1],
                values_strings=["a", "\u00fc"], default_string="other",
            ),
        ]
    )  # fmt: skip
    output(p, "word", helper.make_tensor_type_proto(TensorProto.STRING, ["N"]))


def string_weight(p: ModelProto) -> None:
    p.graph.initializer.append(helper.make_tensor("words", TensorProto.STRING, [3], [b"a", b"\xff\xfe", b""]))


def string_weight_read(p: ModelProto) -> None:
    p.graph.initializer.append(helper.make_tensor("words", TensorProto.STRING, [2], [b"a", "ü".encode()]))
    p.graph.node.append(node("Identity", ["words"], ["seen"]))
    output(p, "seen", helper.make_tensor_type_proto(TensorProto.STRING, [2]))


def declared_sparse(p: ModelProto) -> None:
    """A value_info of a sparse tensor, for a name that nothing has."""
    kind = helper.make_sparse_tensor_type_proto(TensorProto.FLOAT, ["N", 3])
    p.graph.value_info.append(helper.make_value_info("nobody", kind))


def declared_opaque(p: ModelProto) -> None:
    opaque = p.graph.value_info.add(name="nobody").type.opaque_type
    opaque.domain, opaque.name = "org.example", "Thing"


def declared_without_shape(p: ModelProto) -> None:
    beside(p, node("Neg", ["s"], ["minus"]), node("Neg", ["minus"], ["t"]))
    declare(p, "minus", TensorProto.FLOAT, None)


def declared_without_type(p: ModelProto) -> None:
    beside(p, node("Neg", ["s"], ["minus"]), node("Neg", ["minus"], ["t"]))
    p.graph.value_info.add(name="minus").doc_string = "no type"


def integers_beside(p: ModelProto) -> None:
    add_nodes(p, "(uint8[N,3] pixels) => (int64[N,3] numbers) { numbers = Cast <to = 7> (pixels) }")


RUN: list[Feature] = [
    sequence_inside, sequence_output, sequence_of_the_folded_chain, empty_sequence, split_to_sequence, optional_inside,
    optional_nothing, map_output, string_output, string_weight, string_weight_read, declared_sparse,
    declared_opaque,
    declared_without_shape, declared_without_type, integers_beside,
    string_input,
]  # fmt: skip


NOT_FED: list[Feature] = [sequence_input, optional_input, map_input]


@pytest.mark.parametrize("feature", RUN, ids=lambda f: f.__name__)
def test_value(tmp_path: Path, feature: Feature) -> None:
    stays(tmp_path, feature)


@pytest.mark.parametrize("feature", NOT_FED, ids=lambda f: f.__name__)
def test_what_no_probe_is_made_for(tmp_path: Path, feature: Feature) -> None:
    """Folded from weights alone, and the report says that nothing was measured."""
    stays(tmp_path, feature, runs=False)


@pytest.mark.xfail(strict=True, raises=onnxfold.RequestError, reason="probe inputs are tensors only")
@pytest.mark.parametrize("feature", NOT_FED, ids=lambda f: f.__name__)
def test_more_than_weights_alone(feature: Feature) -> None:
    proto = base()
    feature(proto)
    onnxfold.fold(proto, ratio=0.5, round_to=1, latency=False)
