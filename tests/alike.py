"""Residual networks for the tests of layers: two blocks of one shape, alike or not."""

from __future__ import annotations

from typing import Any

import numpy as np
from helpers import model
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

WIDTH, INNER = 8, 6
TEXT = """(float[N,3,8,8] x) => (float[N,5] y) {
    h = Conv<pads=[1,1,1,1]>(x, stem) r = Relu(h)
    a1 = Conv<pads=[1,1,1,1]>(r, u1) n1 = BatchNormalization(a1, scale1, beta1, mean1, var1) k1 = Relu(n1)
    c1 = Conv<pads=[1,1,1,1]>(k1, v1) s1 = Add(c1, r) r1 = Relu(s1)
    a2 = Conv<pads=[1,1,1,1]>(r1, u2) n2 = BatchNormalization(a2, scale2, beta2, mean2, var2) k2 = Relu(n2)
    c2 = Conv<pads=[1,1,1,1]>(k2, v2) s2 = Add(c2, r1) r2 = Relu(s2)
    p = GlobalAveragePool(r2) f = Flatten(p) y = Gemm<transB=1>(f, w, b)
}"""
SHAPES = {
    "stem": (WIDTH, 3, 3, 3), "u1": (INNER, WIDTH, 3, 3), "v1": (WIDTH, INNER, 3, 3), "u2": (INNER, WIDTH, 3, 3),
    "v2": (WIDTH, INNER, 3, 3), "w": (5, WIDTH), "b": (5,),
    **{f"{name}{i}": (INNER,) for i in (1, 2) for name in ("scale", "beta", "mean", "var")},
}  # fmt: skip
ORDER = np.array([4, 2, 0, 5, 1, 3])


def two_blocks(**values: NDArray[Any]) -> ModelProto:
    """The network with random weights; those in `values` replaced."""
    return with_values(model(TEXT, SHAPES), **values)


def permuted_copy() -> ModelProto:
    """The second block is the first with its inner channels in another order, normalization included."""
    proto = two_blocks()
    held = weights(proto)
    first = {name: held[f"{name}1"] for name in ("u", "v", "scale", "beta", "mean", "var")}
    moved = {f"{name}2": value[ORDER] for name, value in first.items() if name != "v"}
    return with_values(proto, **moved, v2=first["v"][:, ORDER])


def with_values(proto: ModelProto, **values: NDArray[Any]) -> ModelProto:
    for tensor in proto.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values[tensor.name], np.float32), tensor.name))
    return proto


def weights(proto: ModelProto) -> dict[str, NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def weight_of(proto: ModelProto, output: str) -> str:
    """The weight of the node that makes `output`."""
    return next(node.input[1] for node in proto.graph.node if output in node.output)


def chain(count: int = 4) -> ModelProto:
    """Matrix products of one shape in a row."""
    text = "(float[N,64] x0) => (float[N,64] y) {"
    steps = "".join(f" m{i} = MatMul(x{i}, w{i}) x{i + 1} = Relu(m{i})" for i in range(count))
    return model(f"{text}{steps} y = Identity(x{count}) }}", {f"w{i}": (64, 64) for i in range(count)})
