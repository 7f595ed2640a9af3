"""Names that several bodies of If, Loop and Scan give to tensors of their own (two branches that both call their result
`out`): told apart when a model is read, and put back when one is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableSequence
from itertools import count

from onnx import GraphProto, ModelProto

from .subgraphs import defined, subgraphs
from .tensors import all_names

Names = Mapping[str, str]


def told_apart(proto: ModelProto) -> tuple[ModelProto, dict[str, str]]:
    """`proto`, or a copy in which every tensor of a body has a name of its own; and the old name of every new one."""
    if not _repeats(proto):
        return proto, {}
    copy = ModelProto()
    copy.CopyFrom(proto)
    taken, old = all_names(copy.graph), dict[str, str]()
    seen = set(defined(copy.graph))
    for owner in copy.graph.node:
        for body in subgraphs(owner):
            _rename_body(body, {}, seen, taken, old)
    return copy, old


def with_old_names(proto: ModelProto, old: Names) -> ModelProto:
    """`proto`, or a copy with the names that tensors of bodies had; where something else has such a name by now, the
    new one stays."""
    if not old:
        return proto
    copy = ModelProto()
    copy.CopyFrom(proto)
    for owner in copy.graph.node:
        for body in subgraphs(owner):
            _put_back(body, old, frozenset(defined(copy.graph)))
    return copy


def _repeats(proto: ModelProto) -> bool:
    seen = set[str]()
    for graph in (proto.graph, *_bodies(proto.graph)):
        names = defined(graph)
        if graph is not proto.graph and not seen.isdisjoint(names):
            return True
        seen.update(names)
    return False


def _bodies(graph: GraphProto) -> Iterator[GraphProto]:
    for node in graph.node:
        for body in subgraphs(node):
            yield body
            yield from _bodies(body)


def _rename_body(body: GraphProto, outer: Names, seen: set[str], taken: set[str], old: dict[str, str]) -> None:
    """New names in a body and those inside it; `outer`: those of the bodies around it."""
    new = dict[str, str]()
    for name in dict.fromkeys(defined(body)):
        if name in seen:
            new[name] = next(one for number in count(1) if (one := f"{name}_{number}") not in taken)
            taken.add(new[name])
            old[new[name]] = name
        seen.add(new.get(name, name))
    names = {name: given for name, given in outer.items() if name not in set(defined(body))} | new
    _rename(body, names)
    for node in body.node:
        for inner in subgraphs(node):
            _rename_body(inner, names, seen, taken, old)


def _put_back(body: GraphProto, old: Names, around: frozenset[str]) -> None:
    own = set(defined(body))
    back = {new: old[new] for new in own if new in old and old[new] not in own and old[new] not in around}
    _rename_through(body, back)
    inside = around | set(defined(body))
    for node in body.node:
        for inner in subgraphs(node):
            _put_back(inner, old, inside)


def _rename_through(body: GraphProto, names: Names) -> None:
    """Rename in a body and in all bodies inside it (which may use its tensors)."""
    _rename(body, names)
    for inner in _bodies(body):
        _rename(inner, names)


def _rename(body: GraphProto, names: Names) -> None:
    """Other names for tensors in one body, not in those inside it."""
    for value in (*body.input, *body.output, *body.value_info, *body.initializer):
        value.name = names.get(value.name, value.name)
    for sparse in body.sparse_initializer:
        sparse.values.name = names.get(sparse.values.name, sparse.values.name)
    for note in body.quantization_annotation:
        note.tensor_name = names.get(note.tensor_name, note.tensor_name)
    for node in body.node:
        _rename_all(node.input, names)
        _rename_all(node.output, names)


def _rename_all(given: MutableSequence[str], names: Names) -> None:
    for i, name in enumerate(given):
        given[i] = names.get(name, name)
