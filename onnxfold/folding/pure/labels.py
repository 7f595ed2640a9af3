"""Labels of points, and what a labeling costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LabelList = list[int]


def canonical(labels: Sequence[int]) -> LabelList:
    """Clusters numbered by their first member."""
    names: dict[int, int] = {}
    return [names.setdefault(label, len(names)) for label in labels]


def members_of(labels: LabelList, k: int) -> list[list[int]]:
    """The points of every cluster, in increasing order."""
    members: list[list[int]] = [[] for _ in range(k)]
    for i, label in enumerate(labels):
        members[label].append(i)
    return members


def inertia(gram: NDArray[Any], labels: LabelList, k: int) -> float:
    """Sum over clusters of (1/m) sum_{i<j} |x_i - x_j|^2, from pair distances: exact duplicates cost exactly zero."""
    diagonal = gram.diagonal().astype(np.float64)
    total = 0.0
    for members in map(np.array, members_of(labels, k)):
        if len(members) > 1:
            pairs = 0.0
            for at, a in enumerate(members[:-1]):
                others = members[at + 1 :]
                apart = diagonal[a] + diagonal[others] - 2.0 * gram[a, others].astype(np.float64)
                pairs += in_order(np.maximum(apart, 0.0))
            total += pairs / len(members)
    return total


def in_order(values: NDArray[np.float64]) -> float:
    """Their sum, added one after the other (numpy's own adds pairs first); 0 for none."""
    return float(np.cumsum(values)[-1]) if len(values) else 0.0
