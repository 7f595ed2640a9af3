"""Batches to train on: drawn from the samples there are, images shifted and mirrored at random, texts spliced.

A network trained on a hundred texts soon knows them by heart. Pieces of all of them, joined at random, are new texts
whose words follow each other as in the user's own, but at the joints; and what is learned needs no labels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...calibration.padding import GRAIN
from ...calibration.synthetic.image_ops import moved, spatial_axes
from ...frozen import read_only
from ...runtime.batching import Batching
from ...runtime.session import Feeds, InputSpec

Array = NDArray[Any]
_SHIFT = 8  # images are rolled by at most 1/8 of their side
_PIECE = (2, 8)  # words of a text that stay together


@dataclass(frozen=True, eq=False)
class BatchSampler:
    """Samples to draw from: `feeds`, each as it is run; or one feed of all of them where the model takes any number of
    samples, of which `size` are drawn at a time (0: feeds as they are). A step takes `together` of what is drawn.
    `mask`: the input [samples, words] that is 1 for the words of a text, where all inputs are such; '' else. What is
    drawn of texts has the first `words` positions."""

    feeds: Sequence[Feeds]
    size: int
    sampled: frozenset[str]
    together: int = 1
    mask: str = ""
    words: int = 0

    def __post_init__(self) -> None:
        read_only(self)

    @classmethod
    def of(
        cls, feeds: Sequence[Feeds], specs: Sequence[InputSpec], most: int, apart: bool = False, mask: str = ""
    ) -> BatchSampler:
        """`feeds` in batches of up to `most`, or `apart` one at a time; where shapes differ, only those of the most
        frequent shapes."""
        form = Batching.of(specs)
        groups: dict[Any, list[Feeds]] = {}
        for feed in feeds:
            kind = {n: x.shape[n in form.names and form.size is None :] for n, x in feed.items()}
            groups.setdefault(tuple(kind.items()), []).append(feed)
        chosen = max(groups.values(), key=len)
        if apart or not form.names or form.size is not None:
            return cls(chosen, 0, form.names, max(1, min(len(chosen), most // form.length(chosen[0]))))
        joined = {n: np.concatenate([f[n] for f in chosen]) if n in form.names else x for n, x in chosen[0].items()}
        words = _usual_length(joined[mask]) if mask else 0
        return cls([joined], min(most, form.length(joined)), form.names, mask=mask, words=words)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of every input, in one batch."""
        if self.mask:
            return {n: (self.size, self.words) for n in self.feeds[0]}
        first = self.feeds[0]
        return {n: (self.size, *x.shape[1:]) if self.size and n in self.sampled else x.shape for n, x in first.items()}

    def draw(self, rng: np.random.Generator) -> Iterator[Feeds]:
        """Batches without end; every sample comes once before any comes again."""
        total = len(next(x for n, x in self.feeds[0].items() if n in self.sampled)) if self.size else len(self.feeds)
        order = list[int]()
        while True:
            while len(order) < max(1, self.size):
                order += rng.permutation(total).tolist()
            taken, order = order[: max(1, self.size)], order[max(1, self.size) :]
            if not self.size:
                yield _augmented(self.feeds[taken[0]], rng)
            else:
                feed = self.feeds[0]
                drawn = {n: x[taken] if n in self.sampled else x for n, x in feed.items()}
                yield _spliced(drawn, feed, self.mask, self.words, rng) if self.mask else _augmented(drawn, rng)


def _usual_length(mask: Array) -> int:
    """Of texts [texts, positions], in words: the median, rounded up. Half of what a step on the longest would compute
    is what fills up the others."""
    usual = float(np.median(mask.sum(axis=1)))
    return int(min(mask.shape[1], math.ceil(usual / GRAIN) * GRAIN))


def _spliced(drawn: Feeds, pool: Feeds, mask: str, most: int, rng: np.random.Generator) -> Feeds:
    """The texts that were `drawn`, all but their first and last word replaced by pieces of texts of the `pool`, with
    `most` positions: of longer ones the first and the last word stay."""
    lengths = pool[mask].sum(axis=1).astype(int)
    sources = np.flatnonzero(lengths > 2)
    longest, shown = int(lengths.argmax()), pool[mask].astype(bool)
    telling = {name for name, x in pool.items() if ((x != x[longest]) & shown).any()}  # numbers of places do not
    found = {name: x[:, :most].copy() for name, x in drawn.items()}
    for row, words in enumerate(drawn[mask].sum(axis=1).astype(int)):
        if words > most:
            for name in telling:
                found[name][row, -1] = drawn[name][row, words - 1]
            words = most
        at = 1
        while at < words - 1 and len(sources):
            source = int(rng.choice(sources))
            inner = int(lengths[source]) - 2
            count = min(int(rng.integers(_PIECE[0], _PIECE[1] + 1)), inner, words - 1 - at)
            begin = 1 + int(rng.integers(inner - count + 1))
            for name in telling:
                found[name][row, at : at + count] = pool[name][source, begin : begin + count]
            at += count
    return found


def _augmented(feed: Feeds, rng: np.random.Generator) -> Feeds:
    """Images rolled and mirrored at random, each by itself."""
    return {name: _moved(x, rng) if x.dtype.kind == "f" else x for name, x in feed.items()}


def _moved(x: Array, rng: np.random.Generator) -> Array:
    axes = spatial_axes(x.shape)
    if not axes:
        return x
    within = [a - 1 for a in axes]
    found = np.empty_like(x)
    for i, image in enumerate(x):
        reach = [image.shape[a] // _SHIFT for a in within]
        shift = [int(rng.integers(-n, n + 1)) for n in reach]
        found[i] = moved(image, within, shift, bool(rng.integers(2)))
    return found
