"""Units come from all samples of the kind that judges, errors from those that were held back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from onnxfold.evaluation.candidates import Evaluator, Reference
from onnxfold.evaluation.metrics import component_error
from onnxfold.evaluation.moments import Along, MomentsAlong
from onnxfold.model.model import load

Array = NDArray[Any]


def along(*outputs: Array) -> Along:
    """Their moments, batch by batch."""
    found = MomentsAlong()
    for one in outputs:
        found.add(one)
    return found.known


def column(*values: float) -> Array:
    return np.array(values, np.float64)[:, None]


JUDGING = column(*[-1, 1] * 4)  # they deviate by 1


@pytest.mark.parametrize(
    ("alike", "unit"),
    [
        ([], 1.0),
        ([column(*[-1.4, 1.4] * 4)], math.sqrt(1.48)),  # (8 * 1 + 8 * 1.96) / 16
        ([column(*[-1.4, 1.4] * 2), column(*[-1.4, 1.4] * 2)], math.sqrt(1.48)),  # in two batches
        ([column(*[0.5] * 8)], 0.75),  # the mean of all is 0.25: (8 * (1 + 0.0625) + 8 * 0.0625) / 16
        ([column(*[1, -1] * 4)], 1.0),
        ([column(*[-3, 3] * 4)], 1.25),  # they deviate further, which counts up to here
        ([column(*[-1, 1] * 44, 255)], 1.25),  # one odd sample must not hide what goes wrong in all others
        ([column(*[-1, 1] * 44, 1e200)], 1.0),  # whose square is infinite
    ],
)
def test_the_unit_is_the_deviation_of_all_samples(alike: list[Array], unit: float) -> None:
    found = component_error([JUDGING], [JUDGING + 0.5], alike=along(*alike))
    assert found == pytest.approx(0.5 / unit, rel=1e-12)


def test_what_moves_in_few_samples_no_longer_makes_the_error() -> None:
    """Two classes: one says nothing in the samples held back, and moves by 4 in the others."""
    before = np.concatenate([JUDGING, np.zeros((8, 1))], 1)
    after = before + 0.1
    others = np.concatenate([column(*[-1, 1] * 4), column(*[-4, 4] * 4)], 1)  # as far in the first class, the median
    unit = math.sqrt(8)  # of the second: (8 * 0 + 8 * 16) / 16
    wanted = math.sqrt((0.1**2 + (0.1 / unit) ** 2) / 2)
    assert component_error([before], [after], alike=along(others)) == pytest.approx(wanted, rel=1e-12)
    assert component_error([before], [after]) > 100 * wanted, "0.1 % of the median deviation is its unit alone"


def test_few_samples_judge_by_components_where_there_are_others() -> None:
    """Two values, less than eight; 4 and 4 deviate by 1, 1000 hides nothing."""
    before = column(999, 1001)
    after = before + 0.5
    assert component_error([before], [after]) == pytest.approx(0.5 / 1000, rel=1e-5), "relative, as a whole"
    assert component_error([before], [after], alike=along(1000 + JUDGING)) == pytest.approx(0.5, rel=1e-9)
    assert component_error([before], [after], alike=along(column(999, 1001))) < 0.001, "four in all are too few"


def test_moments_of_batches_are_those_of_all() -> None:
    """Along each axis; what is NaN or infinite does not count."""
    x = np.random.default_rng(0).standard_normal((12, 3, 5)) * [1, 10, 100, 1000, 1e4] + 7
    x[2, 1, 4], x[3, 0, 0] = np.nan, -np.inf
    known = np.where(np.isfinite(x), x, np.nan)
    found = along(x[:4], x[4:5], x[5:])
    assert set(found) == {1, 2}, "the first axis differs in length"
    for axis, rest in ((1, (0, 2)), (2, (0, 1))):
        assert found[axis].deviation == pytest.approx(np.nanstd(known, axis=rest), rel=1e-12)
        assert found[axis].size == pytest.approx(np.sqrt(np.nanmean(np.square(known), axis=rest)), rel=1e-12)


def test_texts_of_other_lengths_have_no_positions_in_common() -> None:
    rng = np.random.default_rng(1)
    short, long = rng.standard_normal((4, 6, 3)), 5 * rng.standard_normal((4, 9, 3))
    assert set(along(short, long)) == {0, 2} and along(np.zeros((4, 0, 3)), long).keys() <= {0, 2}
    assert component_error([short], [short + 0.1], alike=along(long)) == component_error([short], [short + 0.1]), (
        "by position, which the long ones have not, the error is the larger one"
    )


def test_outputs_without_a_batch_or_of_integers_have_moments_too() -> None:
    assert along(np.float64(1), np.float64(3))[None].deviation == pytest.approx([1])
    assert along(np.array([1, 3], np.int64))[None].deviation == pytest.approx([1])
    assert along(np.array([1.0, 3.0]), np.array([5.0, 3.0]))[0].deviation == pytest.approx([2, 0])


def test_only_what_is_held_back_says_how_far_a_version_is_off() -> None:
    """The version clips at 2, which only a sample that was fitted on reaches; both make the unit."""
    head = '<ir_version: 8, opset_import: ["": 17]> g (float[N,1] x) => (float[N,1] y)'
    original = onnx.parser.parse_model(f"{head} {{ y = Neg(x) }}")
    clipped = onnx.parser.parse_model(f"{head} {{ t = Constant<value_float = 2.0>() m = Min(x, t) y = Neg(m) }}")
    more = onnx.parser.parse_model(f"{head} {{ t = Constant<value_float = -1.5>() y = Mul(x, t) }}")
    held, fitted = ({"x": column(*x).astype(np.float32)} for x in ([-1, 1] * 4, [-3, 3] * 4))
    evaluator = Evaluator(load(original), lambda _: [held], reference=Reference(alike=[fitted]))
    assert evaluator.possible and evaluator.samples == 8
    assert evaluator.error(clipped) == 0
    assert evaluator.error(more) == pytest.approx(0.5 / 1.25, rel=1e-6)
    assert Evaluator(load(original), lambda _: [held]).error(more) == pytest.approx(0.5, rel=1e-6)
