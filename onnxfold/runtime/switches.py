"""Inputs that may decide which bodies run: single bools, and single integers that the graph compares with constants."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ..errors import ExecutionError
from ..model.model import Model
from .probe_inputs import same_numbers
from .session import Feeds
from .watch import Watch

_COMPARING = ("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual")


def switched(model: Model, watch: Watch, feeds: Feeds, idle: frozenset[int]) -> list[Feeds]:
    """What to set of `feeds` in order to reach bodies that are `idle`: values of inputs, each set reaching another."""
    choices = [{name: value} for name, values in _values(model, feeds).items() for value in values]
    found, waiting = list[Feeds](), [dict[str, NDArray[np.generic]]()]
    while waiting and idle:
        start = waiting.pop(0)
        for choice in choices:
            try:
                ran = watch.bodies({**feeds, **start, **choice})
            except ExecutionError:  # other shapes may belong to that value
                continue
            if ran & idle:
                waiting.append({**start, **choice})
                found.append(waiting[-1])
                idle -= ran
    return found


def _values(model: Model, feeds: Feeds) -> Mapping[str, list[NDArray[np.generic]]]:
    """What single numbers among the inputs could be: 0, 1, and what is at and beside a constant."""
    graph, constants, source = model.graph, model.constants, same_numbers(model.graph)
    values = {name: {0, 1} for name, x in feeds.items() if x.size == 1 and x.dtype.kind in "biu"}
    pairs = [pair for n in graph.nodes if n.op in _COMPARING for pair in (n.inputs, n.inputs[::-1])]
    for name, other in pairs:
        if source.get(name) in values and other in constants and math.prod(constants.array(other).shape) == 1:
            at = int(constants.array(other).item())
            values[source[name]] |= {at - 1, at, at + 1}
    return {name: [_like(feeds[name], one) for one in sorted(several)] for name, several in values.items()}


def _like(x: NDArray[np.generic], value: int) -> NDArray[np.generic]:
    return np.full(x.shape, value).astype(x.dtype)
