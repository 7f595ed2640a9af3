"""Refinement: the weights of a compressed model are trained on outputs of the original, without labels or a framework.

The student's block outputs and outputs are drawn to the teacher's (Romero et al., FitNets, arXiv 1412.6550; Hinton et
al., arXiv 1503.02531). Gradients are an ONNX graph that onnxruntime runs, Adam with cosine decay is ours.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from ...calibration.padding import padded
from ...calibration.samples import Samples
from ...errors import ExecutionError, OnnxFoldError
from ...evaluation.candidates import Evaluator
from ...frozen import read_only
from ...model.editable_weights import Weights
from ...model.model import Model, load
from ...model.save import inline
from ...progress import Progress, Title, silent
from ...runtime.autodiff.adam import Adam
from ...runtime.session import SHORT, Session, brief
from .batches import BatchSampler
from .block_targets import Counterparts
from .problem import NotTrainableError, pose

Floats = NDArray[np.float32]
_SAME = Counterparts()
RATE = 1e-3  # Adam's learning rate, at most
_RELATIVE = 0.01  # of the root mean square of a matrix: its rate at most, because in wide ones many small steps add up
_WARMUP = 20  # steps at least, or one in twenty; half of them at most
_LOOKS = 16  # times that the error on inputs held back is measured
_LOST, _SLOWER = 2.0, 0.25  # at so many times the best error: back to the best weights, with a quarter of the rate
_PATIENCE = 6  # measurements in a row without a better error end training, in its second half: errors may rise at first


@dataclass(frozen=True)
class Refinement:
    """The result of refining.

    Attributes:
        arrays: the new values by the name of the constant, in its own type of floats; empty where nothing was gained.
        before, after: relative error of the outputs on the inputs held back; nan where it was not measured.
        losses: at every step.
        errors: (steps done, error on the inputs held back) wherever that was measured.
        blocks: how many outputs of blocks were compared.
        note: why nothing was refined, or why it ended early; '' otherwise.
    """

    arrays: Mapping[str, NDArray[Any]] = field(repr=False)
    before: float
    after: float
    losses: tuple[float, ...] = field(default=(), repr=False)
    errors: tuple[tuple[int, float], ...] = field(default=(), repr=False)
    blocks: int = 0
    seconds: float = 0.0
    note: str = ""

    def __post_init__(self) -> None:
        read_only(self)

    @property
    def improved(self) -> bool:
        """Whether there are better weights."""
        return bool(self.arrays)


@dataclass(frozen=True)
class TrainSettings:
    """`steps` of Adam on up to `batch` samples each. `seed`: of the order and the augmentation of samples; the same
    gives the same values on the same machine. `provider`: an onnxruntime execution provider."""

    steps: int
    batch: int
    seed: int = 0
    provider: str = SHORT["cpu"]


def refine(
    original: Model,
    compressed: ModelProto,
    samples: Samples,
    settings: TrainSettings,
    pairs: Counterparts = _SAME,
    progress: Progress[Any] = silent,
) -> Refinement:
    """Train the weights of `compressed` to do what `original` does.

    Args:
        original: the model before compression.
        compressed: another version of it with the same inputs and outputs; what block outputs they share by name and
            shape are compared too. It is not changed.
        samples: to train on (`fit`) and to measure on (`check`).
        pairs: what activations of `compressed` are of those of `original`.

    A model that cannot be refined gives a `Refinement` that says why, and no exception.
    """
    begin = time.perf_counter()
    try:
        found = _train(original, compressed, samples, settings, pairs, progress)
    except (NotTrainableError, ExecutionError, OnnxFoldError) as error:
        found = Refinement({}, float("nan"), float("nan"), note=brief(error))
    return replace(found, seconds=time.perf_counter() - begin)


def refined(compressed: ModelProto, arrays: Mapping[str, NDArray[Any]], folder: Path | None) -> ModelProto:
    """A copy of `compressed` with these values. `folder`: where its external data is."""
    return _written(compressed, replace(load(inline(compressed, folder)), folder=folder), arrays)


def _rate(x: Floats) -> float:
    size = float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))
    return min(RATE, _RELATIVE * size) if x.ndim > 1 and size > 0 else RATE


def _written(proto: ModelProto, model: Model, arrays: Mapping[str, NDArray[Any]]) -> ModelProto:
    """A copy of `proto` with these values, `model` being what it was loaded as."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    weights = Weights(copy, model)
    for name, array in arrays.items():
        weights.write(name, array)
    return copy


