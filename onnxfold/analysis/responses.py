"""Global response normalization (GRN, of ConvNeXt V2): channels are divided by the mean over all channels of how
strongly each of them responds, the root of a sum of squares over all positions.

Equal channels respond alike, so the mean over those that are left is the same if each counts for as many as it stands
for; so is the sum, where that is divided by a number. Means over the channels themselves, as in layer normalization,
are not followed: they change with every channel.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..model.graph import Graph, Node

_PASS = ("Cast", "Identity", "Mul", "Div", "Add", "Max", "Clip", "Abs")
_SUMS = ("ReduceSum", "ReduceSumSquare", "ReduceMean")
_STEPS = 8  # nodes between the mean and what it is the mean of


class Values(Protocol):
    """What is needed of a model's constants."""

    def __contains__(self, name: str) -> bool: ...
    def array(self, name: str) -> NDArray[Any]: ...


def responds(graph: Graph, constants: Values, node: Node) -> bool:
    """Whether what `node` takes the mean of, or the sum, is a root of sums of squares."""
    if node.op not in ("ReduceMean", "ReduceSum") or node.domain:
        return False
    tensor, rooted = node.inputs[0], False
    for _ in range(_STEPS):
        producer = graph.producer.get(tensor)
        if producer is None:
            return False
        made = graph.nodes[producer]
        free = [name for name in made.inputs if name and name not in constants]
        if made.domain or not free:
            return False
        if made.op == "ReduceL2" or (made.op in _SUMS and rooted):
            return True
        rooted |= made.op == "Sqrt" or (made.op == "Pow" and _half(constants, made.inputs))
        if (made.op not in (*_PASS, "Sqrt", "Pow")) or len(free) > 1:
            return False
        tensor = free[0]
    return False


def _half(constants: Values, inputs: Collection[str]) -> bool:
    """Whether a power is a root."""
    exponents = [constants.array(name) for name in inputs if name in constants]
    return len(exponents) == 1 and exponents[0].size == 1 and float(np.ravel(exponents[0])[0]) == 0.5
