"""Refitting and rescaling one consumer against numpy on the rows themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import helper

from onnxfold.model.linear import linear
from onnxfold.recovery.least_squares import refit, rescale
from onnxfold.recovery.moments import Moments

EXACT_RTOL = 1e-4  # float32 products of rows, then a solved system. Measured over 1e-5
ERROR_ATOL = 1e-6  # of relative squared errors, from float32 products. Measured over 1e-7

Floats = NDArray[np.float64]
ROWS, INPUTS, OUTPUTS = 600, 7, 4


class Problem:
    """Rows for a Conv of `groups` with 1x1 windows: y = W x + b (and noise), and other weights to begin with."""

    def __init__(self, groups: int = 1, noise: float = 0.0, seed: int = 0, offset: float = 0.5) -> None:
        rng = np.random.default_rng(seed)
        node = linear(helper.make_node("Conv", ["x", "w", "b"], ["y"], group=groups), (groups * OUTPUTS, INPUTS, 1, 1))
        assert node is not None
        mixing = np.eye(INPUTS) + 0.3 * rng.standard_normal((INPUTS, INPUTS))
        self.x = rng.standard_normal((ROWS, groups, INPUTS)) @ mixing + offset
        self.weights = rng.standard_normal((groups, OUTPUTS, INPUTS))
        self.bias = rng.standard_normal((groups, OUTPUTS))
        self.y = np.einsum("goi,rgi->rgo", self.weights, self.x) + self.bias
        self.y += noise * rng.standard_normal(self.y.shape)
        self.old = self.weights + 0.5 * rng.standard_normal(self.weights.shape)
        self.moments = Moments(node)
        shape = (ROWS, -1, 1, 1)
        x, y = (a.reshape(shape).astype(np.float32) for a in (self.x, self.y))
        self.moments.add(x, y, 1.0, rng)

    def error(self, weights: Floats, bias: Any = None) -> float:
        """The relative squared error of these weights, with the best bias or (where `bias` is given) that one."""
        gap = self.y - np.einsum("goi,rgi->rgo", weights, self.x)
        if bias is None:
            return float(gap.var(axis=0).sum() / self.y.var(axis=0).sum())
        return float(((gap - np.reshape(bias, self.bias.shape)) ** 2).sum() / (self.y**2).sum())


def best(problem: Problem, ridge: float, bias: bool) -> Floats:
    """The minimum of |y - W x - b|^2 / rows + ridge mean(diag H) |W - old|^2 by lstsq on stacked rows."""
    out = np.empty_like(problem.old)
    for g in range(len(out)):
        x, y = problem.x[:, g], problem.y[:, g]
        if bias:
            x, y = x - x.mean(axis=0), y - y.mean(axis=0)
        pull = np.sqrt(ridge * np.mean(x * x) * len(x)) * np.eye(INPUTS)
        stacked_x, stacked_y = np.vstack([x, pull]), np.vstack([y, pull @ problem.old[g].T])
        out[g] = np.linalg.lstsq(stacked_x, stacked_y, rcond=None)[0].T
    return out


def test_inputs_that_are_always_zero_change_nothing() -> None:
    """Heads filled up with zeros to a length that a kernel wants."""
    problem, node = Problem(), linear(helper.make_node("MatMul", ["x", "w"], ["y"]), (2 * INPUTS, OUTPUTS))
    assert node is not None
    wide = Moments(node)
    x = np.pad(problem.x, ((0, 0), (0, 0), (0, INPUTS)))
    wide.add(x[:, 0].astype(np.float32), problem.y[:, 0].astype(np.float32), 1.0, np.random.default_rng(0))
    padded, _, before, after = refit(wide, np.pad(problem.old, ((0, 0), (0, 0), (0, INPUTS))), ridge=0.1)
    solved, _, same_before, same_after = refit(problem.moments, problem.old, ridge=0.1)
    np.testing.assert_allclose(padded[..., :INPUTS], solved, rtol=EXACT_RTOL)
    assert np.all(padded[..., INPUTS:] == 0)
    assert (before, after) == pytest.approx((same_before, same_after), abs=ERROR_ATOL)


@pytest.mark.parametrize("groups", [1, 3])
def test_exact_where_it_can_be(groups: int) -> None:
    problem = Problem(groups)
    solved, bias, before, after = refit(problem.moments, problem.old, ridge=0.0)
    np.testing.assert_allclose(solved, problem.weights, rtol=EXACT_RTOL, atol=EXACT_RTOL)
    np.testing.assert_allclose(bias, problem.bias.ravel(), rtol=EXACT_RTOL, atol=EXACT_RTOL)
    assert bias.shape == (groups * OUTPUTS,)
    assert abs(after) < ERROR_ATOL < 1e-2 < before


def test_exact_without_a_bias() -> None:
    problem = Problem()
    problem.y -= problem.bias
    problem.moments = Moments(problem.moments.node)
    problem.moments.add(
        problem.x.reshape(ROWS, -1, 1, 1).astype(np.float32), problem.y.reshape(ROWS, -1, 1, 1).astype(np.float32),
        1.0, np.random.default_rng(0),
    )  # fmt: skip
    solved, bias, _, after = refit(problem.moments, problem.old, ridge=0.0, bias=False)
    np.testing.assert_allclose(solved, problem.weights, rtol=EXACT_RTOL, atol=EXACT_RTOL)
    np.testing.assert_array_equal(bias, np.zeros(OUTPUTS))
    assert abs(after) < ERROR_ATOL


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("ridge", [0.0, 0.1, 3.0])
@pytest.mark.parametrize("groups", [1, 2])
def test_the_minimum_with_a_ridge(groups: int, ridge: float, bias: bool) -> None:
    problem = Problem(groups, noise=1.0)
    solved, _, _, _ = refit(problem.moments, problem.old, ridge, bias=bias)
    np.testing.assert_allclose(solved, best(problem, ridge, bias), rtol=EXACT_RTOL, atol=EXACT_RTOL)


@pytest.mark.parametrize("bias", [True, False])
def test_a_ridge_pulls_towards_the_weights_given(bias: bool) -> None:
    problem = Problem(noise=0.5)
    gaps, errors = [], []
    for ridge in (0.0, 0.1, 1.0, 10.0, 1e9):
        solved, _, before, after = refit(problem.moments, problem.old, ridge, bias=bias)
        gaps.append(float(np.abs(solved - problem.old).max()))
        errors.append(after)
    assert gaps == sorted(gaps, reverse=True) and gaps[0] > 0.1
    assert errors == sorted(errors)
    assert gaps[-1] < 1e-7
    assert errors[-1] == pytest.approx(before, abs=1e-7)


@pytest.mark.parametrize("offset", [0.5, 50.0])
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("repair", ["refit", "rescale"])
def test_errors_reported_are_true(repair: str, bias: bool, groups: int, offset: float) -> None:
    problem = Problem(groups, noise=0.7, offset=offset)
    if repair == "refit":
        solved, found, before, after = refit(problem.moments, problem.old, 0.1, bias=bias)
    else:
        solved, found, before, after = rescale(problem.moments, problem.old, bias=bias)
    fixed = None if bias else np.zeros_like(found)
    assert before == pytest.approx(problem.error(problem.old, fixed), abs=ERROR_ATOL, rel=ERROR_ATOL)
    assert after == pytest.approx(problem.error(solved, fixed), abs=ERROR_ATOL, rel=ERROR_ATOL)
    if bias:  # the bias is the best one
        gap = problem.y - np.einsum("goi,rgi->rgo", solved, problem.x) - found.reshape(problem.bias.shape)
        np.testing.assert_allclose(gap.mean(axis=0), 0, atol=1e-5)


def test_rescaling_restores_mean_and_variance() -> None:
    problem = Problem(2, noise=0.7)
    solved, bias, _, _ = rescale(problem.moments, problem.old)
    y = np.einsum("goi,rgi->rgo", solved, problem.x) + bias.reshape(problem.bias.shape)
    np.testing.assert_allclose(y.mean(axis=0), problem.y.mean(axis=0), rtol=EXACT_RTOL, atol=EXACT_RTOL)
    np.testing.assert_allclose(y.var(axis=0), problem.y.var(axis=0), rtol=EXACT_RTOL)
    ratio = solved / problem.old
    np.testing.assert_allclose(ratio, ratio[:, :, :1] * np.ones(INPUTS), rtol=1e-9)  # directions stay


def test_rescaling_without_a_bias_restores_the_energy() -> None:
    problem = Problem(noise=0.7, offset=2.0)
    solved, bias, _, _ = rescale(problem.moments, problem.old, bias=False)
    y = np.einsum("goi,rgi->rgo", solved, problem.x)
    np.testing.assert_allclose((y**2).mean(axis=0), (problem.y**2).mean(axis=0), rtol=EXACT_RTOL)
    assert not bias.any()


def test_inputs_that_never_change() -> None:
    """Dead channels have no variance: nothing is learnt of their weights, and nothing breaks."""
    problem = Problem()
    problem.x[:, :, 2] = 0
    problem.moments = Moments(problem.moments.node)
    problem.moments.add(
        problem.x.reshape(ROWS, -1, 1, 1).astype(np.float32), problem.y.reshape(ROWS, -1, 1, 1).astype(np.float32),
        1.0, np.random.default_rng(0),
    )  # fmt: skip
    solved, _, _, _ = refit(problem.moments, problem.old, 1e-6)
    np.testing.assert_allclose(solved[:, :, 2], problem.old[:, :, 2], atol=1e-6)
    assert np.abs(solved - problem.old).max() > 0.1


@pytest.mark.parametrize("bias", [True, False])
def test_all_inputs_dead(bias: bool) -> None:
    problem = Problem()
    moments = Moments(problem.moments.node)
    zeros = np.zeros((ROWS, INPUTS, 1, 1), np.float32)
    moments.add(zeros, problem.y.reshape(ROWS, -1, 1, 1).astype(np.float32), 1.0, np.random.default_rng(0))
    for solved, offset, before, after in (refit(moments, problem.old, 0.1, bias), rescale(moments, problem.old, bias)):
        np.testing.assert_array_equal(solved, problem.old)
        assert before == after == pytest.approx(1.0)
        wanted = problem.y.mean(axis=0).ravel() if bias else np.zeros(OUTPUTS)
        np.testing.assert_allclose(offset, wanted, atol=1e-5)
