"""Which groups nothing can be said of while some bodies of If, Loop and Scan do not run."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import pairwise

from ..model.graph import Graph
from ..model.model import Model
from ..model.subgraphs import Body, opened
from .groups import ChannelGroup


@dataclass(frozen=True)
class Bodies:
    """The `opened` bodies of a model by number: their `starts` among the nodes of the `graph`, with the end."""

    graph: Graph
    bodies: tuple[Body, ...]
    starts: tuple[int, ...]

    @classmethod
    def of(cls, model: Model) -> Bodies:
        """Those of a model."""
        bodies, starts = opened(model.proto), [model.graph.main]
        for body in bodies:
            starts.append(starts[-1] + len(body.graph.node))
        return cls(model.graph, tuple(bodies), tuple(starts))

    def blind(self, groups: Iterable[ChannelGroup], idle: Collection[int]) -> dict[str, str]:
        """The groups that live in `idle` bodies, which do not run, or in what only these use: why, by name."""
        if not idle:
            return {}
        unused = self._needed(()) - self._needed(idle)
        found = {group.name: unused & _users(self.graph, group) for group in groups}
        return {name: self._reason(nodes, idle) for name, nodes in found.items() if nodes}

    def _needed(self, idle: Collection[int]) -> set[int]:
        """The nodes that the outputs come from, where `idle` bodies give nothing."""
        graph, given = self.graph, dict[int, list[str]]()
        for number, body in enumerate(self.bodies):
            if number not in idle:
                owner = next(graph.producer[name] for name in body.owner.output if name)
                given.setdefault(owner, []).extend(value.name for value in body.graph.output)
        waiting, found = list(graph.outputs), set[int]()
        while waiting:
            index = graph.producer.get(waiting.pop())
            if index is not None and index not in found:
                found.add(index)
                node = graph.nodes[index]
                waiting += [*node.inputs, *node.captures, *given.get(index, ())]
        return found

    def _reason(self, nodes: Collection[int], idle: Collection[int]) -> str:
        inside = [
            body
            for number, (body, (start, end)) in enumerate(zip(self.bodies, pairwise(self.starts), strict=True))
            if number in idle and any(start <= index < end for index in nodes)
        ]
        if not inside:
            return "used only in subgraphs that no input reached: pass `calibration` data that reaches them"
        return f"inside {_named(inside[0])} that no input reached: pass `calibration` data that reaches it"


def _users(graph: Graph, group: ChannelGroup) -> set[int]:
    """The nodes that make or use a tensor of a group."""
    tensors = {place.tensor for place in group.places}
    found = {graph.producer[name] for name in tensors if name in graph.producer}
    return found.union(*(graph.consumers.get(name, ()) for name in tensors))


def _named(body: Body) -> str:
    """A body, for people."""
    owner = body.owner
    what = "a branch of If" if owner.op_type == "If" else f"the body of {owner.op_type}"
    return what + (f" '{owner.name}'" if owner.name else "")
