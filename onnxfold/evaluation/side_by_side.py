"""Outputs of both models beside each other, in so few numbers that a report can hold them: points, a histogram, and
the samples that are furthest off."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.session import Feeds
from .metrics import class_axis

POINTS, BINS, WORST = 256, 24, 6  # of one output
OUTPUTS = 4  # of a model with more, the first ones
_LOOKED_AT = 1 << 20  # values of an output at most, evenly spread
_DIGITS = 5
_HUGE = 1e150  # larger ones have no squares
_ALIKE = 1e-9

Array = NDArray[Any]
Batches = Sequence[Array]
Thumbnails = Callable[[Sequence[Feeds], Sequence[int]], Sequence[str]]
"""From inputs, and numbers of samples in them, to small JPEGs of these in base64 ('' where they are no images)."""


@dataclass(frozen=True)
class WorstSample:
    """A sample that is far off: its number among all, and the norm of its difference over the usual norm of a sample.

    `before`, `after`: its top class, where the output is [N, classes]. `image`: a JPEG of it in base64, where the model
    takes images ('' otherwise).
    """

    sample: int
    error: float
    before: int | None = None
    after: int | None = None
    image: str = ""


@dataclass(frozen=True)
class SideBySide:
    """One output of both models.

    Attributes:
        name: the output.
        before, after: the same values in both, of at most 256 places that are spread evenly.
        edges, counts: a histogram of the differences; one edge more than counts.
        worst: the samples with the largest errors, the largest first.
    """

    name: str
    before: tuple[float, ...]
    after: tuple[float, ...]
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    worst: tuple[WorstSample, ...] = ()


def side_by_side(pairs: Mapping[str, tuple[Batches, Batches]]) -> tuple[SideBySide, ...]:
    """What there is to see of the first outputs in `pairs`: by name, all batches of the original and of the result.

    Outputs that are no floats, hold no finite value, or have other shapes are left out.
    """
    made = [_one(name, *pair) for name, pair in list(pairs.items())[:OUTPUTS]]
    return tuple(one for one in made if one is not None)


def with_images(seen: Sequence[SideBySide], inputs: Sequence[Feeds], thumbnails: Thumbnails) -> tuple[SideBySide, ...]:
    """The same with pictures of the worst samples of the first output."""
    return tuple(
        one if number else replace(one, worst=_pictured(one.worst, inputs, thumbnails))
        for number, one in enumerate(seen)
    )


def _pictured(worst: Sequence[WorstSample], inputs: Sequence[Feeds], made: Thumbnails) -> tuple[WorstSample, ...]:
    images = made(inputs, [one.sample for one in worst])
    return tuple(replace(one, image=image) for one, image in zip(worst, images, strict=True))


def _one(name: str, before: Batches, after: Batches) -> SideBySide | None:
    if any(a.shape != b.shape or a.dtype.kind != "f" for a, b in zip(before, after, strict=True)):
        return None
    a, b = _spread(before, _LOOKED_AT), _spread(after, _LOOKED_AT)
    known = (np.abs(a) < _HUGE) & (np.abs(b) < _HUGE)  # what is NaN or infinite is not
    a, b = a[known], b[known]
    if not a.size:
        return None
    counts, edges = _histogram(b - a)
    shown = np.unique(np.linspace(0, len(a) - 1, POINTS).astype(int))
    return SideBySide(name, _rounded(a[shown]), _rounded(b[shown]), edges, counts, _worst(before, after))


def _histogram(values: NDArray[np.float64]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Counts and edges; values that are all alike lie in the middle."""
    low, high = float(values.min()), float(values.max())
    size = max(abs(low), abs(high))
    if high - low <= _ALIKE * size:
        low, high = low - (size or 1.0) / 2, high + (size or 1.0) / 2
    counts, edges = np.histogram(values, BINS, (low, high))
    return tuple(map(int, counts)), _rounded(edges)


def _spread(batches: Batches, most: int) -> NDArray[np.float64]:
    """At most `most` values of all batches, evenly spread. (Both models have the same shapes: the same places.)"""
    step = max(1, -(-sum(x.size for x in batches) // most))
    return np.concatenate([x.reshape(-1)[::step].astype(np.float64) for x in batches])


def _rounded(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float(f"{x:.{_DIGITS}g}") for x in values)


def _worst(before: Batches, after: Batches) -> tuple[WorstSample, ...]:
    """Where every sample has a row of its own."""
    if not all(x.ndim for x in before):
        return ()
    pairs = [tuple(_rows(x) for x in pair) for pair in zip(before, after, strict=True) if pair[0].size]
    if not pairs or not all((np.abs(x) < _HUGE).all() for pair in pairs for x in pair):
        return ()
    apart = np.concatenate([np.linalg.norm(b - a, axis=1) for a, b in pairs])
    sizes = np.concatenate([np.linalg.norm(a, axis=1) for a, _ in pairs])
    if len(apart) < 2:
        return ()
    usual = float(np.sqrt(np.mean(np.square(sizes)))) or 1.0
    tops = [_classes(side) for side in (before, after)]

    def top(side: int, sample: int) -> int | None:
        found = tops[side]
        return None if found is None else int(found[sample])

    return tuple(
        WorstSample(int(i), float(f"{apart[i] / usual:.{_DIGITS}g}"), top(0, i), top(1, i))
        for i in np.argsort(-apart, kind="stable")[:WORST]
    )


def _rows(batch: Array) -> NDArray[np.float64]:
    """[samples, values]"""
    return batch.reshape(len(batch), -1).astype(np.float64)


def _classes(batches: Batches) -> Array | None:
    """The top class of every sample of an output [N, classes]; None for another."""
    if any(x.ndim != 2 or class_axis(x) != 1 for x in batches):
        return None
    return np.concatenate([x.argmax(axis=1) for x in batches])
