"""The way back from opened calls (`calls.py`): calls are put back where their nodes are as they were.

What they are given may be another tensor, and weights that the function itself holds may have other values: then the
function gets these. Of other calls the nodes stay, as onnx's own inliner would leave them. Functions that nothing
calls any longer go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set

import onnx
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto

from .calls import (
    Call,
    Key,
    Opened,
    called_functions,
    copied_node,
    drop_uncalled,
    every_inner,
    function_key,
    reachable,
    used_by,
)
from .subgraphs import subgraphs


def closed_calls(proto: ModelProto, opened: Opened, original: ModelProto) -> ModelProto:
    """A copy of `proto` with calls put back where their nodes are as they were; with those functions and opsets of the
    `original` that it needs."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    weights = _changed(copy, opened, original)
    apart = set[Key]()  # functions with new weights that some of their calls cannot use: none is put back
    while True:
        found = _Nodes(copy)
        for call in opened.calls:
            if function_key(call.node) not in apart:
                found.close(call)
        left = {function_key(call.node) for call in opened.calls if not found.covers(call)}
        uneven = left & {opened.held[name].key for name in weights} - apart
        if not uneven:
            break
        apart |= uneven
    found.write()
    here = {(f.domain, f.name, f.overload): f.SerializeToString() for f in copy.functions}
    listed = [here.get((f.domain, f.name, f.overload), f.SerializeToString()) for f in original.functions]
    del copy.functions[:]
    copy.functions.extend(map(FunctionProto.FromString, listed))
    _settle(copy, opened, weights, apart)
    formerly = called_functions(original)
    drop_uncalled(copy, frozenset((f.domain, f.name, f.overload) for f in original.functions) - formerly)
    narrower = reachable(copy, _with_changed_inputs(copy, original))
    for function in copy.functions:
        if (function.domain, function.name, function.overload) in narrower:
            del function.value_info[:]  # the lengths that they had
    needed = {node.domain for node in every_inner(copy.graph.node)} | {one.domain for one in original.opset_import}
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
        self._uses = Counter(name for node in proto.graph.node for name in used_by(node))
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
        own = Counter(name for node in now for name in used_by(node))
        if given is None or any(own[name] != self._uses[name] for name in inside):
            return
        node = copied_node(call.node)
        for i, name in enumerate(node.input):
            node.input[i] = given.get(name, name)
        self._instead.update(dict.fromkeys(known))
        self._instead[max(known)] = node

    def covers(self, call: Call) -> bool:
        """Whether a call, or one around it, has taken the place of all its nodes."""
        places = [self._at.get(next(filter(None, node.output), "")) for node in call.nodes]
        return all(place in self._instead for place in places if place is not None)

    def write(self) -> None:
        """Change the graphs."""
        for g, (graph, nodes) in enumerate(zip(self._graphs, self._lists, strict=True)):
            if any(at == g for at, _ in self._instead):
                left = [self._instead.get((g, i), node) for i, node in enumerate(nodes)]
                kept = [copied_node(node) for node in left if node is not None]
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
    copy = copied_node(node)
    del copy.input[:]
    return bytes(copy.SerializeToString(deterministic=True))


def _with_changed_inputs(proto: ModelProto, original: ModelProto) -> set[Key]:
    """What the nodes of the graph call that get anything made of weights whose shape is another one than it was."""
    old = {tensor.name: list(tensor.dims) for tensor in original.graph.initializer}
    changed = {tensor.name for tensor in proto.graph.initializer if old.get(tensor.name) != list(tensor.dims)}
    found = set[Key]()
    for node in proto.graph.node:
        if not changed.isdisjoint(used_by(node)):
            changed.update(node.output)
            found.update(map(function_key, every_inner([node])))
    return found


def _bodies(graph: GraphProto) -> Iterator[GraphProto]:
    for node in graph.node:
        for body in subgraphs(node):
            yield body
            yield from _bodies(body)


def _changed(proto: ModelProto, opened: Opened, original: ModelProto) -> dict[str, TensorProto]:
    """The initializers that stand for constants of functions, where these have other values now."""
    old = {
        (f.domain, f.name, f.overload, node.output[0]): node.attribute[0].t
        for f in original.functions for node in f.node if node.op_type == "Constant" and node.output
    }  # fmt: skip
    found = dict[str, TensorProto]()
    for tensor in proto.graph.initializer:
        held = opened.held.get(tensor.name)
        if held is not None and not _same(tensor, old[(*held.key, held.output)]):
            found[tensor.name] = tensor
    return found


def _same(a: TensorProto, b: TensorProto) -> bool:
    """Whether two tensors are alike but for their names."""
    one, other = TensorProto(), TensorProto()
    one.CopyFrom(a)
    other.CopyFrom(b)
    one.name = other.name = ""
    return bool(one == other)


def _settle(proto: ModelProto, opened: Opened, weights: Mapping[str, TensorProto], apart: Set[Key]) -> None:
    """New values go into the functions that hold them, and what only stood for these goes."""
    for function in proto.functions:
        key = (function.domain, function.name, function.overload)
        for name, tensor in weights.items():
            held = opened.held[name]
            if held.key == key and key not in apart:
                node = next(node for node in function.node if held.output in node.output)
                label = node.attribute[0].t.name
                node.attribute[0].t.CopyFrom(tensor)
                node.attribute[0].t.name = label
    uses = Counter(name for node in proto.graph.node for name in used_by(node))
    for tensor in [t for t in proto.graph.initializer if t.name in opened.held and not uses[t.name]]:
        proto.graph.initializer.remove(tensor)
