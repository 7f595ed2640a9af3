"""Where two versions of a model are compared: at their outputs, and at the outputs of blocks.

The output of a block is a tensor that everything goes through, as the streams of ResNets do, the layers of a chain, the
concatenations of DenseNet; or a sum of activations, as the branches of detectors join. Of several with no linear node
between them, it is the last. Names that a framework gives play no role.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto

from ...frozen import read_only
from ...model.subgraphs import captures
from ...runtime.autodiff.prepare import shapes_of
from .variables import LINEAR

Floats = NDArray[np.float32]
_LENGTHS = frozenset(("Shape", "Size"))  # they read no values


@dataclass(frozen=True, eq=False)
class Map:
    """How `axis` of a tensor changes: new channels = `matrix` [new, old] times the old ones."""

    axis: int
    matrix: Floats = field(repr=False)

    def __post_init__(self) -> None:
        read_only(self)


@dataclass(frozen=True, eq=False)
class Counterparts:
    """Which activations of a compressed model correspond to which of the original, where these are not just the same.

    `maps`: by activation, how its channels follow from the original's; None where they cannot be compared. `aims`: by
    activation of the compressed model, the one of the original that it should equal, where that has another name
    (blocks between the two were dropped).
    """

    maps: Mapping[str, Map | None] = field(default_factory=dict)
    aims: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """The tensor `name` of the compressed model should equal `source` of the original, after `map` (None: as it is).
    `tokens`: it holds scores of tokens on its last axis (runtime/token_scores.py)."""

    name: str
    source: str
    map: Map | None = None
    tokens: bool = False


def blocks(before: GraphProto, after: GraphProto, pairs: Counterparts, without: Container[str]) -> list[Target]:
    """The outputs of blocks of `after` that can be compared with activations of `before`, see `pairs`.

    Both graphs with static shapes; `without`: tensors that are compared anyway.
    """
    old, new = shapes_of(before), shapes_of(after)
    found: list[Target] = []
    waiting: Target | None = None
    begun = False  # nothing before the first linear node differs
    candidates = _through(after) | _sums(after, new)
    for node in after.node:
        if node.op_type in LINEAR:
            found += [waiting] if waiting is not None else []
            waiting, begun = None, True
        for name in node.output:
            source = pairs.aims.get(name, name)
            if begun and name in candidates and name not in without and source in old and name in new:
                if waiting is not None and waiting.name in pairs.aims:
                    continue  # what follows it is not like its own counterpart either
                target = _comparable(name, source, old[source], new[name], pairs.maps)
                waiting = target or waiting
    return found


def _comparable(
    name: str, source: str, old: Sequence[int], new: Sequence[int], maps: Mapping[str, Map | None]
) -> Target | None:
    how = maps.get(source)
    if how is not None:
        mapped = list(old)
        mapped[how.axis] = how.matrix.shape[0]
        fits = how.matrix.shape[1] == old[how.axis] and tuple(mapped) == tuple(new)
        return Target(name, source, how) if fits else None
    return Target(name, source) if source not in maps and tuple(old) == tuple(new) else None


def _through(graph: GraphProto) -> set[str]:
    """The activations that every path from the inputs on goes through: nothing else is alive once they are made."""
    active = _activations(graph)
    last: dict[str, int] = {v.name: len(graph.node) for v in graph.output}
    for index, node in enumerate(graph.node):
        for name in _read(node):
            if name in active:
                last[name] = max(index, last.get(name, -1))
    alive = {v.name for v in graph.input if v.name in active and v.name in last}
    found: set[str] = set()
    for index, node in enumerate(graph.node):
        alive.update(name for name in node.output if name in active and last.get(name, -1) > index)
        alive = {name for name in alive if last[name] > index}
        if len(alive) == 1:
            found |= alive & set(node.output)
    return found


def _sums(graph: GraphProto, shapes: Mapping[str, Sequence[int]]) -> set[str]:
    """The sums of two or more activations of one shape."""
    active = _activations(graph)
    found: set[str] = set()
    for node in graph.node:
        if node.op_type in ("Add", "Sum") and len(set(node.input)) > 1:
            own = shapes.get(node.output[0])
            if own is not None and all(name in active and shapes.get(name) == own for name in node.input):
                found.add(node.output[0])
    return found


def _activations(graph: GraphProto) -> set[str]:
    """The float tensors that depend on an input."""
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.value_info, *graph.output)}
    fixed = {t.name for t in graph.initializer}
    moving = {v.name for v in graph.input} - fixed
    for node in graph.node:
        if moving.intersection(_read(node)):
            moving.update(filter(None, node.output))
    return {name for name in moving if kinds.get(name, TensorProto.FLOAT) == TensorProto.FLOAT}


def _read(node: NodeProto) -> Sequence[str]:
    return () if node.op_type in _LENGTHS else (*filter(None, node.input), *captures(node))
