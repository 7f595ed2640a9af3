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
    from .api import analyze, choose, compare, fold, fuse, inspect, rank_layers, sweep
    from .evaluation.quality import Mark
    from .report.alike import Alike
    from .report.choice_report import Advice, ChoiceReport
    from .report.fold_report import FoldReport
    from .report.fold_result import FoldResult, Plan
    from .report.group_report import GroupReport
    from .report.layers_report import LayersReport
    from .report.plans.analyzed import Analyzed
    from .report.plans.plan import Remaining
    from .report.sweep_report import SweepReport

    __core__: str
    __version__: str

__all__ = [
    "Advice", "Aim", "Alike", "Analyzed", "Blocks", "Budget", "CalibrationOptions", "ChoiceOptions", "ChoiceReport",
    "Clusterer", "CompareOptions", "Device", "Distance", "DistillOptions", "Effort", "ExecutionError",
    "FoldOptions", "FoldReport", "FoldResult", "FuseOptions", "Fusion", "GroupReport", "Latency", "LayersReport",
    "Layout", "Limits", "Macs", "Mark", "MaxDrop", "MaxError", "MeasureOptions", "Method", "MinAgreement",
    "ModelError", "NothingToFoldError", "OnnxFoldError", "OutputOptions", "Params", "Plan", "PlanError",
    "PlannedGroup", "PlanningOptions", "Preprocess", "PreprocessFile", "Quantization", "QuantizationError",
    "QuantizeOptions", "RankOptions", "Ratio", "Recovery", "RecoveryOptions", "Remaining", "RequestError", "Resize",
    "RuleError", "RuntimeOptions", "ScaleOptions", "SelectionOptions", "SharingOptions", "Size", "Step", "SweepOptions",
    "SweepReport", "ValidationError", "WidthPlan", "__version__", "analyze", "choose", "compare", "fold", "fuse",
    "inspect", "rank_layers", "sweep",
]  # fmt: skip

logging.getLogger(__name__).addHandler(logging.NullHandler())  # whoever uses the library decides what is shown

_LATE = {
    **dict.fromkeys(("analyze", "choose", "compare", "fold", "fuse", "inspect", "rank_layers", "sweep"), ".api"),
    "Advice": ".report.choice_report",
    "Alike": ".report.alike",
    "Analyzed": ".report.plans.analyzed",
    "ChoiceReport": ".report.choice_report",
    "FoldReport": ".report.fold_report",
    "FoldResult": ".report.fold_result",
    "GroupReport": ".report.group_report",
    "LayersReport": ".report.layers_report",
    "Mark": ".evaluation.quality",
    "Plan": ".report.fold_result",
    "Remaining": ".report.plans.plan",
    "SweepReport": ".report.sweep_report",
}
"""Names that come with onnx, onnxruntime and scipy, which are slow to import: each is imported when it is asked for."""


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
            found = getattr(import_module(_LATE[name], __name__), name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return globals().setdefault(name, found)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
