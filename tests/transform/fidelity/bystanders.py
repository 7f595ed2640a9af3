"""One small model with one group to fold, and the question whether a fold left everything else as it was.

A test adds one *feature* to the model, something the fold does not concern, and calls `stays`.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, parser

import onnxfold
from onnxfold.model.external_data import read_external

Feature = Callable[[ModelProto], Any]
Path_ = tuple[tuple[str, int | None], ...]  # from a message to a field inside it: (field, index if it is repeated)

TEXT = """<ir_version: 10, opset_import: ["" : 21]> agraph (float[N,6] x) => (float[N,4] y)
    <float[N,8] h, float[N,8] r> {
    h = Gemm <transB: int = 1> (x, w1, b1)
    r = Relu (h)
    y = Gemm <transB: int = 1> (r, w2, b2)
}"""
SHAPES = {"w1": (8, 6), "b1": (8,), "w2": (4, 8), "b2": (4,)}
# what the fold changes, with its shape afterwards
FOLDED: Mapping[str, Sequence[int]] = {"w1": (4, 6), "b1": (4,), "w2": (4, 4)}
DECLARED = {"h": 1, "r": 1}  # tensors whose declared shapes change, and the axis
OPTIONS: Mapping[str, Any] = {"ratio": 0.5, "round_to": 1, "effort": "fast", "latency": False, "provenance": False}
VALUES = ("raw_data", "float_data", "int32_data", "int64_data", "double_data")
WHERE = ("location", "offset", "length", "checksum")  # of external data; it is in another file afterwards


def base() -> ModelProto:
    """Two linear layers, 8 hidden channels."""
    proto = parser.parse_model(TEXT)
    rng = np.random.default_rng(0)
    for name, shape in SHAPES.items():
        add_weight(proto, name, rng.standard_normal(shape).astype(np.float32))
    return proto


# building features ----------------------------------------------------------------------------------------------------


def add_weight(proto: ModelProto, name: str, array: Any) -> TensorProto:
    """An initializer more."""
    proto.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return proto.graph.initializer[-1]


def add_nodes(proto: ModelProto, text: str, values: Mapping[str, NDArray[Any]] | None = None) -> list[NodeProto]:
    """Nodes more, as text; the graph's inputs and outputs that the text has and the model lacks come along."""
    imports = ", ".join(f'"{o.domain}" : {o.version}' for o in proto.opset_import)
    made = parser.parse_model(f"<ir_version: {proto.ir_version}, opset_import: [{imports}]> agraph {text}").graph
    for mine, theirs in ((proto.graph.input, made.input), (proto.graph.output, made.output)):
        known = {v.name for v in mine}
        mine.extend(v for v in theirs if v.name not in known)
    before = len(proto.graph.node)
    proto.graph.node.extend(made.node)
    proto.graph.initializer.extend(made.initializer)
    for name, array in (values or {}).items():
        add_weight(proto, name, array)
    return list(proto.graph.node)[before:]


def behind(proto: ModelProto, *nodes: NodeProto) -> None:
    """`nodes` between the last layer, now called q, and the output y."""
    proto.graph.node[2].output[0] = "q"
    proto.graph.node.extend(nodes)


def beside(proto: ModelProto, *nodes: NodeProto) -> None:
    """`nodes` on a branch of their own, from the input s to the output t, float[N,3] both."""
    proto.graph.input.append(helper.make_tensor_value_info("s", TensorProto.FLOAT, ["N", 3]))
    proto.graph.output.append(helper.make_tensor_value_info("t", TensorProto.FLOAT, ["N", 3]))
    proto.graph.node.extend(nodes)


def initializer(proto: ModelProto, name: str) -> TensorProto:
    """The initializer called `name`."""
    return next(t for t in proto.graph.initializer if t.name == name)


def declare(proto: ModelProto, name: str, kind: int, shape: Sequence[int | str | None] | None) -> onnx.ValueInfoProto:
    """A declared intermediate tensor more."""
    proto.graph.value_info.append(helper.make_tensor_value_info(name, kind, shape))
    return proto.graph.value_info[-1]


def note(thing: Any, key: str = "key", value: str = "value") -> None:
    """An entry of `metadata_props` (or another list of that type) more."""
    entry = thing.add()
    entry.key, entry.value = key, value


def unknown(message: Message, number: int = 987, content: bytes = b"from a newer onnx") -> None:
    """A field that this version of onnx does not know, inside `message`."""
    message.MergeFromString(_varint(number << 3 | 2) + _varint(len(content)) + content)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


