"""Nodes and constants appended to a graph, under names of ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, TensorProto, numpy_helper

PREFIX = "onnxfold_"
LOSS = PREFIX + "loss"


class Emitter:
    """Appends nodes and constants with new names to a graph."""

    def __init__(self, graph: GraphProto) -> None:
        self.graph, self._count = graph, 0
        self._taken = {t.name for t in graph.initializer} | {name for node in graph.node for name in node.output}

    def op(self, kind: str, inputs: Sequence[str], to: str = "", **attributes: Any) -> str:
        """Append a node of one output and return that (called `to` if given)."""
        name = to or self.name()
        self.graph.node.append(onnx.helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """Append an initializer and return its name."""
        name = self.name()
        self.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(np.asarray(value, dtype)), name))
        return name

    def output(self, name: str, shape: Sequence[int]) -> None:
        """Make float tensor `name` a graph output."""
        self.graph.output.append(onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))

    def name(self) -> str:
        while True:
            self._count += 1
            if (name := f"{PREFIX}{self._count}") not in self._taken:
                return name
