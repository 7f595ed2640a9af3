"""Layer and RMS normalization that is written out: which statistics over channels are those of a norm.

``x / sqrt(mean(x * x) + epsilon)``, with or without ``x - mean(x)`` in place of x. Sums of squares, their roots
(``x / max(norm(x), epsilon)``) and LpNormalization serve as well, and so does the variance as
``mean(x * x) - mean(x) ** 2``.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..model.graph import Graph, Node
from .responses import Values

MEANS = ("ReduceMean", "ReduceSum")
_NORMS = ("ReduceSumSquare", "ReduceL2")
_CHAIN = (
    "Abs", "Add", "Cast", "Clip", "Div", "Expand", "Identity", "Max", "Mul", "Pow", "Reciprocal", "Relu", "Sqrt", "Sub",
    "Unsqueeze",
)  # fmt: skip
_STEPS = 8  # nodes between the statistic and what is divided by it


def normalizes(graph: Graph, constants: Values, node: Node) -> bool:
    """Whether `node` takes the mean, or the mean square, by which a norm shifts or divides what it is of; or divides by
    it too."""
    if node.op == "LpNormalization":
        return spread(graph, constants, node) != ""
    known = _Written(graph, constants)
    centers = node.op in MEANS and not node.domain and known.centers(node.inputs[0], node.outputs[0], _STEPS)
    base = "" if centers else spread(graph, constants, node)
    return centers or (base != "" and known.divides(base, node.outputs[0], _STEPS))


def spread(graph: Graph, constants: Values, node: Node) -> str:
    """What `node` takes the mean square, the sum of squares or its root of; '' where it takes something else."""
    if node.domain or not node.inputs:
        return ""
    if node.op in MEANS:
        return next(squared(graph, constants, node.inputs[0]), "")
    square = node.op in _NORMS or (node.op == "LpNormalization" and node.attrs.get("p", 2) == 2)
    return node.inputs[0] if square else ""


def variance(graph: Graph, constants: Values, node: Node) -> Node | None:
    """The node that takes the square of the mean off what `node` gives, a mean of squares; None where there is none."""
    base = spread(graph, constants, node)
    return _Written(graph, constants).variance(base, node.outputs[0], _STEPS) if base else None


def squared(graph: Graph, constants: Values, tensor: str) -> Iterator[str]:
    """What `tensor` is the square of, by any of its names; nothing where it is no square."""
    producer = graph.producer.get(tensor)
    node = None if producer is None else graph.nodes[producer]
    if node is None or node.domain or not node.inputs:
        return
    base = node.inputs[0]
    power = node.op == "Pow" and node.inputs[1] in constants and _number(constants, node.inputs[1]) == 2.0
    if power or (node.op == "Mul" and node.inputs[1] == base):
        yield from _names(graph, base)


def _names(graph: Graph, tensor: str) -> Iterator[str]:
    """A tensor, and what it is a copy of."""
    yield tensor
    while (at := graph.producer.get(tensor)) is not None and graph.nodes[at].op in ("Cast", "Identity"):
        tensor = graph.nodes[at].inputs[0]
        yield tensor


def _number(constants: Values, name: str) -> float:
    array = constants.array(name)
    return float(np.ravel(array)[0]) if array.size == 1 else np.nan


class _Written:
    """A graph in which norms are written out."""

    def __init__(self, graph: Graph, constants: Values) -> None:
        self._graph, self._constants = graph, constants

    def centers(self, base: str, mean: str, steps: int) -> bool:
        """Whether the mean of `base` only serves a norm: it is taken off what it is of, or its square off the mean
        square, or it is scaled as the norm scales `base`."""
        users = self._users(mean)
        if not users or not steps or mean in self._graph.outputs:
            return False
        for user in users:
            others = self._others(user, mean)
            if user.op == "Sub" and len(others) == 1 and user.inputs[1] == mean and self._same(others[0], base):
                continue
            if not others and next(squared(self._graph, self._constants, user.outputs[0]), "") == mean:
                behind = self._users(user.outputs[0])
                if not behind or not all(self._is_spread(one.outputs[0], base, steps) for one in behind):
                    return False
            elif len(others) == 1 and user.op in ("Mul", "Div"):
                if not self._is_spread(others[0], base, steps):
                    return False
            elif others or user.op not in _CHAIN or not self.centers(base, user.outputs[0], steps - 1):
                return False
        return True

    def divides(self, base: str, start: str, steps: int) -> bool:
        """Whether all that is made of `start` alone ends in nodes that scale `base`, or its mean, by it."""
        users = self._users(start)
        if not users or not steps or start in self._graph.outputs:
            return False
        for user in users:
            others = self._others(user, start)
            if user.op in ("Mul", "Div") and len(others) == 1 and self._scaled(others[0], base):
                continue
            chain = user.op in _CHAIN and (not others or self._takes_off(user, start, base))
            if not chain or not self.divides(base, user.outputs[0], steps - 1):
                return False
        return True

    def variance(self, base: str, start: str, steps: int) -> Node | None:
        """The node behind `start` that takes the square of a mean off it."""
        for user in self._users(start) if steps else ():
            if self._takes_off(user, start, base):
                return user
            if user.op in _CHAIN and not self._others(user, start):
                found = self.variance(base, user.outputs[0], steps - 1)
                if found is not None:
                    return found
        return None

    def _users(self, tensor: str) -> list[Node]:
        return [self._graph.nodes[i] for i in self._graph.consumers.get(tensor, ())]

    def _others(self, user: Node, tensor: str) -> list[str]:
        """What else a node reads, but for constants, and for the shape to which it expands."""
        inputs = user.inputs[:1] if user.op == "Expand" else user.inputs
        return [name for name in inputs if name and name != tensor and name not in self._constants]

    def _same(self, one: str, other: str) -> bool:
        return not set(_names(self._graph, one)).isdisjoint(_names(self._graph, other))

    def _made(self, tensor: str) -> Node | None:
        """What makes a tensor, by any of its names."""
        producer = self._graph.producer.get(list(_names(self._graph, tensor))[-1])
        return None if producer is None else self._graph.nodes[producer]

    def _scaled(self, tensor: str, base: str) -> bool:
        """Whether a norm may scale a tensor: `base`, its mean, or what is left of it without the mean."""
        if self._same(tensor, base) or self._is_mean(tensor, base):
            return True
        node = self._made(tensor)
        less = node is not None and node.op == "Sub" and self._same(node.inputs[0], base)
        return less and node is not None and self._is_mean(node.inputs[1], base)

    def _is_mean(self, tensor: str, base: str) -> bool:
        """Whether a tensor is the mean of `base`, also as a sum that is divided."""
        node = self._made(tensor)
        if node is not None and node.op in ("Mul", "Div"):
            free = [name for name in node.inputs if name not in self._constants]
            node = self._made(free[0]) if len(free) == 1 else None
        return node is not None and node.op in MEANS and self._same(node.inputs[0], base)

    def _takes_off(self, node: Node, start: str, base: str) -> bool:
        """Whether a node takes the square of the mean of `base` off `start`."""
        if node.op != "Sub" or node.inputs[0] != start:
            return False
        return any(self._is_mean(one, base) for one in squared(self._graph, self._constants, node.inputs[1]))

    def _is_spread(self, tensor: str, base: str, steps: int) -> bool:
        """Whether a tensor is made of the mean square of `base`, or of its variance, alone."""
        node = self._made(tensor)
        if node is None or not steps:
            return False
        of = spread(self._graph, self._constants, node)
        if of:
            return self._same(of, base)
        free = [name for name in node.inputs if name and name not in self._constants]
        if node.op not in _CHAIN or not free or (free[1:] and not self._takes_off(node, free[0], base)):
            return False
        return self._is_spread(free[0], base, steps - 1)
