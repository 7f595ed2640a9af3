"""How far outputs differ: the only definitions of error and agreement, and of which axis of an output has classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .moments import Along, Moments, as_rows

NOTHING: Along = MappingProxyType({})
_ALIKE = 1e-9  # of logarithms: less is rounding
_FEWEST = 8  # values of a component: of fewer, a deviation says little
_FLOOR = 1e-5  # of a component's own size: less deviation than that is rounding
_MOST_ALIKE = 1.25  # times as far, at most, outputs move on all samples: further is the doing of a few odd ones
_MOST_SEEN = 2.0  # times as far as on what is measured, outputs may move on what the model knows
_PEERS = 1e-3  # of the median deviation: what moves less beside the others is dead (a score beside pixels moves more)


def relative_l2(expected: NDArray[Any], found: NDArray[Any]) -> float:
    """|found - expected| / |expected|; inf where the shapes differ, nan where `found` is not finite.

    Values that are NaN or infinite in both alike (-inf for what is masked) do not count.
    """
    a, b = np.asarray(expected, np.float64), np.asarray(found, np.float64)
    if a.shape != b.shape:
        return float("inf")
    a, b = _without_alike(a, b, 0.0)
    size = float(np.linalg.norm(a))
    return float(np.linalg.norm(a - b)) / size if size > 0 else float(np.linalg.norm(b))


def _without_alike(
    a: NDArray[np.float64], b: NDArray[np.float64], instead: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both with `instead` where they are NaN or infinite alike."""
    if np.isfinite(a).all():
        return a, b
    alike = ~np.isfinite(a) & ((a == b) | (np.isnan(a) & np.isnan(b)))
    return np.where(alike, instead, a), np.where(alike, instead, b)


def component_error(
    expected: Sequence[NDArray[Any]],
    found: Sequence[NDArray[Any]],
    seen: Sequence[NDArray[Any]] = (),
    samples: Sequence[int] = (),
    alike: Along = NOTHING,
) -> float:
    """How far one output is off, in units of what it does: 0 where nothing changed, about 1 where nothing is left.

    A component is a class, a coordinate, a channel: one index along an axis that is neither batch, position nor time.
    The mean squared error of each is taken over its variance (so that its mean over the samples cannot hide it, and a
    box in pixels cannot hide a score), then averaged over all components, and the root is taken. It is the square root
    of one minus the coefficient of determination where all components vary alike.

    Shapes do not say which axis that is: the second and the last are tried, and the larger error counts; the first
    too where it is not the batch. An output [N] is one component, or N of them in an output without a batch. Outputs
    with fewer than 8 values a component are compared as a whole (`relative_l2`). Values that are NaN or infinite in
    both alike do not count.

    Args:
        expected, found: one output [N, ...] on several batches.
        seen: the same output of the original on other inputs, like those that it knows. Where most components deviate
            more on them, all units are larger, by the root of the median (at most 2 times): real inputs move outputs by
            something between the two (an EfficientNet-Lite0: 1.08, 1.20 and 1.32).
        samples: how many are in each batch, to see whether the first axis is the batch; empty: it is.
        alike: how far the original moves on more inputs of the very kind that judges, whose errors nobody may look at:
            units are those of all, since few samples say little of what moves rarely (at most 1.25 times as large, by
            the median: a sample that is unlike all others would hide every error).

    Returns inf where shapes differ or a value is not finite.
    """
    pairs = [(np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in zip(expected, found, strict=True)]
    if any(a.shape != b.shape for a, b in pairs):
        return float("inf")
    rank = min((a.ndim for a, _ in pairs), default=0)
    if not all(np.isfinite(x).all() for pair in pairs for x in _without_alike(*pair, 0.0)):
        return float("inf")
    apart = [_without_alike(*pair, float("nan")) for pair in pairs]
    errors = [_along(axis, apart, seen, alike.get(axis)) for axis in _axes(rank, [a for a, _ in pairs], samples)]
    measured = [error for error in errors if error is not None]
    if measured or not pairs:
        return max(measured, default=0.0)
    return relative_l2(*(np.concatenate([x.ravel() for x in side]) for side in zip(*pairs, strict=True)))


def _axes(rank: int, outputs: Sequence[NDArray[Any]], samples: Sequence[int]) -> list[int | None]:
    """The axes that may have the components; None: all values are of one."""
    batched = not samples or all(len(x) == count for x, count in zip(outputs, samples, strict=True) if x.ndim)
    axes: list[int | None] = [axis for axis in sorted({1, rank - 1}) if 0 < axis < rank]
    if rank < 2:
        axes.append(None)
    return axes if batched or rank == 0 else [*axes, 0]


def _along(
    axis: int | None,
    pairs: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]],
    seen: Sequence[NDArray[Any]],
    alike: Moments | None,
) -> float | None:
    """The error with components along `axis`; None where batches disagree on them, or they have too few values."""
    counts = {_components(a, axis) for a, _ in pairs}
    if len(counts) != 1 or not all(a.size for a, _ in pairs):
        return None
    count = counts.pop()
    before, after = (as_rows(side, axis) for side in zip(*pairs, strict=True))
    more = alike if alike is not None and alike.count.shape == (count,) else None
    if not count or len(before) + (0 if more is None else more.count.max()) < _FEWEST:
        return None
    size, deviation = _moments(before)
    if more is not None:
        deviation = _tempered(deviation, (Moments.of(before) + more).deviation)
    if seen and all(
        x.ndim == pairs[0][0].ndim and _components(x, axis) == count and np.isfinite(x).all() for x in seen
    ):
        there = _moments(as_rows(seen, axis))[1]
        further = there[deviation > 0] / deviation[deviation > 0]
        factor = min(max(float(np.median(further)) ** 0.5, 1.0), _MOST_SEEN) if further.size else 1.0
        deviation = np.maximum(factor * deviation, there / _MOST_SEEN)
    unit = np.maximum(deviation, np.maximum(_FLOOR * size, _PEERS * np.median(deviation)))
    noise, _ = _moments(after - before)
    known = unit > 0
    if (noise[~known] > 0).any():
        return float("inf")
    return float(np.sqrt(np.square(noise[known] / unit[known]).sum() / max(1, known.sum())))


