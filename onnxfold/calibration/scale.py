"""Whether the user's images are of the scale that the model was trained on: data of 0 to 255 for a model that takes -2
to 2 run without an error, and every decision that is measured on them is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..model.model import Model, Shapes
from ..runtime.session import Feeds, InputSpec
from .processor import NAME, resolved
from .synthetic.conventions import better_convention

_PEAK = 5.0  # times the largest value that normalized pixels can have
_BETTER = 50.0  # times: in a wrong scale statistics fit 100 to 5,000 times worse, of another kind of image 5 times
_LOOKED_AT = 12  # samples


def scale_warning(model: Model, specs: Sequence[InputSpec], feeds: Sequence[Feeds], shapes: Shapes) -> str:
    """That images are not normalized as the model was trained, with the evidence, in words; '' where nothing says so.

    Evidence is a preprocessor_config.json beside the model, or the running statistics of its normalizations, which
    photographs fit far better in another scale. Models without either tell nothing.
    """
    if len(specs) != 1 or len(specs[0].shape) != 4 or np.dtype(specs[0].dtype).kind != "f":
        return ""
    (spec,) = specs
    x = np.concatenate([feed[spec.name] for feed in feeds[:_LOOKED_AT]])[:_LOOKED_AT].astype(np.float32)
    low, high, limit = float(x.min()), float(x.max()), _limit(model.path)
    has = f"the calibration data for input '{spec.name}' are from {low:.3g} to {high:.3g}, but"
    if limit is not None and high > _PEAK * limit:
        return f"{has} the {NAME} beside the model makes {limit:.2g} of white at most: {_HOW}"
    if low == high or (low < 0 and high <= _NORMAL):  # what was normalized looks like that
        return ""
    found = better_convention(model, specs, x, shapes or {}, _BETTER)
    if found is None:
        return ""
    name, times = found
    return f"{has} photographs of {name} fit the statistics inside the model {times:.0f} times better: {_HOW}"


_HOW = "normalize them as in training (images: by `preprocess`)"
_NORMAL = 20.0  # above this no usual normalization takes a pixel


def _limit(model: Path | None) -> float | None:
    """The largest value that normalized pixels can have by the file beside the model; None where there is none."""
    said = resolved(None, model)
    if said is None:
        return None
    return max(abs(end - mean) / std for mean, std in zip(*_paired(said.mean, said.std), strict=True) for end in (0, 1))


def _paired(mean: Sequence[float], std: Sequence[float]) -> tuple[list[float], list[float]]:
    count = max(len(mean), len(std))
    return [*mean] * (count // len(mean)), [*std] * (count // len(std))
