"""onnxfold makes a trained ONNX model smaller and faster by merging similar channels; no data, no framework.

>>> import onnxfold
>>> result = onnxfold.fold("in.onnx", "out.onnx", ratio=0.3)  # doctest: +SKIP
>>> print(result.report.verdict)  # doctest: +SKIP
"""

from importlib.metadata import PackageNotFoundError, version

from .api import FoldResult, compare, fold, fuse, inspect, rank_layers, sweep
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
from .options.choices import Clusterer, Effort, Fusion, Method, Metric, Recovery
from .options.options import (
    CalibrationOptions,
    DistillOptions,
    FoldOptions,
    FuseOptions,
    OutputOptions,
    QuantizeOptions,
    RankOptions,
    RecoveryOptions,
    RuntimeOptions,
    ScaleOptions,
    SelectionOptions,
    SharingOptions,
    SweepOptions,
)
from .options.preprocess import Layout, Preprocess
from .report.fold_report import FoldReport
from .report.layers_report import LayersReport
from .report.sweep_report import SweepReport

try:
    __version__ = version("onnxfold")
except PackageNotFoundError:  # run from a source tree that was not installed
    __version__ = "0+unknown"

__all__ = [
    "Aim", "Budget", "CalibrationOptions", "Clusterer", "DistillOptions", "Effort", "ExecutionError", "FoldOptions",
    "FoldReport", "FoldResult", "FuseOptions", "Fusion", "LayersReport", "Layout", "Limits", "Method", "Metric",
    "ModelError", "NothingToFoldError", "OnnxFoldError", "OutputOptions", "PlanError", "Preprocess",
    "QuantizationError", "QuantizeOptions", "RankOptions", "Recovery", "RecoveryOptions", "RequestError", "RuleError",
    "RuntimeOptions", "ScaleOptions", "SelectionOptions", "SharingOptions", "SweepOptions", "SweepReport",
    "ValidationError", "__version__", "compare", "fold", "fuse", "inspect", "rank_layers", "sweep",
]  # fmt: skip
