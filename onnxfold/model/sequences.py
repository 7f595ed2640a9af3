"""Sequences of tensors whose places are known: seen as what they come to, and put back where that stayed as it was.

Exporters split a tensor into a sequence and take its parts by constant numbers (SplitToSequence, SequenceAt), or put
tensors into one and join them again (SequenceConstruct, ConcatFromSequence). When a model is read, the first become a
Split with an Identity for each part, the second a Concat.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.external_data_helper import uses_external_data

from .graph import shape_of, skeleton
from .shapes.inference import infer_shapes
from .subgraphs import DEFAULT_DOMAINS, captures
from .tensors import all_names

_OPERATORS = ("SplitToSequence", "SequenceConstruct")
_MOST = 256  # parts
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Unrolled:
    """One sequence: its node as it was and the first output of the node that came after it; `pairs` of nodes as they
    were and as they are now; an initializer that was added, with its values."""

    node: NodeProto = field(repr=False)
    following: str
    pairs: tuple[tuple[NodeProto, NodeProto], ...] = field(repr=False)
    split: NodeProto | None = field(default=None, repr=False)
    sizes: TensorProto | None = field(default=None, repr=False)


def unrolled(proto: ModelProto) -> tuple[ModelProto, tuple[Unrolled, ...]]:
    """`proto`, or a copy without the sequences that are known, and what they were."""
    if not any(node.op_type in _OPERATORS and node.domain in DEFAULT_DOMAINS for node in proto.graph.node):
        return proto, ()
    copy = ModelProto()
    copy.CopyFrom(proto)
    found = _Sequences(copy).run()
    return (copy, found) if found else (proto, ())


class _Sequences:
    """Those of the main graph of one proto, which is changed in place."""

    def __init__(self, proto: ModelProto) -> None:
        self._proto, self._graph = proto, proto.graph
        self._opset = max((o.version for o in proto.opset_import if o.domain in DEFAULT_DOMAINS), default=1)
        self._names = all_names(proto.graph)
        self._numbers = dict(_integers(proto.graph))
        self._inside = {name for node in proto.graph.node for name in captures(node)}
        self._inside |= {value.name for value in proto.graph.output}
        self._inside |= {value.name for value in proto.graph.value_info if _has_lengths(value)}  # they would be wrong
        self._shapes: Mapping[str, tuple[object, ...] | None] | None = None

    def run(self) -> tuple[Unrolled, ...]:
        nodes, found = list(self._graph.node), list[Unrolled]()
        for index, node in enumerate(nodes):
            if node.op_type in _OPERATORS and node.domain in DEFAULT_DOMAINS and node.output[0] not in self._inside:
                consumers = [one for one in nodes if node.output[0] in one.input]
                one = (self._split if node.op_type == "SplitToSequence" else self._construct)(node, consumers)
                if one is not None:
                    after = next((n.output[0] for n in nodes[index + 1 :] if n.output), "")
                    found.append(Unrolled(node, after, *one))
        instead: dict[int, NodeProto | None] = {id(old): new for one in found for old, new in one.pairs}
        instead.update({id(one.node): one.split for one in found})
        kept = [new for node in nodes if (new := instead.get(id(node), node)) is not None]
        kept = [_copied(node) for node in kept]
        found = [
            Unrolled(_copied(u.node), u.following, tuple((_copied(a), b) for a, b in u.pairs), u.split, u.sizes)
            for u in found
        ]  # before the nodes that they were are gone
        if found:
            del self._graph.node[:]
            self._graph.node.extend(kept)
            self._graph.initializer.extend(u.sizes for u in found if u.sizes is not None)
        return tuple(found)

    def _split(
        self, node: NodeProto, consumers: list[NodeProto]
    ) -> tuple[tuple[tuple[NodeProto, NodeProto], ...], NodeProto, TensorProto | None] | None:
        """SplitToSequence whose parts are taken one by one."""
        sizes = self._sizes(node)
        places = [self._place(one, node.output[0], len(sizes or ())) for one in consumers]
        if not sizes or not places or any(place is None for place in places):
            return None
        parts = [self._fresh(f"{node.output[0]}_{i}") for i in range(len(sizes))]
        axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
        if self._opset >= 13:
            tensor = numpy_helper.from_array(np.array(sizes, np.int64), self._fresh(f"{node.output[0]}_sizes"))
            split = helper.make_node("Split", [node.input[0], tensor.name], parts, node.name, axis=axis)
        else:
            tensor, split = None, helper.make_node("Split", node.input[:1], parts, node.name, axis=axis, split=sizes)
        pairs = [
            (one, helper.make_node("Identity", [parts[place]], list(one.output), one.name))
            for one, place in zip(consumers, places, strict=True) if place is not None
        ]  # fmt: skip
        return tuple(pairs), split, tensor

    def _construct(
        self, node: NodeProto, consumers: list[NodeProto]
    ) -> tuple[tuple[tuple[NodeProto, NodeProto], ...], None, None] | None:
        """SequenceConstruct whose tensors are joined, or taken one by one."""
        pairs = []
        for one in consumers:
            place = self._place(one, node.output[0], len(node.input))
            given = {a.name: a.i for a in one.attribute}
            if place is not None:
                new = helper.make_node("Identity", [node.input[place]], list(one.output), one.name)
            elif one.op_type == "ConcatFromSequence" and not given.get("new_axis", 0) and one.domain in DEFAULT_DOMAINS:
                new = helper.make_node("Concat", list(node.input), list(one.output), one.name, axis=given["axis"])
            else:
                return None
            pairs.append((one, new))
        return (tuple(pairs), None, None) if pairs else None

    def _place(self, node: NodeProto, sequence: str, count: int) -> int | None:
        """The number of the part that SequenceAt takes."""
        if node.op_type != "SequenceAt" or node.domain not in DEFAULT_DOMAINS or node.input[0] != sequence:
            return None
        value = self._numbers.get(node.input[1])
        known = value is not None and value.size == 1 and -count <= int(value.ravel()[0]) < count
        return int(value.ravel()[0]) % count if known and value is not None else None

    def _sizes(self, node: NodeProto) -> list[int] | None:
        """The lengths of all parts."""
        given = self._numbers.get(node.input[1]) if len(node.input) > 1 and node.input[1] else None
        if given is not None and given.ndim == 1:
            return [int(size) for size in given] if 0 < given.size <= _MOST else None
        named = {a.name: a.i for a in node.attribute}
        if given is None and ((len(node.input) > 1 and node.input[1]) or not named.get("keepdims", 1)):
            return None  # computed, or without the axis
        shape = self._shape(node.input[0])
        length = shape[named.get("axis", 0)] if shape else None
        size = 1 if given is None else int(given.ravel()[0])
        if not isinstance(length, int) or size < 1 or not 0 < length <= size * _MOST:
            return None
        return [min(size, length - start) for start in range(0, length, size)]

    def _shape(self, name: str) -> tuple[object, ...] | None:
        if self._shapes is None:
            graph = infer_shapes(skeleton(self._proto)).graph
            self._shapes = {v.name: shape_of(v) for v in (*graph.input, *graph.value_info, *graph.output)}
        return self._shapes.get(name)

    def _fresh(self, base: str) -> str:
        name, number = base, 0
        while name in self._names:
            number += 1
            name = f"{base}_{number}"
        self._names.add(name)
        return name


def rolled(proto: ModelProto, found: tuple[Unrolled, ...]) -> ModelProto:
    """`proto`, or a copy with the sequences put back whose parts are as they were."""
    if not found:
        return proto
    copy = ModelProto()
    copy.CopyFrom(proto)
    nodes = {name: node for node in copy.graph.node for name in node.output if name}
    tensors = {tensor.name: tensor for tensor in copy.graph.initializer}
    back, front, gone = dict[str, NodeProto](), dict[str, list[NodeProto]](), set[str]()
    for one in found:
        made = [new for _, new in one.pairs] + ([one.split] if one.split is not None else [])
        same = all(nodes.get(node.output[0]) == node for node in made)
        if not same or (one.sizes is not None and tensors.get(one.sizes.name) != one.sizes):
            continue
        back.update((new.output[0], old) for old, new in one.pairs)
        if one.split is not None:
            back[one.split.output[0]] = one.node
        else:
            front.setdefault(one.following, []).append(one.node)
        gone.update([one.sizes.name] if one.sizes is not None else [])
    kept = []
    for node in copy.graph.node:
        first = next(iter(node.output), "")
        kept += [*front.get(first, ()), back.get(first, node)]
    listed = [_copied(node) for node in kept]
    del copy.graph.node[:]
    copy.graph.node.extend(listed)
    for tensor in [t for t in copy.graph.initializer if t.name in gone]:
        copy.graph.initializer.remove(tensor)
    return copy


def _has_lengths(value: onnx.ValueInfoProto) -> bool:
    """Whether lengths are declared for the tensors of a sequence."""
    held = value.type.sequence_type.elem_type.tensor_type.shape.dim if value.type.HasField("sequence_type") else ()
    return any(dim.HasField("dim_value") for dim in held)


def _integers(graph: GraphProto) -> Iterator[tuple[str, Ints]]:
    """Constant integers by name."""
    kinds = (TensorProto.INT64, TensorProto.INT32)
    held = {tensor.name: tensor for tensor in graph.initializer}
    held |= {n.output[0]: a.t for n in graph.node if n.op_type == "Constant" for a in n.attribute if a.name == "value"}
    for name, tensor in held.items():
        if tensor.data_type in kinds and not uses_external_data(tensor):
            yield name, np.asarray(numpy_helper.to_array(tensor), np.int64)
    for node in graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.name in ("value_int", "value_ints"):
                yield node.output[0], np.asarray(onnx.helper.get_attribute_value(attribute), np.int64)


def _copied(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy
