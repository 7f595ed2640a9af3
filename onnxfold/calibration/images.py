"""Images as calibration data: read, resized, normalized and laid out as a model takes them.

Pillow reads image files and is optional; arrays of pixels need nothing.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BUILTIN_ERRORS, RequestError
from ..options.preprocess import EXAMPLE, Layout, Preprocess
from ..runtime.session import InputSpec

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
CROP = 0.875  # share of the shorter side that the center crop keeps: 256 -> 224, as image classifiers are evaluated
_MOST_PIXELS, _TIMES = 2**26, 4  # of an image that is scaled; or so many times what the model takes
ROUNDING = 1e-3  # float32: 255 levels divided and multiplied again are off by 3e-5

_DAMAGED = (OSError, MemoryError, struct.error, zlib.error, *BUILTIN_ERRORS)  # what Pillow raises about such files


def needs_preprocess(what: str, name: str) -> RequestError:
    """The error for pixels without a `Preprocess`."""
    return RequestError(
        f"{what} contains pixels, but nothing says how input '{name}' expects them: pass `preprocess='{EXAMPLE}'` "
        "with the values that the model was trained with (of pixels scaled to 0..1)"
    )


def image_shape(spec: InputSpec, preprocess: Preprocess) -> tuple[int, int | None, int | None]:
    """(channels, height, width) that an input takes; None where the model leaves height or width open.

    Raises RequestError if the input is no image in this layout.
    """
    if len(spec.shape) != 4:
        raise RequestError(f"input '{spec.name}' has {len(spec.shape)} dimensions, but images need 4: use an .npz")
    sizes = [d if isinstance(d, int) and d > 0 else None for d in spec.shape]
    axis = preprocess.layout.channels
    given = max(len(preprocess.mean), len(preprocess.std))
    channels = sizes.pop(axis)
    if channels is None:
        channels = 3
    if channels not in (1, 3):
        other = Layout.NHWC if preprocess.layout is Layout.NCHW else Layout.NCHW
        raise RequestError(
            f"input '{spec.name}' would have {channels} channels in layout {preprocess.layout.value}: images have 1 or "
            f"3; try {other.value}, or use an .npz file"
        )
    if given not in (1, channels):
        raise RequestError(f"`preprocess` has values for {given} channels, but input '{spec.name}' has {channels}")
    return channels, sizes[1], sizes[2]


def read_image(path: Path, spec: InputSpec, preprocess: Preprocess) -> NDArray[Any]:
    """One image file as the input wants it: float [1, C, H, W] or [1, H, W, C], by the layout.

    An image of another size than H x W is scaled (bilinear, with antialiasing) until it just covers H/0.875 x W/0.875,
    then cropped in the center. Colors become gray where the model has one channel.

    Raises:
        RequestError: no image, deeper than 8 bits, or the model leaves height or width open.
    """
    from PIL import Image  # slow to import

    channels, height, width = image_shape(spec, preprocess)
    if height is None or width is None:
        shape = (1, channels, 224, 224) if preprocess.layout is Layout.NCHW else (1, 224, 224, channels)
        raise RequestError(
            f"input '{spec.name}' has a dynamic image size: set it, for example with "
            f"`input_shapes={{{spec.name!r}: {shape}}}`"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # transparency, odd EXIF data: nothing that a user should mend
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                deep = file.mode.startswith(("I", "F"))  # Pillow would clip these to 255
                image = file if deep else file.convert("RGB" if channels == 3 else "L")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, *_DAMAGED) as error:
        raise RequestError(f"{path} cannot be read as an image ({_reason(error)}): remove or replace it") from error
    if deep:
        raise RequestError(f"{path} has more than 8 bits per channel: save it with 8 bits, or use an .npz file")
    if image.size != (width, height):
        scale = max(height / CROP / image.height, width / CROP / image.width)
        size = max(width, round(image.width * scale)), max(height, round(image.height * scale))
        if size[0] * size[1] > max(_MOST_PIXELS, _TIMES * width * height):
            raise RequestError(f"{path} of {image.width} x {image.height} is too narrow: remove or replace it")
        left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
        image = image.resize(size, Image.Resampling.BILINEAR).crop((left, top, left + width, top + height))
    pixels = np.asarray(image, np.uint8).reshape(1, height, width, channels)
    return normalize(_as(pixels, preprocess.layout), spec, preprocess, str(path))


def lay_out(pixels: NDArray[Any], spec: InputSpec, preprocess: Preprocess, where: str) -> NDArray[Any]:
    """Images uint8 [n, H, W, C] or [n, C, H, W] (also a single one) as a view in the layout of the model.

    Which it is follows from the shape the model wants. Raises RequestError if it is neither or could be both.
    """
    wanted = image_shape(spec, preprocess)
    batch = pixels[None] if pixels.ndim == 3 else pixels
    last = batch.ndim == 4 and _fits(batch.shape[1:], (*wanted[1:], wanted[0]))
    first = batch.ndim == 4 and _fits(batch.shape[1:], wanted)
    if last == first:
        size = " x ".join("?" if n is None else str(n) for n in wanted)
        why = "can be read as NCHW and as NHWC: convert them to floats" if first else "are neither NCHW nor NHWC of it"
        raise RequestError(
            f"input '{spec.name}' takes images of {size} (channels, height, width), and those of shape "
            f"{list(pixels.shape)} in {where} {why}"
        )
    return _as(batch if last else batch.transpose(0, 2, 3, 1), preprocess.layout)


def normalize(pixels: NDArray[Any], spec: InputSpec, preprocess: Preprocess, where: str) -> NDArray[Any]:
    """Pixels uint8, in the layout of the model, as the numbers it takes: ``(pixel / 255 - mean) / std``.

    Raises RequestError where the model takes integers and these are none.
    """
    shape = (-1, 1, 1) if preprocess.layout is Layout.NCHW else (-1,)
    mean, std = (np.asarray(v, np.float32).reshape(shape) for v in (preprocess.mean, preprocess.std))
    values = np.ascontiguousarray((pixels / np.float32(255) - mean) / std)
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "f":
        with np.errstate(over="ignore"):  # infinities are refused with all others
            return values.astype(dtype)
    whole = np.rint(values)
    limits = np.iinfo(dtype) if dtype.kind in "iu" else None
    exact = np.abs(values - whole).max(initial=0) < ROUNDING
    if limits is None or not exact or whole.min(initial=0) < limits.min or whole.max(initial=0) > limits.max:
        raise RequestError(
            f"input '{spec.name}' takes {dtype}, but {where} gives fractions or values out of range: "
            f"`preprocess='0,1/255,{preprocess.layout.value}'` leaves pixels as they are"
        )
    return whole.astype(dtype)


def _as(pixels: NDArray[Any], layout: Layout) -> NDArray[Any]:
    """Pixels [n, H, W, C] in `layout`."""
    return pixels.transpose(0, 3, 1, 2) if layout is Layout.NCHW else pixels


def _fits(shape: Sequence[int], wanted: Sequence[int | None]) -> bool:
    return all(w is None or n == w for n, w in zip(shape, wanted, strict=True))


def _reason(error: Exception) -> str:
    text = str(error)
    return "not an image" if "cannot identify" in text else (text.splitlines() or [type(error).__name__])[0]
