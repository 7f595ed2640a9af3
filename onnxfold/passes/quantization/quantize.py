"""INT8 as the last step of a chain: what is refused, which inputs give the ranges, what it gains beside floats."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from onnx import ModelProto

from ...calibration.origin import Origin
from ...calibration.samples import Samples
from ...errors import ExecutionError, PlanError, QuantizationError
from ...evaluation.candidates import Evaluator, required
from ...evaluation.latency import interleaved, timing_feeds
from ...evaluation.metrics import output_error
from ...evaluation.verdict import Check, Status
from ...model.graph import impossible
from ...model.half_precision import HALF, holds
from ...model.model import PROTOBUF_LIMIT, Model
from ...model.save import Staged, inline, size_written
from ...model.subgraphs import every_node
from ...options.budget import Aim
from ...runtime.session import Feeds, Session, brief, short
from ...units import in_bytes
from .ort_quantizer import ACTIVATIONS_AS, WEIGHTS_AS, backend, in_int8, on_integers
from .result import QuantizationReport

Inputs = Feeds | Callable[[Session], Feeds]
_ON_INTEGERS = re.compile(r"^Q(Linear|Gemm|Attention|Embed|Ordered)|Quantize|Integer|NBits|Bnb4|BitLinear")


def check_quantizable(model: Model, too_large: bool, sampled: bool) -> None:
    """Refuse before anything is spent what cannot be quantized. `sampled`: whether there will be inputs.

    Raises QuantizationError.
    """
    name = model.path or "this model"
    if too_large or model.size >= PROTOBUF_LIMIT:
        raise QuantizationError(
            f"{name} cannot be quantized: it has to be loaded and run for that, and is too large (over 2 GiB, or over "
            "`max_memory`). Fold it without `quantize`"
        )
    found = next((node for node in every_node(model.proto) if _ON_INTEGERS.search(node.op_type)), None)
    if found is not None:
        raise QuantizationError(
            f"{name} is quantized already ({found.op_type} '{found.name or found.output[0]}'): fold it without "
            "`quantize`, its weights stay integers"
        )
    if any(holds(model.proto, kind) for kind in HALF):
        raise QuantizationError(
            f"{name} has weights or activations of 16 bits, which onnxruntime does not quantize for the CPU: export it "
            "in float32"
        )
    graph = model.proto.graph
    if any(impossible(value) for value in (*graph.input, *graph.output, *graph.value_info)):
        raise QuantizationError(
            f"{name} declares lengths that no tensor has, so it cannot be quantized: export it again"
        )
    if not sampled:
        raise QuantizationError(
            "`quantize` measures the ranges of activations on inputs, and `effort='fast'` makes none: give "
            "`calibration` or `effort='balanced'`"
        )
    backend()


@dataclass(frozen=True)
class Quantized:
    """A compressed model in INT8 (`proto`) and before, in `floats`, serialized, which as a file takes `size` bytes.

    `samples` gave the ranges of activations; `random`: they were of the kind that says little.
    """

    proto: ModelProto = field(repr=False)
    floats: bytes = field(repr=False)
    size: int
    samples: int
    random: bool

    def judged(
        self,
        verdict: Check,
        original: Path,
        written: Staged,
        feeds: Inputs,
        latency: bool,
        aim: tuple[Aim, float] | None,
    ) -> tuple[Check, QuantizationReport]:
        """What the step gained and cost, and the `verdict` on what was `written` with what there is to say of it.

        Measured on the first provider that ran the check; `aim`: the budget of the whole chain."""
        provider = next((done.provider for done in verdict.providers if done.status is Status.OK), "")
        error, times = float("nan"), tuple[float | None, float | None]((None, None))
        if provider:
            error, times = self._beside(original, written.path, feeds, provider, latency)
        worst = float("nan") if verdict.worst is None else verdict.worst.relative_l2
        report = QuantizationReport(
            WEIGHTS_AS, ACTIVATIONS_AS, self.samples, *on_integers(self.proto), provider, self.size, written.size,
            error, worst, *times,
        )  # fmt: skip
        return verdict.noting(*self._notes(report, aim)), report

    def _beside(
        self, original: Path, written: Path, feeds: Inputs, provider: str, latency: bool
    ) -> tuple[float, tuple[float | None, float | None]]:
        """(largest relative error of the version in floats, latencies in ms in floats and in INT8)."""
        first, floats = Session(original, provider), Session(self.floats, provider)
        given = feeds(first) if callable(feeds) else feeds
        found = dict(zip(floats.outputs, floats.run(given), strict=True))
        errors = [
            output_error(name, a, found[name]).relative_l2
            for name, a in zip(first.outputs, first.run(given), strict=True)
            if isinstance(a, np.ndarray) and a.dtype.kind in "fiub"
        ]
        error = max(errors, default=float("nan"))
        if not latency:
            return error, (None, None)
        integers = Session(written, provider)
        return error, interleaved(floats, integers, timing_feeds(floats, integers, given))

    def _notes(self, report: QuantizationReport, aim: tuple[Aim, float] | None) -> list[str]:
        notes, (kind, value) = list[str](), aim or (None, 0.0)
        if report.slower and report.speedup is not None:
            notes.append(
                f"INT8 is slower than floats on {short(report.provider)}: {1 / report.speedup:.2f}x the latency of the "
                "same model without `quantize`"
            )
        if report.file_after >= report.file_before:
            sizes = [in_bytes(size) for size in (report.file_after, report.file_before)]
            notes.append(f"INT8 takes more bytes than floats: {sizes[0]} against {sizes[1]}")
        if self.random:
            notes.append("ranges of activations come from random inputs: give `calibration`")
        if kind is Aim.QUALITY and report.error_before <= value < report.error_after:
            notes.append(f"a little over `{kind.parameter}={value:g}`, which is kept without `quantize`")
        return notes


def quantize(original: Model, proto: ModelProto, evidence: Samples | None, target: Path, external: bool) -> Quantized:
    """`proto`, a compressed version of `original`, in INT8, with ranges from the samples that may be fitted on.

    `target`, `external`: how it is written. Raises QuantizationError."""
    made, floats = _int8(original, proto, evidence)
    assert evidence is not None
    count = sum(max((len(x) for x in feed.values() if x.ndim), default=1) for feed in evidence.fit)
    size = size_written(proto, original, target, external)
    return Quantized(made, floats.SerializeToString(), size, count, evidence.origin is Origin.RANDOM)


def _int8(original: Model, proto: ModelProto, evidence: Samples | None) -> tuple[ModelProto, ModelProto]:
    """(`proto` in INT8, `proto` with its weights inside it)."""
    name = original.path or "this model"
    if evidence is None:
        raise QuantizationError(f"{name} cannot be quantized: onnxruntime has to run it for that, and does not")
    floats = inline(proto, original.folder)
    try:
        made = in_int8(floats, evidence.fit)
    except ExecutionError as error:
        raise QuantizationError(
            f"onnxruntime cannot quantize {name} ({brief(error)}): fold it without `quantize`, or where it runs on "
            "inputs of other lengths, give these (`input_shapes`, `calibration`)"
        ) from error
    if not on_integers(made)[0]:
        raise QuantizationError(f"{name} has no operator that onnxruntime quantizes: fold it without `quantize`")
    return made, floats


def narrowed(
    aim: Aim,
    value: float,
    evaluator: Evaluator,
    original: Model,
    evidence: Samples | None,
    dropped: Callable[[ModelProto], float] | None = None,
) -> float:
    """The `value` of a budget for what comes before INT8, so that both together keep it: less what INT8 alone costs.

    Errors of both are taken to be independent of each other, and top classes that they change to be different ones.
    Budgets that INT8 does not touch stay as they are. `dropped`: by how much the user's own measure falls for a version
    of the model. Raises QuantizationError; PlanError where INT8 alone passes it.
    """
    if not aim.limits_loss and aim is not Aim.DROP:
        return value
    alone = _int8(original, original.proto, evidence)[0]
    if aim is Aim.DROP:
        assert dropped is not None
        return _less(value, dropped(alone))
    error = evaluator.error(alone)
    if not math.isfinite(error):
        return value
    cost = error if aim is Aim.QUALITY else 1 - required(evaluator.agreement(alone))
    left = math.sqrt(max(0.0, value**2 - cost**2)) if aim is Aim.QUALITY else value + cost
    if left <= 0 or (aim is Aim.AGREEMENT and left > 1):
        changes = f"an error of {cost:.2g}" if aim is Aim.QUALITY else f"an agreement of {1 - cost:.3g}"
        raise PlanError(
            f"`{aim.parameter}={value:g}` cannot be kept with `quantize`: INT8 alone has {changes}. Allow more, or "
            "give another budget, for example `target_macs=0.7`"
        )
    return left


def _less(value: float, drop: float) -> float:
    """What is left of `max_drop` after INT8 alone. Raises PlanError where that is nothing."""
    if drop > value:
        raise PlanError(
            f"`max_drop={value:g}` cannot be kept with `quantize`: INT8 alone drops the metric by {drop:.3g}. Allow "
            "more, or give another budget, for example `target_macs=0.7`"
        )
    return value - max(0.0, drop)
