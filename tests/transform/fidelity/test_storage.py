"""How weights are stored: typed fields or raw bytes, sparse, outside the file, as inputs too; and their order."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from bystanders import FOLDED, Feature, add_weight, base, beside, declare, fold_files, initializer, note, stays
from onnx import ModelProto, TensorProto, helper, numpy_helper

node = helper.make_node
KIND = helper.make_tensor_value_info


def typed(p: ModelProto, *names: str) -> None:
    """The weights `names` in the typed field of their element type."""
    for name in names:
        tensor = initializer(p, name)
        values = numpy_helper.to_array(tensor).ravel().tolist()
        tensor.CopyFrom(helper.make_tensor(name, tensor.data_type, tensor.dims, values))
        assert not tensor.HasField("raw_data")


def float_data(p: ModelProto) -> None:
    typed(p, "b2")


def double_data(p: ModelProto) -> None:
    add_weight(p, "k", np.float64([0.1, 0.2]))
    typed(p, "k")


def int64_data(p: ModelProto) -> None:
    add_weight(p, "k", np.int64([1, -2]))
    typed(p, "k")


def uint64_data(p: ModelProto) -> None:
    add_weight(p, "k", np.uint64([1, 2**64 - 1]))
    typed(p, "k")


def int32_data(p: ModelProto) -> None:
    """Of every type that is stored in it."""
    for name, kind in (("a", np.int32), ("b", np.int8), ("c", np.uint16), ("d", np.float16), ("e", np.bool_)):
        add_weight(p, name, np.array([1, 0], kind))
        typed(p, name)


def complex_data(p: ModelProto) -> None:
    """Real and imaginary parts in turn."""
    p.graph.initializer.append(helper.make_tensor("k", TensorProto.COMPLEX64, [2], [1 + 2j, 3 - 4j]))


def nothing_stored(p: ModelProto) -> None:
    """Of zero size: with empty raw bytes, and with no value field at all."""
    p.graph.initializer.append(TensorProto(name="a", data_type=TensorProto.FLOAT, dims=[0], raw_data=b""))
    p.graph.initializer.append(TensorProto(name="b", data_type=TensorProto.INT64, dims=[3, 0]))


def scalars(p: ModelProto) -> None:
    """A scalar and a list of one element are not the same."""
    add_weight(p, "a", np.float32(2))
    add_weight(p, "b", np.float32([2]))
    beside(p, node("Mul", ["s", "a"], ["m"]), node("Mul", ["m", "b"], ["t"]))


def odd_values(p: ModelProto) -> None:
    """-0, denormals, infinity."""
    add_weight(p, "k", np.float32([-0.0, 1e-45, np.inf]))
    beside(p, node("Add", ["s", "k"], ["t"]))


def not_a_number(p: ModelProto) -> None:
    """NaN with a payload: what a Where writes to where nothing was measured, say."""
    add_weight(p, "k", np.uint32([0x7FC12345]).view(np.float32))
    beside(p, node("IsNaN", ["k"], ["never"]), node("Where", ["never", "s", "k"], ["t"]))


def unused(p: ModelProto) -> None:
    add_weight(p, "k", np.arange(12, dtype=np.float32).reshape(3, 4))


def read_twice(p: ModelProto) -> None:
    add_weight(p, "k", np.float32([1, 2, 3]))
    beside(p, node("Add", ["s", "k"], ["m"]), node("Mul", ["m", "k"], ["t"]))


def equal_weights(p: ModelProto) -> None:
    """Not stored once."""
    for name in ("k1", "k2"):
        add_weight(p, name, np.float32([1, 2, 3]))
    beside(p, node("Add", ["s", "k1"], ["m"]), node("Mul", ["m", "k2"], ["t"]))


def order_of_weights(p: ModelProto) -> None:
    """Not by name, nor by use."""
    order = [p.graph.initializer[i] for i in (2, 0, 3, 1)]
    del p.graph.initializer[:]
    p.graph.initializer.extend(order)


def order_of_declarations(p: ModelProto) -> None:
    order = list(reversed(p.graph.value_info))
    del p.graph.value_info[:]
    p.graph.value_info.extend(order)


def declarations_of_nothing(p: ModelProto) -> None:
    """Of names that no tensor has, and of inputs, outputs, weights."""
    declare(p, "nobody", TensorProto.INT8, [3, "k", None])
    declare(p, "x", TensorProto.FLOAT, ["N", 6])
    declare(p, "y", TensorProto.FLOAT, ["N", 4])
    declare(p, "b2", TensorProto.FLOAT, [4])


def overridable(p: ModelProto) -> None:
    """Weights that a caller may replace: beside the fold, unused, and of the folded layers' last bias."""
    add_weight(p, "k", np.float32([1, 2, 3]))
    beside(p, node("Add", ["s", "k"], ["t"]))
    p.graph.input.extend([KIND("k", TensorProto.FLOAT, [3]), KIND("b2", TensorProto.FLOAT, [4])])


