"""Which of the user's samples judge: evenly spaced ones, a quarter of few and an eighth of many."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxfold.calibration.samples import Samples, calibration_samples, sample_count
from onnxfold.model.model import load
from onnxfold.runtime.session import Feeds


def taken(count: int, batch: str = "N") -> Samples:
    """Samples 0, 1, 2, ... of a model that takes one number."""
    text = f'<ir_version: 8, opset_import: ["": 17]> g (float[{batch},1] x) => (float[{batch},1] y) {{ y = Neg(x) }}'
    data = {"x": np.arange(count, dtype=np.float32)[:, None]}
    return calibration_samples(load(onnx.parser.parse_model(text)), data, count, None, None)


def numbers(feeds: tuple[Feeds, ...]) -> list[int]:
    return [int(i) for feed in feeds for i in feed["x"].ravel()]


@pytest.mark.parametrize(
    ("count", "judging"),
    [
        (4, [2]),
        (5, [2]),
        (16, [2, 6, 10, 14]),
        (128, list(range(2, 128, 4))),  # 32
        (200, [(2 * i + 1) * 200 // 64 for i in range(32)]),  # more than an eighth, less than a quarter
        (512, list(range(4, 512, 8))),  # 64
    ],
)
def test_evenly_spaced_samples_are_held_back(count: int, judging: list[int]) -> None:
    found = taken(count)
    assert numbers(found.check) == judging
    assert numbers(found.fit) == [i for i in range(count) if i not in set(judging)]
    assert found.alike == found.fit and found.spread == () and found.judge.independent is (len(judging) >= 4)


def test_whole_batches_are_held_back_where_the_model_fixes_them() -> None:
    found = taken(128, "16")
    assert numbers(found.check) == [*range(32, 48), *range(96, 112)] and sample_count(found.fit) == 96


def test_three_samples_serve_for_both_and_tell_nothing_beside() -> None:
    found = taken(3)
    assert found.check is found.fit and found.alike == () and not found.judge.independent


def test_every_class_of_a_sorted_folder_judges() -> None:
    """128 samples of 10 classes, one class after the other."""
    judging = {i * 10 // 128 for i in numbers(taken(128).check)}
    assert judging == set(range(10))


@pytest.mark.parametrize(("kinds", "tell"), [(1, False), (3, False), (64, True)])
def test_copies_of_few_samples_tell_nothing(kinds: int, tell: bool) -> None:
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[N,1] x) => (float[N,1] y) { y = Neg(x) }'
    data = {"x": np.resize(np.arange(kinds, dtype=np.float32), 64)[:, None]}
    found = calibration_samples(load(onnx.parser.parse_model(text)), data, 64, None, None)
    assert found.judge.independent is tell
