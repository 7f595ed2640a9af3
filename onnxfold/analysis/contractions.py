"""Products of two activations (queries times keys): what they add up are channels where one side can take sums.

Of q1 k1 + q2 k2, where q1 = q2 = q, nothing is left out by q (k1 + k2): one side is averaged, as whatever makes
channels, the other is added up. That holds where the other is made by weights in a linear way, for this product alone:
then their rows are added up.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from ..model.graph import Graph, Names, Node
from .atoms import NONE, SlotKey, Tied, ends
from .components import connected
from .rules.facts import Atoms

_MOVES = (
    "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Flatten", "Expand", "Split", "Slice", "Cast", "Gather"
)  # fmt: skip
_MAKERS: Mapping[str, int | None] = {"MatMul": None, "FusedMatMul": None, "Gemm": 2, "Conv": 2}  # number of the bias


def chain(graph: Graph, constants: Names, tensor: str) -> tuple[frozenset[int], frozenset[str]] | None:
    """The nodes that make activation `tensor` of weights, by moving, scaling and adding constants only, and these
    constants that are added; None where others have a part in it."""
    nodes, added = set[int](), set[str]()
    while True:
        producer = graph.producer.get(tensor)
        if producer is None:
            return None
        node = graph.nodes[producer]
        nodes.add(producer)
        if node.domain not in ("", "com.microsoft"):
            return None
        if node.op in _MAKERS and node.inputs[1] in constants and node.attrs.get("group", 1) == 1:
            bias = _MAKERS[node.op]
            added.update(node.inputs[bias:] if bias is not None else ())
            return frozenset(nodes), frozenset(filter(None, added))
        following = _through(graph, constants, node)
        if following is None:
            return None
        added.update([name for name in node.inputs if node.op == "Add" and name != following])
        tensor = following


def _through(graph: Graph, constants: Names, node: Node) -> str | None:
    """The one input that a node passes on in a linear way."""
    if node.op in _MOVES:
        return node.inputs[0]
    if node.op in ("Mul", "Div"):
        single = [all(d == 1 for d in shape) for name in node.inputs if (shape := graph.tensor(name).shape) is not None]
        if single == [False, True]:
            return node.inputs[0]
        return node.inputs[1] if single == [True, False] and node.op == "Mul" else None
    if node.op == "Add":
        free = [name for name in node.inputs if name not in constants]
        return free[0] if len(free) == 1 else None
    return None


def added_up(
    start: Atoms,
    nodes: Collection[int],
    added: Collection[str],
    product: int,
    ties: Sequence[Tied],
    slots: Mapping[SlotKey, tuple[int, int]],
) -> Atoms | None:
    """All positions that are added up with those of `start`, one side of node `product`, made by `nodes`.

    None where another node shares any of them, or a constant among those `added` is the same for all.
    """
    a, b = ends(tie for tie in ties if tie.node in nodes)
    outside = [x for tie in ties if tie.node not in nodes and tie.node != product for x in (tie.a, tie.b)]
    atoms, index = np.unique(np.concatenate([start, a, b]), return_inverse=True)
    first, a, b = np.split(index, [len(start), len(start) + len(a)])
    labels = connected(a, b, len(atoms))
    found = atoms[np.isin(labels, labels[first])]
    if np.isin(np.concatenate([NONE, *outside]), found).any():
        return None
    for name in added:
        spans = [np.arange(at, at + size) for key, (at, size) in slots.items() if key[0] == name]
        if not any(np.isin(span, found).any() for span in spans):
            return None
    return found
