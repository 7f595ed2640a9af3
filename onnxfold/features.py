"""Feature rows of channels, and the scores that pruning ranks them by.

One row per channel (Wang et al., ICLR 2025): [rows that make it | columns that read it | per-channel vectors]. The
parts live on different scales (convolution weights are O(0.01), gamma is O(1)), so they are balanced first
(see `balanced`).
"""

from __future__ import annotations

from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .cluster import gram
from .gather import GroupWeights

Floats = NDArray[np.floating[Any]]
VECTOR_WEIGHT = 0.1  # share of a per-channel vector beside a whole weight matrix; measured, see docs/architecture.md


class Method(Enum):
    """How channels are chosen."""

    FOLD = "fold"
    """k-means clusters are merged."""

    PRUNE_L1 = "prune-l1"
    """Channels with the smallest sum of absolute producing weights are dropped."""

    PRUNE_L2 = "prune-l2"
    """Channels with the smallest producing weights by Euclidean norm are dropped."""


def effective_rows(weights: GroupWeights) -> list[tuple[str, Floats]]:
    """What makes each channel, as the function it computes: rows times gamma / sqrt(var + epsilon), [n, d] each."""
    scale = {norm.producer: norm.gamma / np.sqrt(norm.var + norm.epsilon) for norm in weights.norms if norm.producer}
    return [
        (row.tensor, row.values * scale[row.tensor][:, None] if row.tensor in scale else row.values)
        for row in weights.rows
    ]


def balanced(part: Floats, share: float = 1.0) -> Floats:
    """`part` [n, d] scaled so that the squared distances of its rows to their mean add up to `share`.

    A part in which all rows are equal says nothing and stays zero.
    """
    centred = part - part.mean(axis=0, dtype=np.float64)
    size = float(np.sqrt(np.square(centred, dtype=np.float64).sum()))
    return part * 0.0 if size <= 1e-12 * (1 + float(np.abs(part).max(initial=0))) else part * (np.sqrt(share) / size)


def feature_parts(weights: GroupWeights) -> list[Floats]:
    """The balanced parts of the feature rows, [n, d] each: weights with share 1, per-channel vectors with less."""
    wide = [p.values for p in (*weights.rows, *weights.filters, *weights.columns)]
    narrow = [n.gamma[:, None] for n in weights.norms] + [n.beta[:, None] for n in weights.norms]
    normalised = {n.scale for n in weights.norms}
    if not normalised:  # BatchNormalization was fused away at export: its shift is now in the biases
        narrow += [p.values for p in weights.vectors]
    parts = [balanced(p) for p in wide] + [balanced(p, VECTOR_WEIGHT) for p in narrow]
    return parts or [np.zeros((weights.size, 1))]


def feature_gram(weights: GroupWeights) -> NDArray[np.float64]:
    """The centred Gram matrix [n, n] of the balanced feature rows."""
    return gram(feature_parts(weights))


def magnitudes(weights: GroupWeights, method: Method) -> NDArray[np.float64]:
    """The score [n] that pruning keeps the largest of: the norm of all that makes a channel.

    Rows are taken as the function they compute (times gamma / sigma where BatchNormalization follows), so that the
    score is the same before and after BatchNormalization is fused away.
    """
    rows = [values for _, values in effective_rows(weights)] or [p.values for p in (*weights.filters, *weights.vectors)]
    power = 1 if method is Method.PRUNE_L1 else 2
    total = np.zeros(weights.size)
    for row in rows:
        total += (np.abs(row.astype(np.float64)) ** power).sum(axis=1)
    return total if power == 1 else np.sqrt(total)
