"""Nodes that are linear in one input: their inputs as rows of a matrix, their weights as a matrix beside it.

y = x W' + b for every row x of the patches (a kernel window of a convolution with all its channels, or a vector) and
the row y of outputs. Convolutions with groups are several such products side by side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

from .conv_windows import Windows, windows
from .quantized.packing import MICROSOFT, NBITS

RECURRENT = ("LSTM", "GRU", "RNN")

Array = NDArray[Any]
WEIGHTS: Mapping[str, tuple[int, int | None]] = {
    "Conv": (1, 2), "ConvTranspose": (1, 2), "Gemm": (1, 2), "MatMul": (1, None), "ConvInteger": (1, None),
    "MatMulInteger": (1, None), "QLinearConv": (3, 8), "QLinearMatMul": (3, None), "QGemm": (3, 6),
    "DynamicQuantizeMatMul": (1, 4), "MatMulIntegerToFloat": (1, 6), "FusedConv": (1, 2), "FusedGemm": (1, 2),
    "FusedMatMul": (1, None), "MatMulNBits": (1, 5), "DeformConv": (1, 3), "CausalConvWithState": (1, 2),
}  # fmt: skip
"""Which inputs of an operator are the weight, and the bias if it has one; input 0 is what they are applied to."""


@dataclass(frozen=True)
class Linear:
    """A Conv, ConvTranspose, Gemm or MatMul node with constant weights.

    `groups` products side by side, each from `inputs` (channels per group) times `window` (kernel positions) features
    to `outputs` (per group). `x`, `y`, `weight`, `bias` name tensors ('' for no bias); `windows` is the geometry of a
    convolution; `transposed` tells that the weight of a product is [outputs, inputs].
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
    windows: Windows | None = None
    transposed: bool = False

    @property
    def axis(self) -> int:
        """Where the channels are in its input and output."""
        return -1 if self.windows is None else 1

    @property
    def features(self) -> int:
        """Length of a row of patches, per group."""
        return self.inputs * self.window

    def matrix(self, weight: Array) -> Array:
        """The weight tensor as [groups, outputs, features]."""
        if self.op == "Conv":
            return weight.reshape(self.groups, self.outputs, self.features)
        if self.op == "ConvTranspose":
            apart = weight.reshape(self.groups, self.inputs, self.outputs, self.window)
            return apart.swapaxes(1, 2).reshape(self.groups, self.outputs, self.features)
        return (weight if self.transposed else weight.T)[None]

    def tensor(self, matrix: Array, shape: Sequence[int]) -> Array:
        """The inverse of `matrix`, for a tensor of `shape`."""
        if self.op == "Conv":
            return matrix.reshape(shape)
        if self.op == "ConvTranspose":
            apart = matrix.reshape(self.groups, self.outputs, self.inputs, self.window).swapaxes(1, 2)
            return np.ascontiguousarray(apart.reshape(shape))
        return np.ascontiguousarray(matrix[0] if self.transposed else matrix[0].T)

    def positions(self, y: Array) -> int:
        """How many rows a tensor of outputs holds."""
        channels = self.groups * self.outputs
        return y.size // channels if channels else 0

    def rows(self, y: Array, chosen: NDArray[np.int64] | None) -> Array:
        """Outputs (or anything of their shape) as [rows, groups * outputs], all or the `chosen` ones."""
        channels = self.groups * self.outputs
        if self.windows is None:
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
        if self.windows is None:
            flat = x.reshape(-1, self.inputs)
            return (flat if chosen is None else flat[chosen])[:, None, :]
        look = self.windows.gather if self.op == "ConvTranspose" else self.windows.slide
        return look(x, y_shape[2:], chosen).reshape(-1, self.groups, self.features)


def linear(node: NodeProto, weight_shape: Sequence[int] | None) -> Linear | None:
    """The node as a `Linear`, or None if it is none whose second input is the weight."""
    attrs: dict[str, Any] = {a.name: helper.get_attribute_value(a) for a in node.attribute if not a.ref_attr_name}
    packed, fused = ((node.domain, node.op_type) == (MICROSOFT, name) for name in (NBITS, "FusedMatMul"))
    if not (packed or fused or node.domain in ("", "ai.onnx")) or len(node.input) < 2 or not weight_shape:
        return None
    slot = WEIGHTS.get(node.op_type, (1, None))[1] or 2
    bias = node.input[slot] if len(node.input) > slot else ""
    x, y, weight = node.input[0], node.output[0], node.input[1]
    if node.op_type in ("Conv", "ConvTranspose") and len(weight_shape) >= 3:
        group, kernel = int(attrs.get("group", 1)), tuple(weight_shape[2:])
        reads, makes = weight_shape[1], weight_shape[0] // group
        if node.op_type == "ConvTranspose":
            reads, makes = makes, reads
        return Linear(
            node.op_type, x, y, weight, bias, group, reads, makes, math.prod(kernel), windows(kernel, attrs)
        )  # fmt: skip
    if len(weight_shape) != 2:
        return None
    if packed:
        return Linear(NBITS, x, y, weight, bias, 1, weight_shape[1], weight_shape[0], 1, transposed=True)
    if node.op_type == "MatMul":
        return Linear("MatMul", x, y, weight, "", 1, weight_shape[0], weight_shape[1], 1)
    plain = not attrs.get("transA", 0) and attrs.get("alpha", 1.0) == 1.0 and attrs.get("beta", 1.0) == 1.0
    if plain and (node.op_type == "Gemm" or (fused and not (attrs.get("transBatchA") or attrs.get("transBatchB")))):
        flip = bool(attrs.get("transB", 0))
        inputs, outputs = (weight_shape[1], weight_shape[0]) if flip else (weight_shape[0], weight_shape[1])
        kind, bias = ("MatMul", "") if fused else ("Gemm", bias)
        return Linear(kind, x, y, weight, bias, 1, inputs, outputs, 1, transposed=flip)
    return None
