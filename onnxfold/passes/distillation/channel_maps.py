"""How folds and permutations change the channels of activations, so that both versions can still be compared."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...analysis.axis_matrix import axis_matrix
from ...analysis.groups import Place
from ...analysis.result import Analysis
from ...folding.merge import Merge
from .block_targets import Map


def maps_of(analysis: Analysis, merges: Mapping[str, Merge]) -> dict[str, Map | None]:
    """By activation, how its changed axis follows from that of the original; None for those changed along two, or
    apart by direction."""
    parts: dict[str, list[tuple[Place, Merge]]] = {}
    for group in analysis.groups:
        if group.name in merges:
            for place in group.places:
                if place.role is None:
                    parts.setdefault(place.tensor, []).append((place, merges[group.name]))
    found: dict[str, Map | None] = {}
    for tensor, here in parts.items():
        if {place.blocks for place, _ in here} == {1} and len({place.axis for place, _ in here}) == 1:
            matrix = axis_matrix(analysis, here, tensor)
            found[tensor] = Map(here[0][0].axis, np.ascontiguousarray(matrix.toarray(), np.float32))
        else:
            found[tensor] = None
    return found


def composed(first: Mapping[str, Map | None], then: Mapping[str, Map | None]) -> dict[str, Map | None]:
    """The maps of one change after another."""
    found = {**first, **then}
    for tensor in first.keys() & then.keys():
        a, b = first[tensor], then[tensor]
        found[tensor] = Map(a.axis, b.matrix @ a.matrix) if a and b and a.axis == b.axis else None
    return found
