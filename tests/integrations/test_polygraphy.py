"""What onnxfold says of a result is what polygraphy sees of it, and a fold of duplicates passes as the same model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny import MODELS

import onnxfold

pytest.importorskip("polygraphy")

from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx
from polygraphy.comparator import Comparator, CompareFunc

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # polygraphy renames things as it goes
FEEDS = {"image": np.random.default_rng(0).random((16, 1, 8, 8), np.float32)}


def agree(before: Path, after: Path, atol: float) -> bool:
    """What ``polygraphy run before.onnx --onnxrt`` says against ``after.onnx``."""
    runners = [OnnxrtRunner(SessionFromOnnx(str(one))) for one in (before, after)]
    results = Comparator.run(runners, data_loader=[FEEDS])
    return bool(Comparator.compare_accuracy(results, compare_func=CompareFunc.simple(atol=atol, rtol=0.0)))


def test_both_see_the_same_difference(tmp_path: Path) -> None:
    before, after = MODELS / "digits_vgg.onnx", tmp_path / "out.onnx"
    onnxfold.fold(before, after, ratio=0.3, effort="fast", latency=False)
    check = onnxfold.compare(before, after, inputs=FEEDS, latency=False).check
    assert check is not None
    (output,) = check.providers[0].outputs
    assert output.max_abs > 1e-3
    assert agree(before, after, 1.01 * output.max_abs) and not agree(before, after, 0.99 * output.max_abs)
