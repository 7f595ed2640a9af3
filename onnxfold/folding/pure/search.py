"""Iterated local search: disturb a refined partition a little, refine again, keep what is better."""

from __future__ import annotations

import numpy as np

from .hartigan import Hartigan
from .partition import Partition
from .rng import Rng

_MERGE_CANDIDATES = 4
_SPLIT_CANDIDATES = 4
_PATIENCE = 40
_REBUILD_EVERY = 512


def improve(partition: Partition, hartigan: Hartigan, rng: Rng, perturbations: int, most: int, tolerance: float) -> int:
    """Merge two clusters and split another, again and again; gives up after 40 disturbances in a row that led nowhere.
    The number of passes made, `most` after each disturbance. Needs 1 < k < n and a refined partition."""
    sweeps = failures = step = 0
    while step < perturbations and failures < _PATIENCE:
        if step % _REBUILD_EVERY == _REBUILD_EVERY - 1:
            partition.rebuild()
        hartigan.remember()
        _disturb(partition, hartigan, rng)
        sweeps += hartigan.run(most)
        if hartigan.change < -tolerance:
            failures = 0
        else:
            failures += 1
            hartigan.undo()
        step += 1
    return sweeps


def _disturb(partition: Partition, hartigan: Hartigan, rng: Rng) -> None:
    dissolved, kept = _pick_merge(partition, rng)
    for i in list(partition.members[dissolved]):
        hartigan.force(i, kept)
    hartigan.force(_pick_split(partition, rng), dissolved)


def _pick_merge(partition: Partition, rng: Rng) -> tuple[int, int]:
    """(the cluster that is dissolved, the one that it goes to): the cheapest of a few."""
    drawn = [_cheapest_merge(partition, rng.below(partition.clusters)) for _ in range(_MERGE_CANDIDATES)]
    _, dissolved, kept = min(drawn, key=lambda one: one[0])
    return dissolved, kept


def _cheapest_merge(partition: Partition, a: int) -> tuple[float, int, int]:
    """(m_a m_b / (m_a + m_b) |mu_a - mu_b|^2, a, b) for the cheapest b."""
    between = np.bincount(partition.labels, partition.sums[a].astype(np.float64), partition.clusters)
    size, sizes = partition.sizes[a], partition.sizes
    norm = partition.within[a] / (size * size)
    distance = norm + partition.within / (sizes * sizes) - 2.0 * between / (size * sizes)
    costs = size * sizes / (size + sizes) * distance
    costs[a] = np.inf
    b = int(np.argmin(costs))
    return float(costs[b]), a, b


def _pick_split(partition: Partition, rng: Rng) -> int:
    """A point whose cluster has others, far from the mean of that cluster."""
    drawn = [rng.below(partition.points) for _ in range(_SPLIT_CANDIDATES)]
    gains = [partition.removal_gain(i) for i in drawn]
    best = int(np.argmax(gains))
    if gains[best] > -np.inf:
        return drawn[best]
    return int(np.argmax(partition.sizes[partition.labels] >= 2))  # k < n: there is one
