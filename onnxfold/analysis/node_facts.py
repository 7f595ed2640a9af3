"""What the rules say of single nodes, as facts about atoms: each knows its node, so that all can be put together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ..errors import RuleError
from ..model.constants import FLOATS
from ..model.dimensions import period
from ..model.graph import OWN_OPERATORS, Node
from ..model.linear import WEIGHTS
from ..model.model import Model
from ..model.quantized.tensor import BEHIND
from ..model.shapes.arithmetic import ShapeValues
from ..model.shapes.lists import source
from ..model.shapes.values import leaves_open
from .atoms import NONE, AtomTable, SlotKey, Tied
from .components import distinct
from .directions import Directions, find_directions
from .groups import Blocked, Role
from .pins import Pin, Reason, pins_of
from .position_grids import find_grids
from .responses import responds
from .rules.facts import (
    At,
    Atoms,
    Average,
    Axis,
    Blocks,
    ChannelNorm,
    Consumes,
    Contract,
    Count,
    Fact,
    Free,
    Holds,
    Indices,
    Live,
    Normalize,
    OneOf,
    Refuse,
    Tie,
)
from .rules.node_view import NodeView, TensorView, Value
from .rules.table import RuleTable
from .spreads import normalizes

Option = tuple[Tie | Count, ...]
OPEN_LENGTH = "tied to an axis of unknown length (`input_shapes` may help)"


@dataclass(frozen=True, eq=False)
class Product:
    """Node `node` adds up what it multiplies, of two activations; `pins` keep both, as long as none of them is known to
    be able to take the sums."""

    node: Node
    contract: Contract
    pins: tuple[Pin, Pin]


@dataclass(frozen=True, eq=False)
class AxisRole:
    """Node number `node` produces or consumes channels with an axis of a parameter."""

    key: SlotKey
    role: Role
    node: int


@dataclass(frozen=True, eq=False)
class Counted:
    """An integer of `node` that is a number of channels."""

    node: Node
    count: Count


@dataclass(frozen=True, eq=False)
class Asked:
    """Alternatives of `node`, one of which is to be chosen."""

    node: Node
    choice: OneOf


@dataclass(frozen=True, eq=False)
class Averaged:
    """Node `node` takes a mean that is followed."""

    node: Node
    average: Average


@dataclass(frozen=True, eq=False)
class Indexed:
    """An input of `node` holds positions of an axis."""

    node: Node
    indices: Indices


@dataclass(frozen=True, eq=False)
class Normed:
    """Node `node` is a norm over channels that are followed."""

    node: Node
    norm: ChannelNorm


AtomFact = Pin | Tied | Product | Averaged | Indexed | Normed | AxisRole | Counted | Asked | Blocked | Normalize


class NodeFacts:
    """Asks `rules` about the nodes of a model, and holds them to their contract (RuleError); `norms`: means that are
    the statistic of a norm over channels are followed."""

    def __init__(self, model: Model, rules: RuleTable, table: AtomTable, norms: bool = False) -> None:
        self._model, self._rules, self._table, self._norms = model, rules, table, norms
        self._captured = {name for node in model.graph.nodes for name in node.captures}
        self.values = ShapeValues(model.graph, model.constants)
        stored = model.constants.stored.values()
        self._behind = {(one.behind[0], model.constants.part_name(one, BEHIND)) for one in stored if one.behind}
        self._directions = Directions({}, {})
        self._directions = find_directions(model.graph, model.constants, self._view)
        self.grids = find_grids(model.graph, model.constants, self._lengths_only)
        shapes = (model.graph.tensor(name).shape for name in model.graph.inputs if name not in model.constants)
        self._open = any(shape is None or not all(isinstance(dim, int) for dim in shape) for shape in shapes)

    def of(self, node: Node) -> Iterator[AtomFact]:
        """Everything that is known of one node. Axes that no fact is about are kept."""
        if node.captures:
            yield from pins_of(self._table, node.captures, Reason(f"used inside the body of {node.op}", node.label))
        names = [name for name in dict.fromkeys((*node.inputs, *node.outputs)) if name and not self._idle(name)]
        if node.op == "Div" and not node.domain:
            yield from self._divided(node)
        own = self._directions.rules.get(node.index) or self.grids.get(node.index)
        rule = own or self._rules.find(node.domain, node.op, node.version)
        default = node.op in OWN_OPERATORS  # of the default domain in the user's file
        op = f"{node.domain}.{node.op}" if node.domain and not default else node.op
        if rule is None:
            tracked = self.values.get(node.outputs[0]) if node.outputs else None
            if tracked is None or node.domain:
                yield from pins_of(self._table, names, Reason(f"no rule for {op}", node.label))
            return
        if any(self._model.graph.tensor(name).shape is None for name in names):
            reason = Reason(f"{op} has tensors of unknown shape{self._hint(names)}", node.label)
            yield from pins_of(self._table, names, reason)
            return
        self._table.begin()
        facts = list(rule(self._view(node)))
        if not self._is_followed(node):
            facts = [fact for fact in facts if not isinstance(fact, Average)]
        refused = next((fact for fact in facts if isinstance(fact, Refuse)), None)
        if refused is not None:
            yield from pins_of(self._table, names, Reason(f"{op} {refused.why}", node.label))
            return
        for fact in facts:
            if isinstance(fact, Tie):
                yield from self.tied(node, fact)
        for fact in facts:
            if isinstance(fact, Blocks):
                yield _blocked(node, fact)
            elif isinstance(fact, Count):
                yield from self.counted(node, fact)
            elif isinstance(fact, Normalize):
                yield fact
            elif isinstance(fact, OneOf):
                yield Asked(node, fact)
            elif isinstance(fact, Average):
                yield Averaged(node, fact)
            elif isinstance(fact, ChannelNorm):
                yield Normed(node, fact)
            elif isinstance(fact, Indices):
                yield Indexed(node, fact)
        yield from self._roles(node, facts)
        mixed = self._mixed(node, op)
        for fact in facts:
            if isinstance(fact, Contract) and len(fact.a) == len(fact.b) > 0:
                yield Product(node, fact, (Pin(fact.a.atoms, mixed), Pin(fact.b.atoms, mixed)))
        spoken = distinct(np.concatenate([NONE, *(axis.atoms for axis in _spoken(facts))]))
        for key in self._table.touched(names):
            unsaid = self._table.unsaid(key, spoken)
            if len(unsaid):
                yield Pin(unsaid, mixed)

    def _mixed(self, node: Node, op: str) -> Reason:
        """Why axes are kept that no fact is about."""
        computed = node.op in WEIGHTS and not self._model.constants.computed.isdisjoint(node.inputs)
        return Reason(f"{op} has a weight computed from integers" if computed else f"{op} mixes this axis", node.label)

    def _divided(self, node: Node) -> Iterator[AtomFact]:
        """Where a quotient leaves an open length (`leaves_open`), the divisor counts what else lies in that axis."""
        a, b = (self.values.get(name) for name in node.inputs)
        if a is None or b is None:
            return
        pairs = list(zip(*(side.ravel() for side in np.broadcast_arrays(a, b)), strict=True))
        for one, other in pairs:
            if leaves_open(one, other):
                heads = self._table.axis(one.tensor, one.axis, 1)
                if len(pairs) == 1:
                    yield from self.counted(node, Count(heads, At(input=1)))
                else:
                    yield Pin(heads.atoms, Reason("Div computes this length", node.label))

    def _is_followed(self, node: Node) -> bool:
        """Whether a mean over channels that `node` takes is followed."""
        graph, constants = self._model.graph, self._model.constants
        return responds(graph, constants, node) or (self._norms and normalizes(graph, constants, node))

    def tied(self, node: Node, tie: Tie) -> Iterator[Tied | Pin]:
        """A tie of a node; pins for both of its axes where these cannot be followed."""
        a, b = tie.a, tie.b
        kept = ""
        if a.size is None or b.size is None or (0 < len(a) != len(b) > 0 and self._repeats(node)):
            kept = OPEN_LENGTH
        elif a.size == b.size and len(a) != len(b):  # part of a longer axis, and all of one that has no atoms
            kept = "tied to an axis of length 1"
        elif len(a) and len(b):
            if len(a) != len(b):
                raise RuleError(f"the rule for {node.op} ties {len(a)} to {len(b)} positions at '{node.label}'")
            yield Tied(a.atoms, b.atoms, node.index)
        elif 0 in (a.size, b.size) and max(a.size, b.size) > 1:  # length 1 broadcasts, length 0 does not
            raise RuleError(f"the rule for {node.op} ties {a.size} to {b.size} positions at '{node.label}'")
        if kept:
            yield from (Pin(axis.atoms, Reason(kept, node.label)) for axis in (a, b))

    def directions(self) -> Iterator[Tied]:
        """Ties of both directions of a layer, unit by unit, where something sees them together after all."""
        slots = self._table.slots
        for name, axis in ((name, axis) for name, axes in self._directions.axes.items() for axis in sorted(axes)):
            if (name, axis, 1) in slots and (name, axis, 2) in slots:
                plain, apart = (self._table.axis(name, axis, blocks) for blocks in (1, 2))
                yield Tied(plain.tile(2).atoms, apart.atoms, self._model.graph.consumers.get(name, (0,))[0])

    def counted(self, node: Node, count: Count) -> Iterator[Counted | Pin]:
        """A number of channels; a pin for these where it cannot be edited, nor the whole list replaced."""
        at = count.at
        if isinstance(at, At) and at.input is not None:
            name = node.inputs[at.input] if at.input < len(node.inputs) else ""
            if name and not self._editable(name, at.index or 0, len(count.of)):
                if self.values.list_for(name, node) is not None:
                    yield Counted(node, replace(count, at=Live(frozenset(), False, at)))
                    return
                yield Pin(count.of.atoms, Reason(f"{node.op} computes this length", node.label))
                return
        yield Counted(node, count)

    def chosen(self, node: Node, option: Option, rest: Atoms, stuck: Reason | None) -> Iterator[AtomFact]:
        """What follows when `option` is taken; `rest` is what only the others would have followed. `stuck`: why this
        one follows nothing either."""
        for fact in option:
            yield from self.tied(node, fact) if isinstance(fact, Tie) else self.counted(node, fact)
        yield Pin(rest, stuck or Reason(f"{node.op} mixes this axis", node.label))

    def _view(self, node: Node) -> NodeView:
        constants = self._model.constants

        def see(name: str) -> TensorView | None:
            if not name or self._idle(name):
                return None
            info = self._model.graph.tensor(name)
            slot = (
                partial(self._slot, self._directions.axes[name]) if name in self._directions.axes else self._table.axis
            )
            return TensorView(name, info.shape or (), name in constants, info.dtype in FLOATS, slot)

        def values(name: str) -> list[Value] | None:
            found = self.values.get(name)
            return None if found is None or any(v.real is not None for v in found.ravel()) else list(found.ravel())

        return NodeView(
            node.op, node.label, node.version, tuple(map(see, node.inputs)), tuple(map(see, node.outputs)),
            node.attrs, values, bool(node.outputs) and self._lengths_only(node.outputs[0]),
        )  # fmt: skip

    def _slot(self, apart: frozenset[int], tensor: str, axis: int, blocks: int) -> Axis:
        """The positions of an axis of a tensor; of two directions where they are seen `apart` along it."""
        return self._table.axis(tensor, axis, 2 if blocks == 1 and axis in apart else blocks)

    def _hint(self, names: Sequence[str]) -> str:
        """What may tell the shapes of tensors that have none: those of inputs that are open, or a declaration where an
        operator that nobody knows makes them."""
        graph, seen, last = self._model.graph, set[str](), ""
        waiting = [name for name in names if graph.tensor(name).shape is None]
        while waiting:
            name = waiting.pop()
            producer = graph.producer.get(name)
            if name in seen or producer is None:
                continue
            seen.add(name)
            node = graph.nodes[producer]
            before = [one for one in node.inputs if one and graph.tensor(one).shape is None]
            known = not node.domain and self._rules.find(node.domain, node.op, node.version) is not None
            if not before and not (known and self._open):
                last = node.op
            waiting += before
        return f": add the output shapes of {last} to the model's value_info" if last else " (`input_shapes` may help)"

    def _idle(self, name: str) -> bool:
        """Whether nothing uses a tensor, nor is its shape known (the mask of a Dropout in old opsets): as if absent."""
        graph = self._model.graph
        used = name in graph.consumers or name in graph.outputs or name in self._captured
        return not used and graph.tensor(name).shape is None

    def _lengths_only(self, name: str) -> bool:
        """Whether Shape alone uses a tensor."""
        graph = self._model.graph
        used = name in graph.outputs or name in graph.borders or name in self._captured
        return not used and all(graph.nodes[i].op == "Shape" for i in graph.consumers.get(name, ()))

    def _repeats(self, node: Node) -> bool:
        """Whether some tensor here is an unknown multiple of something long: a tied one may fix how many times."""
        shapes = (self._model.graph.tensor(name).shape or () for name in (*node.inputs, *node.outputs) if name)
        return any(period(dim) for shape in shapes for dim in shape)

    def _editable(self, name: str, index: int, size: int) -> bool:
        """Whether an integer of a list is a constant in it, or `size` times lengths."""
        found = source(self._model.graph, self._model.constants, name, index)
        if found is None:
            return False
        constant, at, factor = found
        return not factor or int(self._model.constants.array(constant).reshape(-1)[at]) == size

    def _roles(self, node: Node, facts: Sequence[Fact]) -> Iterator[AxisRole]:
        """A constant's axis produces where this node ties it to its output; tied to inputs only, or by `Consumes`, it
        consumes."""
        edges = [(t.a.atoms, t.b.atoms) for t in _ties(facts) if len(t.a) and len(t.a) == len(t.b)]
        stored, first = self._behind, next(iter(node.outputs), "")  # scales go with the weights that they are of
        inputs = [n for n in dict.fromkeys(node.inputs) if n in self._model.constants and (first, n) not in stored]
        if not edges or not inputs:
            return
        a, b = (np.concatenate(side) for side in zip(*edges, strict=True))
        atoms = distinct(np.concatenate([a, b]))
        a, b = atoms.searchsorted(a), atoms.searchsorted(b)
        made = np.zeros(len(atoms), bool)
        for key in self._table.touched(name for name in node.outputs if name):
            made[self._among(atoms, key)] = True
        if held := [fact.axis.atoms for fact in facts if isinstance(fact, Holds)]:
            made |= np.isin(atoms, np.concatenate(held))
        while (new := made[a] != made[b]).any():  # what is tied to what is made is made
            made[a[new]] = made[b[new]] = True
        if consumed := [fact.axis.atoms for fact in facts if isinstance(fact, Consumes)]:
            made &= ~np.isin(atoms, np.concatenate(consumed))
        for key in self._table.touched(inputs):
            for how in set(made[self._among(atoms, key)].tolist()):
                yield AxisRole(key, Role.PRODUCES if how else Role.CONSUMES, node.index)

    def _among(self, atoms: Atoms, key: SlotKey) -> slice:
        """Where the atoms of an axis are among sorted ones."""
        start, size = self._table.slots[key]
        low, high = atoms.searchsorted((start, start + size))
        return slice(int(low), int(high))


def _blocked(node: Node, fact: Blocks) -> Blocked:
    if fact.count < 1 or len(fact.axis) % fact.count:
        cut = f"cuts {len(fact.axis)} positions into {fact.count} blocks"
        raise RuleError(f"the rule for {node.op} {cut} at '{node.label}'")
    return Blocked(fact.axis.atoms, fact.count, node.label, node.index)


def _ties(facts: Iterable[Fact]) -> Iterator[Tie]:
    """All ties, also those of alternatives."""
    for fact in facts:
        if isinstance(fact, Tie):
            yield fact
        elif isinstance(fact, OneOf):
            yield from (one for option in fact.options for one in option if isinstance(one, Tie))


def _spoken(facts: Sequence[Fact]) -> Iterator[Axis]:
    """The axes that facts settle one way or another."""
    for tie in _ties(facts):
        yield from (tie.a, tie.b)
    for fact in facts:
        if isinstance(fact, Free | Blocks | Average):
            yield fact.axis
        elif isinstance(fact, Contract) and len(fact.a) == len(fact.b) > 0:
            yield from (fact.a, fact.b)
