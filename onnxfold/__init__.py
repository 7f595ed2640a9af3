"""onnxfold makes a trained ONNX model smaller and faster by merging similar channels; no data, no framework.

>>> import onnxfold
>>> result = onnxfold.fold("in.onnx", "out.onnx", ratio=0.3)  # doctest: +SKIP
>>> print(result.report.verdict)  # doctest: +SKIP
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import (
    ExecutionError,
    ModelError,
    NothingToFoldError,
    OnnxFoldError,
    PlanError,
    QuantizationError,
    RequestError,
    RuleError,
    ValidationError,
)
from .options.budget import Aim, Budget, Limits
from .options.choices import Clusterer, Distance, Effort, Fusion, Method, Quantization, Recovery, Step
from .options.devices import Blocks, Device
from .options.options import ChoiceOptions, CompareOptions, FoldOptions, FuseOptions, RankOptions, SweepOptions
from .options.parts import (
    CalibrationOptions,
    DistillOptions,
    MeasureOptions,
    OutputOptions,
    PlanningOptions,
    QuantizeOptions,
    RecoveryOptions,
    RuntimeOptions,
    ScaleOptions,
    SelectionOptions,
    SharingOptions,
)
from .options.preprocess import Layout, Preprocess, PreprocessFile, Resize
from .options.targets import Latency, Macs, MaxDrop, MaxError, MinAgreement, Params, Ratio, Size
from .options.width_plan import PlannedGroup, WidthPlan

if TYPE_CHECKING:
    from .analysis.costs import Size as ModelSize
    from .analysis.coverage import Coverage
    from .analysis.pins import Refusal
    from .api import analyze, choose, compare, fold, fuse, inspect, rank_layers, sweep
    from .evaluation.latency import OperatorTime
    from .evaluation.metrics import OutputError
    from .evaluation.own_measure import Measured
    from .evaluation.quality import Deviation, Limit, Mark, Quality
    from .evaluation.side_by_side import SideBySide, WorstSample
    from .evaluation.verdict import Check, ProviderCheck, Status
    from .model.kv_cache import HeadsChanged
    from .passes.choice.chain import Chain
    from .passes.choice.front import Aspect, Point
    from .passes.choice.row import ChoiceRow
    from .passes.distillation.block_targets import Map
    from .passes.distillation.result import RefinementReport
    from .passes.quantization.result import QuantizationReport
    from .passes.sweep import SweepRow, Timing
    from .passes.weight_sharing.distances import Pair
    from .passes.weight_sharing.layers import Left
    from .passes.weight_sharing.result import Dropped, Shared
    from .report.alike import Alike
    from .report.choice_report import Advice, ChoiceReport
    from .report.fold_report import FoldReport
    from .report.fold_result import FoldResult, Plan
    from .report.group_report import GroupReport
    from .report.layer_sizes import LayerSize
    from .report.layers_report import LayersReport
    from .report.plans.analyzed import Analyzed
    from .report.plans.keep import Keep
    from .report.plans.plan import Remaining
    from .report.provenance import Provenance
    from .report.sweep_report import SweepReport

    __core__: str
    __version__: str

__all__ = [
    "Advice", "Aim", "Alike", "Analyzed", "Aspect", "Blocks", "Budget", "CalibrationOptions", "Chain", "Check",
    "ChoiceOptions", "ChoiceReport", "ChoiceRow", "Clusterer", "CompareOptions", "Coverage", "Deviation", "Device",
    "Distance", "DistillOptions", "Dropped", "Effort", "ExecutionError", "FoldOptions", "FoldReport", "FoldResult",
    "FuseOptions", "Fusion", "GroupReport", "HeadsChanged", "Keep", "Latency", "LayerSize", "LayersReport",
    "Layout", "Left", "Limit", "Limits", "Macs", "Map", "Mark", "MaxDrop", "MaxError", "MeasureOptions", "Measured",
    "Method", "MinAgreement", "ModelError", "ModelSize", "NothingToFoldError", "OnnxFoldError", "OperatorTime",
    "OutputError", "OutputOptions", "Pair", "Params", "Plan", "PlanError", "PlannedGroup", "PlanningOptions",
    "Point", "Preprocess", "PreprocessFile", "Provenance", "ProviderCheck", "Quality", "Quantization",
    "QuantizationError", "QuantizationReport", "QuantizeOptions", "RankOptions", "Ratio", "Recovery",
    "RecoveryOptions", "RefinementReport", "Refusal", "Remaining", "RequestError", "Resize", "RuleError",
    "RuntimeOptions", "ScaleOptions", "SelectionOptions", "Shared", "SharingOptions", "SideBySide", "Size",
    "Status", "Step", "SweepOptions", "SweepReport", "SweepRow", "Timing", "ValidationError", "WidthPlan",
    "WorstSample", "__version__", "analyze", "choose", "compare", "fold", "fuse", "inspect", "rank_layers", "sweep",
]  # fmt: skip

logging.getLogger(__name__).addHandler(logging.NullHandler())  # whoever uses the library decides what is shown

_LATE = {
    **dict.fromkeys(("analyze", "choose", "compare", "fold", "fuse", "inspect", "rank_layers", "sweep"), ".api"),
    "Advice": ".report.choice_report",
    "Alike": ".report.alike",
    "Analyzed": ".report.plans.analyzed",
    "Aspect": ".passes.choice.front",
    "Chain": ".passes.choice.chain",
    "Check": ".evaluation.verdict",
    "ChoiceReport": ".report.choice_report",
    "ChoiceRow": ".passes.choice.row",
    "Coverage": ".analysis.coverage",
    "Deviation": ".evaluation.quality",
    "Dropped": ".passes.weight_sharing.result",
    "FoldReport": ".report.fold_report",
    "FoldResult": ".report.fold_result",
    "GroupReport": ".report.group_report",
    "HeadsChanged": ".model.kv_cache",
    "Keep": ".report.plans.keep",
    "LayerSize": ".report.layer_sizes",
    "LayersReport": ".report.layers_report",
    "Left": ".passes.weight_sharing.layers",
    "Limit": ".evaluation.quality",
    "Map": ".passes.distillation.block_targets",
    "Mark": ".evaluation.quality",
    "Measured": ".evaluation.own_measure",
    "ModelSize": ".analysis.costs",
    "OperatorTime": ".evaluation.latency",
    "OutputError": ".evaluation.metrics",
    "Pair": ".passes.weight_sharing.distances",
    "Plan": ".report.fold_result",
    "Point": ".passes.choice.front",
    "Provenance": ".report.provenance",
    "ProviderCheck": ".evaluation.verdict",
    "Quality": ".evaluation.quality",
    "QuantizationReport": ".passes.quantization.result",
    "RefinementReport": ".passes.distillation.result",
    "Refusal": ".analysis.pins",
    "Remaining": ".report.plans.plan",
    "Shared": ".passes.weight_sharing.result",
    "SideBySide": ".evaluation.side_by_side",
    "Status": ".evaluation.verdict",
    "SweepReport": ".report.sweep_report",
    "SweepRow": ".passes.sweep",
    "Timing": ".passes.sweep",
    "WorstSample": ".evaluation.side_by_side",
}
"""Names that come with onnx, onnxruntime and scipy, which are slow to import: each is imported when it is asked for."""


_ELSEWHERE = {"ModelSize": "Size"}
"""Names that stand for something else here, and what these are called where they are defined."""


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # slow to import, and seldom asked for

    try:
        return version("onnxfold")
    except PackageNotFoundError:  # run from a source tree that was not installed
        return "0+unknown"


if not TYPE_CHECKING:  # type checkers see the imports above, and still find names that do not exist

    def __getattr__(name: str) -> Any:
        """A name of `_LATE`, `__version__`, or `__core__` (what clusters: "C++" or "Python (slower)"); from then on it
        is there."""
        if name == "__version__":
            found = _version()
        elif name == "__core__":
            found = import_module(".folding._native", __name__).NAME
        elif name in _LATE:
            found = getattr(import_module(_LATE[name], __name__), _ELSEWHERE.get(name, name))
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return globals().setdefault(name, found)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
