"""Channels that are interchangeable, gathered into groups: where they live, and which must stay in equal blocks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from ..frozen import read_only
from ..model.graph import Graph
from .atoms import AtomTable, SlotKey
from .rules.facts import Atoms

Ints = NDArray[np.int64]


class Role(Enum):
    """What a parameter's axis does: PRODUCES channels (merged by mean) or CONSUMES them (merged by sum)."""

    PRODUCES = "makes"
    CONSUMES = "reads"


@dataclass(frozen=True)
class Place:
    """Where the channels of a group live: `positions` [channels, r] along one axis of one tensor.

    `blocks` over 1 means the axis seen apart by each of that many parts of axis 0 (grouped Conv weights). `role` is
    None for activations. `nodes` are the indices of the nodes that use a parameter in this role. `summed`: of one side
    of a product of activations, which is added up where channels merge (products.py); its weights have the role
    CONSUMES, though their nodes make it.
    """

    tensor: str
    axis: int
    blocks: int
    role: Role | None
    positions: Ints = field(repr=False)
    nodes: tuple[int, ...] = ()
    summed: bool = False

    def __post_init__(self) -> None:
        read_only(self)


@dataclass(frozen=True)
class ChannelGroup:
    """Interchangeable channels. `cells` [channels] numbers the blocks that must keep equally many channels each."""

    name: str
    size: int
    places: tuple[Place, ...] = field(repr=False)
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    cells: Ints = field(repr=False)
    atoms: Atoms = field(repr=False)  # all atoms, sorted by channel: atoms[owner == channel]
    owner: Ints = field(repr=False)

    def __post_init__(self) -> None:
        read_only(self)

    @property
    def blocks(self) -> int:
        """How many equal blocks the channels form."""
        return int(self.cells.max()) + 1

    @property
    def run(self) -> int:
        """How many positions a channel takes along a weight's axis, at least: 1, or the dimension of a head."""
        return min(int(p.positions.shape[1]) for p in self.parameters)

    @property
    def parameters(self) -> tuple[Place, ...]:
        """The places in constants."""
        return tuple(p for p in self.places if p.role is not None)


@dataclass(frozen=True)
class Blocked:
    """Atoms of an axis that is `count` equal blocks in a row, at node `where`."""

    atoms: Atoms
    count: int
    where: str

    def __post_init__(self) -> None:
        read_only(self)


def find_groups(
    table: AtomTable,
    labels: Ints,
    pinned: NDArray[np.bool_],
    ties: Sequence[tuple[Atoms, Atoms]],
    roles: Mapping[SlotKey, Mapping[Role, Sequence[int]]],
    blocks: Sequence[Blocked],
    graph: Graph,
    summed: Atoms,
) -> tuple[tuple[ChannelGroup, ...], dict[tuple[str, str], int]]:
    """Groups of channels (`labels`: channel of every atom) that live in the same places in the same way.

    An axis whose atoms are in part `summed` counts as two, numbered apart by the number of axes.

    Returns the groups in file order, and channels kept after all: (kind, where) -> how many.
    """
    if not len(labels):
        return (), {}
    keys = list(table.slots)
    starts = np.array([table.slots[key][0] for key in keys], np.int64)
    order = np.argsort(starts)
    keys, starts = [keys[i] for i in order], starts[order]
    slot = np.searchsorted(starts, np.arange(table.count), side="right") - 1
    slot[summed] += len(keys)
    rank = _rank(labels * 2 * len(keys) + slot)
    signature = np.zeros((len(pinned), 2), np.uint64)
    ends = [np.concatenate([np.empty(0, np.int64), *side]) for side in zip(*ties, strict=True)] or [rank[:0]] * 2
    tie = np.repeat(np.arange(len(ties)), [len(a) for a, _ in ties])  # all ties at once: a graph has many short ones
    for column in (0, 1):
        _add(signature[:, column], labels, _hash(column, slot, rank, np.zeros_like(rank)))
        _add(signature[:, column], labels[ends[0]], _hash(column, -1 - tie, rank[ends[0]], rank[ends[1]]))
    free = np.flatnonzero(~pinned)
    _, same = np.unique(signature[free], axis=0, return_inverse=True)
    group_of = np.full(len(pinned), -1, np.int64)
    group_of[free] = same.ravel()
    atoms = np.flatnonzero(group_of[labels] >= 0)
    atoms = atoms[np.lexsort((rank[atoms], labels[atoms], group_of[labels[atoms]]))]
    found, kept = [], dict[tuple[str, str], int]()
    bounds = np.flatnonzero(np.diff(group_of[labels[atoms]])) + 1
    for members in np.split(atoms, bounds) if len(atoms) else ():
        group = _group(members, labels, slot, rank, keys, starts, roles, graph)
        if group is None:
            continue
        cells = _cells(group, blocks)
        if isinstance(cells, str):
            at = "its blocks would become unequal", cells
            kept[at] = kept.get(at, 0) + group.size
        elif group.size > 1:
            found.append(_with_cells(group, cells))
    found.sort(key=lambda g: (min(i for p in g.parameters for i in p.nodes), g.atoms.min()))
    return _unique_names(found), kept


