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
from ...runtime import probe_inputs
from ...runtime.batching import Batching
from ...runtime.session import InputSpec, Session
from .bn_prior import FEWEST
from .conventions import convention
from .drawn_text import is_line
from .image_ops import is_images, spatial_axes
from .photographs import crops, varied_photographs
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
    shape = image_shape(model, specs, count, shapes)
    if shape is None or not _knows_a_prior(model, specs, shapes):
        return None
    apart = _one_at_a_time(model, specs[0], shape)
    rng = np.random.default_rng([seed, 2])
    among = [varied_photographs()[i] for i in rng.permutation(len(varied_photographs()))]
    pixels = crops(rng, among, count, *(shape[axis] for axis in spatial_axes(shape)))
    wanted = convention(model, specs, specs[0].name, shape, shapes)
    made = wanted.applied(pixels, shape).astype(specs[0].dtype)
    return made[:, None] if apart else made, apart


def image_shape(
    model: Model, specs: Sequence[InputSpec], count: int, shapes: Mapping[str, Sequence[int]]
) -> tuple[int, ...] | None:
    """The shape of `count` images for a model that may want crops, going by its input and its operators alone; None for
    another."""
    if len(specs) != 1 or not specs[0].shape or specs[0].dtype is None or np.dtype(specs[0].dtype).kind != "f":
        return None
    if any(node.op == "BatchNormalization" for node in model.graph.nodes):
        return None
    if sum(node.op == "Conv" for node in model.graph.nodes) < FEWEST:
        return None
    shape = (count, *probe_inputs.shape_of(specs[0], 1, shapes.get(specs[0].name))[1:])
    return shape if wants_photographs(shape) else None


def wants_photographs(shape: Sequence[int]) -> bool:
    """Whether images of this shape are in color and large enough to show what is on a photograph; no lines of text."""
    if not is_images(shape):
        return False
    axes = spatial_axes(shape)
    large = min(shape[axis] for axis in axes) >= LEAST and not is_line(tuple(shape))
    return shape[6 - sum(axes)] == 3 and large


def _knows_a_prior(model: Model, specs: Sequence[InputSpec], shapes: Mapping[str, Sequence[int]]) -> bool:
    """Whether a descent would have a prior to go by, and nothing better."""
    for apart in (False, True):
        try:
            return pose_losses(model, specs, 1, shapes, apart).terms.goal is PRIOR
        except (NotInvertibleError, ExecutionError, OnnxFoldError):
            continue
    return False


def _one_at_a_time(model: Model, spec: InputSpec, shape: Sequence[int]) -> bool:
    """Whether the model takes no two images of this `shape`, though its input says any number."""
    if Batching.of([spec]).size:
        return False
    try:
        Session.of(model).run({spec.name: np.zeros((2, *shape[1:]), spec.dtype)})
    except ExecutionError:
        return True
    return False