# folding --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Folded:
    """Both files, as protos without their external data, the folders these are in, and what the fold was to change."""

    before: ModelProto
    after: ModelProto
    folders: tuple[Path, Path]
    weights: Mapping[str, Sequence[int]]
    declared: Mapping[str, int]

    def like(self, after: ModelProto) -> Folded:
        """The same question about another result."""
        return Folded(self.before, after, self.folders, self.weights, self.declared)


def fold_files(
    folder: Path, proto: ModelProto, *, runs: bool = True, weights: Mapping[str, Sequence[int]] = FOLDED,
    declared: Mapping[str, int] = DECLARED,
) -> Folded:  # fmt: skip
    """`proto` written to a file in `folder`, folded to another, in a folder of its own; the first is not touched.

    `runs`: whether onnxruntime runs the original, so that the verdict must be a measured one.
    """
    source, target = folder / "in.onnx", folder / "out" / "out.onnx"
    target.parent.mkdir()
    source.write_bytes(proto.SerializeToString())
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    result = onnxfold.fold(source, target, allow_unmeasured=not runs, **OPTIONS)
    assert {path: path.read_bytes() for path in files} == files, "the input was changed"
    verdict = result.report.check
    assert verdict is not None and verdict.passed, verdict
    if runs:
        assert verdict.providers[0].status == "ok", verdict.providers
        assert verdict.worst is not None and np.isfinite(verdict.worst.relative_l2)
    else:
        assert verdict.providers[0].message.startswith("original: "), verdict.providers
    before, after = (ModelProto.FromString(path.read_bytes()) for path in (source, target))
    return Folded(before, after, (folder, target.parent), weights, declared)


@functools.cache
def plain() -> ModelProto:
    """The folded model without any feature."""
    return onnxfold.fold(base(), **OPTIONS).model


def stays(folder: Path, feature: Feature, **options: Any) -> None:
    """After a fold of the model with `feature`, everything that the fold does not concern is as it was.

    The comparison is not blind: to have lost all of the feature, or any single field of the file, is a difference.
    """
    proto = base()
    feature(proto)
    folded = fold_files(folder, proto, **options)
    found = difference(folded)
    assert not found, found
    assert difference(folded.like(plain())), "blind to the whole feature"
    for path, lost in losses(folded.after):
        assert difference(folded.like(lost), explain=False), f"blind to {path}"


# comparing ------------------------------------------------------------------------------------------------------------


def difference(folded: Folded, explain: bool = True) -> str:
    """What the fold changed and should not have; '' if all is equal but folded weights and declared lengths."""
    before, after = ModelProto(), ModelProto()
    before.CopyFrom(folded.before)
    after.CopyFrom(folded.after)
    for proto, folder in zip((before, after), folded.folders, strict=True):
        for tensor in tensors(proto):
            if tensor.data_location == TensorProto.EXTERNAL and (trouble := _bring_inside(tensor, folder)):
                return trouble
    found = {tensor.name: tensor for tensor in tensors(after)}
    for tensor in tensors(before):
        if tensor.name in folded.weights:
            trouble = _blank(tensor, found.get(tensor.name), folded.weights[tensor.name])
            if trouble:
                return trouble
    for one, other in zip(before.graph.node, after.graph.node, strict=False):
        if one.op_type == other.op_type == "Constant" and one.output[0] in folded.weights:
            _blank_list(one, other, folded.weights[one.output[0]])
    for proto, kept in ((before, 1), (after, 2)):
        for value in (*proto.graph.value_info, *proto.graph.input):
            if value.name in folded.declared:
                dims = value.type.tensor_type.shape.dim
                if len(dims) <= folded.declared[value.name] or dims[folded.declared[value.name]].dim_value != 8 // kept:
                    return f"the declared shape of {value.name} is {dims}"
                dims[folded.declared[value.name]].Clear()
    if before.SerializeToString(deterministic=True) == after.SerializeToString(deterministic=True):
        return ""
    return (explain and first_difference(before, after)) or "unknown fields"


def tensors(proto: ModelProto) -> Iterator[TensorProto]:
    """Every tensor of the file that may be folded, or stored outside."""

    def of_nodes(nodes: Sequence[NodeProto]) -> Iterator[TensorProto]:
        for attribute in (a for node in nodes for a in node.attribute):
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("sparse_tensor"):
                yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
            for graph in (attribute.g, *attribute.graphs):
                yield from of_graph(graph)

    def of_graph(graph: onnx.GraphProto) -> Iterator[TensorProto]:
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        yield from of_nodes(graph.node)

    yield from of_graph(proto.graph)
    for function in proto.functions:
        yield from of_nodes(function.node)
    for step in proto.training_info:
        yield from of_graph(step.algorithm)


