"""Adam: it descends, survives what is no number, warms up and decays."""

from __future__ import annotations

import numpy as np
import pytest

from onnxfold.runtime.autodiff.adam import Adam


def test_adam_finds_a_minimum_and_survives_nan() -> None:
    x = np.array([3.0, -2.0], np.float32)
    adam = Adam(x, 0.2)
    for i in range(100):
        adam.step(np.array([np.nan, np.inf], np.float32) if i == 50 else 2 * x, i / 100)
    assert np.abs(x).max() < 0.05


@pytest.mark.parametrize(("warmup", "progress", "moved"), [(0, 0, 1), (0.2, 0.1, 0.5), (0, 0.5, 0.5), (0.2, 1, 0)])
def test_the_rate_rises_and_falls(warmup: float, progress: float, moved: float) -> None:
    x = np.zeros(1, np.float32)
    Adam(x, 0.1, warmup=warmup).step(np.array([3], np.float32), progress)  # a first step is as long as the rate
    decay = (1 + np.cos(np.pi * progress)) / 2
    expected = 0.1 * decay * (progress / warmup if progress < warmup else 1)
    assert x[0] == pytest.approx(-expected, abs=1e-7)
    assert expected == pytest.approx(0.1 * moved, rel=0.06, abs=1e-9)
