"""Reshape targets that a graph computes of Shape, as exported attention has them: heads are followed, and still fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import oracles_hold
from onnx import ModelProto, TensorProto, helper, numpy_helper

HEADS, SIZE, WIDTH, WINDOW = 4, 8, 32, 4
Number = str | int


class Net:
    """A network in the words of PyTorch; `floor`: how an exporter writes a // b."""

    def __init__(self, floor: str = "div") -> None:
        self.floor, self.rng = floor, np.random.default_rng(0)
        self.nodes: list[Any] = []
        self.weights: list[TensorProto] = []

    def op(self, op: str, *inputs: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [f"t{len(self.nodes)}"], **attributes))
        return f"t{len(self.nodes) - 1}"

    def constant(self, value: Any, dtype: Any = np.int64) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype), f"w{len(self.weights)}"))
        return self.weights[-1].name

    def linear(self, x: str, width: int, out: int) -> str:
        weight = self.constant(self.rng.standard_normal((width, out)) / np.sqrt(width), np.float32)
        return self.op("Add", self.op("MatMul", x, weight), self.constant(self.rng.standard_normal(out), np.float32))

    def normed(self, x: str) -> str:
        return self.op("LayerNormalization", x, self.constant(self.rng.uniform(0.5, 1.5, WIDTH), np.float32), axis=-1)

    def size(self, x: str, axis: int) -> str:
        return self.op("Gather", self.op("Shape", x), self.constant(axis), axis=0)

    def list(self, *numbers: Number) -> str:
        pieces = [
            self.constant([n]) if isinstance(n, int) else self.op("Unsqueeze", n, self.constant([0])) for n in numbers
        ]
        return self.op("Concat", *pieces, axis=0)

    def view(self, x: str, *target: Number) -> str:
        return self.op("Reshape", x, self.list(*target))

    def turned(self, x: str, *perm: int) -> str:
        return self.op("Transpose", x, perm=perm)

    def times(self, a: str, b: Number) -> str:
        return self.op("Mul", a, b if isinstance(b, str) else self.constant(b))

    def over(self, a: str, b: int) -> str:
        divisor = self.constant(b)
        quotient = self.op("Div", a, divisor)
        if self.floor == "div":
            return quotient
        if self.floor == "float":
            reals = [self.op("Cast", number, to=TensorProto.FLOAT) for number in (a, divisor)]
            return self.op("Cast", self.op("Floor", self.op("Div", *reals)), to=TensorProto.INT64)
        zero = self.constant(0)
        signs = self.op("Xor", self.op("Less", a, zero), self.op("Less", divisor, zero))
        rest = self.op("Sub", a, self.op("Mul", quotient, divisor))
        down = self.op("And", signs, self.op("Not", self.op("Equal", rest, zero)))
        return self.op("Sub", quotient, self.op("Cast", down, to=TensorProto.INT64))

    def attended(self, q: str, k: str, v: str) -> str:
        scores = self.op("Mul", self.op("MatMul", q, k), self.constant(SIZE**-0.5, np.float32))
        return self.op("MatMul", self.op("Softmax", scores, axis=-1), v)

    def thirds(self, x: str, axis: int) -> list[str]:
        return [self.op("Gather", x, self.constant(i), axis=axis) for i in range(3)]

    def model(self, added: str, shape: list[str | int]) -> ModelProto:
        y = self.linear(self.op("Relu", self.linear(self.op("Add", "x", added), WIDTH, 12)), 12, 5)
        ends = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
            for name, dims in (("x", shape), (y, [*shape[:-1], 5]))
        ]
        graph = helper.make_graph(self.nodes, "net", ends[:1], ends[1:], self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def bloom(n: Net, batch: str | int, length: str | int) -> ModelProto:
    """The batch is what is left of (batch * heads) / heads, where heads are merged."""
    f = n.linear(n.normed("x"), WIDTH, 3 * WIDTH)
    q, k, v = n.thirds(n.view(f, n.size(f, 0), n.size(f, 1), HEADS, 3, SIZE), 3)
    rows, tokens = n.times(n.size(q, 0), HEADS), n.size(q, 1)
    q, v = (n.view(n.turned(one, 0, 2, 1, 3), rows, tokens, SIZE) for one in (q, v))
    c = n.attended(q, n.view(n.turned(k, 0, 2, 3, 1), rows, SIZE, tokens), v)
    count = n.over(n.size(c, 0), HEADS)
    c = n.turned(n.view(c, count, HEADS, n.size(c, 1), SIZE), 0, 2, 1, 3)
    return n.model(n.linear(n.view(c, count, tokens, WIDTH), WIDTH, WIDTH), [batch, length, WIDTH])


def deberta(n: Net, batch: str | int, length: str | int) -> ModelProto:
    """The size of a head is that of the split tensor; batch and heads are one axis."""
    x = n.normed("x")

    def split(y: str) -> str:
        y = n.view(y, n.size(y, 0), n.size(y, 1), HEADS, -1)
        return n.view(n.turned(y, 0, 2, 1, 3), -1, n.size(y, 1), n.size(y, -1))

    q, k, v = (split(n.linear(x, WIDTH, WIDTH)) for _ in range(3))
    c = n.attended(q, n.turned(k, 0, 2, 1), v)
    c = n.turned(n.view(c, -1, HEADS, n.size(c, -2), n.size(c, -1)), 0, 2, 1, 3)
    return n.model(n.linear(n.view(c, n.size(c, 0), n.size(c, 1), -1), WIDTH, WIDTH), [batch, length, WIDTH])


def timm(n: Net, batch: str | int, length: str | int) -> ModelProto:
    """B, N, C = x.shape; C // heads is the size of a head, although C is the width of something else that shrinks."""
    x = n.op("Relu", n.linear("x", WIDTH, WIDTH))
    rows, tokens, width = (n.size(x, axis) for axis in range(3))
    qkv = n.view(n.linear(x, WIDTH, 3 * WIDTH), rows, tokens, 3, HEADS, n.over(width, HEADS))
    q, k, v = n.thirds(n.turned(qkv, 2, 0, 3, 1, 4), 0)
    c = n.turned(n.attended(q, n.turned(k, 0, 1, 3, 2), v), 0, 2, 1, 3)
    return n.model(n.linear(n.view(c, rows, tokens, width), WIDTH, WIDTH), [batch, length, WIDTH])


def twins(n: Net, batch: str | int, side: str | int) -> ModelProto:
    """Windows of 4 of an image that is padded to a multiple of that, and cut again."""
    x = n.normed("x")
    rests = [
        n.op("Mod", n.op("Sub", n.constant(WINDOW), n.op("Mod", n.size(x, axis), n.constant(WINDOW))),
             n.constant(WINDOW))
        for axis in (1, 2)
    ]  # fmt: skip
    table = n.op("Reshape", n.list(0, 0, 0, rests[1], 0, rests[0], 0, 0), n.constant([-1, 2]))
    back = n.op("Slice", table, n.constant([-1]), n.constant([-(2**63) + 1]), n.constant([0]), n.constant([-1]))
    x = n.op("Pad", x, n.op("Reshape", n.turned(back, 1, 0), n.constant([-1])))
    rows, height, wide, width = (n.size(x, axis) for axis in range(4))
    high, across = n.over(height, WINDOW), n.over(wide, WINDOW)
    x = n.turned(n.view(x, rows, high, WINDOW, across, WINDOW, width), 0, 1, 3, 2, 4, 5)
    qkv = n.view(n.linear(x, WIDTH, 3 * WIDTH), rows, n.op("Mul", high, across), -1, 3, HEADS, n.over(width, HEADS))
    q, k, v = n.thirds(n.turned(qkv, 3, 0, 1, 4, 2, 5), 0)
    c = n.turned(n.attended(q, n.turned(k, 0, 1, 2, 4, 3), v), 0, 1, 3, 2, 4)
    c = n.turned(n.view(c, rows, high, across, WINDOW, WINDOW, width), 0, 1, 3, 2, 4, 5)
    c = n.view(c, rows, n.times(high, WINDOW), n.times(across, WINDOW), width)
    for axis in (1, 2):
        end = n.op("Unsqueeze", n.size("x", axis), n.constant([0]))
        c = n.op("Slice", c, n.constant([0]), end, n.constant([axis]))
    return n.model(n.linear(c, WIDTH, WIDTH), [batch, side, side if side != "side" else "other", WIDTH])


@pytest.mark.parametrize(("batch", "length"), [("batch", 6), ("batch", "side"), (1, 6), (2, "side")])
@pytest.mark.parametrize(
    ("net", "groups"),
    [(bloom, [4, 12]), (deberta, [4, 12]), (timm, [WIDTH, 4, 12]), (twins, [4, 12])],
    ids=lambda x: getattr(x, "__name__", None),
)
def test_heads_are_followed(
    net: Callable[..., ModelProto], groups: list[int], batch: str | int, length: str | int
) -> None:
    proto = net(Net(), batch, length)
    fed = [d.dim_value or (2 if d.dim_param == "batch" else 6) for d in proto.graph.input[0].type.tensor_type.shape.dim]
    oracles_hold(proto, {"x": fed} if "side" in (batch, length) else None, groups=groups)


@pytest.mark.parametrize("floor", ["float", "torch"])
@pytest.mark.parametrize(("net", "groups"), [(bloom, [4, 12]), (timm, [WIDTH, 4, 12])])
def test_however_a_quotient_is_written(net: Callable[..., ModelProto], groups: list[int], floor: str) -> None:
    """In floats and rounded down, or in integers and put right for negative ones."""
    oracles_hold(net(Net(floor), "batch", 6), groups=groups)
