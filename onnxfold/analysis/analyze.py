"""Analysis: which channels are the same channel everywhere, which are interchangeable, and why the others are kept.

Rules state facts about single nodes (rules/facts.py); the steps here put the facts of all nodes together with
union-find over *atoms* (every position of every axis of every tensor). An axis without a fact is kept as it is,
with a reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from ..frozen import read_only
from ..model.constants import FLOATS
from ..model.kv_cache import KEPT, Cache, find_caches
from ..model.model import Model
from .alternatives import Option, settled
from .atoms import NONE
from .components import Integers, distinct
from .contractions import added_up, chain
from .counts import check_counts
from .groups import ChannelGroup, Channels, find_groups
from .known import Known
from .node_facts import Asked, Counted, NodeFacts
from .pins import GRAPH_INPUT, GRAPH_OUTPUT, Kept, Pin, Reason, parameters, pins_of, refusals
from .result import Analysis, Frozen, Index, Mean, OverChannels, Recount
from .rules import default_rules
from .rules.facts import At, Atoms, Count, Tie
from .rules.table import RuleTable
from .spreads import normalizes, variance
from .tied_weights import BOTH, check_tied, tie_weights

# positions of all axes that are followed, each of which takes a hundred bytes; more in a file of so many bytes for each
_MOST_POSITIONS, _BYTES = 2**23, 8


def analyze(
    model: Model, rules: RuleTable | None = None, fold_heads: bool = False, fold_residual: bool = False
) -> Analysis:
    """Find the channel groups of `model`; with `fold_heads`, the heads of its caches may change (kv_cache.py); with
    `fold_residual`, channels are followed through norms over all of them.

    Raises ModelError for axes too long to follow, RuleError if a rule breaks its contract (a bug of ours).
    """
    _check_lengths(model)
    known = Known(model.graph)
    facts = NodeFacts(model, rules or default_rules(fold_residual), known.table, fold_residual)
    caches = find_caches(model.graph, model.constants)
    _gather(model, known, facts, _Heads(caches, fold_heads))
    tie_weights(model, known, facts)
    known.add(facts.directions())
    _choose(known, facts)
    _follow_products(model, known, facts)
    _check_parameters(model, known)
    _check_norms(model, known)
    check_tied(model, known)
    known.add(check_counts(model, known, facts.values))
    return _result(model, known, facts, caches if fold_heads else ())


def _check_lengths(model: Model) -> None:
    """Raise ModelError where axes are so long that their positions would take far more memory than the model."""
    axes = [(d, info.name) for info in model.graph.tensors.values() for d in info.shape or () if isinstance(d, int)]
    if sum(length for length, _ in axes) > max(_MOST_POSITIONS, model.size // _BYTES):
        longest, name = max(axes)
        raise ModelError(
            f"the tensors are too large to track every channel (one axis of '{name}' has length {longest}): "
            "pass smaller `input_shapes`, or export the model with open or shorter dimensions"
        )


@dataclass(frozen=True)
class _Heads:
    """The caches among inputs and outputs, and whether their heads may change."""

    caches: tuple[Cache, ...]
    change: bool

    def pins(self, known: Known, name: str, kind: str) -> Iterator[Pin]:
        """What keeps a graph's input or output: all of it, but for heads that may change."""
        heads = {cache.axis for cache in self.caches if name in (cache.past, cache.present)}
        for key in known.table.touched([name]):
            if key[1] not in heads or not self.change:
                reason = Reason(KEPT if heads and not self.change else kind, name)
                yield Pin(known.table.axis(*key).atoms, reason)


def _gather(model: Model, known: Known, facts: NodeFacts, heads: _Heads) -> None:
    """The facts of all nodes, and what the graph itself keeps: its ends, those of bodies, lengths used as numbers."""
    graph, constants = model.graph, model.constants
    for name, stored in constants.unwritable.items():
        known.add(pins_of(known.table, [name], Reason(stored.why, stored.where)))
    for name in graph.inputs:
        if name not in constants:
            known.add(heads.pins(known, name, GRAPH_INPUT))
    for node in graph.nodes:
        if not constants.made_by(node):
            known.add(facts.of(node))
    for name in graph.outputs:
        known.add(heads.pins(known, name, GRAPH_OUTPUT))
    for name, why in graph.borders.items():  # a body cannot give a constant of the outer graph for what it computes
        known.add(pins_of(known.table, [name, *_made_of(model, name)], Reason(why, name)))
    for tensor, axis, node in (one for one in facts.values.escapes() if one[2].index not in facts.grids):
        reason = Reason(f"{node.op} uses this length as a number", node.label)
        known.add([Pin(known.table.axis(tensor, axis, 1).atoms, reason)])


