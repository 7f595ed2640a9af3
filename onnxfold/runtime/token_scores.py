"""Scores of the next word: they count by how probable the word is, as in the divergence of what they stand for.

Most of a vocabulary is improbable everywhere, and a constant added to all scores changes nothing: of the energy of raw
scores (a LLaMA of 260,000 parameters) 1.6 % is what probabilities depend on. The mean over p of (log q - log p)^2 is
twice the Kullback-Leibler divergence of q from p, to second order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..model.constants import FLOATS
from ..model.graph import Graph
from .probe_inputs import VOCABULARY, index_limits

Array = NDArray[Any]


def word_scores(graph: Graph) -> dict[str, int]:
    """The outputs [N, T, words] of a model that takes word ids and scores such, with the number of words."""
    limits = {limit for limit in index_limits(graph).values() if limit >= VOCABULARY}
    found = {}
    for name in graph.outputs:
        info = graph.tensor(name)
        if info.shape is not None and len(info.shape) == 3 and info.shape[2] in limits and info.dtype in FLOATS:
            found[name] = int(info.shape[2])
    return found


def by_probability(expected: Array, found: Array, words: int) -> tuple[Array, Array]:
    """[..., words] scores as what is compared: sqrt(p) log p and sqrt(p) log q, where p is what is `expected`."""
    before, after = _logs(expected.reshape(-1, words)), _logs(found.reshape(-1, words))
    weight = np.exp(before / 2)
    return weight * before, weight * after


def _logs(scores: Array) -> Array:
    x = scores.astype(np.float32)
    x -= x.max(axis=1, keepdims=True)
    x -= np.log(np.exp(x).sum(axis=1, keepdims=True))
    return x
