"""What planning needs to know of a model's channel groups: widths and their limits, equal cells, weights, consumers."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..analysis.costs import Dim, Dims
from ..analysis.extract import gather
from ..analysis.groups import ChannelGroup, Place, Role
from ..analysis.result import Analysis
from ..folding.group_weights import GroupWeights
from ..model.graph import Node
from ..model.linear import RECURRENT
from ..model.model import Model
from ..recovery.moments import fit_work
from ..transform.edits import removed_atoms
from .allocation import BLOCK, Width
from .goal import Goal


@dataclass(frozen=True, eq=False)
class GroupLayout:
    """The channel groups of `model`, which `analysis` found, by name."""

    model: Model
    analysis: Analysis
    groups: Mapping[str, ChannelGroup] = field(repr=False)
    _gone: dict[tuple[str, int], Mapping[int, int]] = field(default_factory=dict, repr=False, init=False)

    @classmethod
    def of(cls, model: Model, analysis: Analysis) -> GroupLayout:
        """All groups of a model."""
        return cls(model, analysis, {group.name: group for group in analysis.groups})

    def widths(self, names: Iterable[str], goal: Goal | None = None) -> list[Width]:
        """What allocation needs of these groups; with a `goal`, widths are also multiples of what its kernels compute
        at once (None: any multiple of what the goal rounds to)."""
        return [self._width(self.groups[name], goal) for name in names]

    def cells(self, name: str) -> NDArray[np.int64] | None:
        """[n] the cell of every channel of group `name` (clusters stay within cells, and all cells keep equally many
        channels); None where there is only one."""
        group = self.groups[name]
        return group.cells if group.blocks > 1 else None

    def weights(self, name: str) -> GroupWeights:
        """All parameters of group `name`."""
        return gather(self.model, self.analysis, self.groups[name])

    def fit_work(self, names: Iterable[str], rows: int) -> float:
        """Multiplications and additions to fit the consumers of these groups, each consumer once, on so many `rows` at
        least: for the moments of its inputs, and to solve for its weights."""
        consumers = {p.tensor: self._features(p) for name in names for p in self._consuming(name) if not p.summed}
        return sum(map(partial(fit_work, rows=rows), consumers.values()))

    def _features(self, place: Place) -> int:
        """How many inputs a consumer has: all its channels, times the kernel."""
        shape = self.model.graph.tensor(place.tensor).shape or ()
        return math.prod(d for i, d in enumerate(shape) if isinstance(d, int) and (i == place.axis or i >= 2))

    def consumer_outputs(self, name: str) -> frozenset[str]:
        """The tensors that the consumers of a group make."""
        nodes = self.model.graph.nodes
        return frozenset(output for p in self._consuming(name) for i in p.nodes for output in nodes[i].outputs)

    def is_read_by_recurrent(self, name: str) -> bool:
        """Whether a consumer of a group is an LSTM, GRU or RNN."""
        nodes = self.model.graph.nodes
        return any(nodes[i].op in RECURRENT for p in self._consuming(name) for i in p.nodes)

    def lengths(self, keep: Mapping[str, int]) -> Mapping[tuple[str, int], int]:
        """New axis lengths, by (tensor, axis), where groups keep so many channels."""
        mine = (name for name in keep if name in self.groups)
        return self.analysis.shortened(pair for name in mine for pair in self._gone_atoms(name, keep[name]))

    def _gone_atoms(self, name: str, keep: int) -> Iterable[tuple[int, int]]:
        """By number of every slot, the atoms that go where group `name` keeps so many channels. It is remembered: plans
        are priced a hundred thousand times."""
        if (name, keep) not in self._gone:
            group = self.groups[name]
            self._gone[name, keep] = self.analysis.gone(removed_atoms(group, _first(group, keep)))
        return self._gone[name, keep].items()

    def linked(self, terms: Iterable[Dims]) -> Mapping[str, Collection[str]]:
        """By group, itself and those that have an axis in one of these products with it: where all others change, what
        it takes from the sum of the products stays the same."""
        slots = list(self.analysis.slots)
        inside = dict[Dim, set[str]]()
        for name, group in self.groups.items():
            for slot in self.analysis.gone(group.atoms):
                inside.setdefault(slots[slot][:2], set()).add(name)
        found = {name: {name} for name in self.groups}
        for term in terms:
            names = set[str]().union(*(inside.get(dim, ()) for dim in term))
            for name in names:
                found[name] |= names
        return found

    def _width(self, group: ChannelGroup, goal: Goal | None) -> Width:
        multiple = 1 if goal is None else self._multiple(group, goal)
        return Width(group.name, group.size, group.blocks, self._block(group), self._run(group), multiple)

    def _multiple(self, group: ChannelGroup, goal: Goal) -> int:
        """What the kernels of a group need a multiple of. Those of INT8: grouped convolutions (depthwise ones above
        all) take twice as long where their channels are no whole blocks. A group of one block may be halved."""
        grouped = goal.quantized and any(node.attrs.get("group", 1) > 1 for node in self._nodes(group))
        blocks = goal.blocks
        if blocks is None:
            return BLOCK if grouped else 1
        convolved = any("Conv" in node.op for node in self._nodes(group))
        block = (blocks.int8 if goal.quantized else blocks.conv) if convolved else blocks.linear
        return block if grouped or group.size * self._run(group) > block else 1

    def _run(self, group: ChannelGroup) -> int:
        """How many positions a channel takes in the weights that kernels multiply by: 1, or the dimension of a head.

        What only accompanies these counts for nothing: a table of relative positions, scales and gates have one
        position per head, while queries, keys and values have its whole dimension.
        """
        places, nodes = group.parameters, self.model.graph.nodes
        convolved = [_taken(p) for p in places if any("Conv" in nodes[i].op for i in p.nodes)]
        widest = [max((_taken(p) for p in places if p.role is role), default=0) for role in Role]
        return min(filter(None, [*widest, *convolved]))

    def _block(self, group: ChannelGroup) -> int:
        """How many channels the kernels that make a group compute at once, or share a scale where they are read."""
        stored = self.model.constants.stored
        here = [(p.axis, stored[p.tensor]) for p in group.parameters if p.tensor in stored]
        shared = max((one.block for axis, one in here if axis == one.axis), default=0)
        return shared or (BLOCK if any("Conv" in node.op for node in self._nodes(group)) else 1)

    def _nodes(self, group: ChannelGroup) -> Iterator[Node]:
        """Those that have a parameter with channels of the group."""
        return (self.model.graph.nodes[i] for p in group.parameters for i in p.nodes)

    def _consuming(self, name: str) -> Iterator[Place]:
        return (p for p in self.groups[name].parameters if p.role is Role.CONSUMES)


def _taken(place: Place) -> int:
    """The positions of one channel."""
    return int(place.positions.shape[1])


def _first(group: ChannelGroup, keep: int) -> NDArray[np.int64]:
    """Some `keep` channels, equally many of every cell: which ones does not matter for lengths."""
    each = keep // group.blocks
    return np.sort(np.concatenate([np.flatnonzero(group.cells == c)[:each] for c in range(group.blocks)]))
