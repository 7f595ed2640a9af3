"""The shapes of all tensors: inference, what the graph itself computes of shapes, and probing where inputs are open."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Protocol

from numpy.typing import NDArray
from onnx import ModelProto

from .graph import Dim, Graph, TensorInfo, consistent, infer_shapes, reshaped, skeleton
from .shapevalues import Fixed, ShapeValues

_ROUNDS = 16  # of shape inference: what a computed length settles may settle others behind it
_PRIMES = (3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59)
_SPATIAL, _OTHER = 64, 16  # strides divide these; times a prime, no two open dimensions are taken for each other
Shapes = Mapping[str, Sequence[int]]


class Known(Fixed, Protocol):
    """What inference needs of a model's constants."""

    def small(self) -> dict[str, NDArray[Any]]: ...


def shaped(graph: Graph, bare: ModelProto, constants: Known) -> Graph:
    """`graph`, a view of the skeleton `bare`, with all shapes that inference finds."""
    known = constants.small()
    graph = reshaped(graph, bare, infer_shapes(bare, known))
    for _ in range(_ROUNDS):
        more = ShapeValues(graph, constants).settled()
        if more.keys() <= known.keys():
            break
        known.update(more)
        graph = reshaped(graph, bare, infer_shapes(bare, known))
    return graph


def probed(graph: Graph, proto: ModelProto, constants: Known, given: Shapes) -> Graph:
    """`graph`, with shapes that inference cannot find while inputs are open: it is asked twice, at different lengths.

    A dimension that comes out the same both times is fixed; one that changes is open, and has the name of the input
    dimension that it always equals, or a name of its own for the two lengths. `given` shapes are not varied.
    """
    names, once, again = _lengths(graph, constants, given)
    declared = set(names.values())
    if not names or not any(_unknown(dim, declared) for i in _used(graph) for dim in i.shape or (None,)):
        return graph
    one, two = (
        shaped(graph, consistent(skeleton(proto, {**given, **shapes})), constants).tensors for shapes in (once, again)
    )
    tensors = dict(graph.tensors)
    for info in _used(graph):
        if info.name in one and info.name in two:
            shape = _joined(info.shape, one[info.name].shape, two[info.name].shape, names)
            kind = info.dtype or one[info.name].dtype
            tensors[info.name] = TensorInfo(info.name, shape, kind)
    return replace(graph, tensors=MappingProxyType(tensors))


def _used(graph: Graph) -> Iterator[TensorInfo]:
    names = dict.fromkeys([*graph.inputs, *(o for node in graph.nodes for o in node.outputs if o)])
    return (graph.tensor(name) for name in names)


def _unknown(dim: Dim, declared: set[str]) -> bool:
    """Whether a dimension may be more than is known: open, and not called as one of the inputs'."""
    return not isinstance(dim, int) and dim not in declared


def _lengths(graph: Graph, constants: Known, given: Shapes) -> tuple[dict[tuple[int, int], str], Shapes, Shapes]:
    """Names of the open input dimensions by the two lengths tried, and the shapes of both trials."""
    symbols: dict[Dim | tuple[str, int], tuple[int, int]] = {}
    names: dict[tuple[int, int], str] = {}
    trials: tuple[dict[str, list[int]], dict[str, list[int]]] = ({}, {})
    for name in graph.inputs:
        shape = graph.tensor(name).shape
        if name in constants or name in given or shape is None or all(isinstance(d, int) for d in shape):
            continue
        for axis, dim in enumerate(shape):
            key = (name, axis) if dim is None else dim
            if isinstance(dim, int):
                pair = dim, dim
            else:
                unit = 1 if axis == 0 else _SPATIAL if axis > 1 and len(shape) > 3 else _OTHER
                at = 2 * len(symbols) % len(_PRIMES)
                pair = symbols.setdefault(key, (unit * _PRIMES[at], unit * _PRIMES[at + 1]))
                names.setdefault(pair, dim or f"{name}[{axis}]")
            for trial, length in zip(trials, pair, strict=True):
                trial.setdefault(name, []).append(length)
    return names, *trials


def _joined(
    found: tuple[Dim, ...] | None,
    one: tuple[Dim, ...] | None,
    two: tuple[Dim, ...] | None,
    names: Mapping[tuple[int, int], str],
) -> tuple[Dim, ...] | None:
    """What two trials say of a shape, where nothing was found; `found` where they contradict it or know nothing."""
    if one is None or two is None or len(one) != len(two) or (found is not None and len(found) != len(one)):
        return found
    dims = list[Dim]()
    declared = set(names.values())
    for known, a, b in zip(found or (None,) * len(one), one, two, strict=True):
        if _unknown(known, declared) and isinstance(a, int) and isinstance(b, int):
            dims.append(a if a == b else names.get((a, b), f"{a}|{b}"))
        else:
            dims.append(known)
    return tuple(dims)
