"""Rounding with feedback: on the grid, as if the rest were solved anew after every column, and better than without."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxfold.recovery.gptq import compensated

Floats = NDArray[np.float64]
BETTER = 0.75  # of the error of rounding each number for itself; measured 0.37 to 0.68
LIMITS = (0, 15)


def problem(features: int, seed: int = 0, rows: int = 400) -> tuple[Floats, Floats, Floats, Floats]:
    """Weights, steps, zero points and the moments of correlated inputs."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, features)) @ (np.eye(features) + 0.3 * rng.standard_normal((features, features)))
    weights = rng.standard_normal((6, features))
    step = np.repeat(rng.uniform(0.2, 0.4, (6, 1)), features, axis=1)
    return weights, step, np.full_like(step, 8.0), x.T @ x / rows


def plain(weights: Floats, step: Floats, zero: Floats) -> Floats:
    return (np.clip(np.rint(weights / step + zero), *LIMITS) - zero) * step


def loss(weights: Floats, rounded: Floats, h: Floats) -> float:
    gap = weights - rounded
    return float(np.sum((gap @ h) * gap))


@pytest.mark.parametrize("features", [1, 2, 40, 128, 129, 300])
@pytest.mark.parametrize("seed", range(3))
def test_on_the_grid_and_better(features: int, seed: int) -> None:
    weights, step, zero, h = problem(features, seed)
    found = compensated(weights, step, zero, LIMITS, h, 0.01)
    whole = found / step + zero
    assert np.allclose(whole, np.rint(whole), atol=1e-9) and whole.min() > -0.5 and whole.max() < 15.5
    by_itself = loss(weights, plain(weights, step, zero), h)
    assert loss(weights, found, h) <= (BETTER if features > 2 else 1.0 + 1e-9) * by_itself


@pytest.mark.parametrize("features", [12, 140])
def test_as_if_the_rest_were_solved_anew(features: int, ridge: float = 0.05) -> None:
    weights, step, zero, h = problem(features, 5)
    damped = h + np.eye(features) * ridge * np.trace(h) / features
    expected = np.empty_like(weights)
    for j in range(features):
        done, rest = slice(0, j), slice(j, features)
        lost = weights[:, done] - expected[:, done]
        best = weights[:, rest] + np.linalg.solve(damped[rest, rest], damped[rest, done] @ lost.T).T
        expected[:, j] = plain(best[:, :1], step[:, j : j + 1], zero[:, j : j + 1])[:, 0]
    assert np.allclose(compensated(weights, step, zero, LIMITS, h, ridge), expected, atol=1e-9)


def test_inputs_that_have_nothing_in_common() -> None:
    weights, step, zero, _ = problem(30)
    found = compensated(weights, step, zero, LIMITS, np.diag(np.arange(1.0, 31.0)), 0.1)
    assert np.allclose(found, plain(weights, step, zero))


def test_a_step_of_nothing_and_inputs_of_nothing() -> None:
    weights, step, zero, h = problem(8)
    step[:, 3], h[5], h[:, 5] = 0.0, 0.0, 0.0
    found = compensated(weights, step, zero, LIMITS, h, 0.1)
    assert (found[:, 3] == 0).all() and np.isfinite(found).all()
