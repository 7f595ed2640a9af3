"""Which residual streams may change their basis: all that touches one must be linear in it, or a norm that scales all
channels alike.

Anything else (a gate per channel, an activation on the stream, a part of it cut out) sees single channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..frozen import read_only
from ..model.graph import Node
from ..model.model import Model
from .groups import ChannelGroup, Role
from .result import Analysis, OverChannels
from .spreads import spread, squared

CENTERED = ("LayerNormalization", "SkipLayerNormalization")
_ROOTS = ("RMSNormalization", "SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization")
_SUMS = ("Add", "Sub", "Sum")
SHAPED = (
    "Identity", "Cast", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Gather", "Expand",
    "Dropout",
)  # fmt: skip
_LINEAR = (*_SUMS, *SHAPED, "MatMul", "Gemm", "FusedMatMul", "Conv", "Concat", "Split", "Shape", "Neg")


@dataclass(frozen=True)
class Stream:
    """A group whose channels norms go over: `norms` by what they give, the statistic where they are written out."""

    model: Model = field(repr=False)
    group: ChannelGroup
    norms: Mapping[str, OverChannels]

    def __post_init__(self) -> None:
        read_only(self)

    @property
    def centered(self) -> bool:
        """Whether some norm takes a mean off."""
        return any(one.scale and self.model.graph.nodes[one.node].op in CENTERED for one in self.norms.values())

    def positions(self, tensor: str, axis: int) -> NDArray[np.int64]:
        """[n, r] where the channels are along an axis of a tensor that holds them all."""
        return next(p.positions for p in self.group.places if (p.tensor, p.axis) == (tensor, axis))

    def obstacle(self) -> str:
        """Why its basis cannot change, in words; '' if it can."""
        return next(self._obstacles(), "")

    def _obstacles(self) -> Iterator[str]:
        graph, group = self.model.graph, self.group
        if group.blocks > 1 or any(not self._whole(i) for i in range(len(group.places))):
            yield "a part of it is used alone"
        if any(place.tensor in self.model.constants.stored for place in group.parameters):
            yield "some of its weights are stored as integers"
        yield from self._norm_obstacles()
        tensors = {place.tensor for place in group.places}
        nodes = {i for p in group.places for i in (*p.nodes, *graph.consumers.get(p.tensor, ()))}
        nodes |= {graph.producer[p.tensor] for p in group.places if p.tensor in graph.producer}
        for index in sorted(nodes):
            if not self._keeps(graph.nodes[index], tensors):
                yield f"{graph.nodes[index].op} ('{graph.nodes[index].label}') works on single channels"
        if self.centered:
            for place in group.parameters:
                for index in place.nodes if place.role is Role.CONSUMES else ():
                    if not self._behind(graph.nodes[index].inputs[0]):
                        yield f"'{graph.nodes[index].label}' reads it without a norm"

    def _behind(self, tensor: str) -> bool:
        """Whether a tensor is what a norm gives, in another shape or in part."""
        graph = self.model.graph
        while tensor not in self.norms:
            index = graph.producer.get(tensor)
            if index is None or graph.nodes[index].op not in SHAPED:
                return False
            tensor = graph.nodes[index].inputs[0]
        return True

    def _norm_obstacles(self) -> Iterator[str]:
        """Norms have to be of one kind, and to scale all channels alike."""
        kinds = set()
        for norm in self.norms.values():
            node = self.model.graph.nodes[norm.node]
            written = not norm.scale and spread(self.model.graph, self.model.constants, node)
            if not written and node.op not in (*CENTERED, *_ROOTS):
                yield f"{node.op} ('{node.label}') is no norm whose mean can be taken into what comes before"
            elif norm.scale and uniform(self.model, norm.scale) is None:
                yield f"the scale of '{node.label}' cannot be taken into what reads it"
            elif norm.scale and self._shifts(node, norm.scale):
                yield f"the shift of '{node.label}' has no bias to go to"
            kinds.add(node.op in CENTERED)
        if len(kinds) > 1:
            yield "some of its norms take a mean off, and others do not"

    def _shifts(self, node: Node, scale: str) -> bool:
        """Whether a norm adds a number per channel, of which a change of basis may lose some."""
        at = list(node.inputs).index(scale) + 1
        shift = node.inputs[at] if node.op in CENTERED and len(node.inputs) > at else ""
        return bool(shift) and not (shift in self.model.constants and uniform(self.model, shift) == 0.0)

    def _whole(self, number: int) -> bool:
        place = self.group.places[number]
        shape = self.model.graph.tensor(place.tensor).shape or ()
        every = np.arange(self.group.size)[:, None]
        plain = place.blocks == 1 and not place.summed and np.array_equal(place.positions, every)
        return plain and shape[place.axis] == self.group.size

    def _keeps(self, node: Node, tensors: set[str]) -> bool:
        """Whether a node that has the stream does the same in any basis."""
        if any(one.node == node.index for one in self.norms.values()):
            return True
        if node.op in ("Mul", "Div", "Pow"):
            return self._scales(node, tensors)
        if node.op == "ReduceMean":  # over other axes: this one would be a norm
            return True
        if node.op == "Expand" and node.inputs[0] not in tensors:  # all channels alike: what they may be divided by
            users = [self.model.graph.nodes[i] for i in self.model.graph.consumers.get(node.outputs[0], ())]
            return all(user.op == "Mul" or (user.op == "Div" and user.inputs[1] == node.outputs[0]) for user in users)
        if node.op in _SUMS:
            return all(name in tensors for name in node.inputs)
        if node.op == "Conv" and node.attrs.get("group", 1) != 1:
            return False
        if node.op in ("Gemm", "Conv") and node.outputs[0] in tensors:  # a bias of one number is no direction
            return not any(node.inputs[2:3]) or node.inputs[2] in tensors
        return node.op in _LINEAR and (not node.domain or node.op == "FusedMatMul")

    def _squares(self, tensor: str) -> bool:
        return any(True for _ in squared(self.model.graph, self.model.constants, tensor))

    def _scales(self, node: Node, tensors: set[str]) -> bool:
        """Whether a product squares the stream for a norm, or scales all channels alike."""
        if self._squares(node.outputs[0]):
            users = self.model.graph.consumers.get(node.outputs[0], ())
            return {one.node for one in self.norms.values()}.issuperset(users)
        if node.op == "Pow":
            return False
        mine = [name for name in node.inputs if name in tensors and not self._alike(name, tensors)]
        fixed = [name for name in node.inputs if name in tensors and name in self.model.constants]
        if node.op == "Div" and node.inputs[0] not in mine:
            return False
        return len(mine) == 1 and all(uniform(self.model, name) is not None for name in fixed)

    def _alike(self, name: str, tensors: set[str]) -> bool:
        """Whether a tensor is a constant, or holds one number for all channels."""
        producer = self.model.graph.producer.get(name)
        node = None if producer is None else self.model.graph.nodes[producer]
        expanded = node is not None and node.op == "Expand" and node.inputs[0] not in tensors
        return expanded or name in self.model.constants


def streams(model: Model, analysis: Analysis) -> dict[str, Stream]:
    """The groups of `analysis` whose channels norms go over, by name."""
    found = {}
    for group in analysis.groups:
        at = {(p.tensor, p.axis) for p in group.places}
        nodes = {one: model.graph.nodes[one.node] for one in analysis.over_channels}
        norms = {node.outputs[0]: one for one, node in nodes.items() if (node.inputs[0], one.axis) in at}
        if norms:
            found[group.name] = Stream(model, group, norms)
    return found


def uniform(model: Model, name: str) -> float | None:
    """The one number that a constant consists of; None where there are several."""
    values: NDArray[np.floating] = np.asarray(model.constants.array(name), np.float64)
    first = float(values.flat[0]) if values.size else 1.0
    return first if bool((values == first).all()) else None
