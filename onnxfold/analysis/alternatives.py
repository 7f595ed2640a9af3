"""Which of several alternatives (`OneOf`) to follow: those that leave most of the weights to fold.

Only labels are seen here: the channel of every position, as ties and pins so far make them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

Labels = NDArray[np.int64]
MOST = 4096  # combinations that are tried; of more choices that depend on each other the first is settled alone


@dataclass(frozen=True)
class Option:
    """One alternative: the channels that it makes one, pair by pair, and those that are kept if it is taken."""

    a: Labels
    b: Labels
    pins: Labels

    def blocked(self, pinned: NDArray[np.bool_]) -> float:
        """The share of its channels that are kept already."""
        return max((float(pinned[side].mean()) for side in (self.a, self.b) if len(side)), default=1.0)


Choice = tuple[Option, ...]


def settled(
    choices: Sequence[Choice], pinned: NDArray[np.bool_], reach: Labels, hard: NDArray[np.bool_] | None = None
) -> dict[int, int]:
    """Choice -> the option to take, for some of the choices at least: the rest is to be asked again with new labels.

    Where kept channels leave one option, that one; else, of all choices that share free channels, the combination that
    leaves the most positions of weights free (`reach` of every channel), then the most channels, then the first. Where
    no option is left, one that is not kept but for channels that may yet be followed (pinned, but not `hard`).
    """
    found, taken = dict[int, int](), set[int]()
    free = [_free(choice, pinned) for choice in choices]
    for i, choice in enumerate(choices):
        blocked = [option.blocked(pinned) for option in choice]
        if min(blocked) == 1.0 and hard is not None:
            blocked = [option.blocked(hard) for option in choice]
        if min(blocked) < max(blocked) or max(blocked) == 1.0:
            if taken.isdisjoint(free[i]):
                found[i] = blocked.index(min(blocked))
            taken |= free[i]
    if found:
        return found
    for members in _clusters(free):
        if np.prod([len(choices[i]) for i in members], dtype=float) > MOST:
            members = members[:1]
        found.update(zip(members, _best([choices[i] for i in members], pinned, reach), strict=True))
    return found


def _free(choice: Choice, pinned: NDArray[np.bool_]) -> set[int]:
    """The channels that a choice is about and that may be folded."""
    labels = np.unique(np.concatenate([x for option in choice for x in (option.a, option.b, option.pins)]))
    return set(labels[~pinned[labels]].tolist())


def _clusters(free: Sequence[set[int]]) -> Iterator[list[int]]:
    """Choices that depend on each other, directly or through others; in order."""
    labels = np.concatenate([np.fromiter(one, np.int64, len(one)) for one in free])
    of = np.repeat(np.arange(len(free)), [len(one) for one in free])
    channels, index = np.unique(labels, return_inverse=True)
    size = len(free) + len(channels)
    cluster = connected(of, index + len(free), size)[: len(free)]
    for one in dict.fromkeys(cluster.tolist()):
        yield np.flatnonzero(cluster == one).tolist()


def _best(choices: Sequence[Choice], pinned: NDArray[np.bool_], reach: Labels) -> tuple[int, ...]:
    """The combination of options that leaves most free."""
    every = [x for choice in choices for option in choice for x in (option.a, option.b, option.pins)]
    labels, index = np.unique(np.concatenate(every), return_inverse=True)
    parts = iter(np.split(index, np.cumsum([len(x) for x in every])[:-1]))
    local = [[Option(next(parts), next(parts), next(parts)) for _ in choice] for choice in choices]
    kept, reach = pinned[labels], reach[labels]

    def left(combination: tuple[int, ...]) -> tuple[int, int]:
        options = [choice[i] for choice, i in zip(local, combination, strict=True)]
        joined = connected(np.concatenate([o.a for o in options]), np.concatenate([o.b for o in options]), len(labels))
        gone = np.zeros(joined.max() + 1, bool)
        gone[joined[kept]] = True
        for option in options:
            gone[joined[option.pins]] = True
        weights = np.bincount(joined, reach)
        return int(weights[~gone].sum()), int((weights[~gone] > 0).sum())

    return max(itertools.product(*(range(len(choice)) for choice in choices)), key=left)


def connected(a: Labels, b: Labels, count: int) -> Labels:
    """The component of every one of `count` things, where a[i] and b[i] are one."""
    edges = coo_matrix((np.ones(len(a), np.int8), (a, b)), shape=(count, count))
    return np.asarray(connected_components(edges, directed=False)[1], np.int64)
