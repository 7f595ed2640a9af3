"""What graphs that were not traced have in common: those of optimizers and of model builders."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from .config import Activation
from .experts import mixture
from .layers import Layer, Linear, dotted, packed
from .scoped import Scoped
from .style import BATCH, SEQUENCE
from .traced import rotary_angles
from .weights import Source, Turned


class Plain(Scoped, ABC):
    """Parameters under their own names, no shape arithmetic; the MLP and the head."""

    suffix = ".weight"

    def matmul(self, x: str, linear: Linear) -> str:
        name = f"{dotted(linear.path)}{self.suffix}"
        if self.config.constant_folding:
            return self.op("MatMul", x, self.builder.weight(name, linear.weight), at=linear.path)
        return self.turned_matmul(x, self.builder.weight(name, Turned(linear.weight)), linear.path)

    def turned_matmul(self, x: str, weight: str, at: str) -> str:
        """Of a weight [out, in]."""
        return self.op("MatMul", x, self.op("Transpose", weight, at=at, perm=[1, 0]), at=at)

    def linear(self, x: str, linear: Linear) -> str:
        y = self.matmul(x, linear)
        return y if linear.bias is None else self.op("Add", y, self.bias(linear), at=linear.path)

    def vector(self, source: Source, name: str) -> str:
        return self.builder.weight(name, source, (source.size[1],))

    def scale(self, path: str) -> str:
        return self.vector(self.parts.scale(path), f"{dotted(path)}.weight")

    def shift(self, path: str) -> str:
        return self.vector(self.parts.shift(path), f"{dotted(path)}.bias")

    def ids(self, *names: str) -> list[str]:
        return [self.builder.input(name, [BATCH, SEQUENCE], TensorProto.INT64) for name in names]

    def embedded(self, path: str, rows: int, ids: str) -> str:
        table = self.parts.embedding(path, rows)
        return self.op("Gather", self.builder.weight(table.name, table), ids, at=path)

    def image(self) -> str:
        """Patches, the class token and positions."""
        c, g, at = self.config, self.builder, "vit/embeddings"
        pixels = g.input("pixel_values", [BATCH, 3, c.image, c.image])
        path = f"{at}/patch_embeddings/projection"
        kernel = self.parts.linear(path, 3 * c.patch**2, c.hidden)
        weight = g.weight(f"{dotted(path)}.weight", Turned(kernel.weight), (c.hidden, 3, c.patch, c.patch))
        x = self.op(
            "Conv", pixels, weight, self.bias(kernel), at=path, kernel_shape=[c.patch] * 2, strides=[c.patch] * 2
        )
        x = self.op("Reshape", x, self.number([0, c.hidden, -1], at), at=at)
        x = self.op("Transpose", x, at=at, perm=[0, 2, 1])
        batch = self.op("Slice", self.op("Shape", x, at=at), self.number([0], at), self.number([1], at), at=at)
        wide = self.op("Concat", batch, self.number([1, 1], at), at=at, axis=0)
        token = g.weight("vit.embeddings.cls_token", self.parts.embedding(at, 1, ".cls_token"), (1, 1, c.hidden))
        x = self.op("Concat", self.op("Expand", token, wide, at=at), x, at=at, axis=1)
        places = self.parts.embedding(at, c.patches + 1, ".position_embeddings")
        return self.op("Add", x, g.weight(places.name, places, (1, c.patches + 1, c.hidden)), at=at)

    def caches(self) -> tuple[str, str]:
        """Tables of cosines and sines [positions, head_dim / 2]."""
        found = (self.builder.table(f"{name}_cache", table) for name, table in rotary_angles(self.config).items())
        cosines, sines = found
        return cosines, sines

    def mlp(self, x: str, of: Layer) -> str:
        c = self.config
        if c.experts:
            return mixture(self, x, of)
        if not c.gated:
            return self.down(self.made(x, of), self.parts.down(of.down))
        gate, up = self.parts.up(of.gate), self.parts.up(of.up)
        if c.packed_gate:
            y = self.linear(x, packed(of.gate_up, (gate, up)))
            left, right = self.ops("Split", y, self.number([c.mlp, c.mlp], of.mlp), at=of.mlp, outputs=2, axis=-1)
        else:
            left, right = self.linear(x, gate), self.linear(x, up)
        return self.down(
            self.op("Mul", self.activated(left, of.activation), right, at=of.mlp), self.parts.down(of.down)
        )

    def made(self, x: str, of: Layer) -> str:
        """The hidden units of an MLP without a gate."""
        return self.activated(self.linear(x, self.parts.up(of.up)), of.activation)

    def down(self, x: str, linear: Linear) -> str:
        return self.linear(x, linear)

    def activated(self, x: str, at: str) -> str:
        match self.config.activation:
            case Activation.RELU:
                return self.op("Relu", x, at=at)
            case Activation.SILU:
                return self.op("Mul", x, self.op("Sigmoid", x, at=at), at=at)
            case Activation.QUICK_GELU:
                y = self.op("Sigmoid", self.op("Mul", x, self.number(1.702, at), at=at), at=at)
                return self.op("Mul", x, y, at=at)
            case activation:
                tanh = activation is Activation.GELU_TANH
                return self.op("Gelu", x, at=at, approximate="tanh" if tanh else "none")

    def unpacked(self, y: str, widths: Sequence[int], at: str) -> list[str]:
        return self.ops("Split", y, self.number(np.array(widths), at), at=at, outputs=len(widths), axis=-1)

    def classes(self, x: str, head: Linear) -> str:
        weight = self.builder.weight("classifier.weight", Turned(head.weight))
        x = self.op("Gather", x, self.number(0, "vit"), at="vit", axis=1)
        return self.op("Gemm", x, weight, self.bias(head), at="classifier", transB=1)

    def next_words(self, x: str) -> str:
        words = self.parts.words()
        if self.config.tied:
            return self.turned_matmul(x, self.builder.weight(words.name, words), "lm_head")
        return self.matmul(x, self.parts.head())
