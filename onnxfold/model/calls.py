"""Calls of a model's own functions, opened when a model is read: the nodes of the function stand in the call's place.

They have names of their own. Floats that a function holds become one initializer for all of its calls: a weight that
several calls share is one weight. `closed_calls.py` is the way back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import onnx.defs
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto
from onnx.defs import SchemaError
from onnx.external_data_helper import uses_external_data

from .subgraphs import DEFAULT_DOMAINS, defined, subgraphs
from .tensors import all_names

Key = tuple[str, str, str]
FLOAT_TYPES = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
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


@dataclass(frozen=True)
class Held:
    """A constant that a function holds, as the output of one of its nodes."""

    key: Key
    output: str


@dataclass(frozen=True)
class Opened:
    """What was opened: `calls`, outer ones first, and the initializers that stand for constants of functions."""

    calls: tuple[Call, ...] = field(default=(), repr=False)
    held: Mapping[str, Held] = field(default_factory=dict, repr=False)


def opened_calls(proto: ModelProto) -> tuple[ModelProto, Opened]:
    """`proto`, or a copy in which calls of its functions are opened."""
    if not proto.functions:
        return proto, Opened()
    copy = ModelProto()
    copy.CopyFrom(proto)
    opener = _Opener(copy)
    opener.open_graph(copy.graph)
    if not opener.calls:
        return proto, Opened()
    drop_uncalled(copy, frozenset())
    known = {one.domain for one in copy.opset_import}
    for domain, version in opener.imports.items():
        if domain not in known:
            copy.opset_import.append(onnx.helper.make_opsetid(domain, version))
    copy.graph.initializer.extend(opener.tensors)
    return copy, Opened(tuple(opener.calls), opener.held)


class _Opener:
    """Opens calls in the graphs of one proto. `imports`: the opsets of what was opened."""

    def __init__(self, proto: ModelProto) -> None:
        self.calls: list[Call] = []
        self.imports: dict[str, int] = {}
        self.held: dict[str, Held] = {}
        self.tensors: list[TensorProto] = []
        self._functions = {(f.domain, f.name, f.overload): f for f in proto.functions}
        self._opsets = {_plain(one.domain): one.version for one in proto.opset_import}
        self._taken = all_names(proto.graph)
        self._labels = {node.name for node in every_inner(proto.graph.node)}
        self._able = {key: self._can_open(f) for key, f in self._functions.items()}
        self._closed = reachable(proto, [key for key, able in self._able.items() if not able])
        self._constants = {key: self._shared(key, f) for key, f in self._functions.items()}

    def open_graph(self, graph: GraphProto) -> None:
        nodes = [one for node in graph.node for one in self._opened(node)]
        if len(nodes) != len(graph.node) or self.calls:
            kept = [copied_node(node) for node in nodes]
            del graph.node[:]
            graph.node.extend(kept)

    def _opened(self, node: NodeProto) -> list[NodeProto]:
        for body in subgraphs(node):
            self.open_graph(body)
        function = self._functions.get(function_key(node))
        if function is None or not self._able[function_key(node)]:
            return [node]
        place = len(self.calls)
        self.calls.append(Call(copied_node(node), ()))
        nodes = [one for inner in self._instance(function, node) for one in self._opened(inner)]
        self.calls[place] = Call(self.calls[place].node, tuple(map(copied_node, nodes)))
        self.imports.update({one.domain: one.version for one in function.opset_import})
        return nodes

    def _can_open(self, function: FunctionProto) -> bool:
        """Whether the nodes of a function mean the same in the model itself."""
        own = function.domain not in ("", "ai.onnx", "com.microsoft", "ai.onnx.ml")
        through = set(function.output) & set(function.input)
        nodes = list(every_inner(function.node))
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

    def _shared(self, key: Key, function: FunctionProto) -> dict[str, str]:
        """Initializers for the floats that a function holds, by the name that it has for each; none where a call that
        is not opened uses it too, which would not see what becomes of them."""
        found = dict[str, str]()
        for node in function.node if key not in self._closed else ():
            held = next((a.t for a in node.attribute if a.name == "value" and not a.ref_attr_name), None)
            weight = held is not None and held.data_type in FLOAT_TYPES and len(held.dims) > 0
            if node.op_type == "Constant" and not node.domain and weight and node.output[0] not in function.output:
                tensor = TensorProto()
                tensor.CopyFrom(held)
                tensor.name = found[node.output[0]] = _fresh(f"{function.name}/{node.output[0]}", self._taken)
                self.held[tensor.name] = Held(key, node.output[0])
                self.tensors.append(tensor)
        return found

    @property
    def _named(self) -> set[tuple[str, str]]:
        return {key[:2] for key in self._functions}

    def _instance(self, function: FunctionProto, call: NodeProto) -> list[NodeProto]:
        """The nodes of a function for one call."""
        prefix = call.name or next(filter(None, call.output), function.name)
        names = {formal: "" for formal in function.input}
        names |= dict(zip(function.input, call.input, strict=False))
        names |= {formal: given for formal, given in zip(function.output, call.output, strict=False) if given}
        constants = self._constants[function_key(call)]
        names |= constants
        for name in dict.fromkeys(name for node in function.node for name in node.output if name):
            if name not in names:
                names[name] = _fresh(f"{prefix}/{name}", self._taken)
        given = {a.name: a for a in (*function.attribute_proto, *call.attribute)}
        nodes = [copied_node(node) for node in function.node if constants.keys().isdisjoint(node.output)]
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


def drop_uncalled(proto: ModelProto, kept: frozenset[Key]) -> None:
    """Remove functions that nothing calls, but for those `kept`."""
    called = called_functions(proto) | kept
    functions = [f for f in proto.functions if (f.domain, f.name, f.overload) in called]
    left = [FunctionProto.FromString(f.SerializeToString()) for f in functions]
    del proto.functions[:]
    proto.functions.extend(left)


def called_functions(proto: ModelProto) -> frozenset[Key]:
    """The functions that the graph calls, by itself or through others."""
    return reachable(proto, map(function_key, every_inner(proto.graph.node)))


def reachable(proto: ModelProto, first: Iterable[Key]) -> frozenset[Key]:
    """Those of these functions that there are, and all that they call."""
    inner = {
        (f.domain, f.name, f.overload): {function_key(node) for node in every_inner(f.node)} for f in proto.functions
    }
    waiting, found = list(first), set[Key]()
    while waiting:
        key = waiting.pop()
        if key in inner and key not in found:
            found.add(key)
            waiting += inner[key]
    return frozenset(found)


def every_inner(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    for node in nodes:
        yield node
        for body in subgraphs(node):
            yield from every_inner(body.node)


def used_by(node: NodeProto) -> Iterator[str]:
    """The tensors that a node and the bodies in it use, each as often as they do."""
    yield from node.input
    for body in subgraphs(node):
        yield from (value.name for value in body.output)
        for inner in body.node:
            yield from used_by(inner)


def copied_node(node: NodeProto) -> NodeProto:
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
