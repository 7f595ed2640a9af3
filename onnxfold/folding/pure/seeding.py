"""Greedy k-means++ starts (Arthur and Vassilvitskii 2007)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .labels import LabelList
from .rng import Rng

_LANES = 8


def seed_plus_plus(gram: NDArray[Any], k: int, rng: Rng) -> LabelList:
    """k distinct points are drawn; every point goes to its nearest one, so no cluster is empty."""
    seeds = _seeds(gram, k, rng)
    diagonal = gram.diagonal().astype(np.float64)
    nearest = np.full(len(gram), np.inf)
    labels = np.zeros(len(gram), np.int64)
    for c, seed in enumerate(seeds):
        distance = diagonal + diagonal[seed] - 2.0 * gram[seed].astype(np.float64)
        closer = distance < nearest
        nearest[closer] = distance[closer]
        labels[closer] = c
    labels[seeds] = np.arange(k)
    return [int(label) for label in labels]


def _seeds(gram: NDArray[Any], k: int, rng: Rng) -> list[int]:
    n = len(gram)
    candidates = 2 + int(math.log(k))
    diagonal = gram.diagonal().astype(np.float64)
    closest = np.full(n, np.inf)
    seeds: list[int] = []

    def within(seed: int) -> NDArray[np.float64]:
        distance = diagonal + diagonal[seed] - 2.0 * gram[seed].astype(np.float64)
        return np.asarray(np.minimum(np.maximum(distance, 0.0), closest))

    best = rng.below(n)
    while True:
        closest = within(best)
        closest[best] = 0.0
        seeds.append(best)
        if len(seeds) == k:
            return seeds
        running = np.cumsum(closest)
        if running[-1] > 0.0:
            drawn = [_pick(running, rng) for _ in range(candidates)]
            best = min(drawn, key=lambda candidate: _sum_in_lanes(within(candidate)))
        else:  # every point lies on a seed already
            best = next(i for i in range(n) if i not in seeds)


def _pick(running: NDArray[np.float64], rng: Rng) -> int:
    """A point drawn with probability proportional to its weight; `running`: the weights summed up."""
    found = int(np.searchsorted(running, rng.unit() * running[-1], side="right"))
    return found if found < len(running) else int(np.searchsorted(running, running[-1]))  # rounded up


def _sum_in_lanes(values: NDArray[np.float64]) -> float:
    """Their sum in the order of the compiled kernel: eight running sums, which are added up at the end."""
    padded = np.zeros((-(-len(values) // _LANES), _LANES))
    padded.flat[: len(values)] = values
    lanes = np.cumsum(padded, axis=0)[-1]
    return float(((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7])))
