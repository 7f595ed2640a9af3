"""Pictures of random shapes beside images that were made by descent: more of them for less."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..samples import Samples
from ..session import Feeds
from ..synthetic.images import spatial_axes
from ..synthetic.leaves import KIND, leaves, takes_pictures

_EACH = 3  # pictures for every image that was made
_ASKED = 64  # of them tell whether they are of use
_ALIKE = 1.05  # times the error on the images: more of an error on pictures, and they are nothing that the model knows


def pictures(samples: Samples, seed: int) -> tuple[Feeds, ...]:
    """Pictures with the mean and the deviation in every channel of `samples`, in feeds of the same size.

    None where these are the user's own, pictures already, or no images.
    """
    if samples.own or samples.described == KIND or len(samples.fit[0]) != 1:
        return ()
    ((name, first),) = samples.fit[0].items()
    if first.dtype.kind != "f" or not takes_pictures(first.shape):
        return ()
    images = np.concatenate([feed[name] for feed in samples.fit]).astype(np.float32)
    over = (0, *spatial_axes(images.shape))
    made = leaves(np.random.default_rng([seed, 3]), (_EACH * len(images), *images.shape[1:]))
    made *= images.std(over, keepdims=True) / np.maximum(made.std(over, keepdims=True), 1e-6)
    made += images.mean(over, keepdims=True) - made.mean(over, keepdims=True)
    step = len(first)
    return tuple({name: made[i : i + step].astype(first.dtype)} for i in range(0, len(made), step))


def of_use(made: Sequence[Feeds], error: Callable[[Sequence[Feeds]], float], usual: float) -> Sequence[Feeds]:
    """`made`, or nothing where a model before its refinement errs more on them than the `usual` on images.

    Photographs are like pictures of shapes: a network of photographs errs on both alike (0.95 to 1.01 times); one of
    handwritten digits 1.15 to 1.4 times as much, and is not helped by them.
    """
    if not made:
        return ()
    step = len(next(iter(made[0].values())))
    return made if error(made[: max(1, _ASKED // step)]) <= _ALIKE * usual else ()
