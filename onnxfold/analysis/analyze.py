"""Analysis: which channels are the same channel everywhere, which are interchangeable, and why the others are kept.

Rules state facts about single nodes (facts.py); this module puts the facts of all nodes together with union-find over
*atoms* (every position of every axis of every tensor). An axis without a fact is kept as it is, with a reason.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from ..errors import RuleError
from ..model.constants import FLOATS
from ..model.dimensions import period
from ..model.graph import Node
from ..model.kv_cache import KEPT, find_caches
from ..model.model import Model
from ..model.shapes.arithmetic import ShapeValues
from ..model.shapes.lists import single, source
from .alternatives import Option, settled
from .atoms import AtomTable, SlotKey
from .components import connected, distinct
from .contractions import added_up, chain
from .groups import Blocked, Role, find_groups
from .pins import GRAPH_INPUT, GRAPH_OUTPUT, Kept, Reason, parameters, refusals
from .result import Analysis, Frozen, Recount
from .rules import default_rules
from .rules.facts import At, Atoms, Axis, Blocks, Contract, Count, Free, Live, Normalize, OneOf, Reads, Refuse, Tie
from .rules.node_view import NodeView, TensorView
from .rules.table import RuleTable

OPEN_LENGTH = "tied to an axis of unknown length (`input_shapes` may help)"


def analyze(model: Model, rules: RuleTable | None = None, fold_heads: bool = False) -> Analysis:
    """Find the channel groups of `model`; with `fold_heads`, the heads of its caches may change (caches.py).

    Raises RuleError if a rule breaks its contract (a bug of ours).
    """
    return _Analyzer(model, rules or default_rules(), fold_heads).run()


class _Analyzer:
    def __init__(self, model: Model, rules: RuleTable, fold_heads: bool) -> None:
        self.model, self.rules, self.fold_heads = model, rules, fold_heads
        self.caches = find_caches(model.graph, model.constants)
        self._seen = model.graph, model.constants
        self.captured = {name for node in model.graph.nodes for name in node.captures}
        self.values = ShapeValues(model.graph, model.constants)
        self.table = AtomTable(model.graph)
        self.ties: list[tuple[Atoms, Atoms]] = []
        self.tied_by: list[int] = []  # the node of every tie
        self.contracts: list[tuple[Node, Contract, list[int]]] = []  # with the numbers of the pins that keep them
        self.summed: Atoms = np.empty(0, np.int64)
        self.pins: list[tuple[Atoms, Reason]] = []
        self.roles: dict[SlotKey, dict[Role, list[int]]] = {}
        self.blocks: list[Blocked] = []
        self.counts: list[tuple[Node, Count]] = []
        self.norms: list[Normalize] = []
        self.choices: list[tuple[Node, OneOf]] = []

    def run(self) -> Analysis:
        graph, constants = self.model.graph, self.model.constants
        for name, stored in constants.unwritable.items():
            self._pin_tensor(name, Reason(stored.why, stored.where))
        for name in graph.inputs:
            if name not in constants:
                self._pin_end(name, GRAPH_INPUT)
        for node in graph.nodes:
            if not (node.outputs and all(name in constants for name in node.outputs if name)):
                self._node(node)
        for name in graph.outputs:
            self._pin_end(name, GRAPH_OUTPUT)
        for name, why in graph.borders.items():
            self._pin_tensor(name, Reason(why, name))
        for tensor, axis, node in self.values.escapes():
            self._pin(self.table.axis(tensor, axis, 1), Reason(f"{node.op} uses this length as a number", node.label))
        self._choose()
        self._follow_products()
        self._check_parameters()
        labels = self._components()
        self._check_counts(labels)
        labels, pinned, reasons = self._kept(labels)
        groups, more = find_groups(self.table, labels, pinned, self.ties, self.roles, self.blocks, graph, self.summed)
        reached = np.zeros(self.table.count, bool)
        for group in groups:
            reached[group.atoms] = True
        kept = Kept(self.table.slots, self.roles, labels, pinned, reasons, self.pins, more, reached)
        recounts = tuple(
            Recount(node.index, c.at, c.of.atoms, c.sign)
            for node, c in self.counts
            if isinstance(c.at, At) and len(c.of)
        )
        return Analysis(
            groups,
            refusals(self.model, kept),
            recounts,
            tuple(self.norms),
            MappingProxyType(dict(self.table.slots)),
            reached,
            parameters(self.model),
            self.caches if self.fold_heads else (),
            tuple(Frozen(node.index, i, value, lengths) for node, i, value, lengths in self.values.frozen()),
        )

    # one node ---------------------------------------------------------------------------------------------------

    def _node(self, node: Node) -> None:
        for name in node.captures:
            self._pin_tensor(name, Reason(f"used inside the body of {node.op}", node.label))
        names = [name for name in dict.fromkeys((*node.inputs, *node.outputs)) if name and not self._idle(name)]
        rule = self.rules.find(node.domain, node.op, node.version)
        op = f"{node.domain}.{node.op}" if node.domain else node.op
        if rule is None:
            tracked = self.values.get(node.outputs[0]) if node.outputs else None
            if tracked is None or node.domain:
                self._pin_all(names, Reason(f"no rule for {op}", node.label))
            return
        if any(self.model.graph.tensor(name).shape is None for name in names):
            self._pin_all(names, Reason(f"{op} has tensors of unknown shape (`input_shapes` may help)", node.label))
            return
        self.table.begin()
        facts = list(rule(self._view(node)))
        for fact in facts:
            if isinstance(fact, Refuse):
                self._pin_all(names, Reason(f"{op} {fact.why}", node.label))
                return
        ties = [fact for fact in facts if isinstance(fact, Tie)]
        said: list[Axis] = [fact.axis for fact in facts if isinstance(fact, Free | Blocks)]
        for tie in ties:
            self._tie(node, tie)
            said += [tie.a, tie.b]
        for fact in facts:
            if isinstance(fact, Blocks):
                if fact.count < 1 or len(fact.axis) % fact.count:
                    cut = f"cuts {len(fact.axis)} positions into {fact.count} blocks"
                    raise RuleError(f"the rule for {node.op} {cut} at '{node.label}'")
                self.blocks.append(Blocked(fact.axis.atoms, fact.count, node.label))
            elif isinstance(fact, Count):
                self._count(node, fact)
            elif isinstance(fact, Normalize):
                self.norms.append(fact)
            elif isinstance(fact, OneOf):
                self.choices.append((node, fact))
                said += [axis for option in fact.options for f in option if isinstance(f, Tie) for axis in (f.a, f.b)]
        self._note_roles(node, ties, facts)
        reason = Reason(f"{op} mixes this axis", node.label)
        for fact in facts:
            if isinstance(fact, Contract) and len(fact.a) == len(fact.b) > 0:
                self.contracts.append((node, fact, [len(self.pins), len(self.pins) + 1]))
                for axis in (fact.a, fact.b):
                    self._pin(axis, reason)
                    said.append(axis)
        spoken = _joined([axis.atoms for axis in said])
        for key in self.table.touched(names):
            self._pin(Axis(self.table.unsaid(key, spoken), None), reason)

    def _view(self, node: Node) -> NodeView:
        constants = self.model.constants

        def see(name: str) -> TensorView | None:
            if not name or self._idle(name):
                return None
            info = self.model.graph.tensor(name)
            return TensorView(name, info.shape or (), name in constants, info.dtype in FLOATS, self.table.axis)

        def values(name: str) -> list[object] | None:
            found = self.values.get(name)
            return None if found is None else list(found.ravel())

        return NodeView(
            node.op, node.label, node.version, tuple(map(see, node.inputs)), tuple(map(see, node.outputs)),
            node.attrs, values,  # type: ignore[arg-type]
        )  # fmt: skip

    def _idle(self, name: str) -> bool:
        """Whether nothing uses a tensor, nor is its shape known (the mask of a Dropout in old opsets): as if absent."""
        graph = self.model.graph
        used = name in graph.consumers or name in graph.outputs or name in self.captured
        return not used and graph.tensor(name).shape is None

    def _tie(self, node: Node, tie: Tie) -> None:
        a, b = tie.a, tie.b
        if a.size is None or b.size is None or (0 < len(a) != len(b) > 0 and self._repeats(node)):
            self._pin(a, Reason(OPEN_LENGTH, node.label))
            self._pin(b, Reason(OPEN_LENGTH, node.label))
        elif a.size == b.size and len(a) != len(b):  # part of a longer axis, and all of one that has no atoms
            self._pin(a, Reason("tied to an axis of length 1", node.label))
            self._pin(b, Reason("tied to an axis of length 1", node.label))
        elif len(a) and len(b):
            if len(a) != len(b):
                raise RuleError(f"the rule for {node.op} ties {len(a)} to {len(b)} positions at '{node.label}'")
            self.ties.append((a.atoms, b.atoms))
            self.tied_by.append(node.index)
        elif 0 in (a.size, b.size) and max(a.size, b.size) > 1:  # length 1 broadcasts, length 0 does not
            raise RuleError(f"the rule for {node.op} ties {a.size} to {b.size} positions at '{node.label}'")

    def _repeats(self, node: Node) -> bool:
        """Whether some tensor here is an unknown multiple of something long: a tied one may fix how many times."""
        shapes = (self.model.graph.tensor(name).shape or () for name in (*node.inputs, *node.outputs) if name)
        return any(period(dim) for shape in shapes for dim in shape)

    def _count(self, node: Node, count: Count) -> None:
        at = count.at
        if isinstance(at, At) and at.input is not None:
            name = node.inputs[at.input] if at.input < len(node.inputs) else ""
            if name and not self._editable(name, at.index or 0, len(count.of)):
                self._pin(count.of, Reason(f"{node.op} computes this length", node.label))
                return
        self.counts.append((node, count))

    def _editable(self, name: str, index: int, size: int) -> bool:
        """Whether an integer of a list is a constant in it, or `size` times lengths."""
        found = source(*self._seen, name, index)
        if found is None:
            return False
        constant, at, factor = found
        return not factor or int(self.model.constants.array(constant).reshape(-1)[at]) == size

    def _note_roles(self, node: Node, ties: list[Tie], facts: Iterable[object]) -> None:
        """A constant's axis that this node ties to its output is made; one that meets inputs only reads, or `Reads`."""
        options = [o for f in facts if isinstance(f, OneOf) for o in f.options]
        edges = [(t.a.atoms, t.b.atoms) for t in [*ties, *(f for o in options for f in o if isinstance(f, Tie))]]
        edges = [(a, b) for a, b in edges if len(a) and len(a) == len(b)]
        inputs = [name for name in dict.fromkeys(node.inputs) if name in self.model.constants]
        if not edges or not inputs:
            return
        joined = np.concatenate([np.concatenate(pair) for pair in edges])
        atoms, index = np.unique(joined, return_inverse=True)
        sources, targets, at = [], [], 0
        for a, _ in edges:
            sources.append(index[at : at + len(a)])
            targets.append(index[at + len(a) : at + 2 * len(a)])
            at += 2 * len(a)
        labels = connected(np.concatenate(sources), np.concatenate(targets), len(atoms))
        made = np.zeros(labels.max() + 1, bool)
        outputs = list(self.table.touched(name for name in node.outputs if name))
        for start, size in (self.table.slots[key] for key in outputs):
            low, high = np.searchsorted(atoms, (start, start + size))
            made[labels[low:high]] = True
        reading = np.concatenate([np.empty(0, np.int64), *(f.axis.atoms for f in facts if isinstance(f, Reads))])
        for key in self.table.touched(inputs):
            start, size = self.table.slots[key]
            low, high = np.searchsorted(atoms, (start, start + size))
            for how in set((made[labels[low:high]] & ~np.isin(atoms[low:high], reading)).tolist()):
                at_nodes = self.roles.setdefault(key, {}).setdefault(Role.PRODUCES if how else Role.CONSUMES, [])
                at_nodes.append(node.index)

    # all nodes together -----------------------------------------------------------------------------------------

    def _choose(self) -> None:
        """Settle every OneOf (choices.py), in rounds: what one follows or keeps may decide another."""
        waiting = self.choices
        while waiting:
            labels = self._components()
            pinned = self._kept(labels)[1]
            hard = self._kept(labels, self._contracted)[1] if self.contracts else pinned
            reach = np.zeros(len(pinned), np.int64)
            for start, size in (self.table.slots[key] for key in self.roles):
                np.add.at(reach, labels[start : start + size], 1)
            seen = [tuple(self._option(choice, option, labels) for option in choice.options) for _, choice in waiting]
            found = settled(seen, pinned, reach, hard)
            for i, option in found.items():
                node, choice = waiting[i]
                self._settle(node, choice, choice.options[option])
            waiting = [one for i, one in enumerate(waiting) if i not in found]

    @property
    def _contracted(self) -> set[int]:
        """The numbers of the pins that keep what products add up."""
        return {number for _, _, pins in self.contracts for number in pins}

    def _option(self, choice: OneOf, option: tuple[Tie | Count, ...], labels: NDArray[np.int64]) -> Option:
        ties = [(fact.a.atoms, fact.b.atoms) for fact in option if isinstance(fact, Tie)]
        ties = [(a, b) for a, b in ties if len(a) == len(b)]
        a, b = (labels[np.concatenate([np.empty(0, np.int64), *side])] for side in zip(*ties, strict=True))
        return Option(a, b, labels[_unfollowed(choice, option)])

    def _settle(self, node: Node, choice: OneOf, option: tuple[Tie | Count, ...]) -> None:
        for fact in option:
            if isinstance(fact, Tie):
                self._tie(node, fact)
            else:
                self._count(node, fact)
        rest = _unfollowed(choice, option)
        self._pin(Axis(rest, len(rest)), Reason(f"{node.op} mixes this axis", node.label))

    def _follow_products(self) -> None:
        """Follow what products of two activations add up, where nothing else keeps it (products.py)."""
        if not self.contracts:
            return
        graph, labels = self.model.graph, self._components()
        kept = self._kept(labels, self._contracted)[1]
        for node, fact, pins in self.contracts:
            if kept[labels[np.concatenate([fact.a.atoms, fact.b.atoms])]].any():
                continue
            for number, start in ((1, fact.b), (0, fact.a)):
                made = chain(graph, self.model.constants, node.inputs[number])
                other = (fact.a, fact.b)[1 - number].atoms
                found = None if made is None else added_up(
                    start.atoms, *made, node.index, self.ties, self.tied_by, self.table.slots
                )  # fmt: skip
                if found is not None and not np.isin(other, np.concatenate([found, self.summed])).any():
                    self.summed = np.union1d(self.summed, found)
                    self._tie(node, Tie(fact.a, fact.b))
                    for pin in pins:
                        self.pins[pin] = (fact.a.atoms[:0], self.pins[pin][1])
                    break

    def _check_parameters(self) -> None:
        """Keep constants whose axis is used in two ways, or that cannot be averaged."""
        nodes = self.model.graph.nodes
        seen: dict[tuple[str, int], set[int]] = {}
        for tensor, axis, blocks in self.roles:
            seen.setdefault((tensor, axis), set()).add(blocks)
        for key, roles in self.roles.items():
            where = nodes[next(iter(roles.values()))[0]].label
            if len(roles) > 1 or len(seen[key[:2]]) > 1:
                self._pin(self.table.axis(*key), Reason("a weight that produces and consumes the same axis", where))
            if not self._averaged(key[0]):
                self._pin(self.table.axis(*key), Reason("a constant that is not floating point", where))

    def _averaged(self, name: str) -> bool:
        """Whether a constant's positions can be averaged: floats, also those stored as integers, and equal numbers."""
        if self.model.graph.tensor(name).dtype in FLOATS or name in self.model.constants.stored:
            return True
        array = self.model.constants.array(name)
        return array.dtype.kind in "iu" and array.size > 0 and bool((array == array.flat[0]).all())

    def _check_counts(self, labels: NDArray[np.int64]) -> None:
        """A length that the graph computes from other axes must be the number of these very channels, or a fraction.

        That is so where one alone of the axes it comes from can change, and has every channel in the same proportion;
        each as often as quotients ask for, so that they stay exact.
        """
        pinned = self._kept(labels)[1]
        for i, (node, count) in enumerate(self.counts):
            if not isinstance(count.at, Live):
                continue
            sources = [self.table.axis(tensor, axis, 1) for tensor, axis in sorted(count.at.sources)]
            sources = [s for s in sources if not pinned[labels[s.atoms]].all()]
            if not sources and pinned[labels[count.of.atoms]].all():
                continue
            if len(sources) == 1 and count.at.linear and count.sign == 1:
                mine = np.bincount(labels[count.of.atoms], minlength=len(pinned))
                theirs = np.bincount(labels[sources[0].atoms], minlength=len(pinned))
                exact = not (theirs % count.at.unit).any()
                if exact and np.array_equal(mine * len(sources[0]), theirs * len(count.of)):
                    continue
            at = count.at.at
            given = "" if at is None or at.input is None else node.inputs[at.input]
            if at and given and single(*self._seen, given, at.index or 0):
                self.counts[i] = node, Count(count.of, replace(at, lengths=count.at.sources), count.sign)
                continue
            for axis in (count.of, *sources):
                self._pin(axis, Reason(f"{node.op} takes this length from another axis", node.label))

    def _components(self) -> NDArray[np.int64]:
        a = np.concatenate([t[0] for t in self.ties]) if self.ties else np.empty(0, np.int64)
        b = np.concatenate([t[1] for t in self.ties]) if self.ties else np.empty(0, np.int64)
        return connected(a, b, self.table.count)

    def _kept(
        self, labels: NDArray[np.int64], without: Collection[int] = ()
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64]]:
        """(labels, pinned per channel, index of the first reason per channel), `without` some pins."""
        channels = int(labels.max()) + 1 if len(labels) else 0
        reasons = np.full(channels, len(self.pins), np.int64)
        for i, (atoms, _) in enumerate(self.pins):
            if i in without:
                continue
            np.minimum.at(reasons, labels[atoms], i)
        return labels, reasons < len(self.pins), reasons

    # pins -------------------------------------------------------------------------------------------------------

    def _pin(self, axis: Axis, reason: Reason) -> None:
        if len(axis.atoms):
            self.pins.append((axis.atoms, reason))

    def _pin_tensor(self, name: str, reason: Reason) -> None:
        for key in self.table.touched([name]):
            self._pin(self.table.axis(*key), reason)

    def _pin_end(self, name: str, kind: str) -> None:
        """Keep a graph's input or output, but for the heads of caches where these may change."""
        heads = {cache.axis for cache in self.caches if name in (cache.past, cache.present)}
        for key in self.table.touched([name]):
            if key[1] not in heads or not self.fold_heads:
                reason = Reason(KEPT if heads and not self.fold_heads else kind, name)
                self._pin(self.table.axis(*key), reason)

    def _pin_all(self, names: Iterable[str], reason: Reason) -> None:
        for name in names:
            self._pin_tensor(name, reason)


def _unfollowed(choice: OneOf, followed: tuple[Tie | Count, ...]) -> Atoms:
    """What other options speak of, and `followed` does not."""
    atoms = _joined([_spoken(option) for option in choice.options])
    return atoms[~np.isin(atoms, _spoken(followed))]


def _spoken(option: tuple[Tie | Count, ...]) -> Atoms:
    axes = [axis.atoms for fact in option if isinstance(fact, Tie) for axis in (fact.a, fact.b)]
    return np.concatenate([np.empty(0, np.int64), *axes])


def _joined(parts: Sequence[Atoms]) -> Atoms:
    """All atoms of `parts`, sorted, each once."""
    return distinct(np.concatenate([np.empty(0, np.int64), *parts]))
