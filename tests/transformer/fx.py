"""Names of the dynamo exporter: "linear_3" made by "node_linear_3", and "val_17" for what has no name in PyTorch."""

from __future__ import annotations

from abc import ABC
from collections import Counter
from typing import Any

import numpy as np

from .style import Style

NAMES = {
    "Add": "add", "And": "bitwise_and", "Concat": "cat", "Conv": "conv2d", "Cos": "cos", "Expand": "expand",
    "Gather": "embedding", "Gelu": "gelu", "LayerNormalization": "layer_norm", "Mul": "mul", "Neg": "neg", "Pow": "pow",
    "Range": "arange", "ReduceMean": "mean", "Relu": "relu", "Reshape": "view", "Sin": "sin", "Slice": "slice",
    "Tanh": "tanh", "Transpose": "transpose", "Unsqueeze": "unsqueeze",
}  # fmt: skip


class Fx(Style, ABC):
    """Nodes are called after PyTorch's operators; constants are initializers, each value once."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._counts: Counter[str] = Counter()
        self._numbers: dict[tuple[Any, ...], str] = {}
        self._targets: dict[tuple[str | int, ...], str] = {}

    def ops(
        self, kind: str, *inputs: str, at: str = "", outputs: int = 1, name: str = "", **attributes: Any
    ) -> list[str]:
        """`name` stands in for PyTorch's name of the operator; "val" for none."""
        base = name or NAMES.get(kind, "val")
        if base != "val":
            output = self._named(base)
            self.builder.node(kind, inputs, [output], f"node_{output}", **attributes)
            return [output]
        made = [f"val_{self._next()}" for _ in range(outputs)]
        self.builder.node(kind, inputs, made, f"node_{kind}_{made[0][4:]}", **attributes)
        return made

    def split(self, x: str, count: int) -> list[str]:
        """Equal parts of the last axis of three."""
        base = self._named("split")
        made = [f"{base}_split_{i}" for i in range(count)]
        self.builder.node("Split", [x], made, f"node_Split_{self._next()}", axis=2, num_outputs=count)
        return made

    def number(self, value: Any, at: str = "", dtype: Any = None) -> str:
        array = np.asarray(value)
        array = array.astype(dtype or {"i": np.int64, "f": self.builder.dtype}.get(array.dtype.kind, array.dtype))
        key = (array.dtype.str, str(array.dtype), array.shape, array.tobytes())
        if key not in self._numbers:
            self._numbers[key] = self.builder.table(f"val_{self._next()}", array, array.dtype)
        return self._numbers[key]

    def target(self, *dims: str | int) -> str:
        """A vector of vectors of one (tensors) and numbers; all numbers: a constant. The same one is made once."""
        if all(isinstance(d, int) for d in dims):
            return self.number(list(dims))
        if dims not in self._targets:
            parts = [self.number([d]) if isinstance(d, int) else d for d in dims]
            self._targets[dims] = self.op("Concat", *parts, name="val", axis=0)
        return self._targets[dims]

    def shaped(self, x: str, *dims: str | int, name: str = "view") -> str:
        return self.op("Reshape", x, self.target(*dims), name=name, allowzero=1)

    def cut(self, x: str, axis: int, begin: int | str, end: int | str, name: str = "slice") -> str:
        """A slice along one axis."""
        bounds = [self.number([b]) if isinstance(b, int) else b for b in (begin, end)]
        return self.op("Slice", x, *bounds, self.number([axis]), self.number([1]), name=name)

    def unsqueezed(self, x: str, *axes: int) -> str:
        return self.op("Unsqueeze", x, self.number(list(axes)))

    def _named(self, base: str) -> str:
        self._counts[base] += 1
        return base if self._counts[base] == 1 else f"{base}_{self._counts[base] - 1}"

    def _next(self) -> int:
        self._counts["val"] += 1
        return self._counts["val"] - 1
