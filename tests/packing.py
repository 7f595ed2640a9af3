"""Weights of test models stored as integers, in every way that quantisers do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from helpers import Case
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

Array = NDArray[Any]
X_SCALE, X_ZERO = 0.05, 128
"""Of the quantised activations of test models, as uint8."""


@dataclass(frozen=True)
class Pack:
    """How a weight is stored: scales along `axis` (None: one), zero points `zero`, integers up to `most`.

    With `spare`, sums of two integers still fit: one integer is the largest, those beside it are 0, all others are
    below half of it. Then folding duplicates is exact, and error shows mistakes alone. `even`: all scales are equal
    (those along an axis that is summed). `of`: a bias, its scale is that of this weight times that of the activations.
    """

    axis: int | None = 0
    dtype: Any = np.int8
    zero: int | tuple[int, ...] = 0
    most: int = 127
    spare: bool = True
    of: str = ""
    even: bool = False

    def numbers(self, array: Array, scale: Array | None = None) -> tuple[Array, Array, Array]:
        """(integers, scale, zero point) of float values."""
        axes = tuple(axis for axis in range(array.ndim) if axis != self.axis)
        if scale is None:
            limit = 60 * self.most // 127 if self.spare else self.most
            scale = np.abs(array).max(axis=axes) / limit
            scale = np.full_like(scale, scale.max()) if self.even else scale
        scale = scale.astype(np.float32)
        whole = np.rint(array / self._across(scale, array.ndim)).astype(np.int64)
        if self.spare and not self.of and array.ndim > 1:
            whole[0], whole[:, 0] = 0, 0
            whole.flat[0] = self.most
        zero = np.broadcast_to(np.array(self.zero), scale.shape)
        return whole + self._across(zero, array.ndim), scale, zero

    def _across(self, numbers: Array, rank: int) -> Array:
        return numbers.reshape([-1 if axis == self.axis else 1 for axis in range(rank)])


@dataclass(frozen=True)
class Packed(Case):
    """A case whose weights in `packs` are quantised. A node that reads weight w gets it from a DequantizeLinear in
    front; one that reads w_q, w_s, w_z (integers, scale, zero point) gets those. Activations: scale s, zero point z."""

    packs: Mapping[str, Pack] = field(default_factory=dict, repr=False)

    def model(self, batch: str | int = "N") -> ModelProto:
        proto = super().model(batch)
        read = {name for node in proto.graph.node for name in node.input}
        arrays = {"s": np.float32(X_SCALE), "z": np.uint8(X_ZERO)}
        pack(proto, self.packs)
        add(proto, {name: np.asarray(array) for name, array in arrays.items() if name in read})
        inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
        del proto.graph.output[:]
        proto.graph.output.extend(inferred.graph.output)
        return proto


def pack(proto: ModelProto, packs: Mapping[str, Pack]) -> ModelProto:
    """The float initializers named in `packs` stored as integers, in place."""
    read = {name for node in proto.graph.node for name in node.input}
    floats = {t.name: t for t in proto.graph.initializer}
    scales: dict[str, Array] = {}
    front = []
    for name, how in packs.items():
        array = numpy_helper.to_array(floats[name])
        step = np.float32(X_SCALE) * scales[how.of] if how.of else None
        integers, scales[name], zero = how.numbers(array, step)
        proto.graph.initializer.remove(floats[name])
        dtype = np.int32 if how.of else how.dtype
        parts = {f"{name}_q": integers.astype(dtype), f"{name}_s": scales[name], f"{name}_z": zero.astype(dtype)}
        if name in read:
            axis = {} if how.axis is None else {"axis": how.axis}
            front.append(helper.make_node("DequantizeLinear", list(parts), [name], f"{name}_dequantize", **axis))
            add(proto, parts)
        else:
            add(proto, {part: value for part, value in parts.items() if part in read})
    rest = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([*front, *rest])
    return proto


def add(proto: ModelProto, arrays: Mapping[str, Array]) -> None:
    """Initializers."""
    proto.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in arrays.items())


def integers(proto: ModelProto) -> dict[str, Array]:
    """The initializers that are integers or go with them."""
    return {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer if t.name[-2:] in ("_q", "_s", "_z")}


def is_integer(tensor: TensorProto) -> bool:
    """Whether a tensor holds 8 bits."""
    return tensor.data_type in (TensorProto.INT8, TensorProto.UINT8)
