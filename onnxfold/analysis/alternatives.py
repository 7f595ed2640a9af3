"""Which of several alternatives (`OneOf`) to follow: those that leave most of the weights to fold.

Only labels are seen here: the channel of every position, as ties and pins so far make them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..frozen import read_only
from .components import connected, distinct

Labels = NDArray[np.int64]
MOST = 4096  # combinations that are tried; of more choices that depend on each other the first is settled alone


@dataclass(frozen=True)
class Option:
    """One alternative: the channels that it makes one, pair by pair, and those that are kept if it is taken."""

    a: Labels
    b: Labels
    pins: Labels

    def __post_init__(self) -> None:
        read_only(self)

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
    found, taken = dict[int, int](), np.zeros(len(pinned), bool)
    free = [_free(choice, pinned) for choice in choices]
    for i, choice in enumerate(choices):
        blocked = [option.blocked(pinned) for option in choice]
        if min(blocked) == 1.0 and hard is not None:
            blocked = [option.blocked(hard) for option in choice]
        if min(blocked) < max(blocked) or max(blocked) == 1.0:
            if not taken[free[i]].any():
                found[i] = blocked.index(min(blocked))
            taken[free[i]] = True
    if found:
        return found
    for members in _clusters(free):
        if np.prod([len(choices[i]) for i in members], dtype=float) > MOST:
            members = members[:1]
        found.update(zip(members, _best([choices[i] for i in members], pinned, reach), strict=True))
    return found


def _free(choice: Choice, pinned: NDArray[np.bool_]) -> Labels:
    """The channels that a choice is about and that may be folded."""
    labels = distinct(np.concatenate([x for option in choice for x in (option.a, option.b, option.pins)]))
    return labels[~pinned[labels]]


def _clusters(free: Sequence[Labels]) -> Iterator[list[int]]:
    """Choices that depend on each other, directly or through others; in order."""
    of = np.repeat(np.arange(len(free)), [len(one) for one in free])
    channels, index = np.unique(np.concatenate(free), return_inverse=True)
    cluster = connected(of, index + len(free), len(free) + len(channels))[: len(free)]
    for one in dict.fromkeys(cluster.tolist()):
        yield np.flatnonzero(cluster == one).tolist()


@dataclass(frozen=True)
class _Channels:
    """Channels when some options are taken: `of` tells which one every old channel is part of; of these, `reach` counts
    the positions of weights, and `kept` those that must stay."""

    of: Labels
    reach: Labels
    kept: NDArray[np.bool_]

    def __post_init__(self) -> None:
        read_only(self)

    def left(self) -> tuple[int, int]:
        """How many positions of weights are free, and how many channels."""
        free = self.reach[~self.kept]
        return int(free.sum()), int((free > 0).sum())

    def taking(self, option: Option) -> _Channels:
        """The same with one more option."""
        joined = connected(self.of[option.a], self.of[option.b], len(self.reach))
        of, count = joined[self.of], int(joined.max()) + 1
        kept = np.zeros(count, bool)
        kept[joined[self.kept]] = True
        kept[of[option.pins]] = True
        reach = np.zeros(count, np.int64)
        np.add.at(reach, joined, self.reach)
        return _Channels(of, reach, kept)


def _best(choices: Sequence[Choice], pinned: NDArray[np.bool_], reach: Labels) -> tuple[int, ...]:
    """The combination of options that leaves most free, the first of equals.

    One more option joins and keeps channels and frees none: where the first few leave no more than the best combination
    so far, whatever follows them is not tried.
    """
    every = [x for choice in choices for option in choice for x in (option.a, option.b, option.pins)]
    labels, index = np.unique(np.concatenate(every), return_inverse=True)
    parts = iter(np.split(index, np.cumsum([len(x) for x in every])[:-1]))
    local = [[Option(next(parts), next(parts), next(parts)) for _ in choice] for choice in choices]
    best, most = tuple[int, ...](), (-1, -1)
    waiting = [(best, _Channels(np.arange(len(labels)), reach[labels], pinned[labels]))]
    while waiting:
        taken, channels = waiting.pop()
        left = channels.left()
        if left <= most:
            continue
        if len(taken) == len(local):
            best, most = taken, left
        else:
            options = [*enumerate(local[len(taken)])]
            waiting += [((*taken, i), channels.taking(option)) for i, option in reversed(options)]
    return best