def _blank(before: TensorProto, after: TensorProto | None, shape: Sequence[int]) -> str:
    """Empty both versions of a folded weight of shape and values; say so if the second is not of `shape`, or broken."""
    if after is None or list(after.dims) != list(shape):
        return f"{before.name} is {after and after.dims}, not {shape}"
    stored = TensorProto()
    stored.CopyFrom(after)
    stored.ClearField("data_location")  # the bytes are here
    try:
        values = numpy_helper.to_array(stored)
        if values.shape != tuple(shape) or not np.isfinite(values.astype(np.float64)).all() or not values.any():
            return f"{before.name} holds {values}"
    except Exception as error:
        return f"{before.name} cannot be read: {error}"
    for tensor in (before, after):
        for field in ("dims", *VALUES):
            tensor.ClearField(field)
    return ""


def _blank_list(before: NodeProto, after: NodeProto, shape: Sequence[int]) -> None:
    """Empty the lists that both versions of a Constant node hold, if the second has the length it should have."""
    for one, other in zip(before.attribute, after.attribute, strict=False):
        if one.type == other.type and [len(other.floats or other.ints)] == list(shape):
            for attribute in (one, other):
                attribute.ClearField("floats")
                attribute.ClearField("ints")


def _bring_inside(tensor: TensorProto, folder: Path) -> str:
    """The bytes of an external tensor instead of where they are; '' unless they, or their checksum, are wrong."""
    try:
        content = bytes(read_external(tensor, folder))
    except Exception as error:
        return f"{tensor.name}: {error}"
    entries = {e.key: e.value for e in tensor.external_data}
    if "checksum" in entries:
        whole = (folder / entries["location"]).read_bytes()
        if entries["checksum"] != hashlib.sha1(whole).hexdigest():
            return f"the checksum of {tensor.name} is wrong"
    tensor.raw_data = content
    for entry in tensor.external_data:
        if entry.key in WHERE:
            entry.value = "somewhere" if entry.value else ""
    return ""


def first_difference(before: Message, after: Message, where: str = "model") -> str:
    """The first field that is not the same, for messages of tests."""
    for field in before.DESCRIPTOR.fields:
        one, two = getattr(before, field.name), getattr(after, field.name)
        if field.type != field.TYPE_MESSAGE:
            if one != two or (not _many(one) and before.HasField(field.name) != after.HasField(field.name)):
                return f"{where}.{field.name}: {str(one)[:200]} became {str(two)[:200]}"
        elif not _many(one):
            if before.HasField(field.name) != after.HasField(field.name):
                return f"{where}.{field.name} came or went"
            if before.HasField(field.name) and (inside := first_difference(one, two, f"{where}.{field.name}")):
                return inside
        elif len(one) != len(two):
            return f"{where}.{field.name}: {len(one)} became {len(two)}"
        else:
            for i, (a, b) in enumerate(zip(one, two, strict=True)):
                if inside := first_difference(a, b, f"{where}.{field.name}[{i}]"):
                    return inside
    return ""


def _many(value: object) -> bool:
    return not isinstance(value, Message | int | float | str | bytes)


def losses(proto: ModelProto) -> Iterator[tuple[str, ModelProto]]:
    """The model with one field less, for each field that it has at any depth; and without unknown ones, for each."""
    content = proto.SerializeToString()
    for path, field in list(_fields(proto, ())):
        lost = ModelProto.FromString(content)
        message = _at(lost, path)
        if field is None:
            message.DiscardUnknownFields()
        else:
            message.ClearField(field)
        yield ".".join([*(f"{name}[{i}]" for name, i in path), field or "unknown fields"]), lost


def _fields(message: Message, path: Path_) -> Iterator[tuple[Path_, str | None]]:
    if len(UnknownFieldSet(message)):
        yield path, None
    for field, value in message.ListFields():
        yield path, field.name
        if field.type == field.TYPE_MESSAGE:
            inner = enumerate(value) if _many(value) else [(None, value)]
            for index, child in inner:
                yield from _fields(child, (*path, (field.name, index)))


def _at(message: Message, path: Path_) -> Message:
    for name, index in path:
        message = getattr(message, name) if index is None else getattr(message, name)[index]
    return message
