"""Calls into onnx: what it raises about a model becomes ExecutionError, whatever its kind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from google.protobuf.message import Error as ProtobufError
from onnx.checker import ValidationError
from onnx.defs import SchemaError
from onnx.shape_inference import InferenceError
from onnx.version_converter import ConvertError

from ..errors import BUILTIN_ERRORS, ExecutionError

_REFUSALS = (ValidationError, InferenceError, ConvertError, SchemaError, ProtobufError, *BUILTIN_ERRORS)


@contextmanager
def asking_onnx() -> Iterator[None]:
    """To be put around one call into onnx, with none of ours inside.

    Raises ExecutionError for what onnx refuses: its checker, its shape inference and its converter have an exception
    each, without a common base, and raise builtin ones beside them.
    """
    try:
        yield
    except _REFUSALS as error:
        raise ExecutionError(str(error) or type(error).__name__) from error
