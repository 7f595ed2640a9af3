"""Pictures that cost nothing: what a descent starts at, and what vision transformers get as they are.

One half is crops of the ten photographs that come with the package, where a model takes color images of 32 pixels or
more, the other half pictures of random shapes: together they repair better than either
(docs/design/synthetic-inputs.md).
The two photographs that judge are not among them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ...runtime import probe_inputs
from ...runtime.session import InputSpec
from .conventions import USUAL
from .dead_leaves import leaves
from .image_ops import is_images, spatial_axes
from .photographs import crops, more_photographs

Floats = NDArray[np.float32]
_SMALLEST = 32  # pixels: crops of fewer show little more than a color


def image_shape(specs: Sequence[InputSpec], count: int, shapes: Mapping[str, Sequence[int]]) -> tuple[int, ...] | None:
    """The shape of `count` images for a model whose only input takes such, in floats; None for another."""
    if len(specs) != 1 or not specs[0].shape or specs[0].dtype is None or np.dtype(specs[0].dtype).kind != "f":
        return None
    shape = (count, *probe_inputs.shape_of(specs[0], 1, shapes.get(specs[0].name))[1:])
    return shape if is_images(shape) else None


def pictures(rng: np.random.Generator, shape: Sequence[int]) -> Floats:
    """Pictures [N, C, H, W] or [N, H, W, C] of about zero mean and unit variance, in random order.

    Raises ValueError where `shape` is none of images (`image_ops.spatial_axes`).
    """
    count, axes = shape[0], spatial_axes(shape)
    if not is_images(shape) or shape[6 - sum(axes)] != 3 or min(shape[a] for a in axes) < _SMALLEST:
        return leaves(rng, shape)
    drawn = leaves(rng, (count - count // 2, *shape[1:]))
    if count < 2:
        return drawn
    among = [more_photographs()[i] for i in rng.permutation(len(more_photographs()))]
    taken = USUAL.applied(crops(rng, among, count // 2, *(shape[a] for a in axes)), shape)
    return np.concatenate([drawn, taken])[rng.permutation(count)]
