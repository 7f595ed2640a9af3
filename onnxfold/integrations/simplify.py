"""Simplify a model with onnxslim or onnxsim, then fold it (`pip install 'onnxfold[simplify]'`).

Simplifying first brings constants to where onnxfold sees them, and BatchNormalization into weights. It is not a step
inside of the simplifier's own loop: that runs until nothing changes, and a fold with an error in it must run once.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any, Literal

from onnx import ModelProto

from ..api import compare, fold
from ..compat import Unpack
from ..errors import RequestError, ValidationError
from ..options.keywords import FoldKeywords
from ..report.fold_result import FoldResult

Tool = Literal["onnxslim", "onnxsim"]
Source = str | os.PathLike[str] | ModelProto

MOST_DIFFERENCE = 1e-3  # relative L2 error of outputs; weights fused in float32 were seen to make 1e-6


def simplified(model: Source, tool: Tool = "onnxslim", input_shapes: Any = None) -> ModelProto:
    """`model` (a path, or a ModelProto, which stays as it is) as `tool` simplifies it, measured against the original.

    Raises RequestError where the tool is not installed, and ValidationError where an output differs by more than
    `MOST_DIFFERENCE`: then simplifying changed what the model computes, and folding it would hide that.
    """
    if tool not in ("onnxslim", "onnxsim"):
        raise RequestError(f"`tool` must be 'onnxslim' or 'onnxsim', not {tool!r}")
    if find_spec(tool) is None:
        raise RequestError(f"{tool} is not installed: pip install 'onnxfold[simplify]'")
    simpler = _slim(model) if tool == "onnxslim" else _sim(model)
    check = compare(model, simpler, input_shapes=input_shapes, latency=False).check
    worst = max((one.relative_l2 for where in check.providers for one in where.outputs), default=0.0) if check else 0.0
    if check is None or not check.passed or worst > MOST_DIFFERENCE:
        problem = "; ".join(check.problems) if check and check.problems else f"its outputs differ by {worst:.2g}"
        raise ValidationError(f"{tool} changed what the model computes ({problem}): fold it without simplifying")
    return simpler


def fold_simplified(
    model: Source,
    output: str | os.PathLike[str] | None = None,
    *,
    tool: Tool = "onnxslim",
    **given: Unpack[FoldKeywords],
) -> FoldResult:
    """`onnxfold.fold` of what `simplified` makes of `model`. The report compares with the simplified model."""
    return fold(simplified(model, tool, given.get("input_shapes")), output, **given)


def _slim(model: Source) -> ModelProto:
    import onnxslim

    simpler: ModelProto = onnxslim.slim(_own(model))
    return simpler


def _sim(model: Source) -> ModelProto:
    import onnxsim

    simpler: ModelProto = onnxsim.simplify(_own(model))[0]
    return simpler


def _own(model: Source) -> str | ModelProto:
    """What a tool may change without harm."""
    if not isinstance(model, ModelProto):
        return os.fspath(model)
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy
