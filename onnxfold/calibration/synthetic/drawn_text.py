"""Lines of text, drawn over pictures: what readers of text are repaired with, and judged by.

Those that judge are drawn in another font, and worse: aslant and noisy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...model.model import Model
from ...runtime.session import InputSpec
from .conventions import convention
from .image_ops import is_line
from .photographed import one_at_a_time, varied_crops
from .pictures import image_shape

if TYPE_CHECKING:
    from PIL import Image

Floats = NDArray[np.float32]
_CHARACTERS = "etaoinshrdlucmfwypvbgkjqxzETAOINSHRDLUCMFWYPVBGKJQXZ0123456789.,-:/"
_WORD = (2, 10)  # characters
_ALPHABET = 10  # characters that a reader tells apart at least: digits
_SIZE, _EDGE = 48, 0.1  # of the font, before it is scaled; the margin of a line, of its height
_HEIGHT, _STRETCH = (0.4, 1.0), (0.75, 1.3)  # of the image; of the width of the letters
_ROOM = 2.5  # times the height: the least width that a short line may take
_BLURRED, _BLUR = 0.3, (0.5, 1.5)  # the share of all lines, and of how many pixels
_PLAIN = 0.5  # of the contrast of a photograph is left at most: signs and pages are plain
_INK = 100.0  # of 255: how far ink may be from black, or from white on what is dark


@dataclass(frozen=True)
class Look:
    """How lines are drawn: in a font of outlines (`sharp`) or of pixels, aslant by up to so many degrees (`tilt`), with
    noise of a deviation in this range, of 255."""

    sharp: bool
    tilt: float
    noise: tuple[float, float]


FITTED = Look(True, 0.0, (0.0, 15.0))
JUDGING = Look(False, 4.0, (5.0, 25.0))


def lines(
    model: Model, specs: Sequence[InputSpec], count: int, seed: int, shapes: Mapping[str, Sequence[int]]
) -> tuple[Floats, bool] | None:
    """`count` lines of text for the only input of a model that reads such, and whether it takes one at a time (the
    first axis is one more then); None for another model.

    Raises ExecutionError where onnxruntime does not load the model.
    """
    shape = image_shape(specs, count, shapes)
    if shape is None or not reads_lines(model, shape):
        return None
    rng = np.random.default_rng([seed, 2])
    pixels = with_text(rng, varied_crops(rng, shape), FITTED)
    wanted = convention(model, specs, specs[0].name, shape, shapes)
    made = wanted.applied(pixels, shape).astype(specs[0].dtype)
    apart = one_at_a_time(model, specs[0], shape)
    return made[:, None] if apart else made, apart


def reads_lines(model: Model, shape: Sequence[int]) -> bool:
    """Whether a model of images of this `shape` reads text: these are lines, and it scores characters along them."""
    outputs = (model.graph.tensor(name).shape for name in model.graph.outputs)
    scores = [s for s in outputs if s is not None and len(s) == 3 and isinstance(s[2], int) and s[2] >= _ALPHABET]
    return is_line(shape) and bool(scores)


def with_text(rng: np.random.Generator, pictures: Floats, look: Look) -> Floats:
    """`pictures` [count, height, width, 3] from 0 to 255, each with a line of words in one color; the words are letters
    by chance. Half of the lines are short."""
    font = _font(look.sharp)
    return np.stack([_written(rng, picture, font, look) for picture in pictures])


def _font(sharp: bool) -> Any:
    from PIL import ImageFont, features  # slow to import

    outlines = sharp and features.check("freetype2")
    return ImageFont.load_default(_SIZE) if outlines else ImageFont.load_default_imagefont()


def _written(rng: np.random.Generator, picture: Floats, font: Any, look: Look) -> Floats:
    height, width = picture.shape[:2]
    background = picture.mean() + rng.uniform(0, _PLAIN) * (picture - picture.mean())
    room = width if rng.random() < 0.5 else int(rng.uniform(min(_ROOM * height, width), width))
    mask = np.asarray(_line(rng, font, height, room, look), np.float32)[:, :room] / 255
    rows, columns = mask.shape
    top, left = int(rng.integers(0, height - rows, endpoint=True)), int(rng.integers(0, width - room, endpoint=True))
    shown = np.zeros((height, width, 1), np.float32)
    shown[top : top + rows, left : left + columns, 0] = mask
    ink = rng.uniform(0, _INK, 3) if background.mean() > 128 else rng.uniform(255 - _INK, 255, 3)
    noise = rng.uniform(*look.noise) * rng.standard_normal((height, width, 1))
    return np.asarray(np.clip(background * (1 - shown) + shown * ink + noise, 0, 255), np.float32)


def _line(rng: np.random.Generator, font: Any, height: int, room: int, look: Look) -> Image.Image:
    """White words on black, no higher than `height` and no wider than `room`."""
    from PIL import Image, ImageDraw, ImageFilter

    text = " ".join(_word(rng) for _ in range(int(rng.integers(1, 1 + 2 * room // height, endpoint=True))))
    left, top, right, bottom = font.getbbox(text)
    edge = round(_EDGE * (bottom - top))
    mask = Image.new("L", (round(right - left) + 2 * edge, round(bottom - top) + 2 * edge))
    ImageDraw.Draw(mask).text((edge - left, edge - top), text, font=font, fill=255)
    rows = max(1, round(height * rng.uniform(*_HEIGHT)))
    columns = max(1, round(mask.width * rows / mask.height * rng.uniform(*_STRETCH)))
    mask = mask.resize((columns, rows), Image.Resampling.BICUBIC).crop((0, 0, min(columns, room), rows))
    if look.tilt:
        mask = mask.rotate(rng.uniform(-look.tilt, look.tilt), expand=True, resample=Image.Resampling.BICUBIC)
        mask.thumbnail((room, height), Image.Resampling.BICUBIC)
    blurred = rng.random() < _BLURRED
    return mask.filter(ImageFilter.GaussianBlur(rng.uniform(*_BLUR))) if blurred else mask


def _word(rng: np.random.Generator) -> str:
    return "".join(rng.choice(list(_CHARACTERS), int(rng.integers(*_WORD))))
