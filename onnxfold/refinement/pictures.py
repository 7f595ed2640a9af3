"""Pictures of random shapes beside images that were made by descent: more of them for less."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ..samples import Samples
from ..session import Feeds
from ..synthetic.images import spatial_axes
from ..synthetic.leaves import KIND, leaves, takes_pictures

Floats = NDArray[np.float32]
_EACH = 3  # pictures for every image that was made
_ASKED = 64  # of them tell whether they are of use
_ALIKE = 1.05  # times the error on the images: more of an error on pictures, and they are nothing that the model knows


def beside(samples: Samples, error: Callable[[Sequence[Feeds]], float], usual: float, seed: int) -> tuple[Feeds, ...]:
    """Pictures to descend on beside `samples`, with their mean and deviation in every channel, in feeds of their size.

    None beside the user's own, pictures, or what are no images; and none where a model before its refinement has a
    larger `error` on them than the `usual` one on the images. Photographs are like pictures of shapes: networks of
    photographs err on both alike (0.95 to 1.01 times); those of handwritten digits 1.15 to 1.4 times as much, and they
    are not helped by pictures.
    """
    if samples.own or samples.described == KIND or len(samples.fit[0]) != 1:
        return ()
    ((name, first),) = samples.fit[0].items()
    if first.dtype.kind != "f" or not takes_pictures(first.shape):
        return ()
    images = np.concatenate([feed[name] for feed in samples.fit]).astype(np.float32)
    step = len(first)

    def made(count: int) -> tuple[Feeds, ...]:
        whole = max(1, count // step) * step  # some models take feeds of this size only
        found = _like(images, whole, seed).astype(first.dtype)
        return tuple({name: found[i : i + step]} for i in range(0, whole, step))

    if not error(made(_ASKED)) <= _ALIKE * usual:  # nan is no less
        return ()
    return made(_EACH * len(images))


def _like(images: Floats, count: int, seed: int) -> Floats:
    """`count` pictures with the level and the contrast of `images` in every channel."""
    over = (0, *spatial_axes(images.shape))
    made = leaves(np.random.default_rng([seed, 3]), (count, *images.shape[1:]))
    made *= images.std(over, keepdims=True) / np.maximum(made.std(over, keepdims=True), 1e-6)
    made += images.mean(over, keepdims=True) - made.mean(over, keepdims=True)
    return made
