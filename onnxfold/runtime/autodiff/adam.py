"""Adam (Kingma and Ba, ICLR 2015, arXiv 1412.6980) with cosine decay, on one float32 array."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Adam:
    """Changes `x` in place. A gradient that is not finite counts as zero, so one bad step cannot spoil `x`.

    `warmup`: the share of the way over which the rate rises, for an `x` that is near its place: the first steps of Adam
    move everything by the whole rate.
    """

    def __init__(self, x: Floats, rate: float, betas: tuple[float, float] = (0.9, 0.99), warmup: float = 0.0) -> None:
        self._x, self._rate, self._betas, self._warmup = x, rate, betas, warmup
        self._first, self._second, self._done = np.zeros_like(x), np.zeros_like(x), 0

    def step(self, gradient: Floats, progress: float) -> None:
        """One step; `progress` from 0 to 1 sets the rate to rate * (1 + cos(pi * progress)) / 2."""
        if not np.isfinite(gradient).all():
            gradient = np.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
        one, two = self._betas
        self._done += 1
        self._first *= one
        self._first += (1 - one) * gradient
        self._second *= two
        self._second += (1 - two) * np.square(gradient)
        rate = self._rate * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        if progress < self._warmup:
            rate *= progress / self._warmup
        scale = rate / (1 - one**self._done)
        root = np.sqrt(self._second / np.float32(1 - two**self._done))
        # the gradient of one pixel in a batch is tiny: an absolute epsilon of 1e-8 would swallow it
        self._x -= np.float32(scale) * self._first / (root + np.float32(1e-12))

    def slow_down(self, factor: float) -> None:
        """Another rate, so many times the old one, and nothing remembered: after `x` was set back."""
        self._rate *= factor
        self._first[...], self._second[...], self._done = 0, 0, 0
