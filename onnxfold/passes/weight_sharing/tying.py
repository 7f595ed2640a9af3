"""Fusion: one weight for several layers, stored once, and the edits that make it so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ...model.model import Model
from ...options.choices import Fusion
from ...transform.edits import Edits
from .layers import Layer

Floats = NDArray[np.float64]


def fused(weights: Sequence[Floats], how: Fusion, seed: int = 0) -> Floats:
    """One weight for several of the same shape."""
    stack = np.stack(weights)
    if how is Fusion.MEAN:
        return np.asarray(stack.mean(axis=0))
    if how is Fusion.MIX:
        chosen = np.random.default_rng(seed).integers(0, len(stack), stack.shape[1:])
        return np.asarray(np.take_along_axis(stack, chosen[None], axis=0)[0])
    center = stack.mean(axis=0)  # the one nearest to the mean has the least sum of squared distances
    return np.asarray(stack[int(np.argmin([float(np.square(one - center).sum()) for one in stack]))])


def tie_edits(model: Model, sets: Sequence[Sequence[Layer]], values: Mapping[str, Floats]) -> Edits:
    """What makes the layers of each set read one constant: that of the first, with the value in `values` (by its name).

    The nodes of the others read it instead of theirs, which are dropped."""
    arrays, inputs = {}, dict[tuple[int, int], str]()
    for one in sets:
        keeper = one[0]
        arrays[keeper.weight] = values[keeper.weight].astype(model.constants.array(keeper.weight).dtype)
        for layer in one[1:]:
            for index in layer.nodes:
                inputs[index, list(model.graph.nodes[index].inputs).index(layer.weight)] = keeper.weight
    return Edits(arrays, [], {}, inputs=inputs)
