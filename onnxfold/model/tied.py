"""Weights that a graph makes of stored tensors: which can be written back, and which stand on the same tensor.

A *view* is what steps that can be undone (expressions.py) make of one stored tensor. All constants that are made of the
same tensors, directly or not, and are used as weights, are one *family*: what becomes of one concerns the others.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
from onnx import NodeProto, TensorProto, helper

from ..frozen import read_only
from .constants import FLOATS, Constants
from .expressions import SELECTS, Array, made_axes, made_shape, source
from .graph import Graph
from .linear import WEIGHTS

SMALL = 1024  # numbers of a list that a step reads, at most
_INDICES = 2**22  # integers that select from a table, at most
NO_WEIGHTS = frozenset((TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL, TensorProto.STRING))


@dataclass(frozen=True)
class View:
    """What the nodes `steps` (indices) make of the stored tensor `root`; `tensors`: all from `root` to `name`.

    `axes`: the axis of `root` that each of its axes is, None where it is no single one. `part`: it may hold only some
    of `root`.
    """

    name: str
    root: str
    steps: tuple[int, ...] = ()
    tensors: tuple[str, ...] = ()
    axes: tuple[int | None, ...] = ()
    part: bool = False


@dataclass(frozen=True)
class Family:
    """Weights that stand on the same stored tensors: `leaves`, of which some may be among the `roots` themselves.

    `matrix`: whether a root is more than a vector, or multiplies like one. `viewed`: all leaves are views of one root,
    or it has only one use. `grows`: storing those that are more than vectors, each in the type of its roots, takes more
    bytes than the roots; `spread`: because one holds more numbers than these.
    """

    roots: tuple[str, ...]
    leaves: tuple[str, ...]
    matrix: bool
    viewed: bool
    grows: bool
    spread: bool

    @property
    def tied(self) -> bool:
        """Whether several weights are views of one matrix: their edits must agree, and it is stored once."""
        return self.viewed and self.matrix and len(self.leaves) > 1

    @property
    def kept(self) -> bool:
        """Whether its weights must stay as they are, because nothing can be written back without growing (tables that
        are spread out cost little beside what they let fold)."""
        return self.matrix and not self.viewed and self.grows and not self.spread


@dataclass(frozen=True, eq=False)
class Tied:
    """The views and families of a model. `kinds`: the ONNX type that a leaf which is no view is stored in, where that
    is not its own."""

    views: Mapping[str, View] = field(repr=False)
    families: tuple[Family, ...]
    kinds: Mapping[str, int]

    def __post_init__(self) -> None:
        read_only(self)

    @cached_property
    def family(self) -> Mapping[str, Family]:
        """The families, by leaf."""
        return {name: one for one in self.families for name in one.leaves}

    def stored(self, name: str) -> str:
        """The tensor that a tied weight stands for: its root; `name` for all others."""
        family = self.family.get(name)
        return family.roots[0] if family is not None and family.tied else name

    def place(self, name: str, axis: int) -> tuple[str, int]:
        """An axis of a weight, or that of the stored tensor which it is where that is tied."""
        root, view = self.stored(name), self.views.get(name)
        at = None if root == name or view is None else view.axes[axis]
        return (name, axis) if at is None else (root, at)


def find_tied(graph: Graph, constants: Constants, protos: list[NodeProto]) -> Tied:
    """All views and families of a model of these `protos` (one for every node of its graph)."""
    sources, leaves = _sources(graph, constants), _leaves(graph, constants)
    views = _views(graph, constants, protos)
    groups = defaultdict[str, list[str]](list)
    together = _Joined()
    for name in leaves:
        roots = sources.get(name, frozenset())
        for root in roots:
            together.join(min(roots), root)
    for name in leaves:
        if sources.get(name):
            groups[together.of(min(sources[name]))].append(name)
    families, kinds = list[Family](), dict[str, int]()
    for members in groups.values():
        stored = sorted({root for name in members for root in sources[name]})
        if sorted(members) == stored:
            continue  # tensors used as they are
        seen = [views[name] for name in members if name in views]
        viewed = len(stored) == 1 and len(seen) == len(members) and (len(seen) == 1 or not any(v.part for v in seen))
        own = {name: _kind(graph, sources[name], name) for name in members if name not in views}
        kinds.update({name: kind for name, kind in own.items() if kind != graph.tensor(name).dtype})
        taken = sum(_bytes(graph, name, own.get(name, 0)) for name in members if _is_matrix(graph, name))
        grows = taken > sum(_bytes(graph, root) for root in stored)
        matrix = any(_is_matrix(graph, name) for name in stored) or any(_multiplies(graph, name) for name in members)
        spread = max(_size(graph, name) for name in members) > sum(_size(graph, root) for root in stored)
        families.append(Family(tuple(stored), tuple(members), matrix, viewed, grows, spread))
    return Tied(views, tuple(families), kinds)


class _Joined:
    """Names that are joined to others, by the one that stands for them."""

    def __init__(self) -> None:
        self._above: dict[str, str] = {}

    def of(self, name: str) -> str:
        while name in self._above:
            name = self._above[name]
        return name

    def join(self, a: str, b: str) -> None:
        a, b = self.of(a), self.of(b)
        if a != b:
            self._above[max(a, b)] = min(a, b)


def _sources(graph: Graph, constants: Constants) -> dict[str, frozenset[str]]:
    """The stored tensors that every constant is made of, but for lists, single numbers, and integers that are stored
    floats."""
    found, quantized = dict[str, frozenset[str]](), {*constants.stored, *constants.unwritable}
    for name in constants.names:
        if name not in graph.producer and name not in quantized and _weighs(graph, name):
            found[name] = frozenset((name,))
    for node in graph.nodes:
        for name in filter(None, node.outputs):
            if name not in constants or name in quantized:
                continue
            if node.op == "Constant":
                found.update({name: frozenset((name,))} if _weighs(graph, name) else {})
            else:
                found[name] = frozenset().union(*(found.get(given, frozenset()) for given in node.inputs))
    return found


def _leaves(graph: Graph, constants: Constants) -> list[str]:
    """The constants that something else than a constant is made of, or nothing, in the order of the graph."""
    makes = {node.index: all(o in constants for o in node.outputs if o) for node in graph.nodes}
    held = {*graph.outputs, *graph.borders, *(name for node in graph.nodes for name in node.captures)}
    order = dict.fromkeys(name for node in graph.nodes for name in (*node.inputs, *node.captures, *node.outputs))
    return [
        name for name in order
        if name in constants
        if name in held or not all(makes[i] for i in graph.consumers.get(name, ())) or name not in graph.consumers
    ]  # fmt: skip


def _views(graph: Graph, constants: Constants, protos: list[NodeProto]) -> dict[str, View]:
    quantized = {*constants.stored, *constants.unwritable}

    def stored(name: str) -> bool:
        producer = graph.producer.get(name)
        return producer is None or graph.nodes[producer].op == "Constant"

    def kind(views: Mapping[str, View], name: str) -> int:
        info = graph.tensor(name)
        fits = name in views or (name in constants and stored(name) and name not in quantized)
        return info.dtype if fits and info.dtype in FLOATS and _size(graph, name) > 1 else 0

    read, found = partial(small, graph, constants), dict[str, View]()
    for name in constants.names:
        if stored(name) and kind(found, name):
            found[name] = View(name, name, (), (name,), tuple(range(len(_shape(graph, name)))))
    for node in graph.nodes:
        if len(node.outputs) != 1 or node.outputs[0] not in constants or node.outputs[0] in found:
            continue
        before = found.get(source(protos[node.index], partial(kind, found), read, selects=True))
        name = node.outputs[0]
        if before is not None:
            shape = _shape(graph, before.name)
            if made_shape(protos[node.index], shape, read) == _shape(graph, name):
                axes = tuple(made_axes(protos[node.index], before.axes, shape, read))
                part = before.part or node.op in SELECTS
                found[name] = View(name, before.root, (*before.steps, node.index), (*before.tensors, name), axes, part)
    return found


def small(graph: Graph, constants: Constants, name: str) -> Array | None:
    """The value of a constant that is a list or one number, or of integers; None for others."""
    info = graph.tensor(name)
    most = _INDICES if info.dtype in (TensorProto.INT64, TensorProto.INT32) else SMALL
    if name not in constants or info.shape is None or _size(graph, name) > most:
        return None
    return constants.array(name)


def _weighs(graph: Graph, name: str) -> bool:
    info = graph.tensor(name)
    return bool(info.dtype) and info.dtype not in NO_WEIGHTS and _size(graph, name) > 1


def _kind(graph: Graph, roots: Iterable[str], name: str) -> int:
    """The type in which a weight that is no view is stored: its own, or that of the widest of its roots (of those that
    are more than vectors, where there are any)."""
    long = [root for root in roots if _is_matrix(graph, root)] or roots
    own, kinds = graph.tensor(name).dtype, [graph.tensor(root).dtype for root in long]
    if own not in FLOATS or not kinds or not all(kind in FLOATS for kind in kinds):
        return own
    widest = max(kinds, key=_item)
    return widest if _item(widest) < _item(own) else own


def _item(kind: int) -> float:
    if kind in (TensorProto.INT4, TensorProto.UINT4):
        return 0.5
    return float(np.dtype(helper.tensor_dtype_to_np_dtype(kind)).itemsize)


def _shape(graph: Graph, name: str) -> tuple[int, ...]:
    return tuple(d if isinstance(d, int) else 1 for d in graph.tensor(name).shape or ())


def _is_matrix(graph: Graph, name: str) -> bool:
    return sum(n != 1 for n in _shape(graph, name)) > 1


def _multiplies(graph: Graph, name: str) -> bool:
    """Whether a constant is the weight of a linear operator: a matrix, also where it has one row only."""
    readers = [graph.nodes[i] for i in graph.consumers.get(name, ())]
    weights = [node.inputs[(at := WEIGHTS[node.op][0]) : at + 1] for node in readers if node.op in WEIGHTS]
    return any(name in found for found in weights)


def _size(graph: Graph, name: str) -> int:
    return math.prod(_shape(graph, name))


def _bytes(graph: Graph, name: str, kind: int = 0) -> float:
    return _size(graph, name) * _item(kind or graph.tensor(name).dtype or TensorProto.FLOAT)
