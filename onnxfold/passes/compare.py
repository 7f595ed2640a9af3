"""The pass that measures any two models with the same inputs and outputs against each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from ..analysis.costs import costs
from ..calibration.judge import Judge
from ..calibration.samples import Samples, calibration_samples, warn_of_preprocess
from ..calibration.thumbnails import thumbnails
from ..errors import RequestError
from ..evaluation.candidates import Evaluator
from ..evaluation.own_measure import OwnMeasure
from ..evaluation.quality import Limit, measured
from ..evaluation.verdict import Conditions, check
from ..model.model import Model, Shapes
from ..model.save import inline, on_disk
from ..options.parts import CalibrationOptions, RuntimeOptions
from ..planning.subject import CheckInputs, judge_without_samples, probes
from ..progress import Phase
from ..runtime.outputs import ComparedTensors
from ..runtime.session import Feeds
from .base import BasePass, Run, State
from .verify import in_float32


@dataclass(frozen=True, eq=False)
class Compared:
    """The other model."""

    after: Model = field(repr=False)


def check_inputs(inputs: object, calibration: CalibrationOptions) -> None:
    """Raises RequestError for what is not arrays by input name, and for inputs beside the user's data."""
    if inputs is None:
        return
    if not isinstance(inputs, Mapping) or not all(
        isinstance(name, str) and isinstance(one, np.ndarray) for name, one in inputs.items()
    ):
        raise RequestError(f"`inputs` must be arrays by input name, not {type(inputs).__name__}")
    if calibration.data is not None:
        raise RequestError("pass `inputs` or `calibration`, not both")


class Compare(BasePass):
    """Runs both models on the same inputs. Leaves `Compared` and a `Check`."""

    name = "verify"
    requires = frozenset[str]()
    provides = frozenset(("verdict",))
    phases = (Phase.CHECK,)

    def __init__(
        self, after: Model, inputs: Feeds | None, calibration: CalibrationOptions, runtime: RuntimeOptions
    ) -> None:
        """`inputs`: arrays by input name; None takes the user's data of `calibration`, or makes some."""
        self._after, self._inputs, self._calibration, self._runtime = after, inputs, calibration, runtime

    def __call__(self, state: State, run: Run) -> State:
        old, new = state.source, self._after
        inputs = CheckInputs(self._judge(old, state.shapes))
        conditions = Conditions(
            providers=run.providers, latency=self._runtime.latency,
            in_float32=in_float32(old, new.proto, new.folder), counted=ComparedTensors.of(old).counted,
            timer=run.timer,
        )  # fmt: skip
        verdict = check(
            on_disk(old, run.scratch), on_disk(new, run.scratch), inputs.each, protos=(old.proto, new.proto),
            inputs=inputs.described, conditions=conditions,
        )  # fmt: skip
        evaluator = Evaluator(old, inputs.several, common=new)
        quality = None
        if evaluator.possible:
            proto = inline(new.proto, new.folder)
            quality = measured(evaluator, proto, inputs.described, inputs.judge.independent, thumbnails)
        own = state.found(OwnMeasure)
        measure = None if own is None or verdict.problems else own.of(on_disk(new, run.scratch))
        return state.adding(Compared(new), verdict.judged(quality, Limit(), True, measure))

    def _judge(self, old: Model, shapes: Shapes) -> Callable[[], Judge]:
        """Makes the inputs. Raises RequestError for what was given and does not fit the model."""
        asked = self._calibration
        if self._inputs is not None:
            _check_names(old, self._inputs)
            exact = Judge((self._inputs,), "samples given in Python", True)
            return lambda: exact
        if asked.data is not None:
            given = self._runtime.input_shapes
            judge = _everything(calibration_samples(old, asked.data, asked.samples, asked.preprocess, given))
            return lambda: judge
        warn_of_preprocess(asked)
        seed = self._runtime.seed
        probing = probes(old, costs(old, shapes), shapes, seed)
        return lambda: judge_without_samples(old, probing, shapes, seed)


def _everything(samples: Samples) -> Judge:
    """All samples: nothing is fitted on any."""
    held = {id(feed) for feed in samples.fit}
    batches = (*samples.fit, *(feed for feed in samples.check if id(feed) not in held))
    return replace(samples.judge, batches=batches, independent=True)


def _check_names(model: Model, feeds: Feeds) -> None:
    """Raise RequestError for an input that the model lacks, or that lacks an array."""
    weights = {tensor.name for tensor in model.proto.graph.initializer}
    named = {value.name for value in model.proto.graph.input}
    for name in feeds:
        if name not in named:
            raise RequestError(
                f"`inputs` has '{name}', but the model has no such input: it takes {sorted(named - weights)}"
            )
    for name in sorted(named - weights - set(feeds)):
        raise RequestError(f"`inputs` lacks an array for '{name}'")
