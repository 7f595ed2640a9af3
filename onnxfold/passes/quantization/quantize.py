"""Fewer bits as the last step of a chain: what is refused, where ranges come from, what is gained beside floats."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto

from ...calibration.origin import Origin
from ...calibration.samples import Samples
from ...errors import ExecutionError, PlanError, QuantizationError
from ...evaluation.candidates import Evaluator, required
from ...evaluation.metrics import output_error
from ...evaluation.verdict import Check, Status
from ...model.graph import impossible
from ...model.half_precision import HALF, holds
from ...model.leftovers import scratch_folder
from ...model.model import PROTOBUF_LIMIT, Model
from ...model.save import Staged, inline, size_written
from ...model.subgraphs import every_node
from ...options.budget import Aim
from ...options.choices import Quantization
from ...runtime.session import Feeds, Session, brief, crashes, short, version
from ...units import in_bytes
from .kinds import STORED_AS, changed, needed, stored
from .result import QuantizationReport

Inputs = Feeds | Callable[[Session], Feeds]
_ON_INTEGERS = re.compile(r"^Q(Linear|Gemm|Attention|Embed|Ordered)|Quantize|Integer|NBits|Bnb4|BitLinear")


def check_quantizable(model: Model, too_large: bool, sampled: bool, kind: Quantization = Quantization.INT8) -> None:
    """Refuse before anything is spent what cannot be quantized. `sampled`: whether there will be inputs.

    Raises QuantizationError.
    """
    name = model.path or "this model"
    if too_large or model.size >= PROTOBUF_LIMIT:
        raise QuantizationError(
            f"{name} cannot be quantized: it is too large to be loaded and run (over 2 GiB, or over "
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
            if kind is not Quantization.HALF
            else f"{name} has weights or activations of 16 bits already: fold it without `quantize`"
        )
    graph = model.proto.graph
    if any(impossible(value) for value in (*graph.input, *graph.output, *graph.value_info)):
        raise QuantizationError(f"{name} declares impossible dimensions, so it cannot be quantized: export it again")
    if kind.sampled and not sampled:
        raise QuantizationError(
            "`quantize` measures the ranges of activations on inputs, and `effort='fast'` makes none: pass "
            "`calibration` or `effort='balanced'`"
        )
    needed(kind, model.proto)


@dataclass(frozen=True)
class Quantized:
    """A compressed model in fewer bits (`proto`) and before, in `floats`, serialized, `size` bytes as a file.

    `samples` gave the ranges of activations; `random`: they were of the kind that says little; `synthetic`: they were
    made.
    """

    proto: ModelProto = field(repr=False)
    floats: bytes = field(repr=False)
    size: int
    samples: int
    random: bool
    kind: Quantization = Quantization.INT8
    synthetic: bool | None = None

    def judged(
        self,
        verdict: Check,
        original: Path,
        written: Staged,
        feeds: Inputs,
        error_in_floats: float | None,
    ) -> QuantizationReport:
        """What the step gained and cost, in what was `written`, on which there is a `verdict`.

        Measured on the first provider that ran the check, which has timed both; `error_in_floats`: by the measure of
        the verdict, on its inputs (None: not measured)."""
        done = next((one for one in verdict.providers if one.status is Status.OK), None)
        error = float("nan") if done is None else self._error(original, feeds, done.provider)
        worst = float("nan") if verdict.worst is None else verdict.worst.relative_l2
        judged = None if verdict.quality is None or error_in_floats is None else verdict.quality.error
        report = QuantizationReport(
            *STORED_AS[self.kind], self.samples, *changed(self.kind, self.proto), "" if done is None else done.provider,
            self.size, written.size, error, worst, None, None, self.kind, error_in_floats, judged, self.synthetic,
        )  # fmt: skip
        return report if done is None else report.timed(done)

    def _error(self, original: Path, feeds: Inputs, provider: str) -> float:
        """The largest relative error of an output of the version in floats."""
        first, floats = Session(original, provider), Session(self.floats, provider)
        given = feeds(first) if callable(feeds) else feeds
        found = dict(zip(floats.outputs, floats.run(given), strict=True))
        errors = [
            output_error(name, a, found[name]).relative_l2
            for name, a in zip(first.outputs, first.run(given), strict=True)
            if isinstance(a, np.ndarray) and a.dtype.kind in "fiub"
        ]
        return max(errors, default=float("nan"))

    def notes(self, report: QuantizationReport, aim: tuple[Aim, float] | None) -> list[str]:
        """What there is to say of it; `aim`: the budget of the whole chain."""
        notes, (kind, value) = list[str](), aim or (None, 0.0)
        if report.slower and report.speedup is not None:
            notes.append(
                f"with {report.kind.label} it is slower than in floats on {short(report.provider)}: "
                f"{1 / report.speedup:.2f}x the latency"
            )
        if report.file_after >= report.file_before:
            sizes = [in_bytes(size) for size in (report.file_after, report.file_before)]
            notes.append(f"with {report.kind.label} it is larger than in floats: {sizes[0]} against {sizes[1]}")
        if self.random:
            notes.append("activation ranges come from random inputs: pass `calibration` for better ones")
        errors = report.errors
        if kind is Aim.QUALITY and errors is not None and errors[0] <= value < errors[1]:
            notes.append(f"slightly over `{kind.parameter}={value:g}`, which is met without `quantize`")
        return notes


def quantize(
    original: Model, proto: ModelProto, evidence: Samples | None, target: Path, external: bool, kind: Quantization
) -> Quantized:
    """`proto`, a compressed version of `original`, in fewer bits, with ranges from the samples that may be fitted on.

    `target`, `external`: how it is written. Raises QuantizationError."""
    made, floats = _fewer_bits(original, proto, evidence, kind)
    given = evidence.fit if kind.sampled and evidence is not None else ()
    count = sum(max((len(x) for x in feed.values() if x.ndim), default=1) for feed in given)
    size = size_written(proto, original, target, external)
    random = kind.sampled and evidence is not None and evidence.origin is Origin.RANDOM
    synthetic = None if evidence is None else not evidence.own
    return Quantized(made, floats.SerializeToString(), size, count, random, kind, synthetic)


def _fewer_bits(
    original: Model, proto: ModelProto, evidence: Samples | None, kind: Quantization = Quantization.INT8
) -> tuple[ModelProto, ModelProto]:
    """(`proto` in fewer bits, `proto` with its weights inside it)."""
    name = original.path or "this model"
    if kind.sampled and evidence is None:
        raise QuantizationError(f"{name} cannot be quantized: onnxruntime has to run it for that, and does not")
    floats = inline(proto, original.folder)
    try:
        made = stored(kind, floats, () if evidence is None else evidence.fit)
    except ExecutionError as error:
        raise QuantizationError(
            f"onnxruntime cannot quantize {name} ({brief(error)}): fold it without `quantize`, or where it runs on "
            "inputs of other lengths, set those (`input_shapes`, `calibration`)"
        ) from error
    if not changed(kind, made)[0]:
        raise QuantizationError(
            f"{name} has no operator that onnxruntime quantizes{_to(kind)}: fold it without `quantize`"
        )
    if kind is Quantization.HALF:
        _refuse_crash(made, str(name))
    return made, floats


def _refuse_crash(made: ModelProto, name: str) -> None:
    """Raises QuantizationError for a model that would end this process."""
    with scratch_folder() as scratch:
        onnx.save(made, scratch / "half.onnx")
        if crashes(scratch / "half.onnx"):
            raise QuantizationError(
                f"onnxruntime {version()} crashes when it loads {name} in float16 on the CPU: fold it without "
                "`quantize`, or try another version of onnxruntime"
            )


def narrowed(
    aim: Aim,
    value: float,
    evaluator: Evaluator,
    original: Model,
    evidence: Samples | None,
    dropped: Callable[[ModelProto], float] | None = None,
    kind: Quantization = Quantization.INT8,
) -> float:
    """The `value` of a budget for what comes before fewer bits, so that both together keep it: less what these alone
    cost.

    Errors of both are taken to be independent of each other, and top classes that they change to be different ones.
    Budgets that these do not touch stay as they are. `dropped`: by how much the user's own measure falls for a version
    of the model. Raises QuantizationError; PlanError where they alone pass it.
    """
    if not aim.limits_loss and aim is not Aim.DROP:
        return value
    alone = _fewer_bits(original, original.proto, evidence, kind)[0]
    if aim is Aim.DROP:
        assert dropped is not None
        return _less(value, dropped(alone), kind)
    error = evaluator.error(alone)
    if not math.isfinite(error):
        return value
    cost = error if aim is Aim.QUALITY else 1 - required(evaluator.agreement(alone))
    left = math.sqrt(max(0.0, value**2 - cost**2)) if aim is Aim.QUALITY else value + cost
    if left <= 0 or (aim is Aim.AGREEMENT and left > 1):
        changes = f"an error of {cost:.2g}" if aim is Aim.QUALITY else f"an agreement of {1 - cost:.3g}"
        raise PlanError(
            f"`{aim.parameter}={value:g}` cannot be kept with `quantize`: {kind.label} alone has {changes}. "
            "Allow more, or choose another budget, for example `target_macs=0.7`"
        )
    return left


def _less(value: float, drop: float, kind: Quantization) -> float:
    """What is left of `max_drop` after fewer bits alone. Raises PlanError where that is nothing."""
    if drop > value:
        raise PlanError(
            f"`max_drop={value:g}` cannot be kept with `quantize`: {kind.label} alone drops the metric by "
            f"{drop:.3g}. Allow more, or choose another budget, for example `target_macs=0.7`"
        )
    return value - max(0.0, drop)


def _to(kind: Quantization) -> str:
    return "" if kind is Quantization.INT8 else f" to {kind.label}"
