"""`torch.onnx.export(..., dynamo=False)` of transformers' eager attention: everything decomposed.

Node for node what torch 2.15 writes for transformers 5.23 (tests/test_transformers.py compares with counts of the real
thing), shape arithmetic included. What older versions did is there too: LayerNorm decomposed, tables of cosines.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from .config import Activation, Config, Family
from .experts import mixture
from .layers import Layer, Linear, dotted, packed
from .scoped import LAST, Scoped
from .traced import begin, rows_again
from .weights import Turned


class TorchScript(Scoped):
    """Style DECOMPOSED."""

    def begin(self) -> str:
        return begin(self)

    def linear(self, x: str, linear: Linear) -> str:
        """MatMul and Add, or GPT-2's Conv1D: Gemm on rows."""
        if self.config.family is Family.GPT2:
            return self._conv1d(x, linear)
        y = self.matmul(x, linear)
        return y if linear.bias is None else self.op("Add", self.bias(linear), y, at=linear.path)

    def norm(self, x: str, path: str) -> tuple[str, str]:
        if self.config.family is Family.LLAMA:
            return self._rms(x, path)
        scale = self.builder.weight(f"{dotted(path)}.weight", self.parts.scale(path), (self.config.hidden,))
        shift = self.builder.weight(f"{dotted(path)}.bias", self.parts.shift(path), (self.config.hidden,))
        if self.config.layer_norm_op:
            y = self.op("LayerNormalization", x, scale, shift, at=path, axis=-1, epsilon=self.config.epsilon)
            return y, x
        centered = self.op("Sub", x, self.op("ReduceMean", x, at=path, axes=[-1]), at=path)
        square = self.op("Pow", centered, self.number(2.0, path), at=path)
        mean = self.op("ReduceMean", square, at=path, axes=[-1])
        spread = self.op("Add", mean, self.number(self.config.epsilon, path), at=path)
        y = self.op("Div", centered, self.op("Sqrt", spread, at=path), at=path)
        return self.op("Add", self.op("Mul", y, scale, at=path), shift, at=path), x

    def add_norm(self, branch: str, stream: str, at: str, path: str, first: bool) -> tuple[str, str]:
        turned = self.config.family is Family.LLAMA or (self.config.family is Family.GPT2 and not first)
        total = self.op("Add", *((stream, branch) if turned else (branch, stream)), at=at)
        return self.norm(total, path)

    def attention(self, x: str, of: Layer) -> str:
        c, at = self.config, of.attention
        batch, length = "", ""
        if c.family is not Family.GPT2:
            batch, length = self.length(x, 0, at), self.length(x, 1, at)
        q, k, v = self.projected(x, of)
        merge = c.family is not Family.LLAMA  # PyTorch's second transpose of the keys joins the first
        heads = []
        for each in (q, k, v):
            if c.family is Family.GPT2 and each is not v:
                batch, length = self.length(each, 0, at), self.length(each, 1, at)
            target = self.target(at, batch, length, -1, c.head_dim)
            turn = [0, 2, 3, 1] if merge and each is k else [0, 2, 1, 3]
            heads.append(self.op("Transpose", self.shaped(each, target, at), at=at, perm=turn))
        q, k, v = heads
        if c.family is Family.LLAMA:
            if of.at == "model/layers.0":  # the exporter sees that all layers do the same
                self.cosines, self.sines = self.unsqueezed(self.cosines, at, 1), self.unsqueezed(self.sines, at, 1)
            q, k = self._rotated(q, at), self._rotated(k, at)
            if c.cache:
                k, v = self._remembered(k, v, of)
            k, v = (self._repeated(each, at) if c.heads > c.kv_heads else each for each in (k, v))
            k = self.op("Transpose", k, at=at, perm=[0, 1, 3, 2])
        scores = self.op("Mul", self.op("MatMul", q, k, at=at), self.number(c.head_dim**-0.5, at), at=at)
        if self.mask:
            scores = self.op("Add", scores, self.mask, at=at)
        shares = self.op("Softmax", scores, at=at, axis=-1)
        for _ in range({Family.BERT: 0, Family.GPT2: 1}.get(c.family, 2)):
            shares = self.cast(shares, at)
        y = self.op("Transpose", self.op("MatMul", shares, v, at=at), at=at, perm=[0, 2, 1, 3])
        if c.family is Family.GPT2:
            batch, length = self.length(y, 0, at), self.length(y, 1, at)
        y = self.shaped(y, self.target(at, batch, length, -1), at)
        return self.linear(y, self.parts.output(of))

    def unpacked(self, y: str, widths: Sequence[int], at: str) -> list[str]:
        if self.config.family is Family.GPT2:
            return self.ops("Split", y, self.number(widths, at), at=at, outputs=len(widths), axis=2)
        begins = np.cumsum([0, *widths[:-1]]).tolist()
        return [self.cut(y, at, 2, begin, end) for begin, end in zip(begins, [*begins[1:], int(LAST)], strict=True)]

    def _rotated(self, x: str, at: str) -> str:
        """x cos + [-x2, x1] sin."""
        straight = self.op("Mul", x, self.cosines, at=at)
        half = self.op("Div", self.length(x, 3, at), self.number(2, at), at=at)
        half = self.cast(self.cast(half, at, TensorProto.INT64), at, TensorProto.INT64)
        left, right = self.cut(x, at, 3, 0, half), self.cut(x, at, 3, half, int(LAST))
        across = self.op("Concat", self.op("Neg", right, at=at), left, at=at, axis=-1)
        return self.op("Add", straight, self.op("Mul", across, self.sines, at=at), at=at)

    def _remembered(self, k: str, v: str, of: Layer) -> tuple[str, str]:
        """Keys and values of earlier words in front; both are outputs."""
        i = int(of.at.rpartition(".")[2])
        joined = [
            self.op("Concat", *pair, at=of.attention, axis=-2) for pair in zip(self.pasts[i], (k, v), strict=True)
        ]
        self.present(i, *joined)
        return f"present.{i}.key", f"present.{i}.value"

    def _repeated(self, x: str, at: str) -> str:
        """`repeat_kv`: every key and value head once for each of its query heads."""
        times = self.config.heads // self.config.kv_heads
        batch, heads, length, width = (self.length(x, axis, at) for axis in range(4))
        wide = self.expanded(self.unsqueezed(x, at, 2), at, batch, heads, times, length, width)
        heads = self.op("Mul", heads, self.number(times, at), at=at)
        return self.shaped(wide, self.target(at, batch, heads, length, width), at)

    def mlp(self, x: str, of: Layer) -> str:
        c = self.config
        if c.experts:
            return mixture(self, x, of)
        if c.gated:
            return self.linear(self._gated(x, of), self.parts.down(of.down))
        return self.linear(
            self.activated(self.linear(x, self.parts.up(of.up)), of.activation), self.parts.down(of.down)
        )

    def _gated(self, x: str, of: Layer) -> str:
        gate, up = self.parts.up(of.gate), self.parts.up(of.up)
        if not self.config.packed_gate:
            gated = self.activated(self.linear(x, gate), of.activation)
            return self.op("Mul", gated, self.linear(x, up), at=of.mlp)
        at = of.mlp  # `chunk`, traced with an open last dimension
        y = self.linear(x, packed(of.gate_up, (gate, up)))
        last = self.number([-1], at)
        whole = self.op("Gather", self.op("Shape", y, at=at), last, at=at, axis=0)
        begin = self.number([0], at)
        half = self.op("Div", self.op("Add", whole, self.number([1], at), at=at), self.number([2], at), at=at)
        first = self.op("Mul", half, self.number([1], at), at=at)
        gated = self.op("Slice", y, begin, first, last, at=at)
        second = self.op("Mul", half, self.number([2], at), at=at)
        rest = self.op("Slice", y, first, second, last, at=at)
        return self.op("Mul", rest, self.activated(gated, of.activation), at=at)

    def activated(self, x: str, at: str) -> str:
        """The activation, decomposed."""
        match self.config.activation:
            case Activation.GELU:
                y = self.op("Erf", self.op("Div", x, self.number(2**0.5, at), at=at), at=at)
                y = self.op("Mul", x, self.op("Add", y, self.number(1.0, at), at=at), at=at)
                return self.op("Mul", y, self.number(0.5, at), at=at)
            case Activation.GELU_TANH:
                half = self.op("Mul", x, self.number(0.5, at), at=at)
                cube = self.op("Mul", self.op("Pow", x, self.number(3.0, at), at=at), self.number(0.044715, at), at=at)
                y = self.op("Mul", self.op("Add", x, cube, at=at), self.number((2 / np.pi) ** 0.5, at), at=at)
                return self.op(
                    "Mul", half, self.op("Add", self.op("Tanh", y, at=at), self.number(1.0, at), at=at), at=at
                )
            case Activation.QUICK_GELU:
                y = self.op("Sigmoid", self.op("Mul", x, self.number(1.702, at), at=at), at=at)
                return self.op("Mul", x, y, at=at)
            case Activation.SILU:
                return self.op("Mul", x, self.op("Sigmoid", x, at=at), at=at)
            case Activation.RELU:
                return self.op("Relu", x, at=at)

    def classes(self, x: str, head: Linear) -> str:
        weight = self.builder.weight("classifier.weight", Turned(head.weight))
        x = self.op("Gather", x, self.number(0, "vit/embeddings"), at="", axis=1)
        return self.op("Gemm", x, weight, self.bias(head), at="classifier", alpha=1.0, beta=1.0, transB=1)

    def next_words(self, x: str) -> str:
        if self.config.family is Family.GPT2:
            x = rows_again(self, x)
        return self.matmul(x, self.parts.head())

    def _rms(self, x: str, path: str) -> tuple[str, str]:
        """In float32, whatever the model's type is."""
        exact, single = np.float32, TensorProto.FLOAT
        wide = self.cast(x, path, single)
        square = self.op("Pow", wide, self.number(2.0, path, exact), at=path)
        mean = self.op("ReduceMean", square, at=path, axes=[-1], keepdims=1)
        root = self.op("Sqrt", self.op("Add", mean, self.number(self.config.epsilon, path, exact), at=path), at=path)
        y = self.op("Mul", wide, self.op("Div", self.number(1.0, path, exact), root, at=path), at=path)
        scale = self.builder.weight(f"{dotted(path)}.weight", self.parts.scale(path), (self.config.hidden,))
        same = self.builder.element == single  # then PyTorch returns the stream itself, and the trace follows the Cast
        return self.op("Mul", scale, self.cast(y, path), at=path), wide if same else x

    def _conv1d(self, x: str, linear: Linear) -> str:
        at = linear.path
        batch, length = self.length(x, 0, at), self.length(x, 1, at)
        width = self.op("Slice", self.op("Shape", x, at=at), self.number([-1], at), self.number([LAST], at),
                        self.number([0], at), at=at)  # fmt: skip
        rows = self.target(at, -1, self.op("Squeeze", width, self.number([0], at), at=at))
        weight = self.builder.weight(f"{dotted(at)}.weight", linear.weight)
        y = self.op("Gemm", self.shaped(x, rows, at), weight, self.bias(linear), at=at, alpha=1.0, beta=1.0)
        return self.shaped(y, self.target(at, batch, length, linear.width), at)


def opset(config: Config) -> int:
    """LayerNormalization came with opset 17."""
    return 17 if config.layer_norm_op else 14
