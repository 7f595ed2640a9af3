"""The family of errors: everything a user can mend derives from `OnnxFoldError`.

A bug of ours (`RuleError`) is deliberately outside that family, so that ``except OnnxFoldError`` never hides it.
"""

from operator import is_
from types import MappingProxyType
from typing import Any

import numpy as np


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


def read_only(instance: object) -> None:
    """Make the arrays of a frozen dataclass read-only, those in its mappings, tuples and lists too: writing into one
    raises ValueError. To be called by its ``__post_init__``, and by ``__setstate__`` where it is pickled.

    The instance gets views: nothing is copied, and who made an array may still write into it.
    """
    for name, value in vars(instance).items():
        guarded = _guarded(value)
        if guarded is not value:
            object.__setattr__(instance, name, guarded)


def _guarded(value: Any) -> Any:
    """`value` with read-only views in place of arrays; `value` itself where it holds none that can be written."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if isinstance(value, np.ndarray):
        if not value.flags.writeable:
            return value
        view = value.view()
        view.flags.writeable = False
        return view
    if kind in (tuple, list):
        parts = [_guarded(part) for part in value]
        return value if all(map(is_, parts, value)) else kind(parts)
    if kind in (dict, MappingProxyType):
        items = {key: _guarded(part) for key, part in value.items()}
        return value if all(map(is_, items.values(), value.values())) else kind(items)
    return value


_PLAIN = frozenset((int, float, bool, str, type(None)))  # most of what is held, and quickly told
