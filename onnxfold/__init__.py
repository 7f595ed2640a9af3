"""onnxfold makes a trained ONNX model smaller and faster by merging similar channels; no data, no framework.

>>> import onnxfold
>>> result = onnxfold.fold("in.onnx", "out.onnx", ratio=0.3)  # doctest: +SKIP
>>> print(result.report.verdict)  # doctest: +SKIP
"""

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
from .options.options import ChoiceOptions, CompareOptions, FoldOptions, FuseOptions, RankOptions, SweepOptions
from .options.parts import (
    CalibrationOptions,
    DistillOptions,
    MeasureOptions,
    OutputOptions,
    QuantizeOptions,
    RecoveryOptions,
    RuntimeOptions,
    ScaleOptions,
    SelectionOptions,
    SharingOptions,
)
from .options.preprocess import Layout, Preprocess

if TYPE_CHECKING:
    from .api import choose, compare, fold, fuse, inspect, rank_layers, sweep
    from .report.choice_report import ChoiceReport
    from .report.fold_report import FoldReport
    from .report.fold_result import FoldResult
    from .report.layers_report import LayersReport
    from .report.sweep_report import SweepReport

    __core__: str
    __version__: str

__all__ = [
    "Aim", "Budget", "CalibrationOptions", "ChoiceOptions", "ChoiceReport", "Clusterer", "CompareOptions",
    "Distance", "DistillOptions", "Effort", "ExecutionError", "FoldOptions", "FoldReport", "FoldResult",
    "FuseOptions", "Fusion", "LayersReport", "Layout", "Limits", "MeasureOptions", "Method", "ModelError",
    "NothingToFoldError", "OnnxFoldError", "OutputOptions", "PlanError", "Preprocess", "Quantization",
    "QuantizationError", "QuantizeOptions", "RankOptions", "Recovery", "RecoveryOptions", "RequestError",
    "RuleError", "RuntimeOptions", "ScaleOptions", "SelectionOptions", "SharingOptions", "Step", "SweepOptions",
    "SweepReport", "ValidationError", "__version__", "choose", "compare", "fold", "fuse", "inspect", "rank_layers",
    "sweep",
]  # fmt: skip

_LATE = {
    **dict.fromkeys(("choose", "compare", "fold", "fuse", "inspect", "rank_layers", "sweep"), ".api"),
    "ChoiceReport": ".report.choice_report",
    "FoldReport": ".report.fold_report",
    "FoldResult": ".report.fold_result",
    "LayersReport": ".report.layers_report",
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
