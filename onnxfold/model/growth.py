"""How large the output of an operator is that makes much of little, before it is computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .graph import Node

_WINDOWS = ("HannWindow", "HammingWindow", "BlackmanWindow")
GROWS = frozenset(("Expand", "Tile", "Pad", "Range", "OneHot", "EyeLike", "MelWeightMatrix", *_WINDOWS))
"""What makes large outputs of small inputs."""
Array = NDArray[Any]


def elements(node: Node, read: Callable[[str], Array]) -> int | None:
    """How many elements the first output has; None for an operator whose output is about as large as its inputs, and
    for inputs that make no sense (computing it will say so).

    `read` gives the value of an input.
    """
    rule = _SIZES.get(node.op)
    if rule is None or len(node.inputs) < rule[0] or not all(node.inputs[: rule[0]]):
        return None
    try:
        return int(rule[1](*map(read, node.inputs[: rule[0]])))
    except (ArithmeticError, ValueError, TypeError, IndexError):
        return None


def _product(lengths: Any) -> int:
    return math.prod(max(0, int(x)) for x in np.ravel(lengths))


def _expanded(data: Array, shape: Array) -> int:
    lengths = zip_longest(reversed(data.shape), reversed(np.ravel(shape)), fillvalue=1)
    return math.prod(max(int(a), int(b)) if a and b else 0 for a, b in lengths)


def _padded(data: Array, pads: Array) -> int:
    lengths = [int(x) for x in np.ravel(pads)]
    if len(lengths) != 2 * data.ndim:  # of some axes only
        return _product(data.shape) * math.prod(1 + abs(x) for x in lengths)
    return math.prod(max(0, n + lengths[i] + lengths[i + data.ndim]) for i, n in enumerate(data.shape))


def _counted(start: Array, stop: Array, step: Array) -> int:
    return max(0, math.ceil((float(stop) - float(start)) / float(step)))


_SIZES: Mapping[str, tuple[int, Callable[..., int]]] = {
    "ConstantOfShape": (1, _product),
    "Expand": (2, _expanded),
    "Tile": (2, lambda data, repeats: data.size * _product(repeats)),
    "Pad": (2, _padded),
    "Range": (3, _counted),
    "OneHot": (2, lambda indices, depth: indices.size * _product(depth)),
    "MelWeightMatrix": (2, lambda bins, length: _product(bins) * (_product(length) // 2 + 1)),
    **dict.fromkeys(_WINDOWS, (1, _product)),
}
