"""Which layers can share one weight: those of one operator and one shape, whose weights nothing else uses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...model.constants import FLOATS
from ...model.linear import WEIGHTS, Linear, linear
from ...model.model import Model

Floats = NDArray[np.float64]
_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_SLOT = 1  # the input of these that is the weight


@dataclass(frozen=True)
class Layer:
    """A weight and the nodes (indices) that apply it; `key`, the tensor that the first of them makes, names it in every
    version of the model. Layers of one `kind` can share a weight."""

    name: str
    key: str
    weight: str
    nodes: tuple[int, ...]
    shape: tuple[int, ...]
    kind: tuple[object, ...]
    linear: Linear = field(repr=False)

    @property
    def size(self) -> int:
        """How many numbers the weight has."""
        return math.prod(self.shape)

    def matrix(self, weight: NDArray[np.floating]) -> Floats:
        """The weight tensor as [outputs, features], in double precision."""
        return np.asarray(self.linear.matrix(weight.astype(np.float64)).reshape(-1, self.linear.features))


@dataclass(frozen=True)
class Left:
    """A layer that cannot share its weight, and why."""

    name: str
    why: str


def layers(model: Model) -> tuple[tuple[Layer, ...], tuple[Left, ...]]:
    """The layers of the main graph, in order, and those that cannot share their weight."""
    found, left = dict[str, Layer](), list[Left]()
    for index, proto in enumerate(model.proto.graph.node):
        node = model.graph.nodes[index]
        if node.op not in WEIGHTS or len(node.inputs) <= WEIGHTS[node.op][0]:
            continue
        weight = node.inputs[WEIGHTS[node.op][0]]
        if weight not in model.constants or weight in found:
            continue
        shape = model.graph.tensor(weight).shape or ()
        sizes = tuple(d for d in shape if isinstance(d, int))
        one = linear(proto, sizes) if node.op in _OPS and len(sizes) == len(shape) else None
        why = _obstacle(model, weight, index) or ("" if one else f"{node.op} in an unsupported form")
        if why or one is None:
            left.append(Left(node.label, why))
            continue
        nodes = model.graph.consumers[weight]
        kind = (node.op, sizes, model.graph.tensor(weight).dtype, one.groups, one.transposed)
        found[weight] = Layer(node.label, one.y, weight, tuple(nodes), sizes, kind, one)
    return tuple(found.values()), tuple(left)


def classes(found: Sequence[Layer]) -> list[list[Layer]]:
    """Layers of one kind together, where there are several."""
    kinds: dict[tuple[object, ...], list[Layer]] = {}
    for layer in found:
        kinds.setdefault(layer.kind, []).append(layer)
    return [alike for alike in kinds.values() if len(alike) > 1]


def _obstacle(model: Model, weight: str, index: int) -> str:
    """Why `weight` cannot be shared; '' if it can."""
    constants, graph = model.constants, model.graph
    if weight in constants.stored or weight in constants.unwritable or graph.nodes[index].op not in _OPS:
        return "its weight is stored as integers"
    if graph.tensor(weight).dtype not in FLOATS:
        return "its weight is not a floating-point tensor"
    producer = graph.producer.get(weight)
    if producer is not None and graph.nodes[producer].op != "Constant":
        return f"its weight is computed by {graph.nodes[producer].op}"
    consumers = [graph.nodes[i] for i in graph.consumers[weight]]
    other = next((n for n in consumers if n.op != graph.nodes[index].op or list(n.inputs).index(weight) != _SLOT), None)
    if other is not None:
        return f"its weight is also read by {other.op} '{other.label}'"
    users = [*(n.index for n in consumers), *([] if producer is None else [producer])]
    if weight in graph.outputs or any(map(graph.in_body, users)):
        return "its weight is used outside the main graph"
    if any(weight in node.captures for node in graph.nodes):
        return "its weight is used in the body of another node"
    return ""