def _made_of(model: Model, name: str) -> list[str]:
    """The constants that a constant is computed from."""
    graph, waiting, found = model.graph, [name], list[str]()
    while waiting:
        producer = graph.producer.get(waiting.pop())
        if producer is not None and name in model.constants:
            more = [one for one in graph.nodes[producer].inputs if one and one not in found]
            found += more
            waiting += more
    return found


@dataclass(frozen=True)
class _Way:
    """One alternative: atoms `a` and `b` that it ties, and the `rest`, which only the others would follow."""

    facts: tuple[Tie | Count, ...]
    a: Atoms
    b: Atoms
    rest: Atoms

    def __post_init__(self) -> None:
        read_only(self)

    def option(self, labels: Integers) -> Option:
        """What it does to channels."""
        return Option(labels[self.a], labels[self.b], labels[self.rest])


def _ways(asked: Asked) -> list[_Way]:
    spoken = [[t for t in option if isinstance(t, Tie)] for option in asked.choice.options]
    atoms = [np.concatenate([NONE, *(axis.atoms for t in ties for axis in (t.a, t.b))]) for ties in spoken]
    every, found = distinct(np.concatenate(atoms)), []
    for option, ties, mine in zip(asked.choice.options, spoken, atoms, strict=True):
        even = [t for t in ties if len(t.a) == len(t.b)]
        a = np.concatenate([NONE, *(t.a.atoms for t in even)])
        b = np.concatenate([NONE, *(t.b.atoms for t in even)])
        found.append(_Way(option, a, b, every[~np.isin(every, mine)]))
    return found


def _choose(known: Known, facts: NodeFacts) -> None:
    """Settle every OneOf (alternatives.py), in rounds: what one follows or keeps may decide another."""
    waiting = [(asked, _ways(asked)) for asked in known.choices]
    while waiting:
        labels = known.labels()
        pinned = known.pinned(labels)
        hard = known.pinned(labels, products=False) if known.products else pinned
        reach = np.zeros(len(pinned), np.int64)
        for start, size in (known.table.slots[key] for key in known.roles):
            np.add.at(reach, labels[start : start + size], 1)
        found = settled([tuple(way.option(labels) for way in ways) for _, ways in waiting], pinned, reach, hard)
        chosen = {number: waiting[number][1][option] for number, option in found.items()}
        stuck = {number for number, way in chosen.items() if way.option(labels).blocked(hard) == 1.0}
        reasons = known.reasons(labels) if stuck else np.zeros(0, object)
        for number, way in chosen.items():
            ends = labels[np.concatenate([way.a, way.b])]
            why = next(filter(None, reasons[ends]), None) if number in stuck else None
            known.add(facts.chosen(waiting[number][0].node, way.facts, way.rest, why))
        waiting = [one for number, one in enumerate(waiting) if number not in found]


def _follow_products(model: Model, known: Known, facts: NodeFacts) -> None:
    """Follow what products of two activations add up, where nothing else keeps it (contractions.py)."""
    if not known.products:
        return
    labels = known.labels()
    kept = known.pinned(labels, products=False)
    for product in known.products:
        node, (a, b) = product.node, (product.contract.a, product.contract.b)
        if kept[labels[np.concatenate([a.atoms, b.atoms])]].any():
            continue
        for name, start, other in ((node.inputs[1], b, a), (node.inputs[0], a, b)):
            made = chain(model.graph, model.constants, name)
            if made is None:
                continue
            found = added_up(start.atoms, *made, node.index, known.ties, known.table.slots)
            if found is not None and not np.isin(other.atoms, np.concatenate([found, known.summed])).any():
                known.add(facts.tied(node, Tie(a, b)))
                known.follow(product, found)
                break


def _check_parameters(model: Model, known: Known) -> None:
    """Keep constants whose axis is used in two ways, or that cannot be averaged."""
    seen: dict[tuple[str, int], set[int]] = {}
    for tensor, axis, blocks in known.roles:
        seen.setdefault((tensor, axis), set()).add(blocks)
    for key, roles in known.roles.items():
        where = model.graph.nodes[next(iter(roles.values()))[0]].label
        atoms = known.table.axis(*key).atoms
        if len(roles) > 1 or len(seen[key[:2]]) > 1:
            known.add([Pin(atoms, Reason(BOTH, where))])
        if not _averaged(model, key[0]):
            known.add([Pin(atoms, Reason("a constant that is not floating point", where))])


