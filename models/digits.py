"""Held-out test data and accuracy of the small digit models in this folder.

The data are scikit-learn's handwritten digits (1797 images of 8x8 pixels). digits.npz holds them in
the split that train.py used, so that measuring a model does not take the time to import scikit-learn.

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

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Arrays = dict[str, npt.NDArray[np.uint8]]

DATA = Path(__file__).with_name("digits.npz")
TEST_SIZE = 500
SPLIT_SEED = 0


def make_split() -> Arrays:
    """What digits.npz holds: images [N, 64] in 0..16 and labels of the training and the test set."""
    from sklearn.datasets import load_digits  # type: ignore[import-untyped,import-not-found,unused-ignore]
    from sklearn.model_selection import (  # type: ignore[import-untyped,import-not-found,unused-ignore]
        train_test_split,
    )

    digits = load_digits()
    names = ("train_images", "test_images", "train_labels", "test_labels")
    parts = train_test_split(
        digits.data, digits.target, test_size=TEST_SIZE, random_state=SPLIT_SEED, stratify=digits.target
    )
    return {name: np.asarray(part, dtype=np.uint8) for name, part in zip(names, parts, strict=True)}


@functools.lru_cache(maxsize=1)
def _split() -> Arrays:
    with np.load(DATA) as arrays:
        return dict(arrays)


def _load(part: str, flat: bool) -> tuple[Images, Labels]:
    images = _split()[f"{part}_images"].astype(np.float32) / np.float32(8) - np.float32(1)
    shape = (-1, 64) if flat else (-1, 1, 8, 8)
    return images.reshape(shape), _split()[f"{part}_labels"].astype(np.int64)


def load_train(flat: bool = False) -> tuple[Images, Labels]:
    """The 1297 training images, [N, 1, 8, 8] or (flat) [N, 64], scaled to -1..1, and their labels."""
    return _load("train", flat)


def load_test(flat: bool = False) -> tuple[Images, Labels]:
    """The 500 held-out images, [N, 1, 8, 8] or (flat) [N, 64], scaled to -1..1, and their labels."""
    return _load("test", flat)


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
