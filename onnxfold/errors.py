"""The family of errors: everything a user can mend derives from `OnnxFoldError`.

A bug of ours (`RuleError`) is deliberately outside that family, so that ``except OnnxFoldError`` never hides it.
"""


class OnnxFoldError(Exception):
    """Something the user can mend; its text says what, where and what to do. `exit_code` is what the CLI returns."""

    exit_code = 2


class RequestError(OnnxFoldError):
    """The request makes no sense: a ratio outside 0..1, an unknown provider, an output that equals the input."""


class ModelError(OnnxFoldError):
    """The model cannot be read: missing, not ONNX, refused by the checker, broken external data, NaN weights."""

    exit_code = 3


class PlanError(OnnxFoldError):
    """The budget or the numbers of clusters cannot be met."""


class NothingToFoldError(OnnxFoldError):
    """The model has no foldable channel group, or none that the budget lets shrink."""

    exit_code = 4


class QuantizationError(OnnxFoldError):
    """The model cannot be quantized: it is already, onnxruntime's quantizer refuses or lacks something, too large."""

    exit_code = 5


class ValidationError(OnnxFoldError):
    """The folded model failed its checks and was not written. `report` (a FoldReport) says how."""

    exit_code = 1
    report: object = None


class ExecutionError(Exception):
    """What onnxruntime refused to load or to run. `__cause__` is its own exception."""


class RuleError(Exception):
    """A bug in onnxfold itself: an operator rule or a stage broke its contract."""
