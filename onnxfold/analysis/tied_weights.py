"""Weights that stand on one stored tensor: what becomes of one becomes of all.

The steps that make them of it are followed like other nodes, so that channels of one use are those of the others too.
Where uses want different edits (one produces what another consumes), the channels are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from ..model.model import Model
from ..model.tied import Family, View
from .atoms import SlotKey, Tied, ends
from .components import connected
from .groups import Role
from .known import Known
from .node_facts import Asked, AtomFact, NodeFacts
from .pins import Pin, Reason
from .rules.facts import OneOf, Tie

BOTH = "a weight that produces and consumes the same axis"
GROWS = "a weight computed from stored tensors, which would grow if it were written back"


def tie_weights(model: Model, known: Known, facts: NodeFacts) -> None:
    """State what weights that stand on the same tensors have to do with each other, after all nodes have spoken."""
    known.table.begin()
    for family in model.tied.families:
        if family.kept:
            for name in family.leaves:
                known.add(_all_of(known, name, Reason(GROWS, _made_by(model, name))))
        elif family.tied:
            known.add(_ties(model, known, facts, family))


def check_tied(model: Model, known: Known) -> None:
    """Keep the channels of stored tensors that one use produces and another consumes."""
    families = [one for one in model.tied.families if one.tied]
    if not families:
        return
    steps = {step for one in families for name in one.leaves for step in model.tied.views[name].steps}
    labels = connected(*ends(tie for tie in known.ties if tie.node in steps), known.table.count)
    uses = {role: np.zeros(int(labels.max(initial=-1)) + 1, bool) for role in Role}
    members = {name for one in families for name in one.leaves}
    for key, roles in known.roles.items():
        if key[0] in members:
            for role in roles:
                uses[role][labels[known.table.axis(*key).atoms]] = True
    both = uses[Role.PRODUCES] & uses[Role.CONSUMES]
    for family in families:
        for key in [key for name in family.leaves for key in _keys(known, name)]:
            atoms = known.table.axis(*key).atoms
            mixed = atoms[both[labels[atoms]]]
            if len(mixed):
                known.add([Pin(mixed, Reason(BOTH, _made_by(model, key[0])))])


def _ties(model: Model, known: Known, facts: NodeFacts, family: Family) -> Iterator[AtomFact]:
    """What ties the leaves of a family to their root."""
    root, views = family.roots[0], [model.tied.views[name] for name in family.leaves]
    rank = len(model.graph.tensor(root).shape or ())
    plain = all(view.axes == tuple(range(rank)) for view in views)
    for view in views:
        if plain:
            yield from _same_axes(known, view)
        else:
            for step in view.steps:
                yield from _plain_facts(facts.of(model.graph.nodes[step]))
    blocks = _blocks(model, known, views if plain else ())
    for view in views:
        for key in _keys(known, view.name):
            if (not plain and key[2] > 1) or len(blocks.get(model.tied.place(*key[:2]), ())) > 1:
                where = Reason("a weight that several nodes divide differently", _made_by(model, view.name))
                yield from (Pin(known.table.axis(*one).atoms, where) for one in _on_axis(known, key))


def _same_axes(known: Known, view: View) -> Iterator[Tied]:
    for key in _keys(known, view.name) if view.steps else ():
        axis, whole = known.table.axis(*key), known.table.axis(view.root, *key[1:])
        yield Tied(axis.atoms, whole.atoms, view.steps[-1])


def _plain_facts(said: Iterable[AtomFact]) -> Iterator[AtomFact]:
    """Ties, alternatives and pins: steps use no parameter, and their lists are written as a whole."""
    for fact in said:
        if isinstance(fact, Asked):
            options = tuple(tuple(one for one in way if isinstance(one, Tie)) for way in fact.choice.options)
            yield replace(fact, choice=OneOf(options))
        elif isinstance(fact, Tied | Pin):
            yield fact


def _blocks(model: Model, known: Known, views: Sequence[View]) -> dict[tuple[str, int], set[int]]:
    """By axis of the root, in how many blocks its uses see it."""
    found = dict[tuple[str, int], set[int]]()
    for view in views:
        for key in _keys(known, view.name):
            if key in known.roles or view.name in model.graph.outputs:
                found.setdefault((view.root, key[1]), set()).add(key[2])
    return found


def _keys(known: Known, name: str) -> list[SlotKey]:
    """The axes of a tensor that have atoms, also those seen in blocks."""
    return known.table.of(name) or list(known.table.touched([name]))


def _on_axis(known: Known, key: SlotKey) -> list[SlotKey]:
    return [one for one in _keys(known, key[0]) if one[1] == key[1]]


def _all_of(known: Known, name: str, reason: Reason) -> Iterator[Pin]:
    for key in _keys(known, name):
        yield Pin(known.table.axis(*key).atoms, reason)


def _made_by(model: Model, name: str) -> str:
    """The node that makes a constant, or the first that reads it."""
    index = model.graph.producer.get(name, next(iter(model.graph.consumers.get(name, ())), None))
    return name if index is None else model.graph.nodes[index].label
