"""Batches to train on: drawn from the samples there are, images shifted and mirrored at random."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...calibration.synthetic.image_ops import moved, spatial_axes
from ...frozen import read_only
from ...runtime.batching import Batching
from ...runtime.session import Feeds, InputSpec

Array = NDArray[Any]
_SHIFT = 8  # images are rolled by at most 1/8 of their side


@dataclass(frozen=True, eq=False)
class BatchSampler:
    """Samples to draw from: `feeds`, each as it is run; or one feed of all of them where the model takes any number of
    samples, of which `size` are drawn at a time (0: feeds as they are). A step takes `together` of what is drawn."""

    feeds: Sequence[Feeds]
    size: int
    sampled: frozenset[str]
    together: int = 1

    def __post_init__(self) -> None:
        read_only(self)

    @classmethod
    def of(cls, feeds: Sequence[Feeds], specs: Sequence[InputSpec], most: int, apart: bool = False) -> BatchSampler:
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
        return cls([joined], min(most, form.length(joined)), form.names)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of every input, in one batch."""
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
                yield _augmented({n: x[taken] if n in self.sampled else x for n, x in feed.items()}, rng)


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
