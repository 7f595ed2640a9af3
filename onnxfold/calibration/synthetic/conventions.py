"""How a model wants its images: which numbers stand for black and white, and in which order colors come.

Nothing in a file says it. What does is how photographs fare inside: under the right convention the statistics of its
layers, or the laws that networks obey (the loss of deep inversion), fit best by far.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from ...errors import ExecutionError, OnnxFoldError
from ...frozen import read_only
from ...model.model import Model
from ...progress import steps
from ...runtime.session import InputSpec
from .image_ops import spatial_axes
from .photographs import crops, more_photographs, photographs
from .problem import CLASSES, InversionProblem, NotInvertibleError, pose_losses

Floats = NDArray[np.float32]
_TRIED, _CHUNK = 36, 12  # crops, and so many at a time
_SMALL = 64 * 64  # pixels of crops that are remembered: models of small images take less time than making these
_PAIR = 2  # crops at a time, of large images: ratios of losses are those of eight at a time, to 0.01
_ROUNDS = ((2, 1.3), (4, 1.2), (_CHUNK, math.inf))  # so many crops, and how far from the best is ruled out by them
_WELL = 10.0  # of nine networks under the right convention the worst is at 3.2, in a wrong scale the best at 30
_FAR = 1.3  # of 23 networks, no other crops moved the ratio of two losses that were near each other by more than 1.07
_ALIKE = 1.1  # three ImageNet networks that want -1 to 1 fit unit variance 5 to 7 % better, which has twice its spread


@dataclass(frozen=True, eq=False)
class Convention:
    """Pixels from 0 to 255 less `mean`, over `deviation`; `reverse`: blue comes first."""

    name: str
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    reverse: bool = False

    def __post_init__(self) -> None:
        read_only(self)

    def applied(self, pixels: Floats, shape: Sequence[int]) -> Floats:
        """[N, H, W, 3] pixels as a batch of this `shape` (but for its first axis): gray or color, channels first or
        last."""
        x = (pixels - np.array(self.mean, np.float32)) / np.array(self.deviation, np.float32)
        x = x[..., ::-1] if self.reverse else x
        axes = spatial_axes(shape)
        if shape[6 - sum(axes)] == 1:
            x = x.mean(axis=3, keepdims=True)
        return np.ascontiguousarray(np.moveaxis(x, 3, 1) if axes == (2, 3) else x, np.float32)


_MEAN, _DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of ImageNet
USUAL = Convention("zero mean, unit variance", _MEAN, _DEVIATION)
CONVENTIONS = (
    USUAL,
    Convention("-1 to 1", (127.5,) * 3, (127.5,) * 3),
    Convention("0 to 1", (0.0,) * 3, (255.0,) * 3),
    Convention("0 to 255", (0.0,) * 3, (1.0,) * 3),
    Convention("blue first, less the mean", _MEAN, (1.0,) * 3, True),
)
UNIT, BYTES = CONVENTIONS[1], CONVENTIONS[3]
_FOUND = WeakKeyDictionary[Model, dict[tuple[object, ...], Convention]]()


def convention(
    model: Model, specs: Sequence[InputSpec], name: str, shape: Sequence[int], shapes: Shapes, quick: bool = False
) -> Convention:
    """What input `name`, of this `shape` but for its first axis, wants: the convention under which crops of photographs
    fit best.

    Zero mean and unit variance where the model tells nothing. It is remembered: who makes inputs asks, and who judges.
    `quick`: of large images, fewer crops say so.
    """
    rows, columns = (shape[axis] for axis in spatial_axes(shape))
    quick &= rows * columns > _SMALL
    key = (quick, name, *shape[1:], *((n, *size) for n, size in sorted(shapes.items())))
    known = _FOUND.setdefault(model, {})
    if key not in known:
        known[key] = _found(model, specs, name, shape, shapes, quick)
    return known[key]


def _found(
    model: Model, specs: Sequence[InputSpec], name: str, shape: Sequence[int], shapes: Shapes, quick: bool
) -> Convention:
    spec = next(s for s in specs if s.name == name)
    if spec.dtype is not None and np.dtype(spec.dtype).kind != "f":
        return BYTES
    known = {**shapes, name: (1, *shape[1:])}
    for apart in (False, True):  # models whose batch is fixed somewhere inside take one sample at a time
        try:
            problem = pose_losses(model, specs, _PAIR if quick else _CHUNK, known, apart)
            if name not in problem.shapes or problem.terms.goal is CLASSES:  # scores of classes say nothing
                return USUAL
            count, compared = (_CHUNK, _by_halving) if quick else (_TRIED, _losses)
            losses = compared(problem, name, _pixels(count, shape))
        except (NotInvertibleError, ExecutionError, OnnxFoldError):
            continue
        best = min(CONVENTIONS, key=lambda c: losses[c])
        if best is USUAL and losses[UNIT] <= _ALIKE * losses[best]:
            return UNIT
        return best if math.isfinite(losses[best]) else USUAL
    return USUAL


Shapes = Mapping[str, Sequence[int]]


def better_convention(
    model: Model, specs: Sequence[InputSpec], given: Floats, shapes: Shapes, times: float
) -> tuple[str, float] | None:
    """(the convention, how many times better) under which photographs fit the running statistics of the model that many
    `times` better than the images `given` for its only input; None where they do not, or it has no statistics."""
    (spec,) = specs
    shape = (1, *given.shape[1:])
    if not any(node.op == "BatchNormalization" for node in model.graph.nodes):
        return None
    try:
        problem = pose_losses(model, specs, _CHUNK, {**shapes, spec.name: shape})
        if spec.name not in problem.shapes or not problem.terms.layers:
            return None
        images = np.resize(given, problem.shapes[spec.name])
        found = _mean(fits(problem, spec.name, [images]))
        if found < _WELL:
            return None
        losses = _losses(problem, spec.name, _pixels(_CHUNK, shape))
    except (NotInvertibleError, ExecutionError, OnnxFoldError):
        return None
    best = min(CONVENTIONS, key=lambda c: losses[c])
    better = found / max(losses[best], 1e-9)
    return (best.name, better) if math.isfinite(losses[best]) and better > times else None


def _pixels(count: int, shape: Sequence[int]) -> Floats:
    """[count, height, width, 3] crops of all photographs, always the same ones, for images of this `shape`."""
    rows, columns = (shape[axis] for axis in spatial_axes(shape))
    return (_small if rows * columns <= _SMALL else _crops)(count, rows, columns)


def _crops(count: int, rows: int, columns: int) -> Floats:
    pixels = crops(np.random.default_rng(0), (*more_photographs(), *photographs()), count, rows, columns)
    pixels.setflags(write=False)
    return pixels


_small = lru_cache(maxsize=4)(_crops)


def _losses(problem: InversionProblem, name: str, pixels: Floats) -> dict[Convention, float]:
    """How badly `pixels` fit the model under every convention, all other inputs of floats at zero.

    Infinity where the first of them, about as many as a chunk may have, fit far worse than under another one. The
    others are run for what is left, unless that is one alone, or so few fill the memory: that takes long.
    """
    size = problem.chunk
    few, large = max(1, _CHUNK // size), size < _CHUNK and not problem.apart
    starts = range(0, len(pixels) - size + 1, size)[: few if large else None]

    def under(tried: Convention, some: Sequence[int]) -> list[float]:
        return fits(problem, name, _chunks(problem, name, tried, pixels, some))

    begun = {c: under(c, starts[:few]) for c in steps("finding the pixel range", CONVENTIONS)}
    limit = _FAR * min(map(_mean, begun.values()))
    left = [c for c in CONVENTIONS if _mean(begun[c]) <= limit]
    if len(left) > 1:
        begun |= {c: begun[c] + under(c, starts[few:]) for c in steps("finding the pixel range", left)}
    return {c: _mean(begun[c]) if c in left else math.inf for c in CONVENTIONS}


def _by_halving(problem: InversionProblem, name: str, pixels: Floats) -> dict[Convention, float]:
    """The same by successive halving (Jamieson and Talwalkar, AISTATS 2016): infinity where one was ruled out."""
    size = problem.chunk
    found, left, begin = {c: list[float]() for c in CONVENTIONS}, list(CONVENTIONS), 0
    for end, far in _ROUNDS:
        some = range(begin, end - size + 1, size)
        for c in steps("finding the pixel range", left):
            found[c] += fits(problem, name, _chunks(problem, name, c, pixels, some))
        limit, begin = far * min(_mean(found[c]) for c in left), end
        left = [c for c in left if _mean(found[c]) <= limit]
        if len(left) < 2:
            break
    return {c: _mean(found[c]) if c in left else math.inf for c in CONVENTIONS}


def _chunks(
    problem: InversionProblem, name: str, tried: Convention, pixels: Floats, starts: Sequence[int]
) -> list[Floats]:
    """`pixels` from every one of `starts` as chunks of input `name`."""
    shape = problem.shapes[name]
    return [tried.applied(pixels[at : at + problem.chunk], shape).reshape(shape) for at in starts]


def fits(problem: InversionProblem, name: str, chunks: Sequence[Floats]) -> list[float]:
    """How badly each of `chunks` of images for input `name` fits the model."""
    terms = problem.terms
    target = None
    if terms.scores is not None:
        target = np.eye(terms.classes, dtype=np.float32)[np.arange(problem.chunk) % terms.classes]
    losses = []
    for chunk in steps("running the model", chunks):
        x = {n: np.zeros(s, np.float32) for n, s in problem.shapes.items()}
        x[name] = chunk
        losses.append(problem.evaluate(x, target).fit)
    return losses


def _mean(losses: Sequence[float]) -> float:
    return float(np.mean(losses)) if losses and np.isfinite(losses).all() else math.inf
