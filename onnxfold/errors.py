"""The family of errors: everything a user can mend derives from `OnnxFoldError`.

Outside it are a bug of ours (`RuleError`), so that ``except OnnxFoldError`` never hides it, and what onnx and
onnxruntime refuse (`ExecutionError`): who meets that knows whether the model is to blame, or the request, and says so
by an error of the family.
"""

BUILTIN_ERRORS = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, RuntimeError, SyntaxError, TypeError,
    ValueError,
)  # fmt: skip
"""What other libraries let escape about data that they did not expect, beside exceptions of their own. To be caught
around one call into a library, with nothing of ours inside; OSError and MemoryError say something else."""


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
    """onnx or onnxruntime refused to load, convert or run something. Its text is theirs, `__cause__` what they raised.

    Where nobody expects it, it is a bug of ours like any other.
    """


class RuleError(Exception):
    """A bug in onnxfold itself: an operator rule or a stage broke its contract."""
