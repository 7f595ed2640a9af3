"""Lines of text, drawn over pictures: what readers of text are judged by."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .image_ops import spatial_axes

Floats = NDArray[np.float32]
_ASPECT, _HIGHEST = 3, 64  # what is wider by more than this and no higher, in pixels, is a line of text
_CHARACTERS = "etaoinshrdlucmfwypvbgkjqxzETAOINSHRDLUCMFWYPVBGKJQXZ0123456789.,-:/"
_WORD = (2, 10)  # characters


def is_line(shape: tuple[int, ...]) -> bool:
    """Whether images of this shape are lines of text: in color, low, and far wider than high."""
    axes = spatial_axes(shape)
    return bool(axes) and shape[axes[0]] <= _HIGHEST and shape[axes[1]] > _ASPECT * shape[axes[0]]


def with_text(rng: np.random.Generator, pictures: Floats) -> Floats:
    """`pictures` [count, height, width, 3] from 0 to 255, each with a line of words in one color, as high as most of
    it; the words are letters by chance."""
    return np.stack([_written(rng, picture) for picture in pictures])


def _written(rng: np.random.Generator, picture: Floats) -> Floats:
    from PIL import Image, ImageDraw, ImageFont  # slow to import

    height, width = picture.shape[:2]
    words = [_word(rng) for _ in range(1 + 2 * width // height)]
    font = ImageFont.load_default()
    left, top, right, bottom = font.getbbox(" ".join(words))
    mask = Image.new("L", (round(right - left) + 2, round(bottom - top) + 2))
    ImageDraw.Draw(mask).text((1 - left, 1 - top), " ".join(words), font=font, fill=255)
    rows = round(height * rng.uniform(0.6, 1.0))
    mask = mask.resize((max(1, round(mask.width * rows / mask.height)), rows), Image.Resampling.BICUBIC)
    shown = np.zeros((height, width, 1), np.float32)
    at, columns = (height - rows) // 2, min(width, mask.width)
    shown[at : at + rows, :columns, 0] = np.asarray(mask, np.float32)[:, :columns] / 255
    background = picture.mean() + 0.3 * (picture - picture.mean())  # signs and pages are plain
    dark = background.mean() > 128
    ink = rng.uniform(0, 80, 3) if dark else rng.uniform(175, 255, 3)
    return np.asarray(background * (1 - shown) + shown * ink, np.float32)


def _word(rng: np.random.Generator) -> str:
    return "".join(rng.choice(list(_CHARACTERS), int(rng.integers(*_WORD))))
