"""The two directions of an LSTM, GRU or RNN, seen apart: each keeps units of its own, equally many.

In Y [time, 2, batch, units], position i of the last axis is a unit of either direction. They have nothing in common, as
long as what follows keeps them apart, and puts them side by side in the end: by Transpose and Reshape, or in a Concat
of two tensors that hold one direction each (Gather, Slice, Split). Then the units of both count as positions of the
axis, one direction after the other; also in tensors of one direction, so that both have as many. Where anything else
sees such a tensor, a sum of both directions say, they stay tied unit by unit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from ..model.graph import Graph, Names, Node
from .rules.node_view import NodeView, TensorView
from .rules.pointwise import UNARY
from .rules.recurrent import GATES, joined, side_by_side
from .rules.table import RuleFunction

_ALONG = frozenset((*UNARY, "Dropout"))
_PARAMETERS = {1: (1,), 2: (1, 2), 3: (1,), 7: (1,)}  # inputs of the node, and their axes of units
_STATES = (5, 6)
_GONE = -1


@dataclass(frozen=True)
class Directions:
    """`axes` of tensors that are seen apart, and `rules` of nodes that join directions, by their index."""

    axes: Mapping[str, frozenset[int]]
    rules: Mapping[int, RuleFunction]


@dataclass
class _Found:
    """What one recurrent layer brings with it. `by`: the axis of directions of an activation; `single`: the one
    direction that it holds, where it is that (and `by` _GONE, if the axis is). `joins`: nodes that put such side by
    side."""

    axes: dict[str, frozenset[int]] = field(default_factory=dict)
    by: dict[str, int] = field(default_factory=dict)
    single: dict[str, int] = field(default_factory=dict)
    joins: list[Node] = field(default_factory=list)
    rules: dict[int, RuleFunction] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)

    def activation(self, name: str, by: int, axis: int, single: int | None = None) -> bool:
        """Note one more activation; False where it was another way before."""
        if name in self.by:
            return self.by[name] == by and self.axes[name] == {axis} and self.single.get(name) == single
        self.by[name], self.axes[name] = by, frozenset((axis,))
        if single is not None:
            self.single[name] = single
        self.waiting.append(name)
        return True

    def along(self, name: str, new: str, by: int, axis: int) -> bool:
        """Note that `new` is `name` with its axes elsewhere."""
        return self.activation(new, by, axis, self.single.get(name))

    def settle(self) -> bool:
        """The rules of `joins`; False where one does not have both directions."""
        for node in self.joins:
            held = tuple(self.single.get(name) for name in node.inputs)
            if held.count(0) != held.count(1):
                return False
            self.rules[node.index] = partial(side_by_side, held=held)
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
        return found if found.settle() else None

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
            return found.by[name] == 0 and name not in found.single
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
            state = name in node.inputs[5:7] and name not in node.inputs[:5] and name not in found.single
            return state and (any(o in found.by for o in node.outputs if o) or self._layer(node, found))
        if node.domain or node.inputs.count(name) > 1:
            return False
        if node.op == "Transpose":
            perm = list(node.attrs.get("perm", ()))
            at = perm.index(by) if by in perm else _GONE
            return bool(perm) and found.along(name, node.outputs[0], at, perm.index(axis))
        if node.op in _ALONG and len([o for o in node.outputs if o]) == 1:
            return found.along(name, node.outputs[0], by, axis)
        if node.op == "Concat":
            return self._concat(node, name, found)
        if node.op == "Squeeze" and name in found.single:
            return self._squeeze(node, name, found)
        taken = list(self._taken(self.view(node), by)) if name not in found.single else []
        if taken:
            return all(self._one(self.graph.tensor(one).shape, one, number, name, found) for one, number in taken)
        if name in found.single:
            return False
        rule = self._end(self.view(node), by, axis)
        if rule is None:
            return False
        found.rules[node.index] = rule
        return True

    def _concat(self, node: Node, name: str, found: _Found) -> bool:
        """Directions side by side, or states of several layers one after the other, as torch has them."""
        shape = self.graph.tensor(node.outputs[0]).shape
        at = int(node.attrs.get("axis", 1)) % len(shape) if shape else _GONE
        if name in found.single and {at} == found.axes[name]:
            found.joins += [node] if node not in found.joins else []
            return True
        if (
            name in found.single
            or at != found.by[name]
            or not found.along(name, node.outputs[0], at, *found.axes[name])
        ):
            return False
        makers = [self.graph.producer.get(other) for other in node.inputs if other not in found.by]
        return all(index is not None and self._layer(self.graph.nodes[index], found) for index in makers) and all(
            found.by.get(other) == at and found.axes[other] == found.axes[name] for other in node.inputs
        )

    def _squeeze(self, node: Node, name: str, found: _Found) -> bool:
        """One direction without its axis of directions, or without others of length 1."""
        n, (axis,), by = self.view(node), found.axes[name], found.by[name]
        gone = [a % n.x().rank for a in n.ints("axes", 1) or ()]
        if not gone or axis in gone:
            return False
        at = _GONE if by in gone or by == _GONE else by - sum(a < by for a in gone)
        return found.along(name, node.outputs[0], at, axis - sum(a < axis for a in gone))

    def _taken(self, n: NodeView, by: int) -> Iterator[tuple[str, int]]:
        """Outputs of a node that hold one direction of its first input, and which."""
        x, outputs = n.x(), [y for y in n.outputs if y is not None]
        if n.op == "Split" and n.attr("axis", 0) % x.rank == by and all(y.size(by) == 1 for y in outputs):
            yield from ((y.name, number % 2) for number, y in enumerate(outputs))
        elif n.op == "Gather" and n.attr("axis", 0) % x.rank == by and n.x(1).rank < 2:
            yield from ((outputs[0].name, index % 2) for index in (n.ints("", 1) or ())[:1] if _single(n.x(1)))
        elif n.op == "Slice" and n.ints("axes", 3) in ([by], [by - x.rank]) and outputs[0].size(by) == 1:
            steps, starts = (n.ints("steps", 4) if n.has(4) else [1]), n.ints("starts", 1)
            yield from ((outputs[0].name, start % 2) for start in starts or () if steps == [1])

    def _one(self, shape: Sequence[object] | None, new: str, number: int, name: str, found: _Found) -> bool:
        """Note what holds one direction of `name`, with an axis of directions or without."""
        by, (axis,), old = found.by[name], found.axes[name], self.graph.tensor(name).shape
        if shape is None or old is None:
            return False
        if len(shape) == len(old):
            return found.activation(new, by, axis, number)
        return found.activation(new, _GONE, axis - (by < axis), number)

    def _end(self, n: NodeView, by: int, axis: int) -> RuleFunction | None:
        """The rule for a node that joins the directions."""
        x = n.x()
        if axis != x.rank - 1:
            return None
        if n.op == "Reshape" and by == axis - 1 and _joins(n, x):
            return joined
        return None


def _single(x: TensorView) -> bool:
    return all(dim == 1 for dim in x.shape)


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
