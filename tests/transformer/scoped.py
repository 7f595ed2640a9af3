"""Names of the TorchScript exporter: "/model/layers.0/self_attn/q_proj/MatMul" and "..._output_0"."""

from __future__ import annotations

from abc import ABC
from collections import Counter
from typing import Any

import numpy as np
from onnx import numpy_helper

from .layers import Linear, dotted
from .style import Style
from .weights import Turned

LAST = np.iinfo(np.int64).max  # the end of a slice without an end


class Scoped(Style, ABC):
    """Every node is called after its module and counted there by type; constants are nodes."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._counts: Counter[str] = Counter()
        self._lengths: dict[tuple[str, int], str] = {}

    def ops(
        self, kind: str, *inputs: str, at: str = "", outputs: int = 1, domain: str = "", **attributes: Any
    ) -> list[str]:
        name = self._name(kind, at)
        made = [f"{name}_output_{i}" for i in range(outputs)]
        self.builder.node(kind, inputs, made, name, domain, **attributes)
        return made

    def number(self, value: Any, at: str, dtype: Any = None) -> str:
        return self.op("Constant", at=at, value=numpy_helper.from_array(self._array(value, dtype)))

    def loose(self, value: Any, consumer: str) -> str:
        """A constant that belongs to no module; it is called after the type of its consumer."""
        name = f"onnx::{consumer}_{self._next()}"
        tensor = numpy_helper.from_array(self._array(value, None))
        self.builder.node("Constant", [], [name], f"Constant_{self._next()}", value=tensor)
        return name

    def matmul(self, x: str, linear: Linear) -> str:
        """The product alone: a weight without a name, transposed when the model was exported, or a Transpose."""
        if self.config.constant_folding:
            weight = self.builder.weight(f"onnx::MatMul_{self._next()}", linear.weight)
        else:
            stored = self.builder.weight(f"{dotted(linear.path)}.weight", Turned(linear.weight))
            weight = self.op("Transpose", stored, at=linear.path, perm=[1, 0])
        return self.op("MatMul", x, weight, at=linear.path)

    def bias(self, linear: Linear) -> str:
        assert linear.bias is not None
        return self.builder.weight(f"{dotted(linear.path)}.bias", linear.bias, (linear.width,))

    def cast(self, x: str, at: str, element: int | None = None) -> str:
        """To the model's type, or another."""
        return self.op("Cast", x, at=at, to=element or self.builder.element)

    def length(self, x: str, axis: int, at: str) -> str:
        """One dimension, a scalar; asked for again it is the one that is there."""
        if (x, axis) not in self._lengths:
            shape = self.op("Shape", x, at=at)
            self._lengths[x, axis] = self.op("Gather", shape, self.number(axis, at), at=at, axis=0)
        return self._lengths[x, axis]

    def shaped(self, x: str, target: str, at: str) -> str:
        return self.op("Reshape", x, target, at=at, allowzero=0)

    def target(self, at: str, *dims: str | int) -> str:
        """A vector of scalars (tensors) and numbers, as `view` is traced."""
        parts = [
            self.number([d], at) if isinstance(d, int) else self.op("Unsqueeze", d, self.loose([0], "Unsqueeze"), at=at)
            for d in dims
        ]
        return self.op("Concat", *parts, at=at, axis=0)

    def unsqueezed(self, x: str, at: str, *axes: int) -> str:
        """One Unsqueeze for every axis."""
        for axis in axes:
            x = self.op("Unsqueeze", x, self.number([axis], at), at=at)
        return x

    def expanded(self, x: str, at: str, *dims: str | int) -> str:
        """`expand` as it is traced: -1 in the target means a length of 1 to Expand."""
        parts = [self.number([d], at) if isinstance(d, int) else self.unsqueezed(d, at, 0) for d in dims]
        target = self.shaped(self.op("Concat", *parts, at=at, axis=0), self.number([-1], at), at)
        ones = self.op("ConstantOfShape", self.op("Shape", target, at=at), at=at, value=filled(1, np.int64))
        open_ = self.op("Equal", target, self.op("Mul", ones, self.number(-1, at), at=at), at=at)
        return self.op("Expand", x, self.op("Where", open_, ones, target, at=at), at=at)

    def cut(self, x: str, at: str, axis: int, begin: str | int, end: str | int) -> str:
        """A slice along one axis; bounds are numbers, or scalars (tensors)."""
        bounds = [self.number([b], at) if isinstance(b, int) else self.unsqueezed(b, at, 0) for b in (begin, end)]
        return self.op("Slice", x, *bounds, self.number([axis], at), self.number([1], at), at=at)

    def _array(self, value: Any, dtype: Any) -> Any:
        array = np.asarray(value)
        return array.astype(dtype or {"i": np.int64, "f": self.builder.dtype}.get(array.dtype.kind, array.dtype))

    def _name(self, kind: str, at: str) -> str:
        name = f"/{at}/{kind}" if at else f"/{kind}"
        self._counts[name] += 1
        self._next()
        return name if self._counts[name] == 1 else f"{name}_{self._counts[name] - 1}"

    def _next(self) -> int:
        """A number for what has no name, one for every value."""
        self._counts[""] += 1
        return self._counts[""]


def filled(value: Any, dtype: Any) -> Any:
    """The `value` of a ConstantOfShape."""
    return numpy_helper.from_array(np.array([value], dtype))
