"""Images as arrays: their layout, noise with the spectrum of natural images, shifts, flips, roughness, PNG files."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
_COLUMNS = 8  # of a contact sheet
_LONGEST, _STRIP = 3, 16  # times the other side: of images, and of those in color (lines of text)
_LINE, _HIGHEST = 3, 64  # lines of text: more than so many times as wide as high, and at most so many pixels high


def spatial_axes(shape: Sequence[int]) -> tuple[int, ...]:
    """The two spatial axes of a batch of images, () for anything else.

    [N, C, H, W] or [N, H, W, C] with up to 4 channels, both spatial axes at least 8 long and neither over 3 times the
    other (a spectrogram must not be mirrored), or 16 times in color.
    """
    if len(shape) != 4:
        return ()
    axes = (2, 3) if shape[1] <= 4 else (1, 2) if shape[3] <= 4 else ()
    sides = [shape[a] for a in axes]
    longest = _STRIP if axes and shape[6 - sum(axes)] == 3 else _LONGEST
    return axes if sides and min(sides) >= 8 and max(sides) <= longest * min(sides) else ()


def is_images(shape: Sequence[int]) -> bool:
    """Whether a batch of this shape is one of gray or color images."""
    axes = spatial_axes(shape)
    return bool(axes) and shape[6 - sum(axes)] in (1, 3)


def is_line(shape: Sequence[int]) -> bool:
    """Whether images of this shape are lines of text: in color, low, and far wider than high."""
    axes = spatial_axes(shape)
    return bool(axes) and shape[axes[0]] <= _HIGHEST and shape[axes[1]] > _LINE * shape[axes[0]]


def noise(rng: np.random.Generator, shape: Sequence[int]) -> Floats:
    """Zero mean, unit variance: amplitude 1/frequency over the spatial axes of images, channels half alike; else white.

    Natural images have a 1/f amplitude spectrum (Field, J. Opt. Soc. Am. A 1987) and highly correlated colors.
    """
    axes = spatial_axes(shape)
    white = rng.standard_normal(tuple(shape))
    if not axes:
        return white.astype(np.float32)
    channel = 6 - sum(axes)
    white = white + rng.standard_normal([1 if a == channel else n for a, n in enumerate(shape)])
    grid = np.meshgrid(*(np.fft.fftfreq(shape[a]) for a in axes), indexing="ij")
    lowest = 1 / max(shape[a] for a in axes)
    amplitude = 1 / np.maximum(np.hypot(*grid), lowest)
    wave = np.fft.ifftn(
        np.fft.fftn(white, axes=axes) * amplitude.reshape([n if a in axes else 1 for a, n in enumerate(shape)]),
        axes=axes,
    ).real
    return np.asarray(wave / wave.std(), np.float32)


def moved(x: Floats, axes: Sequence[int], shift: Sequence[int], flip: bool) -> Floats:
    """`x` rolled by `shift` along `axes`, then mirrored along the last of them if `flip`."""
    rolled = np.roll(x, tuple(shift), tuple(axes)) if any(shift) else x
    return np.ascontiguousarray(np.flip(rolled, axes[-1])) if flip else rolled


def moved_back(x: Floats, axes: Sequence[int], shift: Sequence[int], flip: bool) -> Floats:
    """The inverse of `moved` (and its adjoint: it is a permutation)."""
    plain = np.flip(x, axes[-1]) if flip else x
    return np.roll(plain, tuple(-s for s in shift), tuple(axes)) if any(shift) else np.ascontiguousarray(plain)


def roughness(x: Floats, axes: Sequence[int]) -> tuple[float, Floats]:
    """Mean squared difference of neighbors along `axes`, summed over these, and its gradient (shaped like `x`)."""
    total, gradient = 0.0, np.zeros_like(x)
    for axis in axes:
        step = np.diff(x, axis=axis)
        total += float(np.mean(np.square(step), dtype=np.float64))
        scaled = step * np.float32(2 / step.size)
        front = [slice(None)] * x.ndim
        back = [slice(None)] * x.ndim
        front[axis], back[axis] = slice(1, None), slice(None, -1)
        gradient[tuple(front)] += scaled
        gradient[tuple(back)] -= scaled
    return total, gradient


def contact_sheet(feeds: Mapping[str, NDArray[Any]], limit: int = 64) -> bytes | None:
    """A PNG of up to `limit` images, each stretched to the full range; None where no input is made of images."""
    for x in feeds.values():
        axes = spatial_axes(x.shape)
        if axes and x.dtype.kind == "f":
            images = np.moveaxis(x, 1, -1) if axes == (2, 3) else x
            return _png(sheet_of_images(np.asarray(images[:limit], np.float64)))
    return None


def sheet_of_images(images: NDArray[np.float64]) -> NDArray[np.uint8]:
    """[n, H, W, C] to one [rows, columns, 3] picture, each image between its 1st and 99th percentile."""
    if images.shape[3] in (2, 4):
        images = images[..., : 3 if images.shape[3] == 4 else 1]
    images = np.broadcast_to(np.nan_to_num(images), (*images.shape[:3], 3))
    low, high = np.percentile(images, (1, 99), axis=(1, 2, 3), keepdims=True)
    bytes_ = (255 * np.clip((images - low) / np.maximum(high - low, 1e-12), 0, 1)).astype(np.uint8)
    count, height, width, _ = bytes_.shape
    columns = min(_COLUMNS, count)
    rows = -(-count // columns)
    sheet = np.full((rows, height + 1, columns, width + 1, 3), 255, np.uint8)
    for i in range(count):
        sheet[i // columns, :height, i % columns, :width] = bytes_[i]
    return sheet.reshape(rows * (height + 1), columns * (width + 1), 3)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """[H, W, 3] as a PNG file (RFC 2083: 8 bits, truecolor, no filter)."""
    height, width, _ = pixels.shape
    lines = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(lines.tobytes(), 6)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
