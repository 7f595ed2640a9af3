"""CastLike of constants to a type that is known: seen as the Cast that it is, and put back where that stayed as it was.

A constant behind CastLike would else seem to depend on data, as one of its inputs is an activation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from onnx import ModelProto, NodeProto, helper

from .constants import RANDOM
from .graph import skeleton
from .shapes.inference import infer_shapes
from .subgraphs import DEFAULT_DOMAINS


@dataclass(frozen=True)
class KnownCast:
    """A node as it `was`, and the Cast (to this `kind`) in its place."""

    was: NodeProto = field(repr=False)
    cast: NodeProto = field(repr=False)
    kind: int


def known_casts(proto: ModelProto) -> tuple[ModelProto, tuple[KnownCast, ...]]:
    """`proto`, or a copy with a Cast in place of every CastLike of a constant whose type is known; and what these were.

    Those of the main graph.
    """
    if not any(_is_cast_like(node) for node in proto.graph.node):
        return proto, ()
    kinds, found = _kinds(proto), list[KnownCast]()
    fixed = {tensor.name for tensor in proto.graph.initializer}
    fixed |= {sparse.values.name for sparse in proto.graph.sparse_initializer}
    places = dict[int, KnownCast]()
    for index, node in enumerate(proto.graph.node):
        given, kind = list(node.input), 0
        if _is_cast_like(node):
            given, kind = given[:1], kinds.get(node.input[1], 0)
        if all(name in fixed for name in given if name) and node.op_type not in RANDOM:
            fixed.update(filter(None, node.output))
            if kind:
                places[index] = _known(node, kind)
    if not places:
        return proto, ()
    copy = ModelProto()
    copy.CopyFrom(proto)
    for index, one in places.items():
        copy.graph.node[index].CopyFrom(one.cast)
        found.append(one)
    return copy, tuple(found)


def with_casts_like(proto: ModelProto, found: tuple[KnownCast, ...]) -> ModelProto:
    """`proto`, or a copy with every CastLike put back whose Cast is as it was and whose example, made before it, has
    the type that it had."""
    if not found:
        return proto
    copy = ModelProto()
    copy.CopyFrom(proto)
    kinds, ready = _kinds(copy), {value.name for value in copy.graph.input}
    ready.update(tensor.name for tensor in copy.graph.initializer)
    before = {one.cast.output[0]: one for one in found}
    for node in copy.graph.node:
        one = before.get(node.output[0]) if node.op_type == "Cast" else None
        if one is not None and node == one.cast:
            like = one.was.input[1]
            if like in ready and kinds.get(like) == one.kind:
                node.CopyFrom(one.was)
        ready.update(node.output)
    return copy


def _is_cast_like(node: NodeProto) -> bool:
    return node.op_type == "CastLike" and node.domain in DEFAULT_DOMAINS


def _known(node: NodeProto, kind: int) -> KnownCast:
    was, cast = NodeProto(), NodeProto()
    was.CopyFrom(node)
    cast.CopyFrom(node)
    cast.op_type = "Cast"
    del cast.input[1:]
    cast.attribute.append(helper.make_attribute("to", kind))
    return KnownCast(was, cast, kind)


def _kinds(proto: ModelProto) -> Mapping[str, int]:
    """The element types of tensors of the main graph, as far as inference tells."""
    graph = infer_shapes(skeleton(proto)).graph
    found = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        found.setdefault(value.name, value.type.tensor_type.elem_type)
    return found