def _check_norms(model: Model, known: Known) -> None:
    """Keep channels of norms whose scale, of one number for each, has another use: it is multiplied by what makes up
    for a narrower mean."""
    for one in known.normed:
        many = model.constants.array(one.norm.scale).size > 1
        if many and len(model.graph.consumers.get(one.norm.scale, ())) > 1:
            known.add([Pin(one.norm.axis.atoms, Reason("a norm whose scale other nodes use too", one.node.label))])


def _averaged(model: Model, name: str) -> bool:
    """Whether a constant's positions can be averaged: floats, also those stored as integers, and equal numbers."""
    if model.graph.tensor(name).dtype in FLOATS or name in model.constants.stored:
        return True
    array = model.constants.array(name)
    return array.dtype.kind in "iu" and array.size > 0 and bool((array == array.flat[0]).all())


def _result(model: Model, known: Known, facts: NodeFacts, caches: tuple[Cache, ...]) -> Analysis:
    labels, channels, (groups, unequal) = _grouped(model, known)
    if unequal:  # blocks whose channels come from different places: position i of one is then position i of all
        before, inside = known.ties[:], np.concatenate([NONE, *(g.atoms for g in groups)])
        uneven = [b for b in known.blocks if b.where in unequal and not np.isin(b.atoms, inside).any()]
        known.add(tie for blocked in uneven for tie in blocked.ties())
        again = _grouped(model, known)
        if sum(g.atoms.size for g in again[2][0]) > sum(g.atoms.size for g in groups):
            labels, channels, (groups, unequal) = again
        else:
            known.ties = before
    reached = np.zeros(known.table.count, bool)
    for group in groups:
        reached[group.atoms] = True
    return Analysis(
        groups,
        refusals(model, Kept(channels, known.reasons(labels), unequal, reached)),
        tuple(_recounts(known.counts)),
        tuple(known.norms),
        MappingProxyType(dict(known.table.slots)),
        reached,
        parameters(model),
        caches,
        (
            *(Frozen(node.index, i, value, lengths) for node, i, value, lengths in facts.values.frozen()),
            *known.lists,
        ),
        tuple(_means(model, known, reached)),
        tuple(
            Index(node.index, at.input, at.of.atoms, at.made.atoms, at.axis, at.column)
            for node, at in ((one.node, one.indices) for one in known.indexed)
            if reached[at.of.atoms].any()
        ),
        tuple(_over_channels(model, known, reached)),
    )


def _means(model: Model, known: Known, reached: NDArray[np.bool_]) -> Iterator[Mean]:
    """The means and sums over channels that are in groups."""
    for one in known.averages:
        if reached[one.average.axis.atoms].any():
            behind = variance(model.graph, model.constants, one.node)
            yield Mean(one.node.index, one.average.number, None if behind is None else behind.index)


def _over_channels(model: Model, known: Known, reached: NDArray[np.bool_]) -> Iterator[OverChannels]:
    """The norms over channels that are in groups."""
    for normed in known.normed:
        if reached[normed.norm.axis.atoms].any():
            yield OverChannels(normed.node.index, normed.norm.number, normed.norm.scale, normed.norm.beside)
    for one in known.averages:
        if reached[one.average.axis.atoms].any() and normalizes(model.graph, model.constants, one.node):
            every = [other.average.number for other in known.averages if other.node is one.node]
            beside = tuple(number for number in every if number != one.average.number)
            yield OverChannels(one.node.index, one.average.number, beside=beside)


def _grouped(model: Model, known: Known) -> tuple[Integers, Channels, tuple[tuple[ChannelGroup, ...], dict[str, int]]]:
    """The channels of all atoms, and their groups, as far as all is known."""
    labels = known.labels()
    channels = Channels(known.table.slots, known.roles, labels, known.pinned(labels))
    return labels, channels, find_groups(model.graph, channels, known.ties, known.blocks, known.summed)


def _recounts(counts: Iterable[Counted]) -> Iterator[Recount]:
    for counted in counts:
        node, count = counted.node, counted.count
        if isinstance(count.at, At) and (len(count.of) or count.at.rest):
            yield Recount(node.index, count.at, count.of.atoms, count.sign)
