"""Second-order elimination against the plainest version of it: every candidate refitted, the cheapest goes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxfold.folding import second_order as module
from onnxfold.folding.second_order import Consumer, Elimination, eliminate

COST_RTOL = 1e-8  # float64, updated inverses against solved systems. Measured under 1e-9
SINGLE_RTOL = 2e-4  # float32 inverses of matrices with condition about 1e3. Measured under 2e-5
AHEAD_FACTOR = 1.05  # of the naive greedy's error at the end, when only 4 candidates are looked at. Measured 1.03
RIDGE = 1e-3

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def consumer(n: int, width: int, outputs: int, rng: np.random.Generator, samples: int = 400) -> Consumer:
    """Correlated inputs, `width` of them in a row (or, every other time, scattered) for each of n channels."""
    d = n * width
    x = rng.standard_normal((samples, d)) @ (np.eye(d) + 0.4 * rng.standard_normal((d, d)))
    moments = np.cov(x, rowvar=False, bias=True)
    weights = rng.standard_normal((outputs, d)) * rng.uniform(0.2, 2, d)
    columns = rng.permutation(d).reshape(n, width)
    return Consumer(moments, weights, columns, float(np.sum((weights @ moments) * weights)) * rng.uniform(0.5, 2))


def refitted_error(one: Consumer, gone: Sequence[int], ridge: float) -> float:
    """The least of |W x - V x|^2 + ridge |V - W|^2-like damping over V without the inputs of the channels `gone`.

    The damped moments are those of inputs with white noise added, so plain least squares on them is what is meant.
    """
    d = len(one.moments)
    damped = one.moments + np.eye(d) * ridge * np.trace(one.moments) / d
    out = one.columns[list(gone)].ravel()
    kept = np.setdiff1d(np.arange(d), out)
    solved = np.linalg.solve(damped[np.ix_(kept, kept)], damped[kept] @ one.weights.T)
    left = one.weights.T.copy()
    left[kept] -= solved
    return float(np.sum(left * (damped @ left)) / one.energy)


def naive(consumers: Sequence[Consumer], keep: int, ridge: float, cells: Ints | None = None) -> Elimination:
    """Greedy, every candidate from scratch."""
    n = len(consumers[0].columns)
    cells = np.zeros(n, np.int64) if cells is None else cells
    order, errors = list[int](), [0.0]
    while n - len(order) > keep:
        taken = np.bincount(cells[order], minlength=cells.max() + 1)
        may = [c for c in range(n) if c not in order and taken[cells[c]] == taken.min()]
        costs = [sum(refitted_error(r, [*order, c], ridge) for r in consumers) for c in may]
        order.append(may[int(np.argmin(costs))])
        errors.append(min(costs))
    return Elimination(np.array(order, np.int64), np.array(errors))


PROBLEMS = {
    "one consumer": ([(10, 1, 6)], None, 1),
    "windows": ([(8, 3, 5)], None, 1),
    "two consumers": ([(9, 1, 6), (9, 4, 3)], None, 1),
    "three consumers": ([(7, 2, 4), (7, 1, 9), (7, 1, 1)], None, 2),
    "cells": ([(12, 1, 6)], np.repeat([0, 1, 2], 4), 3),
    "cells, two consumers": ([(12, 1, 6), (12, 2, 3)], np.tile([0, 1], 6), 2),
    "many": ([(40, 1, 10)], None, 20),
    "many, cells": ([(36, 1, 8)], np.arange(36) % 4, 16),
}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("problem", PROBLEMS)
def test_the_naive_greedy(problem: str, seed: int) -> None:
    shapes, cells, keep = PROBLEMS[problem]
    rng = np.random.default_rng(seed)
    consumers = [consumer(*shape, rng) for shape in shapes]
    wanted = naive(consumers, keep, RIDGE, cells)
    found = eliminate(consumers, keep, RIDGE, cells)
    np.testing.assert_array_equal(found.order, wanted.order)
    np.testing.assert_allclose(found.errors, wanted.errors, rtol=COST_RTOL)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_looking_less_far_ahead(problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for many channels: the order may be another one; the errors are exactly its own, and little worse."""
    monkeypatch.setattr(module, "_LEAST", 4)
    shapes, cells, keep = PROBLEMS[problem]
    rng = np.random.default_rng(3)
    consumers = [consumer(*shape, rng) for shape in shapes]
    found = eliminate(consumers, keep, RIDGE, cells)
    n = shapes[0][0]
    assert len(found.order) == n - keep and len(set(found.order)) == n - keep
    own = [sum(refitted_error(r, found.order[:i], RIDGE) for r in consumers) for i in range(n - keep + 1)]
    np.testing.assert_allclose(found.errors, np.maximum.accumulate(own), rtol=COST_RTOL, atol=1e-12)
    assert (np.diff(found.errors) >= 0).all()
    best = naive(consumers, keep, RIDGE, cells).errors
    assert found.errors[-1] <= best[-1] * AHEAD_FACTOR


