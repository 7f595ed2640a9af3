"""Models that parse but say strange things."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto

NUMBERS = (-(2**63), -5, -1, 0, 1, 2, 3, 7, 9, 2**31, 2**62)
LOCATIONS = (
    "../outside.bin", "/etc/passwd", "no.bin", "", "a/../weights.bin", "weights.bin", ".", "weights.bin\x00", "x" * 300,
)  # fmt: skip
"""Where external data may be said to lie; weights.bin, of 4,096 bytes, is the one file that is there."""


def fields(message: Any) -> list[tuple[Any, Any]]:
    """All (message, field) pairs below `message` that are set."""
    found = []
    for field, value in message.ListFields():
        found.append((message, field))
        if field.message_type is not None:
            for inner in value if isinstance(getattr(message, field.name), Sequence) else [value]:
                found += fields(inner)
    return found


def mutate(proto: ModelProto, chance: random.Random) -> None:
    """Any field of any message: cleared, doubled, or of another value."""
    names = [name for node in proto.graph.node for name in (*node.input, *node.output, node.op_type)] + ["", "Split"]
    others: dict[type, Sequence[Any]] = {
        str: names, bytes: [b"", b"\xff", b"1234"], int: NUMBERS, float: [np.nan, -1.0, 0.0],
    }  # fmt: skip
    message, field = chance.choice(fields(proto))
    value = getattr(message, field.name)
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        other = others.get(type(value))
        if other is None or chance.random() < 0.3:
            message.ClearField(field.name)
        else:
            with contextlib.suppress(ValueError):  # out of the range of an enumeration or an int32
                setattr(message, field.name, chance.choice(other))
        return
    at = chance.randrange(len(value))
    if chance.random() < 0.3:
        del value[at]
    elif chance.random() < 0.4 or field.message_type is not None:
        value.append(value[at])
    else:
        value[at] = chance.choice(others.get(type(value[at]), NUMBERS))


# edits with an idea behind them; IndexError (from `choice`) where a model has nothing of the kind -------------------


def dims(proto: ModelProto, chance: random.Random) -> None:
    """The shape of a weight: swapped, longer, shorter, huge, negative."""
    tensor = chance.choice([t for t in tensors(proto) if t.dims])
    at = chance.randrange(len(tensor.dims))
    change = chance.randrange(4)
    if change == 0:
        order = [*tensor.dims]
        chance.shuffle(order)
        tensor.dims[:] = order
    elif change == 1:
        tensor.dims.append(chance.choice([1, 1, 2, 0]))
    elif change == 2:
        del tensor.dims[at]
    else:
        tensor.dims[at] = chance.choice([0, 1, -1, tensor.dims[at] + 1, 2**31, 2**40, 2**62])


def dtype(proto: ModelProto, chance: random.Random) -> None:
    """Another element type of a weight, or of an input."""
    kind = chance.choice([*range(30), 99])
    if chance.random() < 0.7:
        chance.choice(tensors(proto)).data_type = kind
    else:
        chance.choice(values(proto)).type.tensor_type.elem_type = kind


def data(proto: ModelProto, chance: random.Random) -> None:
    """Too few or too many bytes in a weight, or none, or numbers that are none."""
    tensor = chance.choice([t for t in tensors(proto) if t.raw_data])
    raw = tensor.raw_data
    tensor.raw_data = chance.choice(
        [raw[:-1], raw[: len(raw) // 2], raw + b"\0", raw + raw, b"", b"\xff" * len(raw), bytes(len(raw))]
    )


def external(proto: ModelProto, chance: random.Random) -> None:
    """A weight said to lie outside the file, where nothing is, or not enough."""
    tensor = chance.choice([t for t in tensors(proto) if t.raw_data])
    tensor.data_location = TensorProto.EXTERNAL
    if chance.random() < 0.8:
        tensor.ClearField("raw_data")
    entries = [("location", chance.choice(LOCATIONS))]
    if chance.random() < 0.6:
        entries.append(("offset", chance.choice(["0", "8", "-8", "4096", "9" * 25, "x", ""])))
    if chance.random() < 0.6:
        entries.append(("length", chance.choice(["0", "4", "-4", "4096", "9" * 25, "1e3", ""])))
    for key, value in entries[chance.random() < 0.1 :]:
        tensor.external_data.add(key=key, value=value)


def shape(proto: ModelProto, chance: random.Random) -> None:
    """A length of an input, an output or a tensor between: zero, negative, huge, open, named."""
    value = chance.choice([v for v in values(proto) if v.type.tensor_type.shape.dim])
    dim = chance.choice(value.type.tensor_type.shape.dim)
    if chance.random() < 0.3:
        dim.dim_param = chance.choice(["N", "", "x y"])
    else:
        dim.dim_value = chance.choice([0, -1, 1, 2, 7, dim.dim_value + 1, 2**31, 2**45, 2**62])


def rank(proto: ModelProto, chance: random.Random) -> None:
    """An axis more or less of an input or an output, or no shape at all."""
    value = chance.choice([v for v in values(proto) if v.type.tensor_type.shape.dim])
    kind = chance.randrange(3)
    if kind == 0:
        del value.type.tensor_type.shape.dim[chance.randrange(len(value.type.tensor_type.shape.dim))]
    elif kind == 1:
        value.type.tensor_type.shape.dim.add(dim_value=chance.choice([1, 2]))
    else:
        value.type.tensor_type.ClearField("shape")


def attribute(proto: ModelProto, chance: random.Random) -> None:
    """An integer of a node: negative axes, group 0, huge pads; a list longer or shorter; another type."""
    a = chance.choice([a for node in proto.graph.node for a in node.attribute])
    kind = chance.randrange(5)
    if a.type == AttributeProto.INT and kind:
        a.i = chance.choice([-1, -2, -7, 0, 1, 2, 3, a.i + 1, -a.i, 2**31, 2**62])
    elif a.type == AttributeProto.INTS and a.ints and kind:
        at = chance.randrange(len(a.ints))
        if kind == 1:
            del a.ints[at]
        elif kind == 2:
            a.ints.append(a.ints[at])
        else:
            a.ints[at] = chance.choice([-1, -2, 0, 1, 2, 3, a.ints[at] + 1, 100, 2**31, 2**62])
    elif a.type == AttributeProto.STRING and kind:
        a.s = chance.choice([b"", b"SAME_UPPER", b"VALID", b"linear", b"CRD", b"reflect", b"\xff\xfe"])
    elif kind == 1:
        a.name = chance.choice(["axis", "axes", "group", "perm", "", "nothing"])
    else:
        a.type = chance.randrange(15)


def wiring(proto: ModelProto, chance: random.Random) -> None:
    """An input of a node: another tensor (a later one: a cycle), none, one more, one less; a name made twice."""
    node = chance.choice(proto.graph.node)
    names = [name for one in proto.graph.node for name in (*one.input, *one.output)]
    kind = chance.randrange(6)
    if kind == 0 and node.output:
        node.output[chance.randrange(len(node.output))] = chance.choice(names)
    elif kind == 1:
        node.input.append(chance.choice([*names, ""]))
    elif kind == 2 and node.input:
        del node.input[chance.randrange(len(node.input))]
    elif kind == 3:
        node.output.append(chance.choice(["new", "", *node.output]))
    elif node.input:
        node.input[chance.randrange(len(node.input))] = chance.choice([*names, "", "nowhere"])


def operator(proto: ModelProto, chance: random.Random) -> None:
    """Another operator, domain or opset for a node."""
    node, kind = chance.choice(proto.graph.node), chance.randrange(4)
    if kind == 0:
        node.domain = chance.choice(["com.microsoft", "nobody", "ai.onnx", "ai.onnx.ml"])
    elif kind == 1:
        chance.choice(proto.opset_import).version = chance.choice([0, 1, 6, 8, 10, 12, 14, 18, 21, 25, 99, -1])
    else:
        words = ("Add", "Concat", "Split", "Gemm", "Conv", "Reshape", "Gather", "Squeeze", "If", "LSTM", "Pad", "Slice")
        node.op_type = chance.choice([chance.choice(proto.graph.node).op_type, *words])


def order(proto: ModelProto, chance: random.Random) -> None:
    """Nodes in another order, lost or doubled; outputs and initializers lost or doubled."""
    field = chance.choice([f for f in (proto.graph.node, proto.graph.output, proto.graph.initializer) if f])
    kind, at = chance.randrange(3), chance.randrange(len(field))
    if kind == 0:
        copies = [type(one).FromString(one.SerializeToString()) for one in field]
        chance.shuffle(copies)
        del field[:]
        field.extend(copies)
    elif kind == 1:
        del field[at]
    else:
        field.append(field[at])


def constant(proto: ModelProto, chance: random.Random) -> None:
    """An integer in a constant: the target of a Reshape, the bounds of a Slice, the axes of a Squeeze."""
    tensor = chance.choice([t for t in tensors(proto) if t.data_type == TensorProto.INT64 and t.dims != [0]])
    number = chance.choice([-(2**63), -7, -2, -1, 0, 1, 2, 3, 100, 2**31, 2**40, 2**63 - 1])
    if tensor.raw_data:
        raw = bytearray(tensor.raw_data)
        at = chance.randrange(max(1, len(raw) // 8)) * 8
        raw[at : at + 8] = number.to_bytes(8, "little", signed=True)
        tensor.raw_data = bytes(raw)
    elif tensor.int64_data:
        tensor.int64_data[chance.randrange(len(tensor.int64_data))] = number


def tensors(proto: ModelProto) -> list[TensorProto]:
    """Initializers, and the values of Constant nodes."""
    held = [a.t for node in proto.graph.node for a in node.attribute if a.HasField("t")]
    return [*proto.graph.initializer, *held]


def values(proto: ModelProto) -> list[Any]:
    return [*proto.graph.input, *proto.graph.output, *proto.graph.value_info]


def words(proto: ModelProto) -> list[str]:
    """Names that the graph consists of."""
    nodes: list[NodeProto] = list(proto.graph.node)
    return [word for node in nodes for word in (node.op_type, node.name, *node.input, *node.output) if word]


EDITS = (
    mutate, mutate, dims, dtype, data, external, shape, rank, attribute, attribute, wiring, operator, order, constant,
)  # fmt: skip
