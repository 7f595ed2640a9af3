"""A network whose weights are stored in few bits and in blocks (MatMulNBits)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper
from packing import Bits, Packed

from onnxfold.analysis.analyze import analyze
from onnxfold.model.model import load
from onnxfold.runtime.session import Session

Array = NDArray[Any]
K, HIDDEN, N = 24, 72, 12  # blocks of 16: one and a half, four and a half
FLOATS = "(float[N,24] x) => (float[N,12] y) { h = Gemm<transB=1>(x, w, b) a = Relu(h) y = Gemm<transB=1>(a, v, c) }"
SHAPES = {"w": (HIDDEN, K), "b": (HIDDEN,), "v": (N, HIDDEN), "c": (N,)}


def net(how: Bits, name: str = "mlp") -> ModelProto:
    """72 hidden units between MatMulNBits."""
    zero = "{0}_z" if how.zeros else ""
    kind = {np.float32: "float", np.float16: "float16"}[how.dtype]
    said = f"bits={how.bits}, block_size={how.block}"
    w, v = (f"{x}_q, {x}_s, {zero.format(x)}, {f'{x}_g' if how.mixed else ''}" for x in "wv")
    text = f"""({kind}[N,24] x) => ({kind}[N,12] y) {{
        h = com.microsoft.MatMulNBits<K=24, N=72, {said}>(x, {w}, b) a = Relu(h)
        y = com.microsoft.MatMulNBits<K=72, N=12, {said}>(a, {v}, c) }}"""
    proto = Packed(name, text, SHAPES, packs={"w": how, "v": how}).model()
    for tensor in proto.graph.initializer:
        if tensor.name in "bc":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(how.dtype), tensor.name))
    return proto


def random(bits: int = 4, zeros: str = "packed", **more: Any) -> Bits:
    return Bits(bits, zeros=zeros, spare=False, **more)


def group_of(proto: ModelProto) -> str:
    (group,) = analyze(load(proto)).groups
    return group.name


def some_merged() -> NDArray[np.int64]:
    """Channels 0 to 3 are merged two by two, 4 to 11 into one; the other 60 stay alone."""
    return np.concatenate([[0, 0, 1, 1], np.full(8, 2), 3 + np.arange(60)])


def run(proto: ModelProto, x: Array) -> Array:
    return np.asarray(Session(proto.SerializeToString()).run({"x": x})[0]).astype(np.float64)


def inputs(rows: int = 64, dtype: Any = np.float32) -> Array:
    return np.random.default_rng(1).standard_normal((rows, K)).astype(dtype)


def distance(a: Array, b: Array) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))
