"""Pictures of random shapes beside images that were made by descent: more of them for less."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..samples import Samples
from ..session import Feeds
from ..synthetic.images import spatial_axes
from ..synthetic.leaves import KIND, leaves, takes_pictures

_EACH = 3  # pictures for every image that was made


def with_pictures(samples: Samples, seed: int) -> Samples:
    """`samples` with pictures to descend on, where they are images that a descent made; else themselves.

    The pictures have the mean and the deviation of these in every channel. What is measured on stays.
    """
    if samples.own or samples.described == KIND or len(samples.fit[0]) != 1:
        return samples
    ((name, first),) = samples.fit[0].items()
    if first.dtype.kind != "f" or not takes_pictures(first.shape):
        return samples
    images = np.concatenate([feed[name] for feed in samples.fit]).astype(np.float32)
    space = spatial_axes(images.shape)
    over = (0, *space)
    made = leaves(np.random.default_rng([seed, 3]), (_EACH * len(images), *images.shape[1:]))
    made *= images.std(over, keepdims=True) / np.maximum(made.std(over, keepdims=True), 1e-6)
    made += images.mean(over, keepdims=True) - made.mean(over, keepdims=True)
    step = len(first)
    more: Sequence[Feeds] = [{name: made[i : i + step].astype(first.dtype)} for i in range(0, len(made), step)]
    return replace(samples, fit=(*samples.fit, *more))
