"""Deep inversion: gradient descent on inputs, so that they fit the statistics and the classes that a network holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...frozen import read_only
from ...progress import Progress
from ...runtime.autodiff.adam import Adam
from . import image_ops as images
from .loss import match
from .pictures import pictures
from .problem import InversionProblem, LossValue

Floats = NDArray[np.float32]
RATE = 0.1  # Adam's, in units of the standard deviation of the inputs
_TUNED = 32  # pixels: the side of the images that the weights of roughness were tuned on
_SHIFT = 8  # a roll moves images by at most 1/8 of their side
_SCALES = tuple((4.0**k, 0.0) for k in (0, -1, 1, -2, 2, 3, 4))  # of inputs that are no images: 1/16 .. 256
_RARE = 1.25  # times worse counts the fit at scales above 1 of images: most models standardize their inputs
# of class scores, in nats, at least: 2.7 to 8 on real images, 1.9 to 7 on noise of their scale (ResNet-20, SimpNet,
# DenseNet, MobileNets, SqueezeNet). Where biases tell nothing, this tells the scale of inputs.
_CONTRAST = 1.0
# (scale, mean in units of it) of images as usually prepared: standardized, -1..1, 0..1, 0..255, 0..255 less the mean
_CONVENTIONS = ((1.0, 0.0), (0.5, 0.0), (0.25, 2.0), (64.0, 2.0), (64.0, 0.0))


@dataclass(frozen=True)
class Inverted:
    """`x` by input, [count, ...], or [count] stacked where the model takes one sample at a time; `losses`: the loss at
    every step, mean over the chunks; `match`: see objective.match."""

    x: Mapping[str, Floats]
    losses: tuple[float, ...]
    match: float | None

    def __post_init__(self) -> None:
        read_only(self)


def invert(problem: InversionProblem, count: int, steps: int, seed: int, progress: Progress[Any]) -> Inverted:
    """`count` inputs, made in independent chunks by so many `steps` each. No clock has a say: the same model gives the
    same inputs on a busy machine."""
    chunk = problem.chunk
    chunks = -(-count // chunk)
    scale, offset = _range_of(problem, np.random.default_rng([seed, 0]))
    made, curves, values = [], [], []
    work = iter(progress("making synthetic inputs", range(chunks * steps)))
    for index in range(chunks):
        descent = _Descent(problem, np.random.default_rng([seed, 1 + index]), scale, offset)
        for done in range(steps):
            next(work, None)
            descent.step(done, steps)
        x, value = descent.result()
        made.append(x)
        curves.append(descent.losses)
        values.append(value)
    join = np.stack if problem.apart else np.concatenate
    x = {name: join([one[name] for one in made])[:count] for name in problem.shapes}
    losses = tuple(float(v) for v in np.mean(curves, axis=0))
    fit = None
    if problem.terms.layers:
        means, squares = (np.mean([getattr(v, name) for v in values], axis=0) for name in ("means", "squares"))
        fit = match(problem.terms.layers, means, squares)
    return Inverted(x, losses, fit)


class _Descent:
    """The descent of one chunk, in inputs of unit variance: x = scale * (z + offset)."""

    def __init__(self, problem: InversionProblem, rng: np.random.Generator, scale: float, offset: float) -> None:
        self._problem, self._rng, self._scale, self._offset = problem, rng, np.float32(scale), np.float32(offset)
        self._axes = {name: images.spatial_axes(shape) for name, shape in problem.shapes.items()}
        goal = problem.terms.goal
        sides = [problem.shapes[name][a] for name, axes in self._axes.items() for a in axes]
        # neighbors differ more in small images, above all beyond pictures: digits of 8 x 8 have strokes of one pixel
        self._weight = goal.smoothness * min(1.0, min(sides, default=_TUNED) / _TUNED) ** (4 if goal.excess else 2)
        self._z = {name: _start(rng, shape) for name, shape in problem.shapes.items()}
        self._rough = {n: images.roughness(z, self._axes[n])[0] if goal.excess else 0.0 for n, z in self._z.items()}
        self._target = _targets(rng, problem.chunk, problem.terms.classes)
        self._adam = {name: Adam(z, RATE) for name, z in self._z.items()}
        self.losses: list[float] = []

    def step(self, done: int, steps: int) -> None:
        """One step of Adam; the decay ends with the last of `steps`."""
        moves = {name: self._move(name) for name in self._z}
        value = self._value({name: images.moved(z, self._axes[name], *moves[name]) for name, z in self._z.items()})
        total = value.loss
        for name, z in self._z.items():
            gradient = images.moved_back(value.gradients[name], self._axes[name], *moves[name]) * self._scale
            rough, slope = images.roughness(z, self._axes[name])
            beyond = rough - self._rough[name]
            if beyond > 0:
                total += self._weight * beyond
                gradient += np.float32(self._weight) * slope
            self._adam[name].step(gradient, done / steps)
        self.losses.append(total)

    def result(self) -> tuple[dict[str, Floats], LossValue]:
        """The inputs, finite, and the loss there."""
        for z in self._z.values():
            z[...] = np.nan_to_num(z, nan=0.0, posinf=0.0, neginf=0.0)
        return {name: self._scale * (z + self._offset) for name, z in self._z.items()}, self._value(self._z)

    def _value(self, z: Mapping[str, Floats]) -> LossValue:
        x = {name: self._scale * (one + self._offset) for name, one in z.items()}
        return self._problem.evaluate(x, self._target)

    def _move(self, name: str) -> tuple[list[int], bool]:
        """How far to roll an input along its spatial axes, and whether to mirror it."""
        axes = self._axes[name]
        reach = [self._problem.shapes[name][a] // _SHIFT for a in axes]
        shift = [int(self._rng.integers(-n, n + 1)) for n in reach]
        return shift, bool(axes) and bool(self._rng.integers(2))


def _start(rng: np.random.Generator, shape: Sequence[int]) -> Floats:
    """Pictures, whose edges and even areas a descent keeps as far as the model allows; noise for what is no image.

    So few steps make no edges of noise, and consumers are repaired worse on what they make of it (ResNet-20 with a
    quarter of its inner channels: 52.3 instead of 55.5 %)."""
    return pictures(rng, shape) if images.is_images(shape) else images.noise(rng, shape)


def _targets(rng: np.random.Generator, batch: int, classes: int) -> Floats | None:
    """One-hot [batch, classes], every class as often as the others (up to one)."""
    if classes == 0:
        return None
    rounds = -(-batch // classes)
    labels = np.concatenate([rng.permutation(classes) for _ in range(rounds)])[:batch]
    return np.asarray(labels[:, None] == np.arange(classes), np.float32)


def _range_of(problem: InversionProblem, rng: np.random.Generator) -> tuple[float, float]:
    """(scale, offset) of the inputs at which noise fits the statistics best; (1, 0) without statistics."""
    if not problem.terms.layers and not problem.terms.priors:
        return 1.0, 0.0
    noise = {name: images.noise(rng, shape) for name, shape in problem.shapes.items()}
    target = _targets(rng, problem.chunk, problem.terms.classes)

    def misfit(at: tuple[float, float]) -> float:
        x = {name: np.float32(at[0]) * (one + np.float32(at[1])) for name, one in noise.items()}
        value = problem.evaluate(x, target)
        found = value.fit + (max(0.0, -np.log(value.contrast / _CONTRAST)) ** 2 if value.contrast > 0 else 0.0)
        return found * (_RARE if at[0] > 1 else 1) if np.isfinite(found) else float("inf")

    pictures = any(images.spatial_axes(shape) for shape in problem.shapes.values())
    return min(_CONVENTIONS if pictures else _SCALES, key=misfit)