def test_cells_take_turns() -> None:
    rng, cells = np.random.default_rng(0), np.repeat([0, 1, 2, 3], 9)
    found = eliminate([consumer(36, 1, 8, rng)], 4, RIDGE, cells)
    rounds = cells[found.order].reshape(-1, 4)
    np.testing.assert_array_equal(np.sort(rounds, axis=1), np.tile(np.arange(4), (8, 1)))


@pytest.mark.parametrize("twin", [1, 5])
def test_a_duplicate_goes_first_and_for_nothing(twin: int) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((500, 8))
    x[:, twin] = x[:, 3]
    weights = rng.standard_normal((6, 8))
    moments = np.cov(x, rowvar=False, bias=True)
    found = eliminate(
        [Consumer(moments, weights, np.arange(8)[:, None], float(np.sum((weights @ moments) * weights)))], 1, 1e-6
    )
    assert found.order[0] in (twin, 3)
    assert found.errors[1] < 1e-5 < 1e-2 < found.errors[2]


def test_a_channel_that_nobody_reads_goes_first() -> None:
    rng = np.random.default_rng(1)
    one = consumer(8, 2, 4, rng)
    weights = one.weights.copy()
    weights[:, one.columns[6]] = 0
    alone = Consumer(np.diag(np.diag(one.moments)), weights, one.columns, one.energy)
    found = eliminate([alone], 1, 1e-9)
    assert found.order[0] == 6
    assert found.errors[1] == pytest.approx(0, abs=1e-12)


def test_energies_weigh_the_consumers() -> None:
    """The consumer whose outputs are small beside their energy has no say."""
    rng = np.random.default_rng(2)
    one, other = consumer(9, 1, 5, rng), consumer(9, 1, 5, rng)
    quiet = Consumer(other.moments, other.weights, other.columns, other.energy * 1e9)
    np.testing.assert_array_equal(eliminate([one, quiet]).order, eliminate([one]).order)
    assert list(eliminate([one, other]).order) != list(eliminate([one]).order)


def test_single_precision_is_nearly_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    consumers = [consumer(30, 2, 12, rng), consumer(30, 1, 5, rng)]
    double = eliminate(consumers, 1, RIDGE)
    monkeypatch.setattr(module, "_SINGLE", 0)
    single = eliminate(consumers, 1, RIDGE)
    np.testing.assert_allclose(single.errors, double.errors, rtol=SINGLE_RTOL)
    assert not np.array_equal(single.errors, double.errors)  # it was another computation
    assert single.errors.dtype == np.float64


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("kind", ["zero", "rank one", "fewer samples than inputs", "constant inputs"])
def test_singular_moments(kind: str, single: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, d = np.random.default_rng(0), 24
    moments = np.zeros((d, d))
    if kind == "rank one":
        moments = np.ones((d, d))
    elif kind == "fewer samples than inputs":
        moments = np.cov(rng.standard_normal((5, d)), rowvar=False, bias=True)
    elif kind == "constant inputs":
        moments[:6, :6] = np.cov(rng.standard_normal((50, 6)), rowvar=False, bias=True)
    if single:
        monkeypatch.setattr(module, "_SINGLE", 0)
    weights = rng.standard_normal((4, d))
    energy = float(np.sum((weights @ moments) * weights))
    found = eliminate([Consumer(moments, weights, np.arange(d).reshape(8, 3), energy)], 1, 1e-2)
    assert sorted([*found.order, *set(range(8)) - set(found.order)]) == list(range(8))
    assert np.isfinite(found.errors).all() and (np.diff(found.errors) >= 0).all()
    if kind == "constant inputs":
        assert set(found.order[-1:]) <= {0, 1} and found.errors[6] < 0.1 * found.errors[7]


def test_moments_a_little_below_zero_are_damped_more() -> None:
    """Rounding may leave eigenvalues just below -ridge."""
    moments = np.diag([1.0, 1.0, 1.0, -0.1])
    found = eliminate([Consumer(moments, np.ones((2, 4)), np.arange(4)[:, None], 1.0)], 1, 1e-3)
    assert np.isfinite(found.errors).all()


def test_broken_moments_are_an_error() -> None:
    with pytest.raises(FloatingPointError, match="positive semidefinite"):
        eliminate([Consumer(-np.eye(4), np.ones((2, 4)), np.arange(4)[:, None], 1.0)])


def test_nothing_to_drop() -> None:
    found = eliminate([consumer(4, 1, 3, np.random.default_rng(0))], 4)
    assert len(found.order) == 0
    np.testing.assert_array_equal(found.errors, [0.0])
