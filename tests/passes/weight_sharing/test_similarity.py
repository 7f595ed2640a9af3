"""Every distance against its formula computed another way, and what must not change it."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm, ortho_group

from onnxfold.options.choices import Distance
from onnxfold.passes.weight_sharing.similarity import (
    OF_WEIGHTS,
    cka,
    cosine,
    covariance,
    earth_mover,
    euclidean,
    kl,
    manhattan,
    paired,
    spectrum,
    wasserstein,
)

Floats = NDArray[np.float64]
EXACT = 1e-9  # double precision; the largest seen is 1e-13
ALL = sorted(OF_WEIGHTS, key=lambda m: m.value)


def drawn(seed: int = 0, shape: tuple[int, int] = (5, 12)) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape), 0.5 * rng.standard_normal(shape) + 0.1


@pytest.mark.parametrize("distance", ALL, ids=lambda m: m.value)
def test_nothing_is_nearer_than_itself(distance: Distance) -> None:
    a, b = drawn()
    assert abs(OF_WEIGHTS[distance](a, a)) <= EXACT
    assert OF_WEIGHTS[distance](a, b) > 0.05


@pytest.mark.parametrize("distance", ALL, ids=lambda m: m.value)
def test_symmetric(distance: Distance) -> None:
    a, b = drawn()
    assert OF_WEIGHTS[distance](a, b) == pytest.approx(OF_WEIGHTS[distance](b, a), abs=EXACT)


@pytest.mark.parametrize("distance", ALL, ids=lambda m: m.value)
def test_without_units(distance: Distance) -> None:
    """Pairs of different scales are ranked together."""
    a, b = drawn()
    assert OF_WEIGHTS[distance](1e-3 * a, 1e-3 * b) == pytest.approx(OF_WEIGHTS[distance](a, b), rel=1e-6)


@pytest.mark.parametrize("distance", ALL, ids=lambda m: m.value)
def test_zeros_are_equal_and_finite(distance: Distance) -> None:
    zero = np.zeros((3, 4))
    assert OF_WEIGHTS[distance](zero, zero) == 0
    assert np.isfinite(OF_WEIGHTS[distance](zero, np.eye(3, 4)))


def test_all_metrics_are_there() -> None:
    assert {m for m in Distance if not m.sampled} == set(OF_WEIGHTS)


@pytest.mark.parametrize(
    ("function", "expected"),
    [(euclidean, np.sqrt(2 / 10)), (manhattan, 2 / 6), (cosine, 1 - 4 / 5)],
)
def test_by_hand(function: Callable[[Floats, Floats], float], expected: float) -> None:
    a, b = np.array([[1.0, 2.0]]), np.array([[2.0, 1.0]])
    assert function(a, b) == pytest.approx(expected, abs=EXACT)


def test_cka_is_the_correlation_of_gram_matrices() -> None:
    """Its other form: HSIC of the centered Gram matrices of the examples (Kornblith et al., section 3)."""
    x, y = drawn(shape=(9, 4))
    center = np.eye(9) - 1 / 9
    k, m = center @ x @ x.T @ center, center @ y @ y.T @ center
    expected = 1 - np.trace(k @ m) / np.sqrt(np.trace(k @ k) * np.trace(m @ m))
    assert cka(x, y) == pytest.approx(expected, abs=EXACT)
    wide = np.random.default_rng(1).standard_normal((9, 40))
    k = center @ wide @ wide.T @ center
    assert cka(wide, y) == pytest.approx(1 - np.sum(k * m) / np.sqrt(np.sum(k * k) * np.sum(m * m)), abs=EXACT)


def test_cka_sees_no_orthogonal_map_but_others() -> None:
    x, y = drawn(shape=(40, 6))
    turn = ortho_group.rvs(6, random_state=0)
    assert cka(x, x @ turn) <= EXACT
    assert cka(x @ turn, 3 * y) == pytest.approx(cka(x, y), abs=EXACT)
    assert cka(x, x @ np.diag([9.0, 1, 1, 1, 1, 1])) > 0.1


def test_spectrum_sees_no_orthogonal_map_and_covariance_does() -> None:
    a, _ = drawn()
    turn = ortho_group.rvs(5, random_state=0)
    centered = a - a.mean(axis=1, keepdims=True)
    assert spectrum(centered, turn @ centered) <= EXACT
    assert covariance(centered, turn @ centered) > 0.1
    assert covariance(centered, centered @ ortho_group.rvs(12, random_state=0)) > 0


def test_covariance_is_numpys() -> None:
    a, b = drawn()
    s, t = np.cov(a, bias=True), np.cov(b, bias=True)
    expected = np.linalg.norm(s - t) / (np.linalg.norm(s) + np.linalg.norm(t))
    assert covariance(a, b) == pytest.approx(expected, abs=EXACT)


def test_kl_is_the_integral() -> None:
    """By quadrature, over both normal distributions of every neuron."""
    a, b = drawn()
    x = np.linspace(-12, 12, 200_001)
    total = 0.0
    for p_row, q_row in zip(a, b, strict=True):
        p, q = norm(p_row.mean(), p_row.std()), norm(q_row.mean(), q_row.std())
        gap = p.logpdf(x) - q.logpdf(x)
        total += float(np.sum((p.pdf(x) - q.pdf(x)) * gap) * (x[1] - x[0]))
    assert kl(a, b) == pytest.approx(total / len(a), rel=1e-6)  # the quadrature's own error


def test_wasserstein_is_the_best_of_all_pairings() -> None:
    a, b = drawn()
    best = min(float(np.square(a - b[list(order)]).sum()) for order in itertools.permutations(range(5)))
    assert wasserstein(a, b) == pytest.approx(np.sqrt(best / (np.sum(a * a) + np.sum(b * b))), abs=EXACT)


def test_wasserstein_sees_no_order_of_neurons_and_the_euclidean_does() -> None:
    a, _ = drawn()
    order = np.array([3, 0, 4, 1, 2])
    assert wasserstein(a, a[order]) <= EXACT < 0.5 < euclidean(a, a[order])
    assert (paired(a, a[order]) == np.argsort(order)).all()


def test_earth_mover_of_as_many_numbers_is_that_of_sorted_ones() -> None:
    a, b = drawn()
    gap = np.abs(np.sort(a.ravel()) - np.sort(b.ravel())).mean()
    assert earth_mover(a, b) == pytest.approx(gap / (np.abs(a).mean() + np.abs(b).mean()), abs=EXACT)


@pytest.mark.parametrize("distance", ALL, ids=lambda m: m.value)
def test_what_is_said_of_its_scale_is_true(distance: Distance) -> None:
    a = np.eye(4, 12)  # neurons without anything in common with those of `unrelated`
    unrelated, measured = np.roll(a, 6, axis=1), OF_WEIGHTS[distance]
    said = distance.scale
    assert said.startswith("0 is equal")
    if "unrelated" in said:
        assert measured(a, unrelated) == pytest.approx(1)
        opposite = np.ones((1, 12))
        assert f"{measured(opposite, -opposite):.3g} opposite" in said
    pairs = [drawn(seed) for seed in range(20)] + [(a, -a), (a, unrelated), (a, 0 * a)]
    most = max(measured(*pair) for pair in pairs)
    if "the most" in said:
        assert most <= 1 + EXACT
    elif "no upper limit" in said:
        assert most > 2


def test_every_distance_says_how_to_read_it() -> None:
    assert all(one.scale.startswith("0") for one in Distance)
