"""The last passes: the result becomes a file under a temporary name, and is compared with the original."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from onnx import ModelProto

from ..analysis.costs import count_parameters, weight_bytes
from ..calibration.thumbnails import thumbnails
from ..evaluation.candidates import Evaluator
from ..evaluation.operators import with_operators
from ..evaluation.own_measure import OwnMeasure
from ..evaluation.quality import ANY, USUAL, Limit, Quality, measured
from ..evaluation.verdict import Conditions, check
from ..model.half_precision import BFLOAT16, holds
from ..model.metadata import with_entries
from ..model.model import Model, load
from ..model.save import check_link, inline, on_disk, staged
from ..options.budget import DEFAULT_BUDGET, DEFAULT_LIMITS, Aim, Budget, Limits
from ..options.parts import OutputOptions
from ..planning.memory import comparable
from ..planning.subject import CheckInputs, reference_of
from ..progress import Phase
from ..runtime.outputs import ComparedTensors
from .base import BasePass, Run, State
from .provenance import Provenance
from .quantization.quantize import Quantized

_log = logging.getLogger(__name__)


class Stage(BasePass):
    """Writes the candidate beside its target; `commit` of the staged file puts it in place."""

    name = "write"
    requires = frozenset(("candidate",))
    provides = frozenset(("file",))
    phases = (Phase.CHECK,)

    def __init__(self, output: OutputOptions) -> None:
        self._output = output

    def check(self, state: State, run: Run) -> None:
        """Refuse a link into another folder where weights are stored beside the model."""
        if self._output.path is not None:
            check_link(Path(self._output.path), state.source.proto, self._output.external_data)

    def __call__(self, state: State, run: Run) -> State:
        """Raises RequestError where it cannot be written, ModelError for weights outside the model that hold NaN."""
        planner, source = state.planner, state.source
        kept = None if planner is None else planner.workspace.checkpoint
        external = self._output.external_data or (state.current.quantized and bool(source.data_files()))
        current, known = state.current, state.found(Provenance)
        if known is not None:
            current = replace(current, proto=with_entries(current.proto, known.entries))
        written = staged(
            current.proto, source, run.target(self._output.path), external, current.pending, run.progress,
            None if kept is None else kept.staging,
        )  # fmt: skip
        there = run.enter(written)
        _log.info("written under a temporary name, %s: %d bytes", there.path.name, there.size)
        return state.adding(staged=there, current=current)


class Verify(BasePass):
    """Compares the written file with the original, on every provider. Leaves a `Check`."""

    name = "verify"
    requires = frozenset(("file",))
    provides = frozenset(("verdict",))
    phases = (Phase.CHECK,)

    def __init__(
        self,
        latency: bool,
        max_memory: int | None = None,
        limit: Limit = USUAL,
        unmeasured: bool = False,
        operators: bool = False,
        quick: bool = False,
    ) -> None:
        """`latency`: whether it is measured; `max_memory`: bytes, above which the models do not run side by side;
        `limit`: what the outputs must keep; `unmeasured`: that nothing could be measured is no problem; `operators`:
        whether latency is told by operator too; `quick`: fewer runs are timed, and operators of small files only."""
        self._operators, self._quick = operators and latency, quick
        self._latency, self._max_memory, self._limit, self._unmeasured = latency, max_memory, limit, unmeasured

    def __call__(self, state: State, run: Run) -> State:
        original, inputs, written = state.source, state.inputs, state.staged
        assert inputs is not None and written is not None
        subject, proto, quantized = state.subject, state.current.proto, state.found(Quantized)
        streamed = subject is not None and subject.streamed  # one block of it is measured later
        conditions = Conditions(
            providers=run.providers, latency=self._latency, quick=self._quick,
            too_large=streamed and not comparable(original, self._max_memory),
            in_float32=None if state.current.pending else in_float32(original, proto),
            caches=() if subject is None else subject.analysis.caches, counted=ComparedTensors.of(original).counted,
            timer=run.timer, floats=None if quantized is None else quantized.floats,
        )  # fmt: skip
        verdict = check(
            on_disk(original, run.scratch), written.path, inputs.each, protos=(original.proto, proto),
            inputs="" if conditions.too_large else inputs.described, conditions=conditions,
        )  # fmt: skip
        if self._operators and not verdict.problems:
            before = on_disk(original, run.scratch)
            verdict = with_operators(
                verdict, before, written.path, lambda: inputs.judge.batches[0], run.scratch, self._quick
            )
        quality, obstacle = (None, "") if conditions.too_large else self._quality(state, inputs)
        own = state.found(OwnMeasure)
        measure = None if own is None or verdict.problems else own.of(written.path)
        for problem in verdict.problems:
            _log.info("the result fails: %s", problem)
        verdict = verdict.judged(quality, self._limit, self._unmeasured or streamed, measure)
        return state.adding(verdict.noting(obstacle).failing(grown(original.proto, proto, state.current.quantized)))

    def _quality(self, state: State, inputs: CheckInputs) -> tuple[Quality | None, str]:
        """What all inputs that judge say of the file that was written, or why they say nothing."""
        assert state.staged is not None
        evaluator = judging(state, inputs)
        if not evaluator.possible:
            return None, evaluator.obstacle
        written = load(state.staged.path)
        proto = inline(written.proto, written.folder)
        return measured(evaluator, proto, inputs.described, inputs.judge.independent, thumbnails), ""


def judging(state: State, inputs: CheckInputs) -> Evaluator:
    """What measures versions of the source by all inputs that judge."""
    if state.planner is not None:
        return state.planner.evaluator(state.samples)
    caches = () if state.subject is None else state.subject.analysis.caches
    return Evaluator(state.source, inputs.several, caches=caches, reference=reference_of(state.samples))


def grown(before: ModelProto, after: ModelProto, quantized: bool = False) -> str:
    """That `after` stores more numbers (but for scales, where it is `quantized`) or more bytes of weights, in words; ''
    where it does not."""
    counts, sizes = [[measure(p) for p in (before, after)] for measure in (count_parameters, weight_bytes)]
    if counts[1] > counts[0] and not quantized:
        return f"it has more parameters than the original: {counts[1]} instead of {counts[0]}"
    if sizes[1] > sizes[0]:
        return f"its weights take more bytes than the original's: {sizes[1]} instead of {sizes[0]}"
    return ""


def in_float32(old: Model, new: ModelProto, folder: Path | None = None) -> Callable[[], tuple[bytes, bytes]] | None:
    """Makes copies of two models in which bfloat16, of which CPUs run little, is float32; None if there is none."""
    if not holds(old.proto, BFLOAT16):
        return None
    return lambda: (
        inline(old.proto, old.folder).SerializeToString(), inline(new, folder or old.folder).SerializeToString()
    )  # fmt: skip


def limit_of(asked: Budget | Limits) -> Limit:
    """What a budget, or the limits of weight sharing, ask of the outputs; the usual limit where that is nothing."""
    if isinstance(asked, Limits):
        given = Budget.max_error(asked.max_error) if asked.max_error is not None and asked != DEFAULT_LIMITS else None
    else:
        given = asked if asked != DEFAULT_BUDGET else None
    if given is not None and given.aim is Aim.QUALITY:
        return Limit(given.value, given=True, parameter=f"max_error={given.value:g}")
    if given is not None and given.aim is Aim.AGREEMENT:
        return Limit(float("inf"), given.value, True, f"min_agreement={given.value:g}", loses=True)
    return USUAL if asked in (DEFAULT_BUDGET, DEFAULT_LIMITS) else ANY
