"""Layer and RMS normalization that is written out: which means over channels are the statistic of a norm.

``x / sqrt(mean(x * x) + epsilon)``, with or without ``x - mean(x)`` in place of x.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..model.graph import Graph, Node
from .responses import Values

_CHAIN = ("Add", "Sqrt", "Reciprocal", "Pow", "Cast", "Div", "Identity", "Max")
_STEPS = 6  # nodes between the mean and what is divided by it


def normalizes(graph: Graph, constants: Values, node: Node) -> bool:
    """Whether `node` takes the mean, or the mean square, by which a norm shifts or divides what it is of."""
    if node.op != "ReduceMean" or node.domain:
        return False
    tensor, mean = node.inputs[0], node.outputs[0]
    return _centers(graph, tensor, mean) or any(
        _divides(graph, constants, one, mean, _STEPS) for one in squared(graph, constants, tensor)
    )


def squared(graph: Graph, constants: Values, tensor: str) -> Iterator[str]:
    """What `tensor` is the square of, by any of its names; nothing where it is no square."""
    producer = graph.producer.get(tensor)
    node = None if producer is None else graph.nodes[producer]
    if node is None or node.domain or not node.inputs:
        return
    base = node.inputs[0]
    power = node.op == "Pow" and node.inputs[1] in constants and _number(constants, node.inputs[1]) == 2.0
    if not power and not (node.op == "Mul" and node.inputs[1] == base):
        return
    yield base
    while (at := graph.producer.get(base)) is not None and graph.nodes[at].op in ("Cast", "Identity"):
        base = graph.nodes[at].inputs[0]
        yield base


def _number(constants: Values, name: str) -> float:
    array = constants.array(name)
    return float(np.ravel(array)[0]) if array.size == 1 else np.nan


def _centers(graph: Graph, tensor: str, mean: str) -> bool:
    """Whether the mean only serves to be taken off what it is of."""
    users = [graph.nodes[i] for i in graph.consumers.get(mean, ())]
    return bool(users) and all(u.op == "Sub" and list(u.inputs) == [tensor, mean] for u in users)


def _divides(graph: Graph, constants: Values, base: str, start: str, steps: int) -> bool:
    """Whether all that is made of `start` alone ends in nodes that scale `base` by it."""
    users = [graph.nodes[i] for i in graph.consumers.get(start, ())]
    if not users or not steps or start in graph.outputs:
        return False
    for user in users:
        others = [name for name in user.inputs if name and name != start and name not in constants]
        if others == [base] and user.op in ("Mul", "Div"):
            continue
        if others or user.op not in _CHAIN or not _divides(graph, constants, base, user.outputs[0], steps - 1):
            return False
    return True
