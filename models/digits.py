"""Held-out test data and accuracy of the small digit models in this folder.

The data are scikit-learn's handwritten digits (1797 images of 8x8 pixels). The split and the
preprocessing are made at run time and are the ones that train.py used.

    python models/digits.py MODEL.onnx [MODEL.onnx ...]
"""

from __future__ import annotations

import argparse
import functools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort  # type: ignore[import-untyped,import-not-found,unused-ignore]
from sklearn.datasets import load_digits  # type: ignore[import-untyped,import-not-found,unused-ignore]
from sklearn.model_selection import (  # type: ignore[import-untyped,import-not-found,unused-ignore]
    train_test_split,
)

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

TEST_SIZE = 500
SPLIT_SEED = 0


@functools.lru_cache(maxsize=1)
def _split() -> tuple[Images, Images, Labels, Labels]:
    """(train images, test images, train labels, test labels), images [N, 64] in [-1, 1]."""
    digits = load_digits()
    images = np.asarray(digits.data, dtype=np.float32) / np.float32(8) - np.float32(1)
    labels = np.asarray(digits.target, dtype=np.int64)
    train_x, test_x, train_y, test_y = train_test_split(
        images, labels, test_size=TEST_SIZE, random_state=SPLIT_SEED, stratify=labels
    )
    return train_x, test_x, train_y, test_y


def _shaped(images: Images, flat: bool) -> Images:
    return images.copy() if flat else images.reshape(-1, 1, 8, 8).copy()


def load_train(flat: bool = False) -> tuple[Images, Labels]:
    """The 1297 training images, [N, 1, 8, 8] or (flat) [N, 64], and their labels."""
    train_x, _, train_y, _ = _split()
    return _shaped(train_x, flat), train_y.copy()


def load_test(flat: bool = False) -> tuple[Images, Labels]:
    """The 500 held-out images, [N, 1, 8, 8] or (flat) [N, 64], and their labels."""
    _, test_x, _, test_y = _split()
    return _shaped(test_x, flat), test_y.copy()


def accuracy(model: str | os.PathLike[str] | bytes) -> float:
    """Percent of the held-out images that a model (path or serialized bytes) gets right.

    Runs on onnxruntime's CPU provider. The rank of the model's only input says whether it
    takes flat images; its first output is taken as the logits.
    """
    source = model if isinstance(model, bytes) else os.fspath(model)
    session = ort.InferenceSession(source, providers=["CPUExecutionProvider"])
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise ValueError(f"expected a model with one input, got {len(inputs)}")
    images, labels = load_test(flat=len(inputs[0].shape) == 2)
    logits = np.asarray(session.run(None, {inputs[0].name: images})[0])
    return float(100.0 * np.mean(logits.argmax(axis=1) == labels))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Test accuracy of digit models.")
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL.onnx")
    for path in parser.parse_args(argv).models:
        print(f"{path.name}: {accuracy(path):.1f} %")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
