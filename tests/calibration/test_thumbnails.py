"""Small pictures for reports: of the samples asked for, small, and none where there are no images."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from onnxfold.calibration.judge import Judge
from onnxfold.calibration.origin import Origin
from onnxfold.calibration.samples import Samples
from onnxfold.calibration.thumbnails import SHOWN, SIDE, contact_sheet_of, thumbnails


def opened(picture: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(picture)))


def batches(side: int, last: bool = False) -> list[dict[str, np.ndarray]]:
    """Two of two images each; the third image of all is dark on the left and bright on the right."""
    x = np.zeros((4, 3, side, side), np.float32)
    x[:, :, : side // 2] = 1
    x[2] = 0
    x[2, :, :, side // 2 :] = 1
    x = np.moveaxis(x, 1, -1) if last else x
    return [{"image": x[:2]}, {"image": x[2:]}]


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("side", [16, 200])
def test_the_sample_asked_for(side: int, last: bool) -> None:
    first, second, none = thumbnails(batches(side, last), [2, 0, 9])
    shown, other = opened(first).convert("L"), opened(second).convert("L")
    assert max(shown.size) == min(side, SIDE) and len(first) < 3000 and none == ""
    width, height = shown.size
    left, right = shown.getpixel((1, height // 2)), shown.getpixel((width - 2, height // 2))
    assert isinstance(left, int) and isinstance(right, int) and left < 40 and right > 215
    top, bottom = other.getpixel((width // 2, 1)), other.getpixel((width // 2, height - 2))
    assert isinstance(top, int) and isinstance(bottom, int) and top > 215 and bottom < 40


def test_no_images_no_pictures() -> None:
    assert thumbnails([{"x": np.zeros((4, 64), np.float32)}], [1, 2]) == ["", ""] and thumbnails([], [1]) == [""]


def test_the_sheet_is_of_what_was_made() -> None:
    feeds = tuple({"image": np.random.default_rng(i).random((16, 3, 32, 32)).astype(np.float32)} for i in range(4))
    judge = Judge(feeds, "", True)
    made = opened(contact_sheet_of(Samples(feeds, judge, Origin.BN_STATISTICS, "")))
    assert made.size == (8 * 33, SHOWN // 8 * 33)
    assert contact_sheet_of(Samples(feeds, judge, Origin.OWN, "")) == contact_sheet_of(None) == ""
