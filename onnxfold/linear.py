"""Nodes that are linear in one input: their inputs as rows of a matrix, their weights as a matrix beside it.

y = x W' + b for every row x of the patches (a kernel window of a convolution with all its channels, or a vector) and
the row y of outputs. Convolutions with groups are several such products side by side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from onnx import NodeProto, helper

Array = NDArray[Any]


@dataclass(frozen=True)
class Linear:
    """A Conv, Gemm or MatMul node with constant weights.

    `groups` products side by side, each from `inputs` (channels per group) times `window` (kernel positions) features
    to `outputs` (per group). `x`, `y`, `weight`, `bias` name tensors ('' for no bias).
    """

    op: str
    x: str
    y: str
    weight: str
    bias: str
    groups: int
    inputs: int
    outputs: int
    window: int
    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    auto_pad: str = ""
    transposed: bool = False

    @property
    def axis(self) -> int:
        """Where the channels are in its input and output."""
        return 1 if self.op == "Conv" else -1

    @property
    def features(self) -> int:
        """Length of a row of patches, per group."""
        return self.inputs * self.window

    def matrix(self, weight: Array) -> Array:
        """The weight tensor as [groups, outputs, features]."""
        if self.op == "Conv":
            return weight.reshape(self.groups, self.outputs, self.features)
        return (weight if self.transposed else weight.T)[None]

    def tensor(self, matrix: Array, shape: Sequence[int]) -> Array:
        """The inverse of `matrix`, for a tensor of `shape`."""
        if self.op == "Conv":
            return matrix.reshape(shape)
        return np.ascontiguousarray(matrix[0] if self.transposed else matrix[0].T)

    def positions(self, y: Array) -> int:
        """How many rows a tensor of outputs holds."""
        channels = self.groups * self.outputs
        return y.size // channels if channels else 0

    def rows(self, y: Array, chosen: NDArray[np.int64] | None) -> Array:
        """Outputs (or anything of their shape) as [rows, groups * outputs], all or the `chosen` ones."""
        channels = self.groups * self.outputs
        if self.op != "Conv":
            flat = y.reshape(-1, channels)
            return flat if chosen is None else flat[chosen]
        places = math.prod(y.shape[2:])
        maps = y.reshape(-1, channels, places)
        if chosen is None:
            return maps.transpose(0, 2, 1).reshape(-1, channels)
        sample, place = np.divmod(chosen, places)
        return maps[sample, :, place]

    def patches(self, x: Array, y_shape: Sequence[int], chosen: NDArray[np.int64] | None) -> Array:
        """Inputs as [rows, groups, features], row for row with `rows`."""
        if self.op != "Conv":
            flat = x.reshape(-1, self.inputs)
            return (flat if chosen is None else flat[chosen])[:, None, :]
        spatial = len(self.kernel)
        padded = np.pad(x, [(0, 0), (0, 0), *self._padding(x.shape[2:], y_shape[2:])])
        reach = tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))
        windows = sliding_window_view(padded, reach, axis=tuple(range(2, 2 + spatial)))
        step = tuple(slice(None, n * s, s) for n, s in zip(y_shape[2:], self.strides, strict=True))
        windows = windows[(slice(None), slice(None), *step, *(slice(None, None, d) for d in self.dilations))]
        places = math.prod(y_shape[2:])
        if chosen is None:
            order = (0, *range(2, 2 + spatial), 1, *range(2 + spatial, 2 + 2 * spatial))
            taken = windows.transpose(order)
        else:
            sample, place = np.divmod(chosen, places)
            where = np.unravel_index(place, tuple(y_shape[2:]))
            at: tuple[Any, ...] = (sample, slice(None), *where)
            taken = windows[at]
        return taken.reshape(-1, self.groups, self.features)

    def _padding(self, size: Sequence[int], out: Sequence[int]) -> list[tuple[int, int]]:
        n = len(self.kernel)
        if self.auto_pad not in ("SAME_UPPER", "SAME_LOWER"):
            return [(self.pads[i], self.pads[n + i]) for i in range(n)]
        result = []
        for i in range(n):
            total = max(0, (out[i] - 1) * self.strides[i] + (self.kernel[i] - 1) * self.dilations[i] + 1 - size[i])
            small, large = total // 2, total - total // 2
            result.append((small, large) if self.auto_pad == "SAME_UPPER" else (large, small))
        return result


def linear(node: NodeProto, weight_shape: Sequence[int] | None) -> Linear | None:
    """The node as a `Linear`, or None if it is none whose second input is the weight."""
    attrs: dict[str, Any] = {a.name: helper.get_attribute_value(a) for a in node.attribute if not a.ref_attr_name}
    if node.domain not in ("", "ai.onnx") or len(node.input) < 2 or not weight_shape:
        return None
    bias = node.input[2] if len(node.input) > 2 else ""
    if node.op_type == "Conv" and len(weight_shape) >= 3:
        n, group = len(weight_shape) - 2, int(attrs.get("group", 1))
        outputs = weight_shape[0] // group
        auto = attrs.get("auto_pad", b"NOTSET")
        kernel = tuple(weight_shape[2:])
        return Linear(
            "Conv", node.input[0], node.output[0], node.input[1], bias, group, weight_shape[1], outputs,
            math.prod(kernel), kernel, tuple(attrs.get("strides", [1] * n)), tuple(attrs.get("pads", [0] * 2 * n)),
            tuple(attrs.get("dilations", [1] * n)), auto.decode() if isinstance(auto, bytes) else str(auto),
        )  # fmt: skip
    if len(weight_shape) != 2:
        return None
    if node.op_type == "MatMul":
        return Linear(
            "MatMul", node.input[0], node.output[0], node.input[1], "", 1, weight_shape[0], weight_shape[1], 1
        )
    plain = not attrs.get("transA", 0) and attrs.get("alpha", 1.0) == 1.0 and attrs.get("beta", 1.0) == 1.0
    if node.op_type == "Gemm" and plain:
        flip = bool(attrs.get("transB", 0))
        inputs, outputs = (weight_shape[1], weight_shape[0]) if flip else (weight_shape[0], weight_shape[1])
        return Linear(
            "Gemm", node.input[0], node.output[0], node.input[1], bias, 1, inputs, outputs, 1, transposed=flip
        )
    return None
