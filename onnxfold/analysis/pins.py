"""What is kept and why: channels and parameters by reason, the dearest first."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, NodeProto, TensorProto

from ..frozen import read_only
from ..model.constants import FLOATS, WEIGHT_TYPES
from ..model.model import Model
from ..model.subgraphs import Body, every_node, opened, subgraphs
from .atoms import AtomTable, SlotKey
from .groups import Channels, Role
from .rules.facts import Atoms

GRAPH_INPUT, GRAPH_OUTPUT = "a graph input", "a graph output"
_SETTINGS = frozenset(("Resize", "Upsample", "OneHot"))  # the constants they read, but for the first, are no weights


@dataclass(frozen=True)
class Reason:
    """Why channels are kept: `kind` is the sentence that refusals are grouped by, `where` the node or tensor."""

    kind: str
    where: str

    def __str__(self) -> str:
        return f"{self.kind} ('{self.where}')"


@dataclass(frozen=True, eq=False)
class Pin:
    """Atoms that are kept, and why."""

    atoms: Atoms
    reason: Reason

    def __post_init__(self) -> None:
        if self.atoms.flags.writeable:  # few are, and there are many pins
            read_only(self)


def pins_of(table: AtomTable, names: Iterable[str], reason: Reason) -> Iterator[Pin]:
    """Pins for all axes of the tensors `names`."""
    for key in table.touched(names):
        yield Pin(table.axis(*key).atoms, reason)


@dataclass(frozen=True)
class Refusal:
    """Channels that are kept for one reason: how many, the nodes or tensors that keep them, and what that costs.

    `parameters` counts the numbers of weights that no group reaches along any axis, by the reason why the channels that
    they make are kept (or those that they read, where they make an output of the model).
    """

    kind: str
    channels: int
    where: tuple[str, ...]
    parameters: int = 0


@dataclass(frozen=True)
class Kept:
    """What the analysis knows when all is settled.

    `reasons` [channels]: the first `Reason` to keep a channel, None where there is none. `unequal` counts channels that
    are kept after all, by the node whose blocks would become unequal. `reached` [atoms] tells what is in a group.
    """

    channels: Channels
    reasons: NDArray[np.object_]
    unequal: Mapping[str, int]
    reached: NDArray[np.bool_]

    def __post_init__(self) -> None:
        read_only(self)

    def reasons_at(self, key: SlotKey) -> Iterator[Reason]:
        """Those of all kept channels of an axis."""
        yield from filter(None, self.reasons[self.channels.at(key)])


def refusals(model: Model, kept: Kept) -> tuple[Refusal, ...]:
    """All reasons, those that cost most parameters first."""
    channels, cost = Counter[Reason](), Counter[Reason]()
    known = kept.channels
    counted = np.zeros(len(known.pinned), bool)
    for key, roles in known.roles.items():
        if Role.PRODUCES in roles and len(model.graph.tensor(key[0]).shape or ()) > 1:
            counted[known.at(key)] = True
    channels.update(kept.reasons[counted & known.pinned])
    for where, count in kept.unequal.items():
        channels[Reason("its blocks would end up with different sizes", where)] += count
    axes: dict[str, list[SlotKey]] = {}
    for key in known.slots:
        axes.setdefault(key[0], []).append(key)
    for name, user in _weights(model):
        cost.update(_unreached(model, kept, name, axes.get(name, []), user))
    protos, bodies = every_node(model.proto), opened(model.proto)
    for node in model.graph.nodes:
        inside = _inside(protos[node.index], bodies)
        if inside:
            cost[Reason(f"a weight inside the body of {node.op}", node.label)] += inside
    kinds: dict[str, list[Reason]] = {}
    for reason in dict.fromkeys([*channels, *cost]):
        kinds.setdefault(reason.kind, []).append(reason)
    found = [
        Refusal(
            kind, sum(channels[r] for r in of), tuple(dict.fromkeys(r.where for r in of)),
            round(sum(cost[r] for r in of)),
        ) for kind, of in kinds.items()
    ]  # fmt: skip
    return tuple(
        sorted((r for r in found if r.channels or r.parameters), key=lambda r: (-r.parameters, -r.channels, r.kind))
    )


def parameters(model: Model) -> int:
    """The floating-point numbers in all weights that meet data, those inside bodies included."""
    outside = sum(_count(model, name) for name, _ in _weights(model))
    bodies = opened(model.proto)
    return outside + sum(_inside(node, bodies) for node in every_node(model.proto))


def _count(model: Model, name: str) -> int:
    """How many numbers are stored of a weight."""
    sparse = model.constants.numbers(name)
    whole = math.prod(d if isinstance(d, int) else 1 for d in model.graph.tensor(name).shape or ())
    return whole if sparse is None else sparse


def _weights(model: Model) -> Iterator[tuple[str, str]]:
    """Constants of several numbers that meet data, with the first node that uses each: floats and 8-bit weights."""
    graph, constants = model.graph, model.constants
    parts = ((one, slot) for one in constants.stored.values() for slot in (one.slots.scale, one.slots.zero))
    seen = {constants.part_name(one, slot) for one, slot in parts if slot is not None}  # how others are stored
    for node in graph.nodes:
        if model.constants.made_by(node):
            continue
        for name in node.inputs[:1] if node.op in _SETTINGS else (*node.inputs, *node.captures):
            info, once = graph.tensor(name), model.tied.stored(name)
            if name in model.constants and not seen.intersection((name, once)) and info.dtype in WEIGHT_TYPES:
                seen.update((name, once))
                if _count(model, name) > 1 and (info.dtype in FLOATS or len(info.shape or ()) > 1):
                    yield name, node.label


def _unreached(model: Model, kept: Kept, name: str, keys: Sequence[SlotKey], user: str) -> Mapping[Reason, int]:
    """Numbers of weight `name`, of axes `keys`, that lie in no group at all, by the reason why what it makes is kept.

    What it reads is blamed where it makes an output of the model, which nothing can change.
    """
    known, left = kept.channels, float(_count(model, name))
    for axis in {key[1] for key in keys}:
        spans = [known.slots[key] for key in keys if key[1] == axis]
        left *= 1 - max(float(kept.reached[at : at + size].sum()) / max(1, size) for at, size in spans)
    if left < 0.5:
        return {}
    used = sorted(
        [k for k in keys if k in known.roles] or keys, key=lambda k: Role.PRODUCES not in known.roles.get(k, {})
    )
    blamed = [Counter(kept.reasons_at(key)) for key in used]
    blamed.sort(key=lambda causes: all(reason.kind in (GRAPH_INPUT, GRAPH_OUTPUT) for reason in causes))
    if not blamed or not blamed[0]:
        told = any(key in known.roles for key in keys)
        return {
            Reason("its channels form no group" if told else "no operator rule covers this weight", user): round(left)
        }
    return {reason: round(left * times / blamed[0].total()) for reason, times in blamed[0].items()}


def _inside(node: NodeProto, bodies: Sequence[Body]) -> int:
    """Floating-point numbers stored in those bodies of a node that are not opened."""
    total = 0
    for body in subgraphs(node):
        if any(body is one.graph for one in bodies):
            continue
        tensors: list[TensorProto] = list(body.initializer)
        for inner in body.node:
            total += _inside(inner, bodies)
            tensors += [a.t for a in inner.attribute if a.type == AttributeProto.TENSOR]
        total += sum(math.prod(t.dims) for t in tensors if t.data_type in FLOATS)
    return total
