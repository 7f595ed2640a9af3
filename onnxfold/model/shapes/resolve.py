"""The shapes of all tensors: inference, what the graph itself computes of shapes, and probing where inputs are open."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, numpy_helper

from ..dimensions import Dim, Multiple, Unnamed
from ..graph import Graph, TensorInfo, reshaped, skeleton
from ..quantized.detect import packed_weight
from ..subgraphs import BODY_OPERATORS, every_initializer, every_node, opened
from .arithmetic import ShapeConstants, ShapeValues
from .inference import NodeMemo, consistent, infer_shapes
from .other_ops import output_shapes

_PRIMES = (3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59)
_SPATIAL, _OTHER = 64, 16  # strides divide these; times a prime, no two open dimensions are taken for each other
_LIST = 1024  # numbers: longer constants give no shapes
Shapes = Mapping[str, Sequence[int]]
Name = str | Unnamed
Names = dict[tuple[int, int], Name]  # of open dimensions, by the two lengths tried


class InferenceConstants(ShapeConstants, Protocol):
    """What inference needs of a model's constants."""

    @property
    def small(self) -> Mapping[str, NDArray[Any]]: ...


def shaped(graph: Graph, bare: ModelProto, constants: InferenceConstants) -> Graph:
    """`graph`, a view of the skeleton `bare`, with all shapes that inference finds.

    onnx's own inference comes first (it knows bodies and functions). Then node by node, with the integers that are
    known by then: it does not follow all that exporters compute of shapes, and gives up for good where it stops.
    """
    small, bodies = constants.small, opened(bare)
    graph = reshaped(graph, bare, infer_shapes(bare, small), bodies)
    tensors = dict(graph.tensors)
    for name, how in filter(None, map(packed_weight, graph.nodes)):
        if name in constants and tensors[name].shape == how.shape:
            tensors[name] = TensorInfo(name, (how.n, how.k), tensors[name].dtype)  # as all but the file sees it
    graph = replace(graph, tensors=MappingProxyType(tensors))  # grows below
    data = {t.name: t for t in every_initializer(bare, bodies) if math.prod(t.dims) <= _LIST}
    declared = {d for name in graph.inputs for d in graph.tensor(name).shape or () if isinstance(d, str)}
    values, memo = ShapeValues(graph, constants, ()), NodeMemo()
    for node, proto in zip(graph.nodes, every_node(bare, bodies), strict=True):
        missing = [name for name in node.outputs if name and any(_unknown(d, declared) for d in _dims(graph, name))]
        if missing and node.op not in BODY_OPERATORS:
            given = {name: data[name] for name in node.inputs if name in data}
            given |= {name: _tensor(small[name]) for name in node.inputs if name in small}
            for name in node.inputs:
                found = values.list_for(name, node) if name else None
                if found is not None:
                    given[name] = _tensor(found)
            for name, (shape, kind) in output_shapes(graph, node, proto, given, memo).items():
                if name in missing:
                    tensors[name] = TensorInfo(name, _filled(graph.tensor(name).shape, shape, declared), kind)
        values.learn(node)
    return graph


def _tensor(value: NDArray[Any]) -> TensorProto:
    return numpy_helper.from_array(np.asarray(value, order="C"))


def _dims(graph: Graph, name: str) -> tuple[Dim, ...]:
    shape = graph.tensor(name).shape
    return (None,) if shape is None else shape


def _filled(
    found: tuple[Dim, ...] | None, more: tuple[Dim, ...] | None, declared: Collection[Dim]
) -> tuple[Dim, ...] | None:
    """`found`, with what `more` knows where it does not; `found` where they contradict each other."""
    if found is None or more is None or len(found) != len(more):
        return found if found is not None else more
    return tuple(b if _unknown(a, declared) and b is not None else a for a, b in zip(found, more, strict=True))


def probed(graph: Graph, proto: ModelProto, constants: InferenceConstants, given: Shapes) -> Graph:
    """`graph`, with shapes that inference cannot find while inputs are open: it is asked twice, at different lengths.

    A dimension that comes out the same both times is fixed; one that changes is open, and has the name of the input
    dimension that it always equals, is a `Multiple` of one, or is `Unnamed`. `given` shapes are not varied. Where the
    usual lengths leave something open, short ones are tried too, if other: the tables of a graph may be shorter.
    """
    usual, short = (_lengths(graph, constants, given, unit) for unit in (_OTHER, 1))
    if not _open(graph, set(usual.names.values())):
        return graph
    found = _evaluated(graph, proto, constants, given, usual)
    left = _open(*found)
    ranks = {len(graph.tensor(name).shape or ()) for name in graph.inputs if name not in constants}
    if left and usual != short and ranks & {2, 3}:
        other = _evaluated(graph, proto, constants, given, short)
        found = other if _open(*other) < left else found
    return found[0]


