"""The passes that store a result in fewer bits, and say what that gained and cost."""

from __future__ import annotations

from dataclasses import replace

from onnx import load_model_from_string

from ...errors import RequestError
from ...evaluation.verdict import Check
from ...model.save import on_disk
from ...options.budget import Aim, Budget, Limits
from ...options.choices import Quantization
from ...options.parts import OutputOptions
from ...progress import Phase
from ..base import BasePass, Run, State
from ..provenance import bytes_noted
from ..verify import judging
from .quantize import Quantized, check_quantizable, quantize


class CheckQuantizable(BasePass):
    """Refuses a model that cannot be quantized, before anything else is asked of it. Does nothing."""

    name = "analyze"

    def __init__(self, sampled: bool, kind: Quantization) -> None:
        """`sampled`: whether there will be inputs."""
        self._sampled, self._kind = sampled, kind

    def check(self, state: State, run: Run) -> None:
        """Raises QuantizationError."""
        subject = state.subject
        check_quantizable(state.source, subject is not None and subject.streamed, self._sampled, self._kind)

    def __call__(self, state: State, run: Run) -> State:
        return state


class Quantize(BasePass):
    """Stores the candidate in fewer bits, ranges of activations from the samples. Leaves a `Quantized`."""

    name = "quantize"
    requires = frozenset(("samples", "candidate"))
    phases = (Phase.QUANTIZE,)

    def __init__(self, output: OutputOptions, kind: Quantization) -> None:
        self._output, self._kind = output, kind

    def check(self, state: State, run: Run) -> None:
        """Refuse a model whose caches may change."""
        subject = state.subject
        if subject is not None and subject.analysis.caches:
            raise RequestError("`quantize` needs caches of the original size: leave out `quantize` or `fold_heads`")

    def __call__(self, state: State, run: Run) -> State:
        """Raises QuantizationError."""
        target = run.target(self._output.path)
        external = self._output.external_data
        step = quantize(state.source, state.current.proto, state.samples, target, external, self._kind)
        step = replace(step, size=step.size + bytes_noted(state))
        return state.adding(step, current=state.current.becoming(step.proto, quantized=True))


class JudgeQuantization(BasePass):
    """Measures fewer bits beside the same model in floats. Leaves a `QuantizationReport`, and a verdict with notes."""

    name = "verify"
    requires = frozenset(("verdict",))
    phases = (Phase.CHECK,)

    def __init__(self, asked: Budget | Limits) -> None:
        """`asked`: of the whole chain."""
        if isinstance(asked, Budget):
            self._aim: tuple[Aim, float] | None = (asked.aim, asked.value)
        else:
            self._aim = None if asked.max_error is None else (Aim.QUALITY, asked.max_error)

    def __call__(self, state: State, run: Run) -> State:
        assert state.staged is not None and state.inputs is not None
        before, feeds, step, verdict = (
            on_disk(state.source, run.scratch), state.inputs.single, state.done(Quantized), state.done(Check)
        )  # fmt: skip
        error = (
            None if verdict.quality is None else judging(state, state.inputs).error(load_model_from_string(step.floats))
        )
        report = step.judged(verdict, before, state.staged, feeds, error)
        return state.adding(report, verdict.noting(*step.notes(report, self._aim)))
