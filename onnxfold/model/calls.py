"""Calls of a model's own functions: opened when a model is read, closed again where nothing inside changed.

An opened call is the nodes of its function in its place, with names of their own. After a fold, a call whose nodes
are as they were (but for what they are given: weights, mostly) is put back; of others the nodes stay, as onnx's own
inliner would leave them. Functions that nothing calls any longer go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx.defs
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto
from onnx.defs import SchemaError
from onnx.external_data_helper import uses_external_data

from .subgraphs import DEFAULT_DOMAINS, defined, subgraphs
from .tensors import all_names

Key = tuple[str, str, str]
Names = Mapping[str, str]


@dataclass(frozen=True)
class Call:
    """A call that was opened: its node, and the nodes that stand for it, those of calls inside opened too."""

    node: NodeProto = field(repr=False)
    nodes: tuple[NodeProto, ...] = field(repr=False)

    @property
    def inside(self) -> frozenset[str]:
        """The tensors that only its own nodes may use."""
        return frozenset(name for node in self.nodes for name in node.output if name) - set(self.node.output)


def function_key(node: NodeProto) -> Key:
    """What names the function that a node calls, if it does."""
    return node.domain, node.op_type, node.overload


def opened_calls(proto: ModelProto) -> tuple[ModelProto, tuple[Call, ...]]:
    """`proto`, or a copy in which calls of its functions are opened, and these calls, outer ones first."""
    if not proto.functions:
        return proto, ()
    copy = ModelProto()
    copy.CopyFrom(proto)
    opener = _Opener(copy)
    opener.open_graph(copy.graph)
    if not opener.calls:
        return proto, ()
    _drop_uncalled(copy, frozenset())
    known = {one.domain for one in copy.opset_import}
    for domain, version in opener.imports.items():
        if domain not in known:
            copy.opset_import.append(onnx.helper.make_opsetid(domain, version))
    return copy, tuple(opener.calls)


class _Opener:
    """Opens calls in the graphs of one proto. `imports`: the opsets of what was opened."""

    def __init__(self, proto: ModelProto) -> None:
        self.calls: list[Call] = []
        self.imports: dict[str, int] = {}
        self._functions = {(f.domain, f.name, f.overload): f for f in proto.functions}
        self._opsets = {_plain(one.domain): one.version for one in proto.opset_import}
        self._taken = all_names(proto.graph)
        self._labels = {node.name for node in _every(proto.graph.node)}
        self._able = {key: self._can_open(f) for key, f in self._functions.items()}

    def open_graph(self, graph: GraphProto) -> None:
        nodes = [one for node in graph.node for one in self._opened(node)]
        if len(nodes) != len(graph.node) or self.calls:
            kept = [_copied(node) for node in nodes]
            del graph.node[:]
            graph.node.extend(kept)

    def _opened(self, node: NodeProto) -> list[NodeProto]:
        for body in subgraphs(node):
            self.open_graph(body)
        function = self._functions.get(function_key(node))
        if function is None or not self._able[function_key(node)]:
            return [node]
        place = len(self.calls)
        self.calls.append(Call(_copied(node), ()))
        nodes = [one for inner in self._instance(function, node) for one in self._opened(inner)]
        self.calls[place] = Call(self.calls[place].node, tuple(map(_copied, nodes)))
        self.imports.update({one.domain: one.version for one in function.opset_import})
        return nodes

    def _can_open(self, function: FunctionProto) -> bool:
        """Whether the nodes of a function mean the same in the model itself."""
        own = function.domain not in ("", "ai.onnx", "com.microsoft", "ai.onnx.ml")
        through = set(function.output) & set(function.input)
        nodes = list(_every(function.node))
        outside = any(uses_external_data(a.t) for node in nodes for a in node.attribute if a.HasField("t"))
        return own and not through and not outside and self._same_opsets(function, nodes)

    def _same_opsets(self, function: FunctionProto, nodes: Iterable[NodeProto]) -> bool:
        theirs = {_plain(one.domain): one.version for one in function.opset_import}
        for node in nodes:
            domain = _plain(node.domain)
            ours, version = self._opsets.get(domain), theirs.get(domain)
            if version is None or ours is None or ours == version or (node.domain, node.op_type) in self._named:
                continue
            if _since(node.op_type, ours, domain) != _since(node.op_type, version, domain):
                return False
        return True

    @property
    def _named(self) -> set[tuple[str, str]]:
        return {key[:2] for key in self._functions}

    def _instance(self, function: FunctionProto, call: NodeProto) -> list[NodeProto]:
        """The nodes of a function for one call."""
        prefix = call.name or next(filter(None, call.output), function.name)
        names = {formal: "" for formal in function.input}
        names |= dict(zip(function.input, call.input, strict=False))
        names |= {formal: given for formal, given in zip(function.output, call.output, strict=False) if given}
        for name in dict.fromkeys(name for node in function.node for name in node.output if name):
            if name not in names:
                names[name] = _fresh(f"{prefix}/{name}", self._taken)
        given = {a.name: a for a in (*function.attribute_proto, *call.attribute)}
        nodes = [_copied(node) for node in function.node]
        for node in nodes:
            node.name = _fresh(f"{prefix}/{node.name or node.op_type}", self._labels)
            _fill(node, names, given)
        return nodes


def _fresh(base: str, taken: set[str]) -> str:
    """A name made from `base` that is not `taken`; it is from now on."""
    name, number = base, 0
    while name in taken:
        number += 1
        name = f"{base}_{number}"
    taken.add(name)
    return name


def _fill(node: NodeProto, names: Names, given: Mapping[str, AttributeProto]) -> None:
    """A node of a function with the names and attributes of a call, in place."""
    for listed in (node.input, node.output):
        for i, name in enumerate(listed):
            listed[i] = names.get(name, name)
    attributes = []
    for attribute in node.attribute:
        if not attribute.ref_attr_name:
            attributes.append(attribute)
        elif attribute.ref_attr_name in given:
            attributes.append(AttributeProto())
            attributes[-1].CopyFrom(given[attribute.ref_attr_name])
            attributes[-1].name = attribute.name
    kept = [AttributeProto.FromString(attribute.SerializeToString()) for attribute in attributes]
    del node.attribute[:]
    node.attribute.extend(kept)
    for body in subgraphs(node):
        own = set(defined(body))
        inner = {name: new for name, new in names.items() if name not in own}
        for value in body.output:
            value.name = inner.get(value.name, value.name)
        for one in body.node:
            _fill(one, inner, given)


def closed_calls(proto: ModelProto, calls: Sequence[Call], original: ModelProto) -> ModelProto:
    """`proto`, or a copy with calls put back where their nodes are as they were; with those functions and opsets of the
    `original` that it needs."""
    if not calls:
        return proto
    copy = ModelProto()
    copy.CopyFrom(proto)
    found = _Nodes(copy)
    for call in calls:
        found.close(call)
    found.write()
    del copy.functions[:]
    copy.functions.extend(original.functions)
    was_called = _called(original)
    _drop_uncalled(copy, frozenset((f.domain, f.name, f.overload) for f in original.functions) - was_called)
    narrower = _reachable(copy, _with_changed_inputs(copy, original))
    for function in copy.functions:
        if (function.domain, function.name, function.overload) in narrower:
            del function.value_info[:]  # the lengths that they had
    needed = {node.domain for node in _every(copy.graph.node)} | {one.domain for one in original.opset_import}
    kept = [onnx.helper.make_opsetid(o.domain, o.version) for o in copy.opset_import if o.domain in needed]
    del copy.opset_import[:]
    copy.opset_import.extend(kept)
    return copy


class _Nodes:
    """The nodes of a proto by their outputs, and which of them calls replace."""

    def __init__(self, proto: ModelProto) -> None:
        graphs = [proto.graph, *_bodies(proto.graph)]
        self._lists = [list(graph.node) for graph in graphs]
        self._graphs = graphs
        self._at = {name: (g, i) for g, nodes in enumerate(self._lists) for i, node in enumerate(nodes)
                    for name in node.output if name}  # fmt: skip
        self._uses = Counter(name for node in proto.graph.node for name in _used(node))
        self._uses.update(value.name for value in proto.graph.output)
        self._instead: dict[tuple[int, int], NodeProto | None] = {}

    def close(self, call: Call) -> None:
        """Let a call take the place of its nodes, if these are all there and as they were."""
        places = [self._at.get(next(filter(None, node.output), "")) for node in call.nodes]
        known = [place for place in places if place is not None]
        if not known or len(known) < len(places) or any(place in self._instead for place in known):
            return
        if len({g for g, _ in known}) > 1:
            return
        now = [self._lists[g][i] for g, i in known]
        given = _given(call, now)
        inside = call.inside
        own = Counter(name for node in now for name in _used(node))
        if given is None or any(own[name] != self._uses[name] for name in inside):
            return
        node = _copied(call.node)
        for i, name in enumerate(node.input):
            node.input[i] = given.get(name, name)
        self._instead.update(dict.fromkeys(known))
        self._instead[max(known)] = node

    def write(self) -> None:
        """Change the graphs."""
        for g, (graph, nodes) in enumerate(zip(self._graphs, self._lists, strict=True)):
            if any(at == g for at, _ in self._instead):
                left = [self._instead.get((g, i), node) for i, node in enumerate(nodes)]
                kept = [_copied(node) for node in left if node is not None]
                del graph.node[:]
                graph.node.extend(kept)


def _given(call: Call, now: Sequence[NodeProto]) -> dict[str, str] | None:
    """What each input of a call is now, where its nodes are as they were; None where they are not."""
    formal, found = set(filter(None, call.node.input)), dict[str, str]()
    for before, after in zip(call.nodes, now, strict=True):
        if len(before.input) != len(after.input) or _without_inputs(before) != _without_inputs(after):
            return None
        for old, new in zip(before.input, after.input, strict=True):
            if old not in formal and old != new:
                return None
            if old in formal and found.setdefault(old, new) != new:
                return None
    return found


def _without_inputs(node: NodeProto) -> bytes:
    copy = _copied(node)
    del copy.input[:]
    return bytes(copy.SerializeToString(deterministic=True))


def _drop_uncalled(proto: ModelProto, kept: frozenset[Key]) -> None:
    """Remove functions that nothing calls, but for those `kept`."""
    called = _called(proto) | kept
    functions = [f for f in proto.functions if (f.domain, f.name, f.overload) in called]
    left = [FunctionProto.FromString(f.SerializeToString()) for f in functions]
    del proto.functions[:]
    proto.functions.extend(left)


def _with_changed_inputs(proto: ModelProto, original: ModelProto) -> set[Key]:
    """What the nodes of the graph call that get anything made of weights whose shape is another one than it was."""
    old = {tensor.name: list(tensor.dims) for tensor in original.graph.initializer}
    changed = {tensor.name for tensor in proto.graph.initializer if old.get(tensor.name) != list(tensor.dims)}
    found = set[Key]()
    for node in proto.graph.node:
        if not changed.isdisjoint(_used(node)):
            changed.update(node.output)
            found.update(map(function_key, _every([node])))
    return found


def _called(proto: ModelProto) -> frozenset[Key]:
    """The functions that the graph calls, by itself or through others."""
    return _reachable(proto, map(function_key, _every(proto.graph.node)))


def _reachable(proto: ModelProto, first: Iterable[Key]) -> frozenset[Key]:
    """Those of these functions that there are, and all that they call."""
    inner = {(f.domain, f.name, f.overload): {function_key(node) for node in _every(f.node)} for f in proto.functions}
    waiting, found = list(first), set[Key]()
    while waiting:
        key = waiting.pop()
        if key in inner and key not in found:
            found.add(key)
            waiting += inner[key]
    return frozenset(found)


def _every(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    for node in nodes:
        yield node
        for body in subgraphs(node):
            yield from _every(body.node)


def _bodies(graph: GraphProto) -> Iterator[GraphProto]:
    for node in graph.node:
        for body in subgraphs(node):
            yield body
            yield from _bodies(body)


def _used(node: NodeProto) -> Iterator[str]:
    """The tensors that a node and the bodies in it use, each as often as they do."""
    yield from node.input
    for body in subgraphs(node):
        yield from (value.name for value in body.output)
        for inner in body.node:
            yield from _used(inner)


def _copied(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy


def _plain(domain: str) -> str:
    return "" if domain in DEFAULT_DOMAINS else domain


def _since(op: str, version: int, domain: str) -> int:
    """The version that an operator has in an opset; 0 where onnx does not know it."""
    try:
        return int(onnx.defs.get_schema(op, version, domain).since_version)
    except SchemaError:
        return 0
