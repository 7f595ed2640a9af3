"""Where descents start, and what vision transformers get: half photographs, half shapes."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_sample_images

from onnxfold.calibration.synthetic import pictures as module
from onnxfold.calibration.synthetic.dead_leaves import leaves
from onnxfold.calibration.synthetic.photographs import photographs
from onnxfold.calibration.synthetic.pictures import pictures


@pytest.mark.parametrize("shape", [(20, 3, 32, 48), (20, 40, 32, 3)])
def test_half_are_photographs(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the photographs that judge."""
    shown = list[int]()

    def counted(rng: np.random.Generator, among: list[object], count: int, height: int, width: int) -> object:
        assert len(among) == 10 and not any(one is other for one in among for other in photographs())
        assert (height, width) == (shape[2:] if shape[1] == 3 else shape[1:3])
        shown.append(count)
        return np.full((count, height, width, 3), 255, np.float32)

    monkeypatch.setattr(module, "crops", counted)
    made = pictures(np.random.default_rng(0), shape)
    white = made.reshape(20, -1).min(axis=1) > 2
    assert made.shape == shape and shown == [10] and white.sum() == 10 and 0 < white[:10].sum() < 10, "in random order"


def test_the_photographs_that_judge_are_those_of_scikit_learn() -> None:
    assert all(map(np.array_equal, photographs(), load_sample_images().images)) and len(photographs()) == 2


@pytest.mark.parametrize("shape", [(6, 3, 16, 16), (6, 1, 64, 64), (1, 3, 64, 64)])
def test_shapes_alone_where_photographs_show_little(shape: tuple[int, ...]) -> None:
    made, drawn = pictures(np.random.default_rng(0), shape), leaves(np.random.default_rng(0), shape)
    assert np.array_equal(made, drawn)


def test_the_same_for_a_seed_and_about_standardized() -> None:
    one, again = (pictures(np.random.default_rng(1), (64, 3, 64, 64)) for _ in range(2))
    assert np.array_equal(one, again) and abs(one.mean()) < 0.5 and 0.7 < one.std() < 1.3
