"""Weights of test models stored as integers, in every way that quantizers do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from helpers import Case
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from onnxfold.model.quantized.packing import PackedLayout, join

Array = NDArray[Any]
X_SCALE, X_ZERO = 0.05, 128
"""Of the quantized activations of test models, as uint8."""


@dataclass(frozen=True)
class Pack:
    """How a weight is stored: scales along `axis` (None: one), zero points `zero`, integers up to `most`. With `block`,
    scales are of so many numbers along `axis`, at every position of the other axes.

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
    block: int = 0

    def numbers(self, array: Array, scale: Array | None = None) -> tuple[Array, Array, Array]:
        """(integers, scale, zero point) of float values."""
        axes = tuple(axis for axis in range(array.ndim) if axis != self.axis)
        if scale is None:
            limit = 60 * self.most // 127 if self.spare else self.most
            most = np.maximum.reduceat(np.abs(array), self._starts(array), self.axis) if self.block else None
            scale = (np.abs(array).max(axis=axes) if most is None else most) / limit
            scale = np.full_like(scale, scale.max()) if self.even else scale
        scale = scale.astype(np.float32)
        whole = np.rint(array / self._across(scale, array)).astype(np.int64)
        if self.spare and not self.of and array.ndim > 1:
            whole[0], whole[:, 0] = 0, 0
            whole.flat[0] = self.most
        zero = np.broadcast_to(np.array(self.zero), scale.shape)
        return whole + self._across(zero, array), scale, zero

    def _starts(self, array: Array) -> Array:
        return np.arange(0, array.shape[self.axis or 0], self.block)

    def _across(self, numbers: Array, array: Array) -> Array:
        if self.block and self.axis is not None:
            return np.take(np.repeat(numbers, self.block, self.axis), np.arange(array.shape[self.axis]), self.axis)
        return numbers.reshape([-1 if axis == self.axis else 1 for axis in range(array.ndim)])


@dataclass(frozen=True)
class Bits:
    """How MatMulNBits stores a weight [N, K]: in blocks of `block` numbers of `bits`; with zero points (no "": none,
    "packed", "flat": packed, on one axis as old models have it, "float": not packed), scales of `dtype`; blocks of
    neighbors, or `mixed` by a g_idx. `spare`: as with `Pack`, with equal scales for all blocks of a row.
    """

    bits: int = 4
    block: int = 16
    zeros: str = ""
    dtype: Any = np.float32
    mixed: bool = False
    spare: bool = True

    def parts(self, array: Array) -> dict[str, Array]:
        """Tensors by the endings of their names: q, s, z, g; those that there are."""
        (n, k), top, middle = array.shape, 2**self.bits - 1, 2 ** (self.bits - 1)
        how = PackedLayout(n, k, self.bits, self.block)
        groups = np.arange(k) // self.block
        if self.mixed:
            groups = np.random.default_rng(0).permutation(groups)
        inside = np.where(groups[:, None] == np.arange(how.blocks), 1.0, 0.0)  # [k, blocks]
        size = (np.abs(array)[:, :, None] * inside).max(axis=1)
        if self.spare:
            size = np.broadcast_to(size.max(axis=1, keepdims=True), size.shape)
        scale = (size / (middle // 2 - 1 if self.spare else middle - 1)).astype(self.dtype)
        shift = np.arange(n * how.blocks).reshape(n, -1) % 2 if self.zeros else 0
        zero = np.broadcast_to(middle - shift, scale.shape)
        whole = np.rint(array / np.where(scale == 0, 1, scale).astype(np.float64)[:, groups])
        parts = {"q": how.held(np.clip(whole + zero[:, groups], 0, top)), "s": scale}
        if self.zeros:
            packed = join(zero, self.bits)
            parts["z"] = {"packed": packed, "flat": packed.ravel(), "float": zero.astype(self.dtype)}[self.zeros]
        return {**parts, **({"g": groups.astype(np.int32)} if self.mixed else {})}


@dataclass(frozen=True)
class Packed(Case):
    """A case whose weights in `packs` are quantized. A node that reads weight w gets it from a DequantizeLinear in
    front; one that reads w_q, w_s, w_z (integers, scale, zero point) gets those. Activations: scale s, zero point z."""

    packs: Mapping[str, Pack | Bits] = field(default_factory=dict, repr=False)

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


def pack(proto: ModelProto, packs: Mapping[str, Pack | Bits]) -> ModelProto:
    """The float initializers named in `packs` stored as integers, in place."""
    read = {name for node in proto.graph.node for name in node.input}
    floats = {t.name: t for t in proto.graph.initializer}
    scales: dict[str, Array] = {}
    front = []
    for name, how in packs.items():
        array = numpy_helper.to_array(floats[name])
        if isinstance(how, Bits):
            proto.graph.initializer.remove(floats[name])
            add(proto, {f"{name}_{part}": value for part, value in how.parts(array).items()})
            continue
        step = np.float32(X_SCALE) * scales[how.of] if how.of else None
        integers, scales[name], zero = how.numbers(array, step)
        proto.graph.initializer.remove(floats[name])
        dtype = np.int32 if how.of else how.dtype
        parts = {f"{name}_q": integers.astype(dtype), f"{name}_s": scales[name], f"{name}_z": zero.astype(dtype)}
        if name in read:
            axis = {} if how.axis is None else {"axis": how.axis}
            axis |= {"block_size": how.block} if how.block else {}
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
    parts = ("_q", "_s", "_z", "_g")
    return {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer if t.name[-2:] in parts}


def is_integer(tensor: TensorProto) -> bool:
    """Whether a tensor holds 8 bits."""
    return tensor.data_type in (TensorProto.INT8, TensorProto.UINT8)


def with_nbits(proto: ModelProto, how: Bits) -> int:
    """Every MatMul by a matrix that nothing else uses becomes MatMulNBits, in place. Returns how many did."""
    tensors = {t.name: t for t in proto.graph.initializer if len(t.dims) == 2}
    uses = [name for node in proto.graph.node for name in node.input]
    done = 0
    for node in proto.graph.node:
        name = node.input[1] if node.op_type == "MatMul" and not node.domain else ""
        if name not in tensors or uses.count(name) > 1:
            continue
        weight = numpy_helper.to_array(tensors[name]).astype(np.float32).T
        parts = {f"{name}_{part}": value for part, value in how.parts(weight).items()}
        add(proto, parts)
        proto.graph.initializer.remove(tensors[name])
        n, k = weight.shape
        given = [node.input[0], *parts]
        new = helper.make_node("MatMulNBits", given, list(node.output), node.name, domain="com.microsoft",
                               N=n, K=k, bits=how.bits, block_size=how.block)  # fmt: skip
        node.CopyFrom(new)
        done += 1
    if done and all(o.domain != "com.microsoft" for o in proto.opset_import):
        proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return done