def _tempered(own: NDArray[np.float64], everything: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far every component moves on all samples, less where most move much further there than on the `own` ones that
    judge: one odd sample among those that nobody looks at (a picture in another scale) must not hide all errors."""
    if not np.isfinite(everything).all():
        return own
    moves = own > 0
    further = float(np.median(everything[moves] / own[moves])) if moves.any() else 1.0
    return everything / max(1.0, further / _MOST_ALIKE)


def _moments(rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(root mean square, standard deviation) of every column, of what is not NaN; 0 where all is."""
    there = ~np.isnan(rows)
    if there.all():
        return np.sqrt(np.square(rows).mean(axis=0)), rows.std(axis=0)
    count, filled = np.maximum(1, there.sum(axis=0)), np.where(there, rows, 0.0)
    apart = np.where(there, rows - filled.sum(axis=0) / count, 0.0)
    size, deviation = (np.sqrt(np.square(x).sum(axis=0) / count) for x in (filled, apart))
    return size, deviation


def _components(x: NDArray[Any], axis: int | None) -> int:
    return 1 if axis is None else x.shape[axis] if axis < x.ndim else 0


@dataclass(frozen=True)
class OutputError:
    """How one output differs. `top1`: see `agreement`; `changed`: the share of elements that are others, where they
    are no floats."""

    name: str
    relative_l2: float
    cosine: float
    sqnr_db: float
    max_abs: float
    top1: float | None
    changed: float | None = None


def output_error(name: str, expected: NDArray[Any], found: NDArray[Any]) -> OutputError:
    """All figures for one output. Equal outputs have an error of 0 and a SQNR of inf.

    Values that are NaN or infinite in both count as equal where they agree; one that is not finite makes the error inf.
    """
    return pooled_error(name, [expected], [found])


def pooled_error(name: str, expected: Sequence[NDArray[Any]], found: Sequence[NDArray[Any]]) -> OutputError:
    """The same over several batches together."""
    top1, changed = agreement(expected, found), _changed(expected, found)
    a, b = (np.concatenate([x.astype(np.float64).ravel() for x in batches]) for batches in (expected, found))
    a, b = _without_alike(a, b, 0.0)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        infinite = float("inf")
        return OutputError(name, infinite, 0.0, -infinite, infinite, top1, changed)
    signal, noise = float(np.linalg.norm(a)), float(np.linalg.norm(a - b))
    norms = signal * float(np.linalg.norm(b))
    if noise == 0:
        relative, cosine, sqnr = 0.0, 1.0, float("inf")
    else:
        relative = noise / signal if signal > 0 else float("inf")
        cosine = float(a @ b) / norms if norms > 0 else 0.0
        sqnr = -20 * float(np.log10(relative)) if signal > 0 else -float("inf")
    return OutputError(name, relative, cosine, sqnr, float(np.abs(a - b).max(initial=0.0)), top1, changed)


def _changed(expected: Sequence[NDArray[Any]], found: Sequence[NDArray[Any]]) -> float | None:
    """The share of elements that are others; None for floats."""
    if any(x.dtype.kind == "f" for x in expected):
        return None
    others = np.concatenate([(a != b).ravel() for a, b in zip(expected, found, strict=True)])
    return float(others.mean()) if others.size else 0.0


def class_axis(scores: NDArray[Any]) -> int | None:
    """The axis of an output [N, ...] along which it has a score for every class; None where it has no such scores.

    Scores are floats, and classes at least two. What is known is a shape, so that this is a rule with limits:

    * [N, C] and [N, C, 1, ...]: axis 1.
    * [N, T, C]: the last, as language models have it. (Of [N, C, T] that is the wrong one.)
    * [N, C, H, W] and [N, H, W, C], also of more axes: axis 1 or the last, whichever is less like what lies between (in
      ratio): sides of images are alike, and differ from the number of classes. Where both are as far from it, axis 1,
      as ONNX's convolutions have it. (Wrong for maps twice as wide as high with half as many classes as rows or more.
      Images that a model makes, [N, 3, H, W], count as scores of three classes.)

    >>> [class_axis(np.zeros(shape)) for shape in ((8, 10), (8, 10, 1, 1), (8, 16, 300), (1, 1, 8, 8), (8, 1))]
    [1, 1, 2, None, None]
    >>> [class_axis(np.zeros(shape)) for shape in ((2, 9, 64, 96), (2, 64, 96, 9), (2, 100, 7, 7), (2, 5, 5, 5))]
    [1, 3, 1, 1]
    """
    shape = scores.shape
    if scores.dtype.kind != "f" or len(shape) < 2 or 0 in shape:
        return None
    axis = 1
    if any(length != 1 for length in shape[2:]):
        between = np.log(shape[2:-1]).mean() if len(shape) > 3 else 0.0
        first, last = (abs(np.log(shape[at]) - between) for at in (1, -1))
        axis = 1 if len(shape) > 3 and first >= last - _ALIKE else len(shape) - 1
    return axis if shape[axis] > 1 else None


def agreement(expected: Sequence[NDArray[Any]], found: Sequence[NDArray[Any]]) -> float | None:
    """The share of samples whose largest score stays in place, of one output; over all of its batches together.

    Every word of a text and every pixel of a map is a sample of its own. None where the output has no scores of classes
    (see `class_axis`), or there are fewer than two samples, of which no share says anything. Samples of which `found`
    has other shapes do not agree.
    """
    same = list[NDArray[np.bool_]]()
    for a, b in zip(expected, found, strict=True):
        axis = class_axis(a)
        if axis is not None:
            best = a.argmax(axis).ravel()
            same.append(best == b.argmax(axis).ravel() if a.shape == b.shape else np.zeros(best.shape, bool))
    pooled = np.concatenate(same) if same else np.zeros(0, bool)
    return float(pooled.mean()) if len(pooled) > 1 else None
