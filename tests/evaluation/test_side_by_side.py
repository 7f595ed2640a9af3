"""Outputs beside each other: few points, a histogram that counts all values, the samples that are furthest off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from onnxfold.evaluation.operator_profile import by_operator
from onnxfold.evaluation.side_by_side import BINS, POINTS, WORST, side_by_side, with_images

RNG = np.random.default_rng(0)


def test_points_histogram_and_worst_samples() -> None:
    before = [RNG.standard_normal((n, 10)).astype(np.float32) for n in (30, 34)]
    after = [x + np.float32(0.01) for x in before]
    after[1][4] = -before[1][4]  # sample 34
    (seen,) = side_by_side({"y": (before, after)})
    assert len(seen.before) == len(seen.after) == POINTS and len(seen.edges) == BINS + 1
    assert sum(seen.counts) == 640 and seen.edges[0] < seen.edges[-1]
    gaps = np.subtract(seen.after, seen.before)
    assert np.isclose(gaps, 0.01, atol=1e-4).mean() > 0.9
    assert seen.worst[0].sample == 34 and len(seen.worst) == WORST
    assert seen.worst[0].before == int(before[1][4].argmax()) and seen.worst[0].after == int(before[1][4].argmin())
    errors = [one.error for one in seen.worst]
    assert errors == sorted(errors, reverse=True)
    assert seen.worst[0].error == pytest.approx(
        2 * np.linalg.norm(before[1][4]) / np.sqrt(np.mean(np.sum(np.square(np.concatenate(before)), 1))), rel=1e-3
    )


def test_what_cannot_be_compared_is_left_out() -> None:
    x = np.ones((4, 3), np.float32)
    pairs: dict[str, tuple[Sequence[Any], Sequence[Any]]] = {
        "shape": ([x], [x[:, :2]]), "ints": ([x.astype(int)], [x.astype(int)]), "nan": ([x * np.nan], [x]),
        "map": ([x.reshape(1, 2, 2, 3)], [x.reshape(1, 2, 2, 3)]),
    }  # fmt: skip
    (seen,) = side_by_side(pairs)
    assert seen.name == "map" and seen.worst == () and sum(seen.counts) == 12


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, 1e308])
def test_odd_values_do_not_matter(odd: float) -> None:
    """No warning, which would fail a test, and nothing that is not finite."""
    x = np.ones((8, 4), np.float64)
    x[3, 1] = odd
    (seen,) = side_by_side({"y": ([x], [-x])})
    assert sum(seen.counts) == 31 and seen.worst == () and np.isfinite([*seen.before, *seen.edges]).all()


def test_differences_that_are_all_alike() -> None:
    x = np.full((8, 4), 1e20, np.float32)
    for shift in (0.0, 1e15):  # float32 has no value between
        (seen,) = side_by_side({"y": ([x], [x + np.float32(shift)])})
        assert sum(seen.counts) == 32 and sum(map(bool, seen.counts)) == 1 and seen.edges[0] < seen.edges[-1]


def test_pictures_are_of_the_first_output() -> None:
    x = RNG.standard_normal((8, 3)).astype(np.float32)
    seen = side_by_side({"a": ([x], [x * 1.1]), "b": ([x], [x * 1.2])})
    asked = list[Sequence[int]]()

    def pictures(_: object, samples: Sequence[int]) -> list[str]:
        asked.append(samples)
        return [f"p{i}" for i in samples]

    first, second = with_images(seen, (), pictures)
    assert [one.image for one in first.worst] == [f"p{one.sample}" for one in seen[0].worst]
    assert all(not one.image for one in second.worst) and len(asked) == 1


def test_the_first_run_does_not_count() -> None:
    def node(start: int, op: str, took: int, kind: str = "_kernel_time") -> dict[str, Any]:
        return {"name": f"n{kind}", "ts": start, "dur": took, "args": {"op_name": op}}

    run = {"name": "model_run", "dur": 90}
    events = [
        {**run, "ts": 0}, node(5, "Conv", 50), {**run, "ts": 100}, node(105, "Conv", 20), node(130, "Conv", 10),
        node(131, "Conv", 4, "_fence_before"), {**run, "ts": 200}, node(205, "Conv", 10), node(230, "Add", 6),
        {**run, "ts": 300}, node(301, "Conv", 900), node(310, "Add", 8), {"name": "session_initialization", "ts": -9},
    ]  # fmt: skip
    assert by_operator(events) == {"Conv": 0.03, "Add": 0.006}
    assert by_operator([]) == {}
