"""Numbers of integer weights: which scale they get, of an axis or of a block, and how near they stay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from onnxfold.model.quantized.scheme import Scheme, dequantize, in_blocks, requantize, used

# a scale for an axis, or for all --------------------------------------------------------------------------------------


def scheme(scale: Any, zero: Any = 0, axis: int | None = 0, low: int = -127, high: int = 127) -> Scheme:
    scales = np.asarray(scale, np.float64)
    zeros = np.broadcast_to(np.asarray(zero, np.float64), scales.shape)
    return Scheme(scales, zeros, axis, low, high, np.dtype(np.float32))


def test_whole_numbers_of_a_scale_stay_what_they_are() -> None:
    whole = np.array([[5, -127], [100, 3]])
    how = scheme([0.5, 0.25])
    found, now = requantize(dequantize(whole, how, np.float32), how)
    assert np.array_equal(found, whole) and now == how


def test_a_scale_grows_where_sums_leave_the_range_and_there_only() -> None:
    how = scheme([0.5, 0.25])
    found, now = requantize(np.array([[127.0, 10.0], [0.5, 0.25]]), how)
    assert found.tolist() == [[127, 10], [2, 1]]
    assert now.scale.tolist() == [1.0, 0.25]


def test_a_scale_becomes_finer_where_values_are_no_longer_whole() -> None:
    _, now = requantize(np.array([[0.3, -0.2]]), scheme([0.5]))
    assert now.scale[0] == pytest.approx(0.3 / 127)


def test_one_scale_for_all_stays_while_it_can() -> None:
    found, now = requantize(np.array([[0.3, -63.5]]), scheme(0.5, axis=None))
    assert found.tolist() == [[1, -127]] and now.scale == 0.5
    found, now = requantize(np.array([[0.3, -127.0]]), scheme(0.5, axis=None))
    assert found.tolist() == [[0, -127]] and now.scale == 1.0


@pytest.mark.parametrize("zero", [0, 100, 128, 255, (0, 40, 255)])
@pytest.mark.parametrize("shift", [-2.0, 0.0, 2.0])
def test_nothing_is_clipped(zero: Any, shift: float) -> None:
    """Whatever zero points there were: at most half a step from every value, of at most twice the least step."""
    values = np.random.default_rng(0).standard_normal((3, 40)) + shift
    how = scheme([1e-3] * 3, zero, low=0, high=255)
    found, now = requantize(values, how)
    step = now.scale[:, None]
    assert found.min() >= 0 and found.max() <= 255
    assert (np.abs(dequantize(found, now, np.float64) - values) <= 0.51 * step).all()


def test_least_scales_are_kept_to() -> None:
    _, now = requantize(np.array([[1e-6], [1.0]]), scheme([1.0, 1.0]), least=np.array([0.5, 0.0]))
    assert now.scale.tolist() == [0.5, 1.0]  # the second is a whole number of its scale


@pytest.mark.parametrize(
    "least, most, bits, signed, expected",
    [(-127, 127, 8, True, (-127, 127)), (-128, 9, 8, True, (-128, 127)), (-64, 64, 8, True, (-64, 64)),
     (0, 255, 8, False, (0, 255)), (0, 100, 8, False, (0, 128)), (-7, 7, 4, True, (-7, 7)),
     (-90, 90, 16, True, (-32767, 32767))],
)  # fmt: skip
def test_the_range_that_a_model_uses(least: int, most: int, bits: int, signed: bool, expected: tuple[int, int]) -> None:
    assert used(np.array([least, most]), bits, signed) == expected


# a scale for every block ----------------------------------------------------------------------------------------------


def blocks(scale: Sequence[Sequence[float]], zero: float = 8, groups: Sequence[int] | None = None) -> Scheme:
    scales = np.asarray(scale, np.float64)
    where = in_blocks(4, 2) if groups is None else np.asarray(groups)
    return Scheme(scales, np.full(scales.shape, zero), 1, 0, 15, np.dtype(np.float32), where)


@pytest.mark.parametrize("groups", [[0, 0, 1, 1], [1, 0, 0, 1], [0, 0, 0, 1]])
def test_every_block_for_itself(groups: list[int]) -> None:
    """A block of whole numbers keeps its scale, its neighbor gets the finest one."""
    how = blocks([[0.5, 0.25]], groups=groups)
    whole = np.array([[8, 9, 15, 0]])
    values = dequantize(whole, how, np.float64)
    found, now = requantize(values, how)
    assert np.array_equal(found, whole) and np.array_equal(now.scale, how.scale)
    values[:, np.array(groups) == 1] *= 1.7
    found, now = requantize(values, how)
    assert now.scale[0, 0] == 0.5 and now.scale[0, 1] == pytest.approx(0.25 * 1.7)
    assert np.array_equal(found, whole)


def test_scales_may_be_negative_where_some_are() -> None:
    """The largest number may then be 8 steps from 0 whatever its sign is."""
    values = np.array([[1.0, -0.2, -1.0, 0.2]])
    for first, expected in ((-0.5, [-1 / 8, 1 / 8]), (0.5, [1 / 7, 1 / 8])):
        found, now = requantize(values, blocks([[first, 0.5]]))
        assert now.scale[0].tolist() == pytest.approx(expected)
        assert np.abs(dequantize(found, now, np.float64) - values).max() <= 0.5 * np.abs(now.scale).max()


def test_a_block_of_zeros_may_have_no_scale() -> None:
    found, now = requantize(np.zeros((1, 4)), blocks([[0.0, 0.0]]))
    assert found.tolist() == [[8] * 4] and not now.scale.any()
    found, now = requantize(np.array([[0.0, 0.0, 1.4, 0.0]]), blocks([[0.0, 0.0]]))
    assert found.tolist() == [[8, 8, 15, 8]] and now.scale[0].tolist() == pytest.approx([0.0, 0.2])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_scales_too_small_for_their_type(dtype: Any) -> None:
    how = Scheme(np.ones((1, 2)), np.full((1, 2), 8.0), 1, 0, 15, np.dtype(dtype), in_blocks(4, 2))
    found, now = requantize(np.array([[1e-50, -1e-50, 3.0, 0.5]]), how)
    assert np.isfinite(now.scale).all() and np.allclose(dequantize(found, now, np.float64)[0, :2], 0)
