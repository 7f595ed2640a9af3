"""Features of many channels, block by block: the same numbers as all at once, for any number of threads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from gated import write_gated
from numpy.typing import NDArray
from threadpoolctl import threadpool_info, threadpool_limits
from tiny import net

from onnxfold.analysis.analyze import analyze
from onnxfold.analysis.extract import gather
from onnxfold.errors import ModelError
from onnxfold.folding import features, gram, group_weights
from onnxfold.folding.blas import one_thread
from onnxfold.folding.features import feature_gram, magnitudes
from onnxfold.folding.gram import GramSum
from onnxfold.folding.group_weights import GroupWeights
from onnxfold.folding.merge import folding
from onnxfold.model.model import load
from onnxfold.options.choices import Method
from onnxfold.recovery.closed_form import fold_ar, variance_correction

DOUBLE_RTOL = 1e-6  # of the trace: float32 products, added in float64; measured 6e-8
SINGLE_RTOL = 1e-5  # of the trace: added in float32; measured 3e-7


def some_weights(path: Path) -> list[GroupWeights]:
    """Of gated MLPs outside the file, and of convolutions with biases inside it."""
    found = []
    for model in (load(write_gated(path / "m.onnx", 1, 40, 96)), load(net())):
        analysis = analyze(model)
        found += [gather(model, analysis, group) for group in analysis.groups]
    assert len(found) == 3
    return found


def blocks(monkeypatch: pytest.MonkeyPatch, entries: int = 500) -> None:
    monkeypatch.setattr(features, "MOST_ENTRIES", 0)
    monkeypatch.setattr(group_weights, "BLOCK_ENTRIES", entries)
    monkeypatch.setattr(gram, "_SIDE", 32)


@pytest.mark.parametrize(("single", "dtype", "rtol"), [(4096, np.float64, DOUBLE_RTOL), (8, np.float32, SINGLE_RTOL)])
def test_blocks_give_the_same_gram(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, single: int, dtype: type, rtol: float
) -> None:
    weights = some_weights(tmp_path)
    whole = [feature_gram(one) for one in weights]
    blocks(monkeypatch)
    monkeypatch.setattr(gram, "SINGLE", single)
    for one, expected in zip(weights, whole, strict=True):
        found = feature_gram(one)
        assert found.dtype == dtype and np.array_equal(found, found.T)
        assert np.abs(found - expected).max() <= rtol * np.trace(expected)


def test_the_number_of_threads_changes_no_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks(monkeypatch)
    for one in some_weights(tmp_path):
        first = feature_gram(one, 1)
        assert all(feature_gram(one, threads).tobytes() == first.tobytes() for threads in (2, 3))


def test_blocks_give_the_same_scores_and_factors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = some_weights(tmp_path)

    def found() -> list[NDArray[np.float64]]:
        out = []
        for one in weights:
            merge = folding(np.arange(one.size) // 3)
            out += [magnitudes(one, Method.PRUNE_L1), magnitudes(one, Method.PRUNE_L2)]
            out += variance_correction(one, fold_ar(one, merge)).scales.values()
        return out

    whole = found()
    blocks(monkeypatch)
    for a, b in zip(whole, found(), strict=True):
        assert a == pytest.approx(b, rel=1e-10)


def test_pieces_are_the_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for one in some_weights(tmp_path):
        parts = (*one.rows, *one.columns, *one.vectors)
        whole = [part.values for part in parts]
        blocks(monkeypatch)
        for part, values in zip(parts, whole, strict=True):
            pieces = list(part.pieces())
            assert values.shape == (one.size, part.width)
            squares = sum(np.square(piece.astype(np.float64)).sum(axis=1) for piece in pieces)
            assert squares == pytest.approx(np.square(values.astype(np.float64)).sum(axis=1))
        monkeypatch.undo()


def test_pieces_as_stored_are_the_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks(monkeypatch)
    for one in some_weights(tmp_path):
        for part in (*one.rows, *one.columns, *one.vectors):
            for piece, stored in zip(part.pieces(), part.pieces_as_stored(), strict=True):
                assert np.array_equal(piece, stored) and piece.dtype == stored.dtype


@pytest.mark.parametrize("threads", [1, 3])
def test_blocks_that_cannot_be_made_end_the_sum(threads: int) -> None:
    def some() -> Iterator[NDArray[np.float32]]:
        yield np.ones((5, 2), np.float32)
        raise ModelError("broken")

    with pytest.raises(ModelError, match="broken"):
        GramSum(5, threads).add(some())


def test_single_precision_needs_half_the_memory() -> None:
    total = GramSum(gram.SINGLE + 1)
    assert total.whole().dtype == np.float32


def test_blas_gets_its_threads_back() -> None:
    def limits() -> list[int]:
        return [info["num_threads"] for info in threadpool_info() if info["user_api"] == "blas"]

    with threadpool_limits(2, user_api="blas"):
        before = limits()
        assert set(before) == {2}
        with one_thread(), one_thread():
            assert set(limits()) == {1}
        assert limits() == before
