"""Integers that give lengths of axes: which of them a graph computes by itself after a fold, and which are written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from ..model.graph import Node
from ..model.model import Model
from ..model.shapes.arithmetic import ShapeValues
from ..model.shapes.lists import single
from .components import Integers
from .known import Known
from .node_facts import Counted
from .pins import Pin, Reason
from .result import Frozen
from .rules.facts import At, Live


def check_counts(model: Model, known: Known, values: ShapeValues) -> Iterator[Pin]:
    """A length that the graph computes from other axes must be the number of these very channels, or a fraction; else a
    plain number takes its place, or -1 in a Reshape, or plain numbers that of the whole list (`Known.lists`). Where
    nothing can, the channels stay: pins for them."""
    labels = known.labels()
    pinned, rests = known.pinned(labels), set[int]()
    checked, given = list[Counted](), known.counts
    plain = dict[tuple[int, int], Frozen]()
    for counted in given:
        node, count, live = counted.node, counted.count, counted.count.at
        checked.append(counted)
        if not isinstance(live, Live):
            continue
        axes = [known.table.axis(tensor, axis, 1).atoms for tensor, axis in sorted(live.sources)]
        sources = [atoms for atoms in axes if not pinned[labels[atoms]].all()]
        mine = labels[count.of.atoms]
        if not sources and pinned[mine].all():
            continue
        if len(sources) == 1 and count.sign == 1 and len(mine) and _computes(live, labels[sources[0]], mine):
            continue
        at = _instead(model, node, live, plain=len(mine) > 0, rest=node.index not in rests)
        if at is not None:
            checked[-1] = Counted(node, replace(count, at=at))
            rests.update([node.index] if at.rest else ())
            continue
        number = next((at.input for at in (live.at, live.rest) if at and at.input is not None), None)
        frozen = None if number is None else _whole(node, number, given, values)
        if number is not None and frozen is not None:
            plain[node.index, number] = frozen
            continue
        reason = Reason(f"{node.op} takes this length from another axis", node.label)
        yield from (Pin(atoms, reason) for atoms in (count.of.atoms, *sources))
    known.lists = list(plain.values())
    known.counts = [one for one in checked if _place(one) not in plain]


def _instead(model: Model, node: Node, live: Live, plain: bool, rest: bool) -> At | None:
    """Where a `plain` number takes the place of a computed one, or -1 for the `rest`, as far as these may; None where
    neither can."""
    if not live.sources:
        return None
    for at, left in ((live.at if plain else None, False), (live.rest if rest else None, True)):
        given = "" if at is None or at.input is None else node.inputs[at.input]
        if at and given and single(model.graph, model.constants, given, at.index or 0):
            return replace(at, lengths=live.sources, rest=left)
    return None


def _computes(live: Live, source: Integers, mine: Integers) -> bool:
    """Whether the graph computes the number of the channels `mine` from those of the one axis that can change: it has
    every channel in the same proportion, and each as often as quotients ask for, so that they stay exact."""
    channels = int(max(mine.max(initial=-1), source.max(initial=-1))) + 1
    ours, theirs = np.bincount(mine, minlength=channels), np.bincount(source, minlength=channels)
    exact = live.linear and not (theirs % live.unit).any()
    return exact and np.array_equal(ours * len(source), theirs * len(mine))


def _whole(node: Node, number: int, given: Sequence[Counted], values: ShapeValues) -> Frozen | None:
    """Plain numbers in place of the computed list that is input `number` of a node; None where one of them is open."""
    array = values.list_for(node.inputs[number], node)
    if array is None:
        return None
    counts = [one.count for one in given if _place(one) == (node.index, number)]
    places = [(one, one.at.at if isinstance(one.at, Live) else one.at) for one in counts]
    sources = frozenset(source for v in values.need(node.inputs[number]).ravel() for source in v.sources)
    return Frozen(
        node.index, number, array, sources,
        tuple((at.index or 0, one.of.atoms, one.sign) for one, at in places if at is not None and len(one.of)),
    )  # fmt: skip


def _place(counted: Counted) -> tuple[int, int | None]:
    """The node and the number of its input that hold an integer."""
    at = counted.count.at
    place = (at.at or at.rest) if isinstance(at, Live) else at
    return counted.node.index, None if place is None else place.input
