"""Deep inversion: gradient descent on inputs until the network's own statistics and classes say they look right."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..progress import Progress
from . import images
from .adam import Adam
from .objective import match
from .problem import Problem, Value

Floats = NDArray[np.float32]
RATE = 0.1  # Adam's, in units of the standard deviation of the inputs
_TUNED = 32  # pixels: the side of the images that the smoothness was tuned on
_SHIFT = 8  # a roll moves images by at most 1/8 of their side
_SCALES = tuple((4.0**k, 0.0) for k in (0, -1, 1, -2, 2, 3, 4))  # of inputs that are no images: 1/16 .. 256
_RARE = 1.25  # times worse counts the fit at scales above 1 of images: most models standardise their inputs
_SEARCH = 0.25  # share of the time limit that finding the scale may take
# (scale, mean in units of it) of images as usually prepared: standardised, -1..1, 0..1, 0..255, 0..255 less the mean
_CONVENTIONS = ((1.0, 0.0), (0.5, 0.0), (0.25, 2.0), (64.0, 2.0), (64.0, 0.0))


@dataclass(frozen=True)
class Inverted:
    """`x` [count, ...]; `losses`: the loss at every step, mean over the chunks; `match`: see objective.match."""

    x: Floats
    losses: tuple[float, ...]
    match: float | None
    note: str


def invert(
    problem: Problem, count: int, steps: int, seed: int, seconds: float | None, progress: Progress[Any]
) -> Inverted:
    """`count` inputs, made in independent chunks. `seconds` is a limit for all of them: fewer steps are taken then."""
    chunk = problem.shape[0]
    chunks = -(-count // chunk)
    begin = time.perf_counter()
    deadline = None if seconds is None else begin + seconds * _SEARCH
    scale, offset = _range_of(problem, np.random.default_rng([seed, 0]), deadline)
    made, curves, values = [], [], []
    work = iter(progress("making synthetic inputs", range(chunks * steps)))
    for index in range(chunks):
        deadline = None if seconds is None else begin + seconds * (index + 1) / chunks
        walk = _Walk(problem, np.random.default_rng([seed, 1 + index]), scale, offset)
        done = 0
        while done < steps and (done == 0 or deadline is None or time.perf_counter() < deadline):
            next(work, None)
            walk.step(done, steps, deadline)
            done += 1
        x, value = walk.result()
        made.append(x)
        curves.append(walk.losses)
        values.append(value)
    x = np.concatenate(made)[:count]
    shortest = min(map(len, curves))
    losses = tuple(float(v) for v in np.mean([c[:shortest] for c in curves], axis=0)) if shortest else ()
    fit = None
    if problem.terms.layers:
        means, squares = (np.mean([getattr(v, name) for v in values], axis=0) for name in ("means", "squares"))
        fit = match(problem.terms.layers, means, squares)
    note = f"stopped by the time limit after {shortest} of {steps} steps" if shortest < steps else ""
    return Inverted(x, losses, fit, note)


class _Walk:
    """The descent of one chunk, in inputs of unit variance: x = scale * (z + offset)."""

    def __init__(self, problem: Problem, rng: np.random.Generator, scale: float, offset: float) -> None:
        self._problem, self._rng, self._scale, self._offset = problem, rng, np.float32(scale), np.float32(offset)
        self._axes = images.spatial_axes(problem.shape)
        sides = [problem.shape[a] for a in self._axes]
        self._coarseness = min(
            1.0, (min(sides, default=_TUNED) / _TUNED) ** 2
        )  # neighbours differ more in small images
        self._z = images.noise(rng, problem.shape)
        self._target = _targets(rng, problem.shape[0], problem.terms.classes)
        self._adam = Adam(self._z, RATE)
        self._allowed: int | None = None
        self._begin = time.perf_counter()
        self.losses: list[float] = []

    def step(self, done: int, steps: int, deadline: float | None) -> None:
        """One step of Adam; the decay ends with the last step, or at `deadline` where that comes first."""
        if deadline is not None and done == 3:
            each = (time.perf_counter() - self._begin) / done
            self._allowed = max(4, int((deadline - self._begin) / each))
        shift = [int(self._rng.integers(-n, n + 1)) for n in self._reach()]
        flip = bool(self._axes) and bool(self._rng.integers(2))
        value = self._value(images.moved(self._z, self._axes, shift, flip))
        gradient = images.moved_back(value.gradient, self._axes, shift, flip) * self._scale
        rough, slope = images.roughness(self._z, self._axes)
        weight = self._problem.terms.goal.smoothness * self._coarseness
        self.losses.append(value.loss + weight * rough)
        self._adam.step(gradient + np.float32(weight) * slope, done / min(steps, self._allowed or steps))

    def result(self) -> tuple[Floats, Value]:
        """The inputs, finite, and what the problem says of them."""
        self._z[...] = np.nan_to_num(self._z, nan=0.0, posinf=0.0, neginf=0.0)
        return self._scale * (self._z + self._offset), self._value(self._z)

    def _value(self, z: Floats) -> Value:
        return self._problem.evaluate(self._scale * (z + self._offset), self._target)

    def _reach(self) -> list[int]:
        return [self._problem.shape[a] // _SHIFT for a in self._axes]


def _targets(rng: np.random.Generator, batch: int, classes: int) -> Floats | None:
    """One-hot [batch, classes], every class as often as the others (up to one)."""
    if classes == 0:
        return None
    rounds = -(-batch // classes)
    labels = np.concatenate([rng.permutation(classes) for _ in range(rounds)])[:batch]
    return np.asarray(labels[:, None] == np.arange(classes), np.float32)


def _range_of(problem: Problem, rng: np.random.Generator, deadline: float | None) -> tuple[float, float]:
    """(scale, offset) of the inputs at which noise fits the statistics best; (1, 0) without statistics.

    After `deadline` nothing more is tried.
    """
    if not problem.terms.layers and not problem.terms.priors:
        return 1.0, 0.0
    noise, target = images.noise(rng, problem.shape), _targets(rng, problem.shape[0], problem.terms.classes)

    def misfit(at: tuple[float, float]) -> float:
        if deadline is not None and time.perf_counter() > deadline:
            return float("inf")
        found = problem.evaluate(np.float32(at[0]) * (noise + np.float32(at[1])), target).fit
        return found * (_RARE if at[0] > 1 else 1) if np.isfinite(found) else float("inf")

    return min(_CONVENTIONS if images.spatial_axes(problem.shape) else _SCALES, key=misfit)
