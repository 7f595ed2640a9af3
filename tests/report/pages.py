"""Reports with something in every section of their pages, under any name."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from onnxfold.analysis.costs import Size
from onnxfold.analysis.pins import Refusal
from onnxfold.evaluation.latency import OperatorTime
from onnxfold.evaluation.metrics import OutputError
from onnxfold.evaluation.quality import Deviation, Mark, Quality
from onnxfold.evaluation.side_by_side import SideBySide, WorstSample
from onnxfold.evaluation.verdict import Check, ProviderCheck, Status
from onnxfold.options.choices import Quantization, Step
from onnxfold.passes.choice.chain import Chain
from onnxfold.passes.choice.row import ChoiceRow, original_row
from onnxfold.passes.distillation.result import RefinementReport
from onnxfold.passes.quantization.result import QuantizationReport
from onnxfold.passes.sweep import SweepRow, Timing
from onnxfold.passes.weight_sharing.distances import Pair
from onnxfold.passes.weight_sharing.layers import Left
from onnxfold.passes.weight_sharing.result import Dropped, Shared
from onnxfold.report.choice_report import ChoiceReport
from onnxfold.report.fold_report import FoldReport
from onnxfold.report.group_report import GroupReport
from onnxfold.report.layer_sizes import LayerSize
from onnxfold.report.layers_report import LayersReport
from onnxfold.report.provenance import Provenance
from onnxfold.report.sweep_report import SweepReport

HOSTILE = "</script><img src=x onerror='alert(1)'>{{7*7}}\u202e\u0007\"'`&lt;]]>"
MADE = Provenance("onnxfold in.onnx out.onnx", {"onnxfold": "0.1.0"}, "a processor", "2026-01-01T00:00:00Z", "0" * 64)


def picture() -> str:
    held = io.BytesIO()
    Image.fromarray(np.full((8, 8), 128, np.uint8)).save(held, "JPEG")
    return base64.b64encode(held.getvalue()).decode()


def fold_page_of(name: str = "conv") -> FoldReport:
    errors = (OutputError(name, 0.25, 0.97, 12.04, 1.5, 0.875), OutputError("exact", 0.0, 1.0, float("inf"), 0.0, None))
    timed = ProviderCheck(
        "CPUExecutionProvider", Status.OK, "", 12.5, 10.0, errors, 13.0, 11.0,
        (OperatorTime(name, 8.0, 6.0), OperatorTime("Gemm", 2.0, 1.5)),
    )  # fmt: skip
    failed = ProviderCheck("CUDAExecutionProvider", Status.FAILED, f"original: '{name}'", None, None, ())
    values = tuple(float(x) for x in np.linspace(-2, 2, 40))
    worst = (WorstSample(3, 0.5, 1, 2, picture()), WorstSample(9, 0.25, 4, 4))
    seen = SideBySide(name, values, tuple(x * 1.1 for x in values), (-0.2, 0.0, 0.2), (15, 25), worst)
    quality = Quality((Deviation(name, 0.08, 0.08),), 0.875, (0.8, 0.93), 64, f"crops of '{name}'", True, (seen,))
    check = Check((f"output '{name}' is NaN",), (f"note on '{name}'",), (timed, failed), "noise", quality)
    curve = tuple((width, 0.5 / width) for width in range(8, 65, 8))
    groups = tuple(
        GroupReport(f"{name}{i}", 64, 8 * i, 1, i, 0.1 * i, (name,), (name,), f"because of '{name}'", curve)
        for i in range(1, 9)
    )
    return FoldReport(
        f"{name}.onnx", f"{name}.out.onnx", {"seed": 0, "samples": "deep inversion"},
        Size(2_500_000, 170_730, 4_475_520), Size(1_250_000, 96_610, 2_521_056), groups,
        (Refusal(f"{name} mixes this axis", 80, (name,) * 5, 12_800),), check,
        refinement=RefinementReport(True, 0.2, 0.1, 3, (0.5, 0.25, 0.1), ((0, 0.2), (3, 0.1)), ""),
        shared=(Shared((name, "b"), (8, 8), 0.1),), dropped=(Dropped(name, 0.01),),
        quantization=QuantizationReport(
            "int8", "uint8", 64, 3, ((name, 2),), "CPUExecutionProvider", 100, 50, 0.1, 0.2, 2.0, 1.0
        ),
        notes=(f"lengths of '{name}'",), sheet=picture(), provenance=MADE,
        layers=tuple(LayerSize(f"{name}/{i}", name, 100 * i, 60 * i) for i in range(1, 7)),
    )  # fmt: skip


def sweep_page_of(name: str = "in") -> SweepReport:
    whole = Size(1000, 100, 10_000)
    rows = [
        SweepRow(
            target, Size(int(1000 * target), int(100 * target), int(10_000 * target)), (1 - target) ** 2, 0.9,
            (Timing("CPUExecutionProvider", Status.OK, "", 2.0, 2 * target),), (), "", None, Mark.KEPT,
        )
        for target in (0.9, 0.7, 0.5)
    ]  # fmt: skip
    refused = SweepRow(0.1, None, None, None, (), (), f"'{name}' cannot be met")
    made = Provenance(f"onnxfold sweep {name}.onnx", {}, "", "", None)
    return SweepReport(f"{name}.onnx", {"seed": 1}, whole, (*rows, refused), 0.7, "crops", (name,), {}, made)


def choice_page_of(name: str = "in") -> ChoiceReport:
    """Chains that were measured, one that failed, one that cannot be made, and one that was left out."""
    whole = Size(1000, 100, 10_000)

    def made(chain: Chain, file: int, latency: float, error: float, *problems: str) -> ChoiceRow:
        timing = Timing("CPUExecutionProvider", Status.OK, "", 2.0, 2 * latency)
        return ChoiceRow(
            chain, Size(file, file // 10, 10 * file), error, 1 - error, (timing,), problems, "", None, Mark.KEPT
        )

    int8 = Quantization.INT8
    rows = (
        made(Chain(quantize=int8), 290, 0.6, 0.04), made(Chain(0.7), 600, 0.7, 0.08),
        made(Chain(0.5, quantize=int8), 150, 0.45, 0.4), made(Chain(0.5, refine=True), 400, 0.5, 0.3),
        made(Chain(fuse=Step.SHARE), 700, 1.0, 0.5, f"output '{name}' is NaN"),
        ChoiceRow(Chain(fuse=Step.DROP), note=f"'{name}' has no residual block"),
        ChoiceRow(Chain(0.9), skipped="expected to be worse in everything than INT8"),
    )  # fmt: skip
    made_by = Provenance(f"onnxfold sweep {name}.onnx --allow all", {}, "", "", None)
    given = {"seed": 1, "allow": ["fold", "int8"], "at": [0.9, 0.7, 0.5]}
    return ChoiceReport(
        f"{name}.onnx", given, whole, (original_row(whole, rows), *rows), f"crops of '{name}'", (name,), {}, made_by
    )


def layers_page_of(name: str = "conv") -> LayersReport:
    pairs = (
        Pair(f"{name}1", f"{name}2", 0.1, (8, 8)),
        Pair(f"{name}1", "c", 0.4, (8, 8)),
        Pair(f"{name}2", "c", 0.5, (8, 8)),
    )
    return LayersReport(f"{name}.onnx", "cosine", True, None, pairs, (Left(name, f"'{name}' is alone"),), MADE)
