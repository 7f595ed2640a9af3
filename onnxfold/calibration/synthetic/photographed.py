"""Crops of many photographs, for convolutional networks that hold nothing of their own data.

Where BatchNormalization was fused away, a descent knows a prior alone (`bn_prior.py`). On images of 64 pixels and more,
crops of varied photographs as they are repair as well or better, and cost no gradient
(docs/design/synthetic-inputs.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ...errors import ExecutionError, OnnxFoldError
from ...model.model import Model
from ...runtime.batching import Batching
from ...runtime.session import InputSpec, Session
from .bn_prior import FEWEST
from .conventions import convention
from .image_ops import is_line, spatial_axes
from .photographs import crops, varied_photographs
from .pictures import image_shape
from .problem import PRIOR, NotInvertibleError, pose_losses

Floats = NDArray[np.float32]
LEAST = 64  # pixels of each side: of 32 a descent shows more (a fused ResNet-20: 60 to 67 by crops, 79 by descent)


def photographed(
    model: Model, specs: Sequence[InputSpec], count: int, seed: int, shapes: Mapping[str, Sequence[int]]
) -> tuple[Floats, bool] | None:
    """`count` crops for the only input of `model`, in the convention that it wants; and whether the model
    takes one sample at a time (the first axis is one more then). None where other inputs say more.

    Raises ExecutionError where onnxruntime does not load the model.
    """
    shape = image_shape(specs, count, shapes)
    if shape is None or not wants_crops(model, specs, shapes) or not _has_only_a_prior(model, specs, shapes):
        return None
    apart = one_at_a_time(model, specs[0], shape)
    rng = np.random.default_rng([seed, 2])
    pixels = varied_crops(rng, shape)
    wanted = convention(model, specs, specs[0].name, shape, shapes)
    made = wanted.applied(pixels, shape).astype(specs[0].dtype)
    return made[:, None] if apart else made, apart


def varied_crops(rng: np.random.Generator, shape: Sequence[int]) -> Floats:
    """[N, height, width, 3] crops from 0 to 255 of all photographs that come with the package, in random order, for a
    batch of this `shape`."""
    among = [varied_photographs()[i] for i in rng.permutation(len(varied_photographs()))]
    return crops(rng, among, shape[0], *(shape[axis] for axis in spatial_axes(shape)))


def wants_crops(model: Model, specs: Sequence[InputSpec], shapes: Mapping[str, Sequence[int]]) -> bool:
    """Whether a model may want crops, going by its input and its operators alone."""
    shape = image_shape(specs, 1, shapes)
    ops = [node.op for node in model.graph.nodes]
    convolutional = "BatchNormalization" not in ops and ops.count("Conv") >= FEWEST
    return convolutional and shape is not None and shows_photographs(shape)


def shows_photographs(shape: Sequence[int]) -> bool:
    """Whether images of this shape are in color and large enough to show what is on a photograph; no lines of text."""
    axes = spatial_axes(shape)
    large = min(shape[axis] for axis in axes) >= LEAST and not is_line(shape)
    return shape[6 - sum(axes)] == 3 and large


def _has_only_a_prior(model: Model, specs: Sequence[InputSpec], shapes: Mapping[str, Sequence[int]]) -> bool:
    """Whether a descent would have a prior to go by, and nothing better."""
    for apart in (False, True):
        try:
            return pose_losses(model, specs, 1, shapes, apart).terms.goal is PRIOR
        except (NotInvertibleError, ExecutionError, OnnxFoldError):
            continue
    return False


def one_at_a_time(model: Model, spec: InputSpec, shape: Sequence[int]) -> bool:
    """Whether the model takes no two images of this `shape`, though its input says any number."""
    if Batching.of([spec]).size:
        return False
    try:
        Session.of(model).run({spec.name: np.zeros((2, *shape[1:]), spec.dtype)})
    except ExecutionError:
        return True
    return False
