"""Caches of attention: keys and values of earlier tokens are inputs of a model, and outputs with new ones behind.

Their heads are part of the interface and may change only where the user allows it (`fold_heads`). What counts as a
cache is asked narrowly: an input that goes into an attention, and comes out of it as an output.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from .constants import FLOATS
from .graph import MICROSOFT, Graph, Names, Node

KEPT = "a key-value cache (`fold_heads` allows its heads to change)"
# Attention in one node: (input, output, axis of heads) of what it takes of earlier tokens, and gives back longer.
_FUSED: Mapping[tuple[str, str], tuple[tuple[int, int, int], ...]] = {
    (MICROSOFT, "Attention"): ((4, 1, 2),), (MICROSOFT, "MultiHeadAttention"): ((6, 1, 1), (7, 2, 1)),
    (MICROSOFT, "GroupQueryAttention"): ((3, 1, 1), (4, 2, 1)), ("", "Attention"): ((4, 1, 1), (5, 2, 1)),
}  # fmt: skip
_MOVES = ("Transpose", "Reshape", "Expand", "Unsqueeze", "Squeeze", "Cast", "Identity", "Mul", "Div", "Tile")
_SCALES = (*_MOVES, "Add", "Sub", "Where", "Max", "Min", "Clip", "Tanh", "Dropout", "IsNaN")
_PRODUCTS = ("MatMul", "FusedMatMul", "Einsum")


@dataclass(frozen=True)
class Cache:
    """One cache: the graph's input `past`, its output `present`, and the `axis` of both along which heads lie."""

    past: str
    present: str
    axis: int


@dataclass(frozen=True)
class HeadsChanged:
    """A part of the interface that has other heads: `kind` "input" or "output", how many along `axis`."""

    name: str
    kind: str
    axis: int
    before: int
    after: int


def find_caches(graph: Graph, constants: Names) -> tuple[Cache, ...]:
    """All caches of keys and of values, in graph order.

    Either attention in one node takes and gives them, or they are floats of four axes, [batch, heads, tokens,
    dimension] with the last two in any order or [batch, tokens, heads, dimension], which a Concat along the tokens puts
    in front of new ones to make an output, and then a product meets a Softmax: after it (keys) or before (values).
    """
    inputs = {name for name in graph.inputs if name not in constants}
    found = (
        cache
        for node in graph.nodes
        for cache in (*_in_one_node(node), *_joined(graph, node))
        if cache.past in inputs and cache.present in graph.outputs and _has_heads(graph, cache)
    )
    return tuple(dict.fromkeys(found))


def changed(graph: Graph, caches: Sequence[Cache], lengths: Mapping[tuple[str, int], int]) -> tuple[HeadsChanged, ...]:
    """What becomes of `caches` where axes (tensor, axis) get the new `lengths`; inputs first."""
    ends = [(c.past, "input", c.axis) for c in caches] + [(c.present, "output", c.axis) for c in caches]
    found = []
    for name, kind, axis in dict.fromkeys(ends):
        before = (graph.tensor(name).shape or ())[axis]
        if (name, axis) in lengths and isinstance(before, int):
            found.append(HeadsChanged(name, kind, axis, before, lengths[name, axis]))
    return tuple(found)


def _has_heads(graph: Graph, cache: Cache) -> bool:
    past, present = graph.tensor(cache.past), graph.tensor(cache.present)
    if past.shape is None or present.shape is None or len(past.shape) != len(present.shape):
        return False
    heads = past.shape[cache.axis]
    return past.dtype in FLOATS and isinstance(heads, int) and 1 < heads == present.shape[cache.axis]


def _in_one_node(node: Node) -> Iterator[Cache]:
    for past, present, axis in _FUSED.get((node.domain, node.op), ()):
        if past < len(node.inputs) and present < len(node.outputs):
            yield Cache(node.inputs[past], node.outputs[present], axis)


def _joined(graph: Graph, node: Node) -> Iterator[Cache]:
    if node.op != "Concat" or node.domain or len(node.inputs) != 2:
        return
    axis = node.attrs.get("axis", 1) % 4
    if len(graph.tensor(node.inputs[0]).shape or ()) == 4 and axis and _attended(graph, node.outputs[0]):
        yield Cache(node.inputs[0], node.outputs[0], 2 if axis == 1 else 1)


def _attended(graph: Graph, name: str) -> bool:
    """Whether `name` goes into attention as keys or as values."""
    for moved in _onwards(graph, name, _MOVES):
        for index in graph.consumers.get(moved, ()):
            node = graph.nodes[index]
            if node.op == "Attention":
                return True
            if node.op in _PRODUCTS:
                others = [x for x in node.inputs if x != moved]
                if any(_reads(graph, y, "Softmax") for y in _onwards(graph, node.outputs[0], _SCALES)):
                    return True
                if any(_comes_from(graph, x, "Softmax") for x in others):
                    return True
    return False


def _onwards(graph: Graph, name: str, through: Collection[str]) -> Iterator[str]:
    """`name` and what nodes `through` make of it."""
    seen, waiting = {name}, [name]
    while waiting:
        current = waiting.pop()
        yield current
        for index in graph.consumers.get(current, ()):
            node = graph.nodes[index]
            if node.op in through:
                fresh = [out for out in node.outputs if out and out not in seen]
                seen.update(fresh)
                waiting += fresh


def _reads(graph: Graph, name: str, op: str) -> bool:
    return any(graph.nodes[index].op == op for index in graph.consumers.get(name, ()))


def _comes_from(graph: Graph, name: str, op: str) -> bool:
    """Whether a node `op` made `name`, or what nodes that scale and choose made it of."""
    seen, waiting = {name}, [name]
    while waiting:
        producer = graph.producer.get(waiting.pop())
        if producer is None:
            continue
        node = graph.nodes[producer]
        if node.op == op:
            return True
        if node.op in _SCALES:
            waiting += [given for given in node.inputs if given and given not in seen]
            seen.update(node.inputs)
    return False
