"""Bodies of If, Loop and Scan: which of them count as parts of the main graph, and what they use of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

DEFAULT_DOMAINS = ("", "ai.onnx")
_GRAPH, _GRAPHS = AttributeProto.GRAPH, AttributeProto.GRAPHS  # looked up once: they are asked for all the time
BODY_OPERATORS = ("If", "Loop", "Scan")  # operators with bodies


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The bodies (If branches, Loop and Scan bodies) that `node` holds."""
    for attribute in node.attribute:
        kind = attribute.type
        if kind == _GRAPH:
            yield attribute.g
        elif kind == _GRAPHS:
            yield from attribute.graphs


@dataclass(frozen=True)
class Body:
    """A body (`graph`) of an If, Loop or Scan (`owner`)."""

    graph: GraphProto
    owner: NodeProto


def opened(proto: ModelProto) -> list[Body]:
    """The bodies that are seen as parts of the main graph, outer ones first: nothing else has a name that is theirs."""
    if not any(a.type in (_GRAPH, _GRAPHS) for node in proto.graph.node for a in node.attribute):
        return []
    names = Counter(defined(proto.graph))
    waiting = [(node, body) for node in proto.graph.node for body in subgraphs(node)]
    everything = list(waiting)
    while everything:
        _, body = everything.pop()
        names.update(defined(body))
        everything += [(node, inner) for node in body.node for inner in subgraphs(node)]
    found = list[Body]()
    while waiting:
        owner, body = waiting.pop(0)
        mine = owner.domain in DEFAULT_DOMAINS and owner.op_type in BODY_OPERATORS and not body.sparse_initializer
        if mine and all(names[name] == 1 for name in defined(body)):
            found.append(Body(body, owner))
            waiting += [(node, inner) for node in body.node for inner in subgraphs(node)]
    return found


def defined(graph: GraphProto) -> list[str]:
    """The names that a graph gives to tensors; an initializer that is also an input counts once."""
    given = {v.name for v in graph.input} | {t.name for t in graph.initializer}
    return [*given, *(name for node in graph.node for name in node.output if name)]


def every_node(proto: ModelProto, bodies: Sequence[Body] | None = None) -> list[NodeProto]:
    """The nodes of the main graph, then those of `opened` bodies (`bodies`, where these are known)."""
    within = opened(proto) if bodies is None else bodies
    return [*proto.graph.node, *(node for body in within for node in body.graph.node)]


def every_initializer(proto: ModelProto, bodies: Sequence[Body] | None = None) -> list[TensorProto]:
    """The initializers of the main graph, then those of `opened` bodies (`bodies`, where these are known)."""
    within = opened(proto) if bodies is None else bodies
    return [*proto.graph.initializer, *(tensor for body in within for tensor in body.graph.initializer)]


def captured_by_closed(node: NodeProto, bodies: Sequence[Body]) -> Iterator[str]:
    """What the bodies of `node` that are not opened use of outer tensors."""
    for body in subgraphs(node):
        if not any(body is one.graph for one in bodies):  # protobuf gives the same object as long as it is held
            yield from _used_outside(body)


def captures(node: NodeProto) -> Iterator[str]:
    """Names of outer tensors that the bodies of `node` use."""
    for body in subgraphs(node):
        yield from _used_outside(body)


def _used_outside(body: GraphProto) -> Iterator[str]:
    own = {t.name for t in body.initializer} | {v.name for v in body.input}
    own |= {name for inner in body.node for name in inner.output}
    for inner in body.node:
        yield from (name for name in [*inner.input, *captures(inner)] if name and name not in own)
    yield from (v.name for v in body.output if v.name not in own)