def overridable_and_folded(p: ModelProto) -> None:
    """The declared shape follows."""
    for name in FOLDED:
        p.graph.input.append(KIND(name, TensorProto.FLOAT, initializer(p, name).dims))
        p.graph.input[-1].doc_string = f"weight {name}"


def default_location(p: ModelProto) -> None:
    """Said, though it is so anyway; also of a weight that is folded."""
    for name in ("w1", "b2"):
        initializer(p, name).data_location = TensorProto.DEFAULT


def sparse(p: ModelProto, *indices: int, shape: tuple[int, ...] = (3,)) -> None:
    """A sparse weight beside the fold, by flat indices."""
    values = helper.make_tensor("k", TensorProto.FLOAT, [len(indices)], [float(i + 1) for i in indices])
    at = helper.make_tensor("k_at", TensorProto.INT64, [len(indices)], indices)
    p.graph.sparse_initializer.append(helper.make_sparse_tensor(values, at, shape))
    beside(p, node("Add", ["s", "k"], ["t"]))


def sparse_weight(p: ModelProto) -> None:
    sparse(p, 0, 2)


def sparse_weight_documented(p: ModelProto) -> None:
    sparse(p, 1, shape=(1, 3))
    found = p.graph.sparse_initializer[0]
    found.values.doc_string, found.indices.doc_string = "values", "indices"
    note(found.values.metadata_props)


FEATURES: list[Feature] = [
    float_data, double_data, int64_data, uint64_data, int32_data, nothing_stored, scalars, odd_values, not_a_number,
    complex_data, unused, read_twice, equal_weights, order_of_weights, order_of_declarations, declarations_of_nothing,
    overridable, default_location, sparse_weight, sparse_weight_documented,
]  # fmt: skip
AXES = {"w1": 0, "b1": 0, "w2": 1, "h": 1, "r": 1}


@pytest.mark.parametrize("feature", FEATURES, ids=lambda f: f.__name__)
def test_weight(tmp_path: Path, feature: Feature) -> None:
    stays(tmp_path, feature)


def test_overridable_and_folded(tmp_path: Path) -> None:
    stays(tmp_path, overridable_and_folded, declared=AXES)


# outside the file -----------------------------------------------------------------------------------------------------


def outside(p: ModelProto, folder: Path, files: Mapping[str, str], checksum: bool = False, **more: str) -> None:
    """Weights (name -> file) moved to files in `folder`, with a gap in front of each; `more`: entries of our own."""
    contents: dict[str, bytes] = {}
    for name, file in files.items():
        tensor = initializer(p, name)
        start = contents.get(file, b"") + b"gap"
        contents[file] = start + tensor.raw_data
        entries = {"location": file, "offset": str(len(start)), "length": str(len(tensor.raw_data)), **more}
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)
    for file, content in contents.items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_bytes(content)
    for name, file in files.items() if checksum else ():
        initializer(p, name).external_data.add(key="checksum", value=hashlib.sha1(contents[file]).hexdigest())


def referring(tensor: TensorProto, folder: Path, file: str) -> None:
    """The raw bytes of any `tensor` moved to a file of its own."""
    (folder / file).write_bytes(tensor.raw_data)
    entries = {"location": file, "offset": "0", "length": str(len(tensor.raw_data))}
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)


