"""What a fold does to the channels of activations, for comparing those that it made narrower."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..analyse import Analysis
from ..channels import Place
from ..edits import axis_matrix
from ..merge import Merge
from .targets import Map


def maps_of(analysis: Analysis, merges: Mapping[str, Merge]) -> dict[str, Map]:
    """By activation, how its narrowed axis follows from that of the original; those narrowed along two are left out."""
    parts: dict[str, list[tuple[Place, Merge]]] = {}
    for group in analysis.groups:
        if group.name in merges:
            for place in group.places:
                if place.role is None:
                    parts.setdefault(place.tensor, []).append((place, merges[group.name]))
    found = {}
    for tensor, here in parts.items():
        if len({place.axis for place, _ in here}) == 1:
            matrix = axis_matrix(analysis, here, tensor)
            found[tensor] = Map(here[0][0].axis, np.ascontiguousarray(matrix.toarray(), np.float32))
    return found
