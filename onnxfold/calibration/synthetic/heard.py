"""Sounds for models that listen, on the scale on which they fare best inside."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import numpy as np

from ...errors import ExecutionError, OnnxFoldError
from ...frozen import read_only
from ...model.model import Model
from ...model.shapes.nominal import BATCH
from ...progress import steps
from ...runtime.batching import Batching
from ...runtime.session import InputSpec, Session
from .audio_inputs import AudioInput, audio_input, sounds_like
from .conventions import fits
from .photographed import one_at_a_time
from .problem import CLASSES, NotInvertibleError, pose_losses
from .sounds import RATE, Floats, voices
from .spectrograms import cepstra, has_cepstra, log_mel, samples_of

Shapes = Mapping[str, Sequence[int]]
Source = Callable[[np.random.Generator, int, int], Floats]
_MOST = 600.0  # seconds of sound, of all together
_TRIED = 12  # sounds that scales are compared with
_FULL, _RANGE = 9.0, 18.4  # of natural logarithms of power: about the most, and 80 dB


@dataclass(frozen=True)
class Scale:
    """Numbers times `gain` plus `offset`, from `low` to `high`."""

    name: str
    gain: float = 1.0
    offset: float = 0.0
    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        read_only(self)

    def applied(self, x: Floats) -> Floats:
        return np.asarray(np.clip(x * self.gain + self.offset, self.low, self.high), np.float32)


_DECIBELS = 10 / math.log(10)
SAMPLES = (Scale("-1 to 1"), Scale("16-bit integers", 32768.0))
_LOGARITHMS = (
    Scale("natural logarithms"),
    Scale("natural logarithms of 16-bit integers", 1.0, 2 * math.log(32768)),
    Scale("decimal logarithms", _DECIBELS / 10),
    Scale("decibels", _DECIBELS),
)
POWERS = (
    Scale("zero mean, unit variance", 1 / 4, 2.7 / 4),  # of what `voices` gives
    *_LOGARITHMS,
    Scale("0 to 1", 1 / _RANGE, 1 - _FULL / _RANGE, 0.0, 1.0),
    Scale("-1 to 1", 2 / _RANGE, 1 - 2 * _FULL / _RANGE, -1.0, 1.0),
)
_FOUND = WeakKeyDictionary[Model, dict[tuple[int, ...], Scale]]()


def heard(
    model: Model, specs: Sequence[InputSpec], count: int, seed: int, shapes: Shapes
) -> tuple[Floats, bool] | None:
    """`count` sounds like speech for the only input of a model that listens, and whether it takes one at a time (the
    first axis is one more then); None for another model.

    Raises ExecutionError where onnxruntime does not load the model.
    """
    wanted = audio_input(model, specs, count, shapes)
    if wanted is None or not _runs(model, wanted, specs[0]):
        return None
    least = Batching.of(specs).size or 1
    wanted = replace(wanted, shape=(max(least, affordable(wanted)), *wanted.shape[1:]))
    made = sounds_for(model, specs, wanted, voices, np.random.default_rng([seed, 2]), shapes)
    apart = one_at_a_time(model, specs[0], wanted.shape)
    return made[:, None] if apart else made, apart


def second(model: Model) -> dict[str, tuple[int, ...]]:
    """The shape of a second of sound, for the only input of a model that takes samples of any number, and runs on so
    many; {} for another."""
    weights = {tensor.name for tensor in model.proto.graph.initializer}
    fed = [value for value in model.proto.graph.input if value.name not in weights]
    if len(fed) != 1 or all(d.dim_value for d in fed[0].type.tensor_type.shape.dim[1:]) or not sounds_like(fed[0].name):
        return {}
    specs = Session.of(model).inputs
    found = audio_input(model, specs, 1, {})
    if found is None or not found.open or not _runs(model, found, specs[0]):
        return {}
    return {found.name: (BATCH, *found.shape[1:])}


def affordable(wanted: AudioInput) -> int:
    """How many sounds are made, of as many as are `wanted`: fewer where each is long, at least one."""
    return max(1, min(wanted.shape[0], int(_MOST / seconds_of(wanted))))


def _runs(model: Model, wanted: AudioInput, spec: InputSpec) -> bool:
    """Whether a model takes the length that we chose."""
    if not wanted.open:
        return True
    try:
        Session.of(model).run({wanted.name: np.zeros((1, *wanted.shape[1:]), spec.dtype)})
    except ExecutionError:
        return False
    return True


def sounds_for(
    model: Model,
    specs: Sequence[InputSpec],
    wanted: AudioInput,
    source: Source,
    rng: np.random.Generator,
    shapes: Shapes,
) -> Floats:
    """Sounds from `source` as `wanted` has them, on the scale that the model seems to want."""
    made = _raw(wanted, source, rng)
    return _laid_out(_scale(model, specs, wanted, shapes).applied(made), wanted).astype(specs[0].dtype)


def seconds_of(wanted: AudioInput) -> float:
    """How long one sound is."""
    length = wanted.shape[wanted.time]
    return (length if wanted.bins is None else samples_of(length)) / RATE


def _raw(wanted: AudioInput, source: Source, rng: np.random.Generator) -> Floats:
    """[N, samples], or [N, frames, bands] logarithms."""
    count, length = wanted.shape[0], wanted.shape[wanted.time]
    if wanted.bins is None:
        return source(rng, count, length)
    return log_mel(source(rng, count, samples_of(length)), length, wanted.shape[wanted.bins])


def _laid_out(x: Floats, wanted: AudioInput) -> Floats:
    if wanted.bins is not None:
        bins = wanted.shape[wanted.bins]
        x = cepstra(x, bins) if has_cepstra(bins) else x
        x = x if wanted.time < wanted.bins else x.swapaxes(1, 2)
    return np.ascontiguousarray(x.reshape(wanted.shape))


def _scale(model: Model, specs: Sequence[InputSpec], wanted: AudioInput, shapes: Shapes) -> Scale:
    """The scale on which sounds fit the statistics of the model best, or the laws that networks obey; the usual one
    where it tells nothing. It is remembered: who makes inputs asks, and who judges."""
    known = _FOUND.setdefault(model, {})
    key = wanted.shape[1:]
    if key not in known:
        known[key] = _found(model, specs, wanted, shapes)
    return known[key]


def _scales(wanted: AudioInput) -> tuple[Scale, ...]:
    """The scales that front ends use, the most usual one first."""
    if wanted.bins is None:
        return SAMPLES
    return _LOGARITHMS if has_cepstra(wanted.shape[wanted.bins]) else POWERS


def _found(model: Model, specs: Sequence[InputSpec], wanted: AudioInput, shapes: Shapes) -> Scale:
    scales = _scales(wanted)
    few = replace(wanted, shape=(_TRIED, *wanted.shape[1:]))
    for apart in (False, True):  # models whose batch is fixed somewhere inside take one sample at a time
        try:
            problem = pose_losses(model, specs, _TRIED, {**shapes, wanted.name: (1, *wanted.shape[1:])}, apart)
            if wanted.name not in problem.shapes or problem.terms.goal is CLASSES:  # scores of classes say nothing
                return scales[0]
            raw, size = _raw(few, voices, np.random.default_rng(0)), problem.chunk
            shape, losses = problem.shapes[wanted.name], dict[Scale, float]()
            for scale in steps("finding the scale of sounds", scales):
                x = _laid_out(scale.applied(raw), few)
                chunks = [x[at : at + size].reshape(shape) for at in range(0, len(x) - size + 1, size)]
                losses[scale] = float(np.mean(fits(problem, wanted.name, chunks)))
        except (NotInvertibleError, ExecutionError, OnnxFoldError):
            continue
        finite = [scale for scale in scales if math.isfinite(losses[scale])]
        return min(finite, key=lambda scale: losses[scale], default=scales[0])
    return scales[0]
