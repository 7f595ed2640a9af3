"""Batches: which axis of a model's inputs holds samples, how feeds are cut there and joined again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..frozen import read_only
from ..model.shapes.nominal import UNNAMED
from .session import Feeds, InputSpec


@dataclass(frozen=True)
class Batching:
    """How samples lie in the inputs of a model.

    Attributes:
        names: the inputs that hold samples along axis 0. Empty where there is no such axis that all of them share
            (recurrent states, graphs): every feed is passed as it is.
        size: samples per run if the model fixes it, None for any number.
    """

    names: frozenset[str]
    size: int | None

    @staticmethod
    def of(specs: Sequence[InputSpec]) -> Batching:
        """Axis 0 is for samples where it is open in some inputs, under one name that no other axis has, and all other
        inputs are of fixed shape (the same for all samples); or where it is fixed and equally long in all."""
        ranked = [s for s in specs if s.shape]
        opened = [s for s in ranked if not fixed(s.shape[0])]
        if opened:
            first = {s.shape[0] for s in opened} - UNNAMED
            inner = {d for s in opened for d in s.shape[1:]}
            rest = [d for s in specs if s not in opened for d in s.shape]
            if len(first) <= 1 and not first & inner and all(fixed(d) for d in rest):
                return Batching(frozenset(s.name for s in opened), None)
        elif len(lengths := {int(s.shape[0] or 0) for s in ranked}) == 1:
            return Batching(frozenset(s.name for s in ranked), lengths.pop())
        return Batching(frozenset(), None)

    def length(self, feed: Feeds) -> int:
        """Samples in a feed; 1 where feeds are passed as they are."""
        return next((len(x) for name, x in feed.items() if name in self.names), 1)

    def joinable(self, one: Feeds, other: Feeds) -> bool:
        """Whether the samples of two feeds can run together: only scalars may lie in other inputs than `names`."""
        return bool(self.names) and all(
            x.shape[1:] == other[name].shape[1:] if name in self.names else x.ndim == 0 and x == other[name]
            for name, x in one.items()
        )

    def join(self, feeds: Sequence[Feeds]) -> Feeds:
        """Joinable feeds as one."""
        if len(feeds) == 1:
            return feeds[0]
        return {n: np.concatenate([f[n] for f in feeds]) if n in self.names else x for n, x in feeds[0].items()}


def batches(feeds: Sequence[Feeds], specs: Sequence[InputSpec], size: int) -> Iterator[Feeds]:
    """`feeds` in larger batches where the model takes any number of samples; else as they are.

    Consecutive feeds are joined along axis 0 up to `size` samples, as long as their other axes agree. No sample is
    lost, and none moved; a feed that has more than `size` stays whole.
    """
    form = Batching.of(specs)
    waiting: list[Feeds] = []
    count = 0
    for feed in feeds:
        more = form.length(feed)
        if waiting and (form.size is not None or count + more > size or not form.joinable(waiting[-1], feed)):
            yield form.join(waiting)
            waiting, count = [], 0
        waiting.append(feed)
        count += more
    if waiting:
        yield form.join(waiting)


@dataclass(frozen=True, eq=False)
class Piece:
    """Samples `start` to `stop` of a feed; of one that is passed as it is, all."""

    feed: Feeds
    start: int
    stop: int
    where: str

    def __post_init__(self) -> None:
        read_only(self)


def cut(feeds: Iterator[tuple[str, Feeds]], form: Batching) -> Iterator[list[Piece]]:
    """What the model takes in one run, in pieces: samples stay in order, and together where a feed has a whole batch.

    The last list may hold fewer."""
    unit = form.size or 1
    waiting: list[Piece] = []
    room = unit
    for where, feed in feeds:
        start, length = 0, form.length(feed)
        while start < length:
            stop = min(length, start + room)
            waiting.append(Piece(feed, start, stop, where))
            room -= stop - start
            start = stop
            if room == 0:
                yield waiting
                waiting, room = [], unit
    if waiting:
        yield waiting


def fixed(dim: int | str | None) -> bool:
    """Whether a declared dimension is a number."""
    return isinstance(dim, int) and dim > 0