def _open(graph: Graph, declared: Collection[Dim]) -> int:
    """How many dimensions may be more than is known; 0 where no input is open."""
    return sum(_unknown(dim, declared) for i in _used(graph) for dim in _dims(graph, i.name)) if declared else 0


def _evaluated(
    graph: Graph, proto: ModelProto, constants: InferenceConstants, given: Shapes, tried: _Tried
) -> tuple[Graph, Collection[Dim]]:
    """`graph` after inference at the two lengths `tried` of open dimensions; and the names of these."""
    declared: set[Dim] = set(tried.names.values())
    one, two = (
        shaped(graph, consistent(skeleton(proto, {**given, **shapes})), constants).tensors
        for shapes in (tried.once, tried.again)
    )
    tensors = dict(graph.tensors)
    names = {**_declared(graph, declared, one, two), **tried.names}
    for info in _used(graph):
        if info.name in one and info.name in two:
            shape = _joined(one[info.name].shape, two[info.name].shape, names)
            kind = info.dtype or one[info.name].dtype
            tensors[info.name] = TensorInfo(info.name, _filled(info.shape, shape, declared), kind)
    return replace(graph, tensors=MappingProxyType(tensors)), declared


def _declared(
    graph: Graph, declared: Collection[Dim], one: Mapping[str, TensorInfo], two: Mapping[str, TensorInfo]
) -> dict[tuple[int, int], Name]:
    """Names of open dimensions by the two lengths tried, where the model itself says them of a tensor inside: of the
    sum of past and new tokens, say."""
    found = dict[tuple[int, int], Name]()
    for info in _used(graph):
        evaluators = [tensors[info.name].shape or () for tensors in (one, two) if info.name in tensors]
        for dim, *pair in zip(info.shape or (), *evaluators, strict=False) if len(evaluators) == 2 else ():
            if isinstance(dim, str) and dim in declared and all(isinstance(length, int) for length in pair):
                found.setdefault((pair[0], pair[1]), dim)
    return found


def _used(graph: Graph) -> Iterator[TensorInfo]:
    names = dict.fromkeys([*graph.inputs, *(o for node in graph.nodes for o in node.outputs if o)])
    return (graph.tensor(name) for name in names)


def _unknown(dim: Dim, declared: Collection[Dim]) -> bool:
    """Whether a dimension may be more than is known: open, and not called as one of the inputs'."""
    return not isinstance(dim, int) and dim not in declared


@dataclass(frozen=True)
class _Tried:
    """Names of the open input dimensions by the two lengths tried, and the shapes of inputs at both."""

    names: Names
    once: Shapes
    again: Shapes


def _lengths(graph: Graph, constants: InferenceConstants, given: Shapes, other: int) -> _Tried:
    """The lengths to try; those of what is neither batch nor image are multiples of `other`."""
    symbols: dict[Dim | tuple[str, int], tuple[int, int]] = {}
    names: Names = {}
    evaluators: tuple[dict[str, list[int]], dict[str, list[int]]] = ({}, {})
    for name in graph.inputs:
        shape = graph.tensor(name).shape
        if name in constants or name in given or shape is None or all(isinstance(d, int) for d in shape):
            continue
        for axis, dim in enumerate(shape):
            key = (name, axis) if dim is None else dim
            if isinstance(dim, int):
                pair = dim, dim
            else:
                unit = 1 if axis == 0 else _SPATIAL if axis > 1 and len(shape) > 3 else other
                at = 2 * len(symbols) % len(_PRIMES)
                pair = symbols.setdefault(key, (unit * _PRIMES[at], unit * _PRIMES[at + 1]))
                names.setdefault(pair, dim if isinstance(dim, str) else Unnamed(pair))
            for evaluator, length in zip(evaluators, pair, strict=True):
                evaluator.setdefault(name, []).append(length)
    return _Tried(names, *evaluators)


def _joined(
    one: tuple[Dim, ...] | None, two: tuple[Dim, ...] | None, names: Mapping[tuple[int, int], Name]
) -> tuple[Dim, ...] | None:
    """What two evaluators together say of a shape; None where they disagree on the rank."""
    if one is None or two is None or len(one) != len(two):
        return None
    dims = list[Dim]()
    for a, b in zip(one, two, strict=True):
        if isinstance(a, int) and isinstance(b, int):
            if a == b:
                dims.append(a)
            else:
                dims.append(names.get((a, b)) or _multiple(a, b, names) or Unnamed((a, b)))
        else:
            dims.append(None)
    return tuple(dims)


def _multiple(a: int, b: int, names: Mapping[tuple[int, int], Name]) -> Multiple | None:
    """Lengths that are the same multiple of an open one both times (heads beside the batch)."""
    for (one, two), name in names.items():
        if one and a % one == 0 and b % two == 0 and a // one == b // two and one != two:
            return Multiple(name, a // one)
    return None