def everywhere(p: ModelProto) -> None:
    """Also weights that are not folded, of other types, and with notes."""
    add_weight(p, "k", np.int64([1, 2, 3])).doc_string = "integers"
    add_weight(p, "h16", np.float16([1, 2]))


PLACES = {
    "all": {"w1": "w.bin", "b1": "w.bin", "w2": "w.bin", "b2": "w.bin", "k": "w.bin", "h16": "w.bin"},
    "folded": {"w1": "w.bin", "w2": "w.bin"},
    "bystanders": {"b2": "w.bin", "k": "w.bin"},
    "sub_folder": {"w1": "data/w.bin", "k": "data/w.bin"},
    "several_files": {"w1": "a.bin", "w2": "b.bin", "b2": "data/c.bin"},
}


@pytest.mark.parametrize("files", PLACES.values(), ids=PLACES)
def test_outside(tmp_path: Path, files: Mapping[str, str]) -> None:
    def feature(p: ModelProto) -> None:
        everywhere(p)
        outside(p, tmp_path, files)

    stays(tmp_path, feature)


def test_outside_without_offset_or_length(tmp_path: Path) -> None:
    """All of a file belongs to one weight."""

    def feature(p: ModelProto) -> None:
        tensor = initializer(p, "b2")
        referring(tensor, tmp_path, "b2.bin")
        del tensor.external_data[1:]

    proto = base()
    feature(proto)
    found = initializer(fold_files(tmp_path, proto).after, "b2")
    assert {e.key for e in found.external_data} == {"location", "offset", "length"}
    assert onnx.external_data_helper.uses_external_data(found)


def test_outside_with_checksum(tmp_path: Path) -> None:
    stays(tmp_path, lambda p: outside(p, tmp_path, {"w1": "w.bin", "b2": "w.bin"}, checksum=True))


def test_outside_with_other_entries(tmp_path: Path) -> None:
    """onnxruntime refuses keys that it does not know."""
    stays(tmp_path, lambda p: outside(p, tmp_path, {"w1": "w.bin", "b2": "w.bin"}, vendor="kept"), runs=False)


def test_constants_outside(tmp_path: Path) -> None:
    """A tensor of a Constant node."""

    def feature(p: ModelProto) -> None:
        add_weight(p, "k", np.float32([1, 2, 3]))
        outside(p, tmp_path, {"k": "w.bin"})
        beside(p, node("Constant", [], ["c"], value=initializer(p, "k")), node("Add", ["s", "c"], ["t"]))
        p.graph.initializer.remove(initializer(p, "k"))

    stays(tmp_path, feature)


def test_sparse_outside(tmp_path: Path) -> None:
    """The values of a sparse weight."""

    def feature(p: ModelProto) -> None:
        sparse_weight(p)
        values = p.graph.sparse_initializer[0].values
        values.CopyFrom(numpy_helper.from_array(np.float32([1, 2]), "k"))
        referring(values, tmp_path, "k.bin")

    stays(tmp_path, feature)


def test_training_outside(tmp_path: Path) -> None:
    """A weight that only training uses."""

    def feature(p: ModelProto) -> None:
        rate = numpy_helper.from_array(np.float32([0.5]), "rate")
        referring(rate, tmp_path, "rate.bin")
        step = helper.make_graph(
            [node("Mul", ["b2", "rate"], ["next"])], "step", [], [KIND("next", TensorProto.FLOAT, [4])], [rate]
        )
        p.training_info.add().algorithm.CopyFrom(step)

    stays(tmp_path, feature)


def test_body_outside(tmp_path: Path) -> None:
    """A weight inside a body."""

    def feature(p: ModelProto) -> None:
        inner = numpy_helper.from_array(np.float32([1, 2, 3]), "inner")
        referring(inner, tmp_path, "inner.bin")
        kind = [KIND("o", TensorProto.FLOAT, ["N", 3])]
        one = helper.make_graph([node("Add", ["s", "inner"], ["o"])], "one", [], kind, [inner])
        two = helper.make_graph([node("Neg", ["s"], ["o"])], "two", [], kind)
        add_weight(p, "yes", np.array(True))
        beside(p, node("If", ["yes"], ["t"], then_branch=one, else_branch=two))

    stays(tmp_path, feature)
