"""Calibration data of tests: ways to keep samples in files, which samples were taken, and how bad ones are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from onnxfold.calibration.reader import Calibration, read_calibration
from onnxfold.errors import RequestError
from onnxfold.options.preprocess import Preprocess
from onnxfold.runtime.session import InputSpec

F, I64 = np.float32, np.int64
IMAGE = [InputSpec("x", F, ("N", 3, 8, 8))]
TEXTS = [InputSpec("ids", I64, ("N", "T")), InputSpec("mask", I64, ("N", "T"))]
STATE = [InputSpec("x", F, (1, 5)), InputSpec("h", F, (2, 1, 4))]
PLAIN = Preprocess.parse("0,1,nchw")
IMAGENET = "0.485:0.456:0.406,0.229:0.224:0.225,nchw"


def numbered(count: int, *shape: int, dtype: Any = F) -> NDArray[Any]:
    """`count` samples; all values of sample i are i."""
    return np.broadcast_to(np.arange(count).reshape(-1, *[1] * len(shape)), (count, *shape)).astype(dtype)


def order(calibration: Calibration, name: str = "x") -> list[int]:
    """Which of the `numbered` samples were taken."""
    return [int(v) for feed in calibration.feeds for v in feed[name].reshape(len(feed[name]), -1)[:, 0]]


def refused(source: object, specs: list[InputSpec], *says: str, **options: Any) -> str:
    with pytest.raises(RequestError) as caught:
        read_calibration(source, specs, **options)
    line = str(caught.value)
    assert "\n" not in line and len(line) > 30
    for word in says:
        assert word in line, line
    return line


def save_npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def save_npy(path: Path, array: NDArray[Any]) -> Path:
    np.save(path, array)
    return path


def save_image(path: Path, pixels: NDArray[Any], **options: Any) -> Path:
    image = pytest.importorskip("PIL.Image")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.fromarray(pixels).save(path, **options)
    return path


def save_set(folder: Path, *arrays: NDArray[Any]) -> Path:
    folder.mkdir(parents=True)
    for i, array in enumerate(arrays):
        (folder / f"input_{i}.pb").write_bytes(numpy_helper.from_array(array, f"any{i}").SerializeToString())
    (folder / "output_0.pb").write_bytes(numpy_helper.from_array(arrays[0], "y").SerializeToString())
    return folder


class Reader:
    """As onnxruntime.quantization.CalibrationDataReader."""

    def __init__(self, feeds: list[Any]) -> None:
        self.feeds, self.asked = iter(feeds), 0

    def get_next(self) -> Any:
        self.asked += 1
        return next(self.feeds, None)