def _group(
    atoms: Atoms,
    labels: Ints,
    slot: Ints,
    rank: Ints,
    keys: Sequence[SlotKey],
    starts: Ints,
    roles: Mapping[SlotKey, Mapping[Role, Sequence[int]]],
    graph: Graph,
) -> ChannelGroup | None:
    # channels in the order of their first atom in the first place that makes them
    slots = np.unique(slot[atoms])
    made = [s for s in slots if s < len(keys) and Role.PRODUCES in roles.get(keys[s], {})]
    if not made:
        return None
    weights = [s for s in made if len(graph.tensor(keys[s][0]).shape or ()) > 1] or made
    first = min(weights, key=lambda s: (roles[keys[s]][Role.PRODUCES][0], s))
    lead = atoms[(slot[atoms] == first) & (rank[atoms] == 0)]
    channel = labels[np.sort(lead)]
    index = {int(c): i for i, c in enumerate(channel)}
    owner = np.array([index[int(c)] for c in labels[atoms]], np.int64)
    places = []
    for s in slots:
        here = slot[atoms] == s
        mine, whose = atoms[here], owner[here]
        by = np.lexsort((rank[mine], whose))
        at, summed = s % len(keys), bool(s >= len(keys))
        positions = (mine[by] - starts[at]).reshape(len(channel), -1)
        (tensor, axis, blocks), used = keys[at], roles.get(keys[at], {})
        role = next(iter(used), None)
        nodes = tuple(used[role]) if role else ()
        places.append(
            Place(tensor, axis, blocks, role and (Role.CONSUMES if summed else role), positions, nodes, summed)
        )
    label = [node.label for node in graph.nodes]
    wide = [keys[s] for s in weights]
    producers = dict.fromkeys(i for p in places if (p.tensor, p.axis, p.blocks) in wide for i in p.nodes)
    consumers = dict.fromkeys(i for p in places if p.role is Role.CONSUMES for i in p.nodes)
    by_owner = np.argsort(owner, kind="stable")
    return ChannelGroup(
        label[roles[keys[first]][Role.PRODUCES][0]], len(channel), tuple(places),
        tuple(label[i] for i in sorted(producers)), tuple(label[i] for i in sorted(consumers)),
        np.zeros(len(channel), np.int64), atoms[by_owner], owner[by_owner],
    )  # fmt: skip


def _cells(group: ChannelGroup, blocks: Sequence[Blocked]) -> Ints | str:
    """The block of every channel, all constraints together; the name of a node whose blocks would become unequal."""
    keys: list[Ints] = []
    for blocked in blocks:
        if not len(blocked.atoms):
            continue
        order = np.argsort(blocked.atoms)
        at = np.searchsorted(blocked.atoms, group.atoms, sorter=order)
        at = order[np.minimum(at, len(order) - 1)]
        mine = blocked.atoms[at] == group.atoms
        if not mine.any():
            continue
        if not 0 < blocked.count <= len(blocked.atoms):
            return blocked.where
        block = at[mine] // (len(blocked.atoms) // blocked.count)
        if len(np.unique(np.bincount(block, minlength=blocked.count))) > 1:
            return blocked.where
        keys.append(block.reshape(group.size, -1))
    if not keys:
        return np.zeros(group.size, np.int64)
    _, cells = np.unique(np.concatenate(keys, axis=1), axis=0, return_inverse=True)
    cells = np.asarray(cells.ravel(), np.int64)
    if len(np.unique(np.bincount(cells))) > 1:
        return next(b.where for b in blocks)
    return cells


def _with_cells(group: ChannelGroup, cells: Ints) -> ChannelGroup:
    return ChannelGroup(
        group.name, group.size, group.places, group.producers, group.consumers, cells, group.atoms, group.owner
    )


def _unique_names(groups: Iterable[ChannelGroup]) -> tuple[ChannelGroup, ...]:
    seen: dict[str, int] = {}
    out = []
    for group in groups:
        seen[group.name] = seen.get(group.name, 0) + 1
        name = group.name if seen[group.name] == 1 else f"{group.name}:{seen[group.name]}"
        out.append(
            ChannelGroup(
                name, group.size, group.places, group.producers, group.consumers, group.cells, group.atoms, group.owner
            )
        )
    return tuple(out)


def _rank(key: Ints) -> Ints:
    """How many equal keys stand before each entry."""
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    new = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    start = np.maximum.accumulate(np.where(new, np.arange(len(key)), 0))
    out = np.empty(len(key), np.int64)
    out[order] = np.arange(len(key)) - start
    return out


def _hash(seed: int, *columns: Ints) -> NDArray[np.uint64]:
    """A 64-bit mix of the columns (the finaliser of splitmix64 after each); sums of it identify multisets."""
    value = np.full(len(columns[0]), 0x9E3779B97F4A7C15 * (2 * seed + 1) & 0xFFFFFFFFFFFFFFFF, np.uint64)
    for column in columns:
        value = value * np.uint64(0x2545F4914F6CDD1D) + column.astype(np.uint64) + np.uint64(1)
        value ^= value >> np.uint64(30)
        value *= np.uint64(0xBF58476D1CE4E5B9)
        value ^= value >> np.uint64(27)
        value *= np.uint64(0x94D049BB133111EB)
        value ^= value >> np.uint64(31)
    return value


def _add(total: NDArray[np.uint64], at: Ints, what: NDArray[np.uint64]) -> None:
    np.add.at(total, at, what)
