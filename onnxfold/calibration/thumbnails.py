"""Small pictures of inputs that are images, for reports: JPEGs in base64."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.session import Feeds
from .samples import Samples
from .synthetic.image_ops import is_images, sheet_of_images, spatial_axes

SIDE, SHOWN = 64, 24  # pixels of one picture at most; pictures of a contact sheet
_QUALITY = 80

Array = NDArray[Any]


def thumbnails(inputs: Sequence[Feeds], samples: Sequence[int]) -> list[str]:
    """A picture of every one of `samples`, numbered over all batches of `inputs`; '' for each where no input is made of
    images, or where a batch says not how many it has."""
    name = next(
        (n for n, x in (inputs[0] if inputs else {}).items() if is_images(x.shape) and x.dtype.kind in "fu"), ""
    )
    if not name:
        return [""] * len(samples)
    rows = [(feeds[name], i) for feeds in inputs for i in range(len(feeds[name]))]
    return [_jpeg(rows[i][0][rows[i][1] : rows[i][1] + 1]) if i < len(rows) else "" for i in samples]


def contact_sheet_of(samples: Samples | None) -> str:
    """The first of the inputs that were made, in one picture; '' where they are no images, or the user's own."""
    if samples is None or samples.own or not samples.fit:
        return ""
    name = next((n for n, x in samples.fit[0].items() if is_images(x.shape) and x.dtype.kind == "f"), "")
    if not name:
        return ""
    batches = samples.fit[: 1 + SHOWN // max(1, len(samples.fit[0][name]))]
    return _jpeg(np.concatenate([feed[name] for feed in batches])[:SHOWN])


def _jpeg(images: Array) -> str:
    """[n, C, H, W] or [n, H, W, C] as one picture."""
    from PIL import Image  # slow to import, and of no use where there are no images

    channels_last = np.moveaxis(images, 1, -1) if spatial_axes(images.shape) == (2, 3) else images
    step = max(1, max(channels_last.shape[1:3]) // (2 * SIDE))  # few pixels are enough to resize from
    reduced = channels_last[:, ::step, ::step].astype(np.float64)
    longest, columns = max(reduced.shape[1:3]), min(8, len(images))
    pixels = sheet_of_images(reduced)
    picture = Image.fromarray(pixels if len(images) > 1 else pixels[:-1, :-1])  # without the line between pictures
    if longest > SIDE:
        width = SIDE * columns
        picture = picture.resize((width, max(1, picture.height * width // picture.width)))
    held = io.BytesIO()
    picture.save(held, "JPEG", quality=_QUALITY)
    return base64.b64encode(held.getvalue()).decode()
