"""Images as calibration data: read, resized, normalized and laid out as a model takes them.

Pillow reads image files and is optional; arrays of pixels need nothing.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BUILTIN_ERRORS, RequestError
from ..options.preprocess import PRESETS, Layout, Preprocess, Resize
from ..runtime.session import InputSpec

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
_MOST_PIXELS, _TIMES = 2**26, 4  # of an image that is scaled; or so many times what the model takes
ROUNDING = 1e-3  # float32: 255 levels divided and multiplied again are off by 3e-5

_DAMAGED = (OSError, MemoryError, struct.error, zlib.error, *BUILTIN_ERRORS)  # what Pillow raises about such files


def needs_preprocess(what: str, name: str) -> RequestError:
    """The error for pixels without a `Preprocess`."""
    return RequestError(
        f"{what} contains pixels, but nothing says how input '{name}' expects them: pass `preprocess='imagenet'` (or "
        f"{', '.join(list(PRESETS)[1:])}, or MEAN,STD of pixels scaled to 0..1), whichever the model was trained with"
    )


def told(spec: InputSpec, preprocess: Preprocess) -> Preprocess:
    """`preprocess` with a layout: where it has none, that in which the shape of the input has 1 or 3 channels.

    Raises RequestError where that is both, or cannot be seen."""
    if preprocess.layout is not None or len(spec.shape) != 4:
        return preprocess if preprocess.layout is not None else replace(preprocess, layout=Layout.NCHW)
    fits = [layout for layout in Layout if _of_channels(spec.shape[layout.channels])]
    if len(fits) != 1:
        shape = ", ".join("?" if d is None else str(d) for d in spec.shape)
        raise RequestError(
            f"the shape [{shape}] of input '{spec.name}' does not tell where its channels are: add nchw or nhwc to "
            "`preprocess`, behind a comma"
        )
    return replace(preprocess, layout=fits[0])


def _of_channels(size: int | str | None) -> bool:
    """Whether an axis is of 1 or 3 channels, by its length or by the name that an exporter gives it."""
    return size in (1, 3) or (isinstance(size, str) and (size.lower() == "c" or "channel" in size.lower()))


def told_by(preprocess: Preprocess) -> list[str]:
    """Where `preprocess` is from, for the report: nothing where the user gave it."""
    return [f"pixels become numbers as {preprocess.origin} says: {preprocess}"] if preprocess.origin else []


def image_shape(spec: InputSpec, preprocess: Preprocess) -> tuple[int, int | None, int | None]:
    """(channels, height, width) that an input takes; None where the model leaves height or width open.

    Raises RequestError if the input is no image in this layout.
    """
    preprocess = told(spec, preprocess)
    if len(spec.shape) != 4:
        raise RequestError(f"input '{spec.name}' has {len(spec.shape)} dimensions, but images need 4: use an .npz")
    sizes = [d if isinstance(d, int) and d > 0 else None for d in spec.shape]
    layout = preprocess.layout or Layout.NCHW
    axis = layout.channels
    given = max(len(preprocess.mean), len(preprocess.std))
    channels = sizes.pop(axis)
    if channels is None:
        channels = 3
    if channels not in (1, 3):
        other = Layout.NHWC if layout is Layout.NCHW else Layout.NCHW
        raise RequestError(
            f"input '{spec.name}' would have {channels} channels in layout {layout.value}: images have 1 or "
            f"3; try {other.value}, or use an .npz file"
        )
    if given not in (1, channels):
        raise RequestError(
            f"`preprocess` has values for {given} channels, but input '{spec.name}' has {channels}: give one "
            "value for each, like 0.5,0.5"
        )
    return channels, sizes[1], sizes[2]


def read_image(path: Path, spec: InputSpec, preprocess: Preprocess) -> NDArray[Any]:
    """One image file as the input wants it: float [1, C, H, W] or [1, H, W, C], by the layout.

    An image of another size than H x W is scaled (with antialiasing) and cropped, stretched or put on gray, as
    `preprocess` says. Colors become gray where the model has one channel.

    Raises:
        RequestError: no image, deeper than 8 bits, or the model leaves height or width open.
    """
    from PIL import Image  # slow to import

    preprocess = told(spec, preprocess)
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
        image = _resized(image, (width, height), preprocess, path)
    pixels = np.asarray(image, np.uint8).reshape(1, height, width, channels)
    return normalize(_as(pixels, preprocess.layout), spec, preprocess, str(path))


def _resized(image: Image, wanted: tuple[int, int], preprocess: Preprocess, path: Path) -> Image:
    """An image of the `wanted` width and height. Raises RequestError for one that is too long and thin to crop."""
    from PIL import Image as Pillow  # slow to import

    resample = Pillow.Resampling.BICUBIC if preprocess.bicubic else Pillow.Resampling.BILINEAR
    ratios = [w / n for w, n in zip(wanted, image.size, strict=True)]
    if preprocess.resize is Resize.STRETCH:
        return image.resize(wanted, resample)
    if preprocess.resize is Resize.LETTERBOX:  # sizes and places as Ultralytics rounds them
        inner = tuple(min(w, max(1, round(n * min(ratios)))) for w, n in zip(wanted, image.size, strict=True))
        gray = Pillow.new(image.mode, wanted, preprocess.pad if image.mode == "L" else (preprocess.pad,) * 3)
        left, top = (round((w - n) / 2 - 0.1) for w, n in zip(wanted, inner, strict=True))
        gray.paste(image.resize((inner[0], inner[1]), resample), (left, top))
        return gray
    scale = max(w / preprocess.crop / n for w, n in zip(wanted, image.size, strict=True))
    size = [max(w, round(n * scale)) for w, n in zip(wanted, image.size, strict=True)]
    if size[0] * size[1] > max(_MOST_PIXELS, _TIMES * wanted[0] * wanted[1]):
        raise RequestError(f"{path} of {image.width} x {image.height} is too long and thin: remove or replace it")
    left, top = (round((n - w) / 2) for n, w in zip(size, wanted, strict=True))
    return image.resize((size[0], size[1]), resample).crop((left, top, left + wanted[0], top + wanted[1]))


def lay_out(pixels: NDArray[Any], spec: InputSpec, preprocess: Preprocess, where: str) -> NDArray[Any]:
    """Images uint8 [n, H, W, C] or [n, C, H, W] (also a single one) as a view in the layout of the model.

    Which it is follows from the shape the model wants. Raises RequestError if it is neither or could be both.
    """
    preprocess = told(spec, preprocess)
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
    preprocess = told(spec, preprocess)
    shape = (-1, 1, 1) if preprocess.layout is Layout.NCHW else (-1,)
    if preprocess.bgr:
        pixels = np.flip(pixels, 1 if preprocess.layout is Layout.NCHW else 3)
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
            "`preprocess='raw'` leaves pixels as they are"
        )
    return whole.astype(dtype)


def _as(pixels: NDArray[Any], layout: Layout | None) -> NDArray[Any]:
    """Pixels [n, H, W, C] in `layout`."""
    return pixels.transpose(0, 3, 1, 2) if layout is Layout.NCHW else pixels


def _fits(shape: Sequence[int], wanted: Sequence[int | None]) -> bool:
    return all(w is None or n == w for n, w in zip(shape, wanted, strict=True))


def _reason(error: Exception) -> str:
    text = str(error)
    return "not an image" if "cannot identify" in text else (text.splitlines() or [type(error).__name__])[0]
