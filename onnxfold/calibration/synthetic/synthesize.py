"""Inputs for a model without calibration data: sounds for models that listen, lines of text for readers of such, crops
of photographs for convolutional networks of large images, deep inversion where the model tells something about its
data, pictures where it takes images and tells nothing, class spread for other classifiers, random inputs for the
rest."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ExecutionError, OnnxFoldError, RequestError
from ...frozen import read_only
from ...model.model import Model
from ...model.shapes.nominal import concrete_shape
from ...progress import Progress, silent
from ...runtime import probe_inputs
from ...runtime.session import SHORT, InputSpec, Session
from ..origin import Origin
from .deep_inversion import invert
from .drawn_text import lines
from .generated_text import token_feeds
from .heard import heard
from .photographed import photographed
from .pictures import image_shape, pictures
from .problem import CLASSES, InversionProblem, NotInvertibleError, pose


@dataclass(frozen=True)
class Extent:
    """How much is made: `count` samples by `steps` of Adam per chunk of samples, or so many `pictures` of shapes, which
    cost no steps, or `photographs` (0: `count`). `writing`: the work that text may take, in seconds on a usual
    machine, going by the size of the model. `judging`: samples of another kind that results are to be judged by.
    Raises RequestError for less than one sample or step.
    """

    count: int = 128
    steps: int = 300
    pictures: int = 0
    photographs: int = 0
    writing: float = math.inf
    judging: int = 64

    @property
    def sounds(self) -> int:
        """How many are made: like photographs, but fewer where each is long."""
        return min(self.pictures, self.photographs)

    def __post_init__(self) -> None:
        if self.count < 1 or self.steps < 1:
            raise RequestError(
                f"synthetic inputs need at least one sample and one step, not {self.count} and {self.steps}"
            )


@dataclass(frozen=True)
class Synthetic:
    """Inputs made for a model.

    Attributes:
        feeds: per input an array whose first axis is the batch, `count` samples. A model without a batch axis, or whose
            inputs disagree on it, gets one set of random inputs in its own shapes instead, or `count` sets `apart`.
        origin: how they were made.
        match: how well the statistics of the inputs match those of the model's BatchNormalization layers, 1 at best
            (`objective.match`); None where nothing was matched.
        seconds: time taken.
        losses: the loss at every step, mean over the chunks; empty for random inputs.
        note: why inputs are random; '' otherwise.
        apart: the first axis of `feeds` numbers sets of inputs that are run one by one, each in the model's own shapes.
    """

    feeds: dict[str, NDArray[Any]] = field(repr=False)
    origin: Origin
    match: float | None
    seconds: float
    losses: tuple[float, ...] = field(default=(), repr=False)
    note: str = ""
    apart: bool = False

    def __post_init__(self) -> None:
        read_only(self)


def synthesize(
    model: Model,
    extent: Extent | None = None,
    *,
    seed: int = 0,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    provider: str = SHORT["cpu"],
    progress: Progress[Any] = silent,
) -> Synthetic:
    """Make inputs on which the model behaves as it does on its own data, from the model alone.

    Args:
        extent: how much is made.
        seed: the same model, extent and seed give the same inputs on the same machine, however busy it is.
        input_shapes: shapes for inputs with open dimensions; the first axis is replaced by the batch.
        provider: an onnxruntime execution provider.

    Raises:
        RequestError: an input is no numeric tensor.
        ModelError: external data cannot be read.
        ExecutionError: onnxruntime cannot load the model.
    """
    begin = time.perf_counter()
    extent, shapes = extent or Extent(), input_shapes or {}
    count = extent.count
    specs = Session.of(model).inputs
    written = token_feeds(model, specs, count, seed, shapes, provider, extent.writing)
    if written is not None:
        feeds, origin, note = written
        return Synthetic(feeds, origin, None, time.perf_counter() - begin, (), note)
    for make, some, origin in (
        (heard, extent.sounds, Origin.SOUNDS),
        (lines, extent.photographs, Origin.LINES),
        (photographed, extent.photographs, Origin.PHOTOGRAPHS),
    ):
        seen = make(model, specs, some or count, seed, shapes)
        if seen is not None:
            x, apart = seen
            return Synthetic({specs[0].name: x}, origin, None, time.perf_counter() - begin, apart=apart)
    shown = cache(partial(_pictures, specs, extent.pictures or count, seed, shapes))  # they take seconds: where needed
    reason = ""
    for apart in (False, True):  # models whose batch is fixed somewhere inside take one sample at a time
        try:
            problem = pose(model, specs, count, shapes, provider, apart, seed)
            if problem.terms.goal is CLASSES and shown() is not None:
                break
            found = invert(problem, count, extent.steps, seed, progress)
            if not all(np.isfinite(x).all() for x in found.x.values()):
                raise NotInvertibleError("the optimization diverged")
            feeds = _complete(model, specs, problem, found.x, count, seed, shapes)
        except (NotInvertibleError, ExecutionError, OnnxFoldError) as error:
            reason = reason or " ".join(str(error).split())[:300]
            continue
        taken = time.perf_counter() - begin
        return Synthetic(feeds, problem.terms.goal.origin, found.match, taken, found.losses, "", problem.apart)
    if (drawn := shown()) is not None:
        return Synthetic(drawn, Origin.PICTURES, None, time.perf_counter() - begin)
    feeds = _random(model, specs, count, seed, shapes)
    return Synthetic(feeds, Origin.RANDOM, None, time.perf_counter() - begin, (), f"no deep inversion: {reason}")


def _pictures(
    specs: Sequence[InputSpec], count: int, seed: int, shapes: Mapping[str, Sequence[int]]
) -> dict[str, NDArray[Any]] | None:
    """`count` pictures for a model of one input that takes such; None for another."""
    shape = image_shape(specs, count, shapes)
    if shape is None:
        return None
    spec = specs[0]
    return {spec.name: pictures(np.random.default_rng([seed, 2]), shape).astype(spec.dtype)}


def _complete(
    model: Model,
    specs: Sequence[InputSpec],
    problem: InversionProblem,
    found: Mapping[str, NDArray[Any]],
    count: int,
    seed: int,
    shapes: Mapping[str, Sequence[int]],
) -> dict[str, NDArray[Any]]:
    """The inputs that were found together with all others, for `count` samples, each in its own type."""
    own = {s.name: concrete_shape(s.shape, 1, shapes.get(s.name)) for s in specs}
    others = [s for s in specs if s.name not in found]
    beside = probe_inputs.probe(
        others, batch=1, seed=seed, shapes=shapes, limits=probe_inputs.index_limits(model.graph)
    )
    feeds: dict[str, NDArray[Any]] = {}
    for spec in specs:
        if spec.name in found:
            feeds[spec.name] = found[spec.name].astype(spec.dtype)
        elif problem.apart:
            feeds[spec.name] = np.stack([beside[spec.name]] * count)
        else:
            shape = (count, *own[spec.name][1:]) if own[spec.name] else ()
            feeds[spec.name] = np.array(np.broadcast_to(beside[spec.name], shape))
    return feeds


def _random(
    model: Model, specs: Sequence[InputSpec], count: int, seed: int, shapes: Mapping[str, Sequence[int]]
) -> dict[str, NDArray[Any]]:
    """`count` random samples; one set in the model's own shapes where its inputs share no batch axis."""
    limits = probe_inputs.index_limits(model.graph)
    one = {s.name: concrete_shape(s.shape, 1, shapes.get(s.name)) for s in specs}
    first = {shape[0] if shape else 0 for shape in one.values()}
    if first != {1}:
        return probe_inputs.probe(specs, batch=1, seed=seed, shapes=shapes, limits=limits)
    return probe_inputs.probe(
        specs, batch=count, seed=seed, shapes={name: (count, *shape[1:]) for name, shape in one.items()}, limits=limits
    )
