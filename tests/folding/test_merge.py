"""Weights that are merged piece by piece: the same bits as all at once."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from onnxfold.folding import merge
from onnxfold.folding.merge import apply, apply_in_pieces, folding


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("axis", [0, 1])
def test_pieces_make_no_difference(monkeypatch: pytest.MonkeyPatch, axis: int, dtype: Any) -> None:
    random = np.random.default_rng(0)
    matrix = folding(random.integers(0, 9, 24)).for_producers
    weight = np.moveaxis(random.standard_normal((24, 17)), 0, axis).astype(dtype)
    matrix = matrix.astype(np.float64 if dtype == np.float64 else np.float32)
    whole = apply(matrix, weight.astype(matrix.dtype), axis, 1).astype(dtype)
    for piece in (1, 100, 2**20):
        monkeypatch.setattr(merge, "_PIECE", piece)
        found = apply_in_pieces(matrix, weight, axis)
        assert found.dtype == weight.dtype and found.tobytes() == np.ascontiguousarray(whole).tobytes()


def test_a_weight_without_numbers_has_none_after_it() -> None:
    matrix = folding(np.array([0, 0, 1])).for_producers
    assert apply_in_pieces(matrix, np.empty((3, 0), np.float32), 0).shape == (2, 0)
