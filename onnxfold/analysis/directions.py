"""The two directions of an LSTM, GRU or RNN, seen apart: each keeps units of its own, equally many.

In Y [time, 2, batch, units], position i of the last axis is a unit of either direction. They have nothing in common, as
long as what follows keeps them apart, and puts them side by side in the end (Transpose, Reshape). Then the units of
both count as positions of the axis, one direction after the other. Where anything else sees such a tensor, a Gather of
one direction say, they stay tied unit by unit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ..model.graph import Graph, Names, Node
from .rules.node_view import NodeView, TensorView
from .rules.pointwise import UNARY
from .rules.recurrent import GATES, joined
from .rules.table import RuleFunction

_ALONG = frozenset((*UNARY, "Dropout"))
_PARAMETERS = {1: (1,), 2: (1, 2), 3: (1,), 7: (1,)}  # inputs of the node, and their axes of units
_STATES = (5, 6)


@dataclass(frozen=True)
class Directions:
    """`axes` of tensors that are seen apart, and `rules` of nodes that join directions, by their index."""

    axes: Mapping[str, frozenset[int]]
    rules: Mapping[int, RuleFunction]


@dataclass
class _Found:
    """What one recurrent layer brings with it. `by`: the axis of directions of an activation."""

    axes: dict[str, frozenset[int]] = field(default_factory=dict)
    by: dict[str, int] = field(default_factory=dict)
    rules: dict[int, RuleFunction] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)

    def activation(self, name: str, by: int, axis: int) -> bool:
        """Note one more activation; False where it was another way before."""
        if name in self.by:
            return self.by[name] == by and self.axes[name] == {axis}
        self.by[name], self.axes[name] = by, frozenset((axis,))
        self.waiting.append(name)
        return True


def find_directions(graph: Graph, constants: Names, view: Callable[[Node], NodeView]) -> Directions:
    """All that can be seen apart. `view` is how rules see a node."""
    axes, rules = dict[str, frozenset[int]](), dict[int, RuleFunction]()
    finder = _Finder(graph, constants, view)
    for node in graph.nodes:
        if _bidirectional(node) and not axes.keys() & {name for name in node.outputs if name}:
            found = finder.of(node)
            if found is not None:
                axes.update(found.axes)
                rules.update(found.rules)
    return Directions(axes, rules)


def _bidirectional(node: Node) -> bool:
    direction = node.attrs.get("direction", "forward")
    return node.op in GATES and not node.domain and direction in ("bidirectional", b"bidirectional")


@dataclass(frozen=True)
class _Finder:
    graph: Graph
    constants: Names
    view: Callable[[Node], NodeView]

    def of(self, node: Node) -> _Found | None:
        """What a layer and all that sees its units apart brings; None where something does not."""
        found = _Found()
        if not self._layer(node, found):
            return None
        while found.waiting:
            name = found.waiting.pop()
            if name in self.graph.outputs or any(name in other.captures for other in self.graph.nodes):
                return None
            for index in dict.fromkeys(self.graph.consumers.get(name, ())):
                if not self._follow(self.graph.nodes[index], name, found):
                    return None
        return found

    def _layer(self, node: Node, found: _Found) -> bool:
        """The parameters, states and outputs of a layer."""
        n = self.view(node)
        if not _bidirectional(node) or n.attr("layout", 0) or not _fits(n):
            return False
        for slot, axes in _PARAMETERS.items():
            if n.has(slot):
                name = node.inputs[slot]
                if not self._private(name, slot):
                    return False
                found.axes[name] = frozenset(axes)
        states = [(node.inputs[slot], slot) for slot in _STATES if n.has(slot)]
        if not all(self._state(name, slot, found) for name, slot in states):
            return False
        outputs = [name for name in node.outputs if name]
        places = ((1, 3) if name == node.outputs[0] else (0, 2) for name in outputs)
        return all(found.activation(name, *at) for name, at in zip(outputs, places, strict=True))

    def _private(self, name: str, slot: int) -> bool:
        """Whether a constant is used by layers of two directions only, as the same input."""
        consumers = [self.graph.nodes[i] for i in self.graph.consumers.get(name, ())]
        alike = all(_bidirectional(node) and node.inputs[slot : slot + 1] == (name,) for node in consumers)
        return name in self.constants and alike and len(consumers) == 1

    def _state(self, name: str, slot: int, found: _Found) -> bool:
        """A first state: a constant, or one number everywhere."""
        if name in self.constants:
            found.axes[name] = frozenset((2,))
            return self._private(name, slot)
        if name in found.by:  # of another layer, that is seen apart with this one
            return found.by[name] == 0
        producer = self.graph.producer.get(name)
        node = self.graph.nodes[producer] if producer is not None else None
        even = node is not None and (node.op == "ConstantOfShape" or (node.op == "Expand" and self._single(node)))
        return even and found.activation(name, 0, 2)

    def _single(self, node: Node) -> bool:
        shape = self.graph.tensor(node.inputs[0]).shape
        return shape is not None and all(dim == 1 for dim in shape)

    def _follow(self, node: Node, name: str, found: _Found) -> bool:
        """Whether a node that uses an activation seen apart keeps the directions apart."""
        by, (axis,) = found.by[name], tuple(found.axes[name])
        if node.op in GATES:
            state = name in node.inputs[5:7] and name not in node.inputs[:5]
            return state and (any(o in found.by for o in node.outputs if o) or self._layer(node, found))
        if node.domain or node.inputs.count(name) > 1:
            return False
        if node.op == "Transpose":
            perm = list(node.attrs.get("perm", ()))
            return bool(perm) and found.activation(node.outputs[0], perm.index(by), perm.index(axis))
        if node.op in _ALONG and len([o for o in node.outputs if o]) == 1:
            return found.activation(node.outputs[0], by, axis)
        rule = self._end(self.view(node), by, axis)
        if rule is None:
            return False
        found.rules[node.index] = rule
        return True

    def _end(self, n: NodeView, by: int, axis: int) -> RuleFunction | None:
        """The rule for a node that joins the directions."""
        x = n.x()
        if axis != x.rank - 1:
            return None
        if n.op == "Reshape" and by == axis - 1 and _joins(n, x):
            return joined
        return None


def _fits(n: NodeView) -> bool:
    """Whether the parameters are as long as they should be."""
    units, gates = n.x(2).size(2), GATES[n.op]
    sizes = {1: gates, 2: gates, 3: 2 * gates, 7: 3}
    given = [(slot, times) for slot, times in sizes.items() if n.has(slot)]
    return bool(units) and units != 1 and all(n.x(s).shape[:2] == (2, times * (units or 0)) for s, times in given)


def _joins(n: NodeView, x: TensorView) -> bool:
    """Whether a Reshape makes one axis of the last two and leaves the others, by numbers that can be edited."""
    y, target = n.y(), n.values("shape", 1)
    units = x.size(-1)
    if units is None or x.size(-2) != 2 or y.shape != (*x.shape[:-2], 2 * units) or target is None:
        return False
    return not target[-1].live and target[-1].number in (-1, 2 * units)
