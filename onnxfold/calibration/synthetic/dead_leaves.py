"""Pictures of opaque shapes that cover each other ("dead leaves"), where no photographs were given.

Shapes whose sizes follow a power law cover each other as objects do, which gives edges, even areas and the statistics
of natural images at every scale (Lee, Mumford and Huang, "Occlusion models for natural images", IJCV 2001). Networks
that are trained on them come near those trained on photographs (Baradad et al., "Learning to see by looking at noise",
NeurIPS 2021, arXiv 2106.05963).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .image_ops import spatial_axes

Floats = NDArray[np.float32]
_FEWEST, _MOST = 8, 60  # shapes of a picture
_SMALLEST, _LARGEST = 0.04, 0.6  # radius in sides
_FLATTEST = 0.4  # the short axis of a shape in its long ones
_ROUND = 0.6  # share of ellipses; the others are rectangles
_LIGHT, _COLOUR, _SHADE = 0.9, 0.35, 0.15  # deviations: between shapes, between the channels of one, within one
_BLUR = np.array([0.25, 0.5, 0.25])  # of the lens: photographs have no steps


def leaves(rng: np.random.Generator, shape: Sequence[int]) -> Floats:
    """Pictures [N, C, H, W] or [N, H, W, C], zero mean and unit variance over all of them.

    Raises ValueError where `shape` is none of images (`images.spatial_axes`).
    """
    axes = spatial_axes(shape)
    if not axes:
        raise ValueError(f"no images have the shape {list(shape)}")
    channels = shape[6 - sum(axes)]
    made = np.stack([_picture(rng, channels, shape[axes[0]], shape[axes[1]]) for _ in range(shape[0])])
    made -= made.mean()
    made /= max(float(made.std()), 1e-6)
    return np.ascontiguousarray(made if axes == (2, 3) else np.moveaxis(made, 1, -1))


def _picture(rng: np.random.Generator, channels: int, height: int, width: int) -> Floats:
    """[channels, height, width]."""
    side = min(height, width)
    picture = np.empty((channels, height, width), np.float32)
    picture[...] = (rng.normal(0, _LIGHT) + rng.normal(0, _COLOUR, channels))[:, None, None]
    for _ in range(rng.integers(_FEWEST, _MOST)):
        radius = side * _power_law(rng)
        middle, turn, flat = rng.random(2) * (height, width), rng.random() * np.pi, rng.uniform(_FLATTEST, 1)
        reach = 1.5 * radius
        top, left = (max(0, int(m - reach)) for m in middle)
        low, right = (min(n, int(m + reach) + 1) for m, n in zip(middle, (height, width), strict=True))
        grid = np.mgrid[top:low, left:right]
        rows, columns = grid[0] - middle[0], grid[1] - middle[1]
        along = (columns * np.cos(turn) + rows * np.sin(turn)) / radius
        across = (rows * np.cos(turn) - columns * np.sin(turn)) / (radius * flat)
        inside = along**2 + across**2 < 1 if rng.random() < _ROUND else (abs(along) < 1) & (abs(across) < 1)
        color = rng.normal(0, _LIGHT) + rng.normal(0, _COLOUR, channels)
        part = picture[:, top : top + rows.shape[0], left : left + rows.shape[1]]
        part[:, inside] = color[:, None] + rng.normal(0, _SHADE) * along[inside]
    return _blurred(picture)


def _power_law(rng: np.random.Generator) -> float:
    """A radius in sides; its density falls with the third power, which makes pictures alike at every scale."""
    share = rng.random()
    return float((share * _SMALLEST**-2 + (1 - share) * _LARGEST**-2) ** -0.5)


def _blurred(picture: Floats) -> Floats:
    for axis in (1, 2):
        wide = np.pad(picture, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
        shifted = [np.take(wide, range(i, i + picture.shape[axis]), axis) for i in range(len(_BLUR))]
        picture = np.asarray(sum(w * one for w, one in zip(_BLUR, shifted, strict=True)), np.float32)
    return picture
