"""Channels that are interchangeable, gathered into groups: where they live, and which must stay in equal blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from ..frozen import read_only
from ..model.graph import Graph
from .atoms import SlotKey, Tied, ends
from .components import distinct
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
    of a product of activations, which is added up where channels merge (contractions.py); its weights have the role
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
    def parameters(self) -> tuple[Place, ...]:
        """The places in constants."""
        return tuple(p for p in self.places if p.role is not None)


@dataclass(frozen=True)
class Blocked:
    """Atoms of an axis that is `count` equal blocks in a row, at node `where`."""

    atoms: Atoms
    count: int
    where: str
    node: int = 0

    def __post_init__(self) -> None:
        read_only(self)

    def ties(self) -> Iterator[Tied]:
        """All blocks tied to the first, position by position."""
        yield Tied(np.tile(self.atoms[: len(self.atoms) // self.count], self.count), self.atoms, self.node)


@dataclass(frozen=True)
class Channels:
    """All atoms and their channels: `labels` [atoms], and whether each is kept, `pinned` [channels].

    `slots`: the first atom of every axis, and how many it has. `roles`: what nodes use the axes of parameters for.
    """

    slots: Mapping[SlotKey, tuple[int, int]]
    roles: Mapping[SlotKey, Mapping[Role, Sequence[int]]]
    labels: Ints
    pinned: NDArray[np.bool_]

    def __post_init__(self) -> None:
        read_only(self)

    def at(self, key: SlotKey) -> Ints:
        """The channels of an axis."""
        start, size = self.slots[key]
        return self.labels[start : start + size]


@dataclass(frozen=True)
class _Share:
    """All of an axis, or those of its atoms that are `summed` or that are not: a place of its own either way."""

    key: SlotKey
    start: int  # the first atom of the axis
    summed: bool


@dataclass(frozen=True)
class _Numbered:
    """The share that every atom is in, as a number in `shares`, and its `rank`: how many atoms of its channel stand
    before it in that share."""

    shares: Sequence[_Share]
    share: Ints
    rank: Ints

    def __post_init__(self) -> None:
        read_only(self)


def find_groups(
    graph: Graph, channels: Channels, ties: Sequence[Tied], blocks: Sequence[Blocked], summed: Atoms
) -> tuple[tuple[ChannelGroup, ...], dict[str, int]]:
    """Groups of channels that live in the same places in the same way, where these are `summed` and where they are not.

    Returns the groups in file order, and how many channels are kept after all, by the node whose blocks would become
    unequal.
    """
    labels = channels.labels
    if not len(labels):
        return (), {}
    numbered = _numbered(channels, summed)
    group_of = _alike(channels, numbered, ties)
    atoms = np.flatnonzero(group_of[labels] >= 0)
    atoms = atoms[np.lexsort((numbered.rank[atoms], labels[atoms], group_of[labels[atoms]]))]
    found, unequal = [], dict[str, int]()
    blocks_of = dict[int, list[Blocked]]()
    for blocked in blocks:
        for number in distinct(group_of[labels[blocked.atoms]]).tolist():
            blocks_of.setdefault(number, []).append(blocked)
    bounds = np.flatnonzero(np.diff(group_of[labels[atoms]])) + 1
    for members in np.split(atoms, bounds) if len(atoms) else ():
        group = _group(graph, channels, numbered, members)
        if group is None:
            continue
        cells = _cells(group, blocks_of.get(int(group_of[labels[members[0]]]), ()))
        if isinstance(cells, str):
            unequal[cells] = unequal.get(cells, 0) + group.size
        elif group.size > 1:
            found.append(replace(group, cells=cells))
    found.sort(key=lambda g: (min(i for p in g.parameters for i in p.nodes), g.atoms.min()))
    return _unique_names(found), unequal


def _numbered(channels: Channels, summed: Atoms) -> _Numbered:
    """The shares of all axes: those that are not summed first, both in the order of their atoms."""
    keys = sorted(channels.slots, key=lambda key: channels.slots[key][0])
    starts = np.array([channels.slots[key][0] for key in keys], np.int64)
    axis = np.searchsorted(starts, np.arange(len(channels.labels)), side="right") - 1
    divided = distinct(axis[summed])
    share = axis.copy()
    share[summed] = len(keys) + np.searchsorted(divided, axis[summed])
    shares = [_Share(key, channels.slots[key][0], False) for key in keys]
    shares += [replace(shares[number], summed=True) for number in divided.tolist()]
    return _Numbered(shares, share, _rank(channels.labels * len(shares) + share))


def _alike(channels: Channels, numbered: _Numbered, ties: Sequence[Tied]) -> Ints:
    """[channels] the number of the group of every channel, -1 for those that are kept: channels are alike that have the
    same ranks in the same shares, and are tied in the same ways."""
    labels, share, rank = channels.labels, numbered.share, numbered.rank
    signature = np.zeros((len(channels.pinned), 2), np.uint64)
    a, b = ends(ties)
    tie = np.repeat(np.arange(len(ties)), [len(one.a) for one in ties])  # all ties at once: a graph has many short ones
    for column in (0, 1):
        _add(signature[:, column], labels, _hash(column, share, rank, np.zeros_like(rank)))
        _add(signature[:, column], labels[a], _hash(column, -1 - tie, rank[a], rank[b]))
    free = np.flatnonzero(~channels.pinned)
    _, same = np.unique(signature[free], axis=0, return_inverse=True)
    group_of = np.full(len(channels.pinned), -1, np.int64)
    group_of[free] = same.ravel()
    return group_of


def _group(graph: Graph, channels: Channels, numbered: _Numbered, atoms: Atoms) -> ChannelGroup | None:
    """The channels of `atoms`, sorted by channel and rank; None where no parameter makes them."""
    roles, share, rank = channels.roles, numbered.share[atoms], numbered.rank[atoms]
    shares = {int(number): numbered.shares[number] for number in distinct(share)}
    made = [n for n, one in shares.items() if not one.summed and Role.PRODUCES in roles.get(one.key, {})]
    if not made:
        return None
    weights = [n for n in made if len(graph.tensor(shares[n].key[0]).shape or ()) > 1] or made
    first = min(weights, key=lambda n: (roles[shares[n].key][Role.PRODUCES][0], n))
    # channels in the order of their first atom in the first place that makes them
    lead = np.sort(atoms[(share == first) & (rank == 0)])
    owner = _index(channels.labels[lead], channels.labels[atoms])
    order = np.lexsort((rank, owner, share))
    runs = np.split(atoms[order], np.flatnonzero(np.diff(share[order])) + 1)
    places = [
        _place(one, roles.get(one.key, {}), run.reshape(len(lead), -1) - one.start)
        for one, run in zip(shares.values(), runs, strict=True)
    ]
    wide = [shares[n].key for n in weights]
    producers = {i for p in places if (p.tensor, p.axis, p.blocks) in wide for i in p.nodes}
    consumers = {i for p in places if p.role is Role.CONSUMES for i in p.nodes}
    by_owner = np.argsort(owner, kind="stable")
    return ChannelGroup(
        graph.nodes[roles[shares[first].key][Role.PRODUCES][0]].label, len(lead), tuple(places),
        tuple(graph.nodes[i].label for i in sorted(producers)), tuple(graph.nodes[i].label for i in sorted(consumers)),
        np.zeros(len(lead), np.int64), atoms[by_owner], owner[by_owner],
    )  # fmt: skip


def _place(share: _Share, used: Mapping[Role, Sequence[int]], positions: Ints) -> Place:
    tensor, axis, blocks = share.key
    role = next(iter(used), None)
    nodes = tuple(used[role]) if role else ()
    return Place(tensor, axis, blocks, Role.CONSUMES if role and share.summed else role, positions, nodes, share.summed)


def _index(values: Ints, wanted: Ints) -> Ints:
    """Where each of `wanted` stands among `values`, which are all different."""
    order = np.argsort(values)
    return np.asarray(order[np.searchsorted(values, wanted, sorter=order)], np.int64)


def _cells(group: ChannelGroup, blocks: Sequence[Blocked]) -> Ints | str:
    """The block of every channel, all constraints together; the name of a node whose blocks would become unequal."""
    keys: list[Ints] = []
    for blocked in blocks:
        order = np.argsort(blocked.atoms)
        at = np.searchsorted(blocked.atoms, group.atoms, sorter=order)
        at = order[np.minimum(at, len(order) - 1)]
        mine = blocked.atoms[at] == group.atoms
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


def _unique_names(groups: Iterable[ChannelGroup]) -> tuple[ChannelGroup, ...]:
    seen: dict[str, int] = {}
    out = []
    for group in groups:
        seen[group.name] = seen.get(group.name, 0) + 1
        out.append(group if seen[group.name] == 1 else replace(group, name=f"{group.name}:{seen[group.name]}"))
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