def _train(
    original: Model,
    compressed: ModelProto,
    samples: Samples,
    settings: TrainSettings,
    pairs: Counterparts,
    progress: Progress[Any],
) -> Refinement:
    if not samples.trusted:
        raise NotTrainableError(f"the inputs are not realistic enough to train on: {samples.described}")
    student = load(inline(compressed, original.folder))
    evaluator = Evaluator(original, lambda _: samples.check)
    before = evaluator.distance(student.proto)
    if not np.isfinite(before):
        raise NotTrainableError("the outputs cannot be compared on the held-out inputs")
    specs = Session.of(original).inputs
    feeds = padded(samples.fit) if samples.mask else samples.fit
    sampler = BatchSampler.of(feeds, specs, settings.batch, samples.apart, samples.mask)
    problem = pose(original, student, sampler.shapes, pairs, settings.provider, samples.mask)
    training, steps = _Training(problem.start, settings.steps, before), settings.steps
    looks = {round(steps * (i + 1) / _LOOKS) for i in range(_LOOKS)}
    note, title = "", Title("training")
    batches = sampler.draw(np.random.default_rng([settings.seed, 2]))
    for done in progress(title, range(1, steps + 1)):
        loss, gradients = _mean([problem.evaluate(training.values, next(batches)) for _ in range(sampler.together)])
        if not np.isfinite(loss):
            note = f"stopped after {done} of {steps} steps: the loss is not finite"
            break
        training.step(done, loss, gradients)
        title.now = f"training (loss {loss:.4g}, error {100 * training.best:.2f} %)"
        if done in looks:
            error = evaluator.distance(_written(student.proto, student, training.values))
            if not training.goes_on(done, error):
                note = f"stopped after {done} of {steps} steps: no improvement on the held-out inputs"
                break
    if not training.kept and not note:
        note = "it did not lower the error on the held-out inputs"
    losses, errors = tuple(training.losses), tuple(training.errors)
    return Refinement(training.kept, before, training.best, losses, errors, problem.blocks, note=note)


class _Training:
    """The `values` of all variables as they are now; `kept`: those with the `best` error so far, none at first."""

    def __init__(self, start: Mapping[str, Floats], steps: int, before: float) -> None:
        self._start, self._steps = start, steps
        self.values = {name: x.copy() for name, x in start.items()}
        warmup = min(0.5, max(0.05, _WARMUP / steps))
        self._adam = {name: Adam(x, _rate(x), warmup=warmup) for name, x in self.values.items()}
        self.best, self.kept = before, dict[str, Floats]()
        self.errors, self.losses = [(0, before)], list[float]()

    def step(self, done: int, loss: float, gradients: Mapping[str, Floats]) -> None:
        """Step number `done` of Adam, from 1 on."""
        self.losses.append(loss)
        for name, one in self._adam.items():
            one.step(gradients[name], (done - 0.5) / self._steps)

    def goes_on(self, done: int, error: float) -> bool:
        """Take in the `error` on the inputs held back after `done` steps: whether more steps may help."""
        self.errors.append((done, error))
        if error < self.best:
            self.best, self.kept = error, {name: x.copy() for name, x in self.values.items()}
        elif error > _LOST * self.best:
            for name, one in self._adam.items():
                self.values[name][...] = self.kept.get(name, self._start[name])
                one.slow_down(_SLOWER)
        else:
            return not (2 * done > self._steps and _hopeless([e for _, e in self.errors[1:]], self.best))
        return True


def _hopeless(errors: Sequence[float], best: float) -> bool:
    """Whether the last `errors` are neither better than the `best` nor than those before them."""
    late, early = errors[-_PATIENCE:], errors[:-_PATIENCE]
    return min(late) > best and min(early, default=np.inf) <= min(late)


def _mean(found: Sequence[tuple[float, dict[str, Floats]]]) -> tuple[float, dict[str, Floats]]:
    """Losses and gradients of several feeds as of one."""
    if len(found) == 1:
        return found[0]
    loss = sum(loss for loss, _ in found) / len(found)
    return loss, {name: np.mean([one[name] for _, one in found], axis=0) for name in found[0][1]}
