"""The inputs that results are judged on: of another kind than those that a repair was fitted on, or at least crops of
other photographs.

A fit is always good on more of its own kind. Measured on an EfficientNet-Lite0 at 80 % of its MACs: 14.6 % error on
other crops of the photograph that it was fitted on, 84.6 % on crops of another one, 94.7 % on real data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..frozen import read_only
from ..model.model import Model
from ..runtime.probe_inputs import VOCABULARY, index_limits
from ..runtime.session import Feeds, InputSpec, Session
from .origin import Origin
from .synthetic.audio_inputs import audio_input
from .synthetic.conventions import convention
from .synthetic.drawn_text import JUDGING, with_text
from .synthetic.heard import affordable, sounds_for
from .synthetic.image_ops import is_images, is_line, spatial_axes
from .synthetic.photographs import crops, photographs
from .synthetic.sentences import divides, sentence_feeds, vocabulary
from .synthetic.sounds import tones

PHOTOGRAPHS = "crops of two photographs"
LINES = "lines of text drawn over two photographs"
SOUNDS = "made chords and knocks"
WORDS = "random sentences with other words"

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Judge:
    """Inputs that results are judged on, in `batches`; `described` is for people.

    `independent`: nothing was fitted on inputs of this kind, so that what is measured on them can be trusted.
    """

    batches: tuple[Feeds, ...] = field(repr=False)
    described: str
    independent: bool

    def __post_init__(self) -> None:
        read_only(self)


@dataclass(frozen=True)
class JudgeSettings:
    """What is known of a model's inputs: `specs`, as a session tells them. `quick`: little time is spent on more."""

    specs: Sequence[InputSpec]
    quick: bool = False


def independent_judge(
    model: Model,
    like: Feeds,
    count: int,
    seed: int,
    shapes: Mapping[str, Sequence[int]] | None,
    fitted: Origin | None = None,
    settings: JudgeSettings | None = None,
) -> Judge | None:
    """Crops of photographs for a model of images, chords for one of sounds, sentences of words by Zipf's law for one of
    tokens; None for another.

    Args:
        like: a batch that the model takes: lengths, and all other inputs, are as there.
        count: samples, rounded to whole batches.
        shapes: of inputs with open dimensions, as they were given.
        fitted: what was fitted on; sentences are judged by others, of words that these do not have.
        settings: where a session has told the inputs already, or little time is to be spent on them.

    Raises ExecutionError where onnxruntime does not load the model.
    """
    settings = JudgeSettings(Session.of(model).inputs) if settings is None else settings
    specs = settings.specs
    sounds = _sounds(model, specs, like, count, seed, shapes or {})
    if sounds is not None:
        return sounds
    limits = index_limits(model.graph)
    words = {n: limit for n, limit in limits.items() if n in like and limit >= VOCABULARY}
    images = [s for s in specs if s.name in like and s.name not in limits and _is_image(s, like[s.name].shape)]
    step = max((len(like[name]) for name in [*(s.name for s in images), *words] if np.ndim(like[name])), default=0)
    if not step:
        return None
    runs, rng = max(1, round(count / step)), np.random.default_rng([seed, 3])
    made = dict[str, Array]()
    for spec in images:
        made[spec.name] = _photographs(model, settings, like[spec.name], spec.name, runs * step, rng, shapes or {})
    if not images:
        batched = {name: x for name, x in like.items() if np.ndim(x) and len(x) == step}
        sizes = {name: (runs * step, *x.shape[1:]) for name, x in batched.items()}
        half = 1 if fitted is Origin.SENTENCES else None
        made |= sentence_feeds(model, specs, limits, sizes, rng, half)
        if not made:
            return None
    batches = tuple(
        {**like, **{name: np.ascontiguousarray(x[at * step : (at + 1) * step]) for name, x in made.items()}}
        for at in range(runs)
    )
    known = all(s.name in made or s.dtype is None or np.dtype(s.dtype).kind != "f" for s in specs if s.name in like)
    if fitted is Origin.SENTENCES:
        known &= all(divides(len(vocabulary(model, *one).words)) for one in words.items())
    kind = WORDS if not images else LINES if any(is_line(like[s.name].shape) for s in images) else PHOTOGRAPHS
    return Judge(batches, kind, known)


def _sounds(
    model: Model, specs: Sequence[InputSpec], like: Feeds, count: int, seed: int, shapes: Mapping[str, Sequence[int]]
) -> Judge | None:
    if len(specs) != 1 or not np.ndim(like[specs[0].name]):
        return None
    name, shape = specs[0].name, like[specs[0].name].shape
    step = len(like[name])
    heard = audio_input(model, specs, count, {**shapes, name: shape}) if step else None
    if heard is None:
        return None
    runs = max(1, round(affordable(heard) / step))
    heard = replace(heard, shape=(runs * step, *shape[1:]))
    made = sounds_for(model, specs, heard, tones, np.random.default_rng([seed, 3]), shapes)
    return Judge(tuple({name: made[at * step : (at + 1) * step]} for at in range(runs)), SOUNDS, True)


def _is_image(spec: InputSpec, shape: Sequence[int]) -> bool:
    if spec.dtype is None or not is_images(shape):
        return False
    return bool(np.dtype(spec.dtype).kind == "f" or np.dtype(spec.dtype) == np.uint8)


def _photographs(
    model: Model,
    settings: JudgeSettings,
    like: Array,
    name: str,
    count: int,
    rng: np.random.Generator,
    shapes: Mapping[str, Sequence[int]],
) -> Array:
    """[count, ...] crops as input `name` wants them."""
    rows, columns = (like.shape[axis] for axis in spatial_axes(like.shape))
    pixels = crops(rng, photographs(), count, rows, columns)
    if is_line(like.shape):
        pixels = with_text(rng, pixels, JUDGING)
    wanted = convention(model, settings.specs, name, like.shape, shapes, settings.quick)
    return wanted.applied(pixels, like.shape).astype(like.dtype)
