"""The comparison that the other tests here make sees what it should, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bystanders import Folded, base, difference, fold_files, initializer, losses, note, unknown
from onnx import ModelProto, TensorProto, helper, numpy_helper


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory) -> Folded:
    proto = base()
    proto.doc_string = "a model"
    note(proto.metadata_props)
    unknown(proto.graph.node[1])
    return fold_files(tmp_path_factory.mktemp("folded"), proto)


def changed(folded: Folded, change: Callable[[ModelProto], Any]) -> str:
    after = ModelProto()
    after.CopyFrom(folded.after)
    change(after)
    assert after != folded.after or after.SerializeToString() != folded.after.SerializeToString()
    return difference(folded.like(after))


def test_a_fold_is_no_difference(folded: Folded) -> None:
    assert difference(folded) == ""


def test_other_values_of_folded_weights_are_no_difference(folded: Folded) -> None:
    """How well they were merged is for other tests."""

    def doubled(p: ModelProto) -> None:
        tensor = initializer(p, "w1")
        tensor.raw_data = (numpy_helper.to_array(tensor) * 2).tobytes()

    assert changed(folded, doubled) == ""


DIFFERENT: dict[str, tuple[Callable[[ModelProto], Any], str]] = {
    "a text": (lambda p: setattr(p, "doc_string", ""), "doc_string"),
    "an entry": (lambda p: p.metadata_props.pop(), "metadata_props"),
    "an empty text": (lambda p: setattr(p, "domain", ""), "domain"),
    "an unknown field": (lambda p: p.graph.node[1].DiscardUnknownFields(), "unknown"),
    "the order of weights": (lambda p: p.graph.initializer.insert(0, p.graph.initializer.pop()), "initializer[0]"),
    "the order of nodes": (lambda p: p.graph.node.insert(0, p.graph.node.pop()), "node[0]"),
    "the name of a dimension": (
        lambda p: setattr(p.graph.value_info[0].type.tensor_type.shape.dim[0], "dim_param", "M"), "value_info[0]"
    ),
    "a length that was not folded": (
        lambda p: setattr(p.graph.value_info[0].type.tensor_type.shape.dim[1], "dim_value", 8), "shape of h"
    ),
    "a weight that is not folded": (
        lambda p: setattr(initializer(p, "b2"), "raw_data", bytes(16)), "initializer[3]"
    ),
    "how it is stored": (
        lambda p: initializer(p, "b2").CopyFrom(
            helper.make_tensor("b2", TensorProto.FLOAT, [4], numpy_helper.to_array(initializer(p, "b2")))
        ),
        "initializer[3]",
    ),
    "a folded weight of another shape": (lambda p: initializer(p, "w1").dims.reverse(), "w1"),
    "a folded weight without values": (lambda p: initializer(p, "w1").ClearField("raw_data"), "w1"),
    "a folded weight of zeros": (lambda p: setattr(initializer(p, "w1"), "raw_data", bytes(96)), "w1"),
    "a folded weight of another type": (lambda p: setattr(initializer(p, "w1"), "data_type", 6), "data_type"),
    "a weight more": (lambda p: p.graph.initializer.add(name="k"), "initializer"),
}  # fmt: skip


@pytest.mark.parametrize("what", DIFFERENT)
def test_difference(folded: Folded, what: str) -> None:
    change, where = DIFFERENT[what]
    assert where in changed(folded, change)


def test_every_field_is_tried(folded: Folded) -> None:
    """The losses that each feature is tried with: fields at all depths, unknown ones too."""
    paths = [path for path, _ in losses(folded.after)]
    assert len(set(paths)) == len(paths) > 50
    assert {"doc_string", "graph[None].node[1].unknown fields", "graph[None].initializer[2].raw_data"} <= set(paths)


def test_wrong_checksum(tmp_path: Path) -> None:
    """Of a file outside, and bytes that are not the same there."""
    proto = base()
    tensor = initializer(proto, "b2")
    (tmp_path / "b2.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="b2.bin")
    tensor.external_data.add(key="offset", value="0")
    tensor.external_data.add(key="length", value="16")
    result = fold_files(tmp_path, proto)
    assert difference(result) == ""
    (data,) = (tmp_path / "out").glob("*.data")
    data.write_bytes(bytes(16))
    assert "initializer[3]" in difference(result)
    where = initializer(result.before, "b2").external_data
    where.add(key="checksum", value="0" * 40)
    assert "checksum" in difference(result)
