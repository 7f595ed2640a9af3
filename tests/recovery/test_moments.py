"""Moments against the same sums taken directly, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import helper

from onnxfold.folding.ridge import damping, varying
from onnxfold.model.linear import Linear, linear
from onnxfold.recovery.moments import LEAST_ROWS, ROWS_PER_FEATURE, Moments, share_of_places

SUMS_RTOL = 1e-6  # products in float32, sums in float64; relative to the largest entry. Measured under 5e-7

CASES = {
    "Conv": (
        helper.make_node("Conv", ["x", "w", "b"], ["y"], strides=[2, 1]),
        (5, 3, 3, 3),
        (4, 3, 8, 8),
        (4, 5, 3, 6),
    ),
    "groups": (helper.make_node("Conv", ["x", "w"], ["y"], group=2), (6, 2, 3, 3), (4, 4, 8, 8), (4, 6, 6, 6)),
    "depthwise": (helper.make_node("Conv", ["x", "w"], ["y"], group=4), (4, 1, 3, 3), (4, 4, 8, 8), (4, 4, 6, 6)),
    "Gemm": (helper.make_node("Gemm", ["x", "w"], ["y"]), (7, 5), (40, 7), (40, 5)),
    "MatMul": (helper.make_node("MatMul", ["x", "w"], ["y"]), (7, 5), (4, 9, 7), (4, 9, 5)),
}


def batch(shapes: Sequence[tuple[int, ...]], seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """x and y off center, as activations are."""
    rng = np.random.default_rng(seed)
    x, y = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    return x + np.float32(0.5), y - np.float32(0.3)


def node_of(case: str) -> Linear:
    found = linear(CASES[case][0], CASES[case][1])
    assert found is not None
    return found


def stacked(
    node: Linear, pieces: Sequence[tuple[NDArray[Any], NDArray[Any], NDArray[np.int64] | None]]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """All rows as float64: [groups, rows, features] and [groups, rows, outputs]."""
    x = np.concatenate([node.patches(x, y.shape, chosen) for x, y, chosen in pieces]).astype(np.float64)
    y = np.concatenate([node.rows(y, chosen) for _, y, chosen in pieces]).astype(np.float64)
    return x.transpose(1, 0, 2), y.reshape(len(y), node.groups, node.outputs).transpose(1, 0, 2)


def assert_moments(sums: Moments, x: NDArray[Any], y: NDArray[Any]) -> None:
    assert sums.count == x.shape[1]

    def close(found: NDArray[Any], wanted: NDArray[Any]) -> None:
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).max() <= SUMS_RTOL * np.abs(wanted).max()

    for g in range(len(x)):
        a, b = x[g], y[g]
        n = len(a)
        mean_x, mean_y = sums.means(g)
        close(mean_x, a.mean(axis=0))
        close(mean_y, b.mean(axis=0))
        close(sums.inputs(g), np.cov(a, rowvar=False, bias=True))
        close(sums.spread()[g], a.var(axis=0))
        close(sums.cross(g), (b - b.mean(axis=0)).T @ (a - a.mean(axis=0)) / n)
        raw_x, raw_yx = sums.raw(g)
        close(raw_x, a.T @ a / n)
        close(raw_yx, b.T @ a / n)
        close(sums.energies(g), b.var(axis=0))
        close(sums.energies(g, centered=False), (b * b).mean(axis=0))


@pytest.mark.parametrize("case", CASES)
def test_sums_over_batches(case: str) -> None:
    node, rng = node_of(case), np.random.default_rng(0)
    pieces = [batch(CASES[case][2:], seed) for seed in range(3)]
    pieces.append((pieces[0][0][:2], pieces[0][1][:2]))  # a smaller last batch
    sums = Moments(node)
    for x, y in pieces:
        sums.add(x, y, 1.0, rng)
    assert_moments(sums, *stacked(node, [(x, y, None) for x, y in pieces]))


@pytest.mark.parametrize("case", CASES)
def test_a_share_of_the_places(case: str) -> None:
    node = node_of(case)
    pieces, taken = [batch(CASES[case][2:], seed) for seed in range(2)], []
    sums, rng, same = Moments(node), np.random.default_rng(7), np.random.default_rng(7)
    for x, y in pieces:
        sums.add(x, y, 0.4, rng)
        total = node.positions(y)
        chosen = np.sort(same.choice(total, int(total * 0.4), replace=False))
        assert len(chosen) < total
        taken.append((x, y, chosen))
    assert_moments(sums, *stacked(node, taken))


def test_far_from_zero() -> None:
    """Inputs and targets whose means are a thousand times their spread keep their variance."""
    node = node_of("Conv")
    pieces = [tuple(a + np.float32(1000) for a in batch(CASES["Conv"][2:], seed)) for seed in range(3)]
    sums = Moments(node)
    for x, y in pieces:
        sums.add(x, y, 1.0, np.random.default_rng(0))
    assert_moments(sums, *stacked(node, [(x, y, None) for x, y in pieces]))


def test_at_least_one_place() -> None:
    node, sums = node_of("Gemm"), Moments(node_of("Gemm"))
    x, y = batch(CASES["Gemm"][2:], 0)
    sums.add(x, y, 1e-9, np.random.default_rng(0))
    assert sums.count == 1
    assert np.isfinite(sums.inputs()).all()
    assert node.positions(y) == 40


def test_half_precision() -> None:
    node, sums = node_of("Conv"), Moments(node_of("Conv"))
    x, y = (a.astype(np.float16) for a in batch(CASES["Conv"][2:], 0))
    sums.add(x, y, 1.0, np.random.default_rng(0))
    assert_moments(sums, *stacked(node, [(x, y, None)]))


def test_variances_are_never_negative() -> None:
    node, sums = node_of("Gemm"), Moments(node_of("Gemm"))
    for _ in range(5):
        sums.add(np.full((40, 7), 0.1, np.float32), np.full((40, 5), 1 / 3, np.float32), 1.0, np.random.default_rng(0))
    assert (sums.energies() >= 0).all()
    assert node.features == 7


def test_share_of_places() -> None:
    node = node_of("Conv")
    assert share_of_places(node, 100) == 1.0
    assert share_of_places(node, LEAST_ROWS) == 1.0
    assert share_of_places(node, 4 * LEAST_ROWS) == 0.25
    wide = linear(helper.make_node("Conv", ["x", "w"], ["y"]), (8, 512, 3, 3))
    assert wide is not None
    assert share_of_places(wide, 10**6) == pytest.approx(ROWS_PER_FEATURE * 4608 / 10**6)
    assert share_of_places(wide, 10**6, LEAST_ROWS // 4) == LEAST_ROWS / 10**6, "fewer for every feature where fewer do"
    narrow = linear(helper.make_node("Conv", ["x", "w"], ["y"]), (8, 128, 3, 3))
    assert narrow is not None
    for least in (LEAST_ROWS // 4, LEAST_ROWS // 2):
        assert share_of_places(narrow, 10**6, least) == ROWS_PER_FEATURE * 1152 / 10**6
    assert share_of_places(node, 0) == 1.0
    depthwise = linear(helper.make_node("Conv", ["x", "w"], ["y"], group=32), (32, 1, 3, 3))
    assert depthwise is not None
    assert share_of_places(depthwise, LEAST_ROWS) == 0.25, "nine features a group"
    halves = linear(helper.make_node("Conv", ["x", "w"], ["y"], group=2), (8, 512, 3, 3))
    assert halves is not None
    assert share_of_places(halves, 10**6) == share_of_places(wide, 10**6), "a few for every feature all the same"


def test_inputs_that_never_vary_count_for_nothing() -> None:
    moments = np.diag([4.0, 2.0, 0.0, 1e-20, 3.0])
    assert varying(np.diagonal(moments)) == 3 and varying(np.zeros(2)) == 0
    assert damping(moments, 0.1) == pytest.approx(0.1 * 9 / 3)
    assert damping(np.zeros((2, 2)), 0.1) > 0, "a system that can be solved"
