"""How large the output of an operator is that makes much of little, before it is computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto
from onnx.helper import make_tensor_value_info, np_dtype_to_tensor_dtype
from onnx.numpy_helper import from_array
from onnx.shape_inference import infer_shapes

from ..errors import ExecutionError
from .graph import Node
from .onnx_calls import asking_onnx

_WINDOWS = ("HannWindow", "HammingWindow", "BlackmanWindow")
_RESIZES = ("Resize", "Upsample")
GROWS = frozenset(
    ("Expand", "Tile", "Pad", "Range", "OneHot", "EyeLike", "MelWeightMatrix", "DFT", *_RESIZES, *_WINDOWS)
)
"""What makes large outputs of small inputs."""
_LIST = 1024  # integers at most that may be lengths
Array = NDArray[Any]


def elements(node: Node, read: Callable[[str], Array]) -> int | None:
    """How many elements the first output has; None for an operator whose output is about as large as its inputs, and
    for inputs that make no sense (computing it will say so).

    `read` gives the value of an input.
    """
    rule, whole = _SIZES.get(node.op), _NODES.get(node.op)
    if whole is not None:
        try:
            return whole(node, read)
        except (ArithmeticError, ValueError, TypeError, IndexError):
            return None
    if rule is None or len(node.inputs) < rule[0] or not all(node.inputs[: rule[0]]):
        return None
    try:
        return int(rule[1](*map(read, node.inputs[: rule[0]])))
    except (ArithmeticError, ValueError, TypeError, IndexError):
        return None


def inferred_size(model: ModelProto, feeds: Mapping[str, Array]) -> int:
    """How many elements the first output of a model has for these inputs, as far as onnx can tell without running it;
    lengths that it cannot tell count as 1."""
    known = ModelProto()
    known.CopyFrom(model)
    for value in known.graph.input:
        array = feeds[value.name]
        value.CopyFrom(make_tensor_value_info(value.name, np_dtype_to_tensor_dtype(array.dtype), array.shape))
        if array.dtype.kind in "iu" and array.size <= _LIST:
            known.graph.initializer.append(from_array(array, value.name))
    try:
        with asking_onnx():
            found = infer_shapes(known, check_type=False, strict_mode=False).graph.output[0].type.tensor_type.shape.dim
    except ExecutionError:
        return 0  # computing it will say so
    return math.prod(dim.dim_value for dim in found if dim.HasField("dim_value"))


def _product(lengths: Any) -> int:
    return math.prod(max(0, int(x)) for x in np.ravel(lengths))


def _expanded(data: Array, shape: Array) -> int:
    lengths = zip_longest(reversed(data.shape), reversed(np.ravel(shape)), fillvalue=1)
    return math.prod(max(int(a), int(b)) if a and b else 0 for a, b in lengths)


def _padded(data: Array, pads: Array) -> int:
    lengths = [int(x) for x in np.ravel(pads)]
    if len(lengths) != 2 * data.ndim:  # of some axes only
        return _product(data.shape) * math.prod(1 + abs(x) for x in lengths)
    return math.prod(max(0, n + lengths[i] + lengths[i + data.ndim]) for i, n in enumerate(data.shape))


def _counted(start: Array, stop: Array, step: Array) -> int:
    return max(0, math.ceil((float(stop) - float(start)) / float(step)))


def _resized(node: Node, read: Callable[[str], Array]) -> int:
    """Resize (x, roi, scales, sizes), before version 11 and as Upsample (x, scales), at last with a list of scales. At
    most so many where the aspect ratio is kept."""
    given = [*node.inputs, "", "", ""]
    lengths = list(read(given[0]).shape)
    axes = [int(axis) for axis in node.attrs.get("axes", range(len(lengths)))]
    if given[3]:
        sizes = [int(x) for x in np.ravel(read(given[3]))]
        ratios = [size / max(1, lengths[axis]) for axis, size in zip(axes, sizes, strict=True)]
        if node.attrs.get("keep_aspect_ratio_policy", b"stretch") not in (b"stretch", "stretch"):
            ratios = [max(ratios)] * len(ratios)
    else:
        name = given[2] or given[1]
        ratios = [float(x) for x in np.ravel(read(name) if name else node.attrs["scales"])]
    for axis, ratio in zip(axes, ratios, strict=True):
        lengths[axis] = math.floor(lengths[axis] * ratio + 1e-6)
    return _product(lengths)


def _transformed(node: Node, read: Callable[[str], Array]) -> int:
    """DFT (x, length, axis): real and imaginary parts last."""
    given = [*node.inputs, "", ""]
    lengths = list(read(given[0]).shape)
    axis = int(read(given[2])) if given[2] else int(node.attrs.get("axis", 1 if node.version < 20 else -2))
    length = int(read(given[1])) if given[1] else lengths[axis]
    lengths[axis] = length // 2 + 1 if node.attrs.get("onesided", 0) else length
    return _product([*lengths[:-1], 2])


_NODES: Mapping[str, Callable[[Node, Callable[[str], Array]], int]] = {
    **dict.fromkeys(_RESIZES, _resized), "DFT": _transformed
}  # fmt: skip
_SIZES: Mapping[str, tuple[int, Callable[..., int]]] = {
    "ConstantOfShape": (1, _product),
    "Expand": (2, _expanded),
    "Tile": (2, lambda data, repeats: data.size * _product(repeats)),
    "Pad": (2, _padded),
    "Range": (3, _counted),
    "OneHot": (2, lambda indices, depth: indices.size * _product(depth)),
    "MelWeightMatrix": (2, lambda bins, length: _product(bins) * (_product(length) // 2 + 1)),
    **dict.fromkeys(_WINDOWS, (1, _product)),
}
