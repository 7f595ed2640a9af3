"""The pass that measures any two models with the same inputs and outputs against each other."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..analysis.costs import costs
from ..calibration.judge import Judge
from ..errors import RequestError
from ..evaluation.candidates import Evaluator
from ..evaluation.quality import Limit, measured
from ..evaluation.verdict import Conditions, check
from ..model.model import Model
from ..model.save import inline, on_disk
from ..options.options import RuntimeOptions
from ..planning.subject import CheckInputs, judge_without_samples, probes
from ..runtime.outputs import ComparedTensors
from ..runtime.session import Feeds
from .base import BasePass, Run, State
from .verify import in_float32


@dataclass(frozen=True, eq=False)
class Compared:
    """The other model."""

    after: Model = field(repr=False)


class Compare(BasePass):
    """Runs both models on the same inputs. Leaves `Compared` and a `Check`."""

    name = "verify"
    requires = frozenset[str]()
    provides = frozenset(("verdict",))

    def __init__(self, after: Model, inputs: Feeds | None, runtime: RuntimeOptions) -> None:
        """`inputs`: arrays by input name; None makes random ones."""
        self._after, self._inputs, self._runtime = after, inputs, runtime

    def __call__(self, state: State, run: Run) -> State:
        old, new, shapes = state.source, self._after, self._runtime.input_shapes
        feeds = self._inputs
        if feeds is not None:
            _check_names(old, feeds)
        conditions = Conditions(
            providers=run.providers, latency=self._runtime.latency,
            in_float32=in_float32(old, new.proto, new.folder), counted=ComparedTensors.of(old).counted,
        )  # fmt: skip
        if feeds is None:
            seed = self._runtime.seed
            probing = probes(old, costs(old, shapes), shapes, seed)
            inputs = CheckInputs(lambda: judge_without_samples(old, probing, shapes, seed))
        else:
            judge = Judge((feeds,), "the inputs given", True)
            inputs = CheckInputs(lambda: judge)
        verdict = check(
            on_disk(old, run.scratch), on_disk(new, run.scratch), inputs.each, protos=(old.proto, new.proto),
            inputs=inputs.described, conditions=conditions,
        )  # fmt: skip
        evaluator = Evaluator(old, inputs.several, common=new)
        quality = None
        if evaluator.possible:
            proto = inline(new.proto, new.folder)
            quality = measured(evaluator, proto, inputs.described, inputs.judge.independent)
        return state.adding(Compared(new), verdict.judged(quality, Limit(), True))


def _check_names(model: Model, feeds: Feeds) -> None:
    """Raise RequestError for an input that the model lacks, or that lacks an array."""
    weights = {tensor.name for tensor in model.proto.graph.initializer}
    named = {value.name for value in model.proto.graph.input}
    for name in feeds:
        if name not in named:
            raise RequestError(
                f"`inputs` has '{name}', and the model has no such input: it takes {sorted(named - weights)}"
            )
    for name in sorted(named - weights - set(feeds)):
        raise RequestError(f"`inputs` lacks an array for '{name}'")
