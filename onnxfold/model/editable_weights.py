"""The float constants of a proto that may be changed in place, however they are stored."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from .constants import FLOATS
from .expressions import backward, forward, source
from .external_data import tensor_array
from .integer_weights import IntegerWeights
from .model import Model
from .quantized.scheme import Scheme
from .subgraphs import captures
from .tied import SMALL

_TRACE = 2.0**-100  # products with numbers of a usual size may be denormal: convolutions take 15 times as long


class Weights:
    """The float constants of a proto that may be changed in place: also those that steps which can be undone make of
    others (expressions.py), and those stored as integers."""

    def __init__(self, proto: ModelProto, model: Model) -> None:
        self._folder = model.folder
        self.integers = IntegerWeights(proto, model.constants, model.folder)
        self.tensors = {t.name: t for t in proto.graph.initializer}
        self._steps: dict[str, NodeProto] = {}
        self._sources: dict[str, str] = {}
        for node in proto.graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
                self.tensors[node.output[0]] = node.attribute[0].t
            elif made_of := source(node, self._floats, self._small):
                self._steps[node.output[0]], self._sources[node.output[0]] = node, made_of
        self._used = Counter([v.name for v in proto.graph.output])
        self._used.update(name for node in proto.graph.node for name in (*node.input, *captures(node)))
        self._readers = Counter(self._used)  # of stored tensors: in all their forms
        for made in self._sources:
            self._readers[self._root(made)] += self._used[made] - 1
        self.names = set(self.tensors) | {n for node in proto.graph.node for n in (*node.input, *node.output)}

    def read(self, name: str) -> NDArray[Any] | None:
        """The values of constant `name`; None for one that is no constant, or not of floats."""
        if name in self.integers.stored:
            return self.integers.read(name)
        if name in self._steps:
            value = self.read(self._sources[name])
            return None if value is None else forward(self._steps[name], value, self._small)
        tensor = self.tensors.get(name)
        return None if tensor is None or tensor.data_type not in FLOATS else tensor_array(tensor, self._folder)

    def kind(self, name: str) -> int:
        """The ONNX element type of constant `name`: that of its scale where it is stored as integers."""
        value = self.read(name)
        assert value is not None
        return int(helper.np_dtype_to_tensor_dtype(value.dtype))

    def uses(self, name: str) -> int:
        """How often nodes read constant `name`, or other forms of the stored tensor that it is made of, where that is
        more than a vector: all have the same numbers."""
        root = self._root(name)
        if root not in self.tensors or sum(n != 1 for n in self.tensors[root].dims) < 2:
            return self._used[name]
        return self._readers[root]

    def write(self, name: str, value: NDArray[Any], scheme: Scheme | None = None) -> None:
        """Change constant `name`, as integers by `scheme` where it is stored so. What steps make of another constant is
        written back to that, or becomes a constant of its own where others read the source. Traces of numbers (below
        1e-30) become 0."""
        if name in self.integers.stored:
            schemes = {} if scheme is None else {name: scheme}
            self.integers.write({name: value.reshape(self.integers.read(name).shape)}, schemes)
            return
        old = self.read(name)
        assert old is not None
        value = without_traces(value.reshape(old.shape))
        if name not in self._steps:
            self._put(name, value.astype(old.dtype))
        elif self._alone(name):
            node, before = self._steps[name], self._sources[name]
            shaped = self.read(before)
            assert shaped is not None
            self.write(before, backward(node, value, shaped.shape, shaped.dtype, self._small))
        else:
            del self._sources[name]
            node = self._steps.pop(name)
            tensor = numpy_helper.from_array(np.ascontiguousarray(value.astype(old.dtype)), name)
            node.CopyFrom(helper.make_node("Constant", [], [name], name=node.name, value=tensor))
            self.tensors[name] = node.attribute[0].t

    def _put(self, name: str, value: NDArray[Any]) -> None:
        tensor = self.tensors[name]
        for field in ("float_data", "int32_data", "double_data", "raw_data", "external_data", "data_location"):
            tensor.ClearField(field)
        tensor.raw_data = numpy_helper.from_array(np.ascontiguousarray(value)).raw_data

    def _root(self, name: str) -> str:
        """The tensor that `name` is made of in the end."""
        while name in self._sources:
            name = self._sources[name]
        return name

    def _alone(self, name: str) -> bool:
        """Whether nothing else reads what `name` is made of."""
        while name in self._sources:
            name = self._sources[name]
            if self._used[name] > 1:
                return False
        return True

    def _floats(self, name: str) -> int:
        """The element type of a tensor of floats that is stored, or of what is made of one; 0 for others."""
        if name in self._steps:
            return TensorProto.FLOAT  # any: it is asked whether there is one
        tensor = self.tensors.get(name)
        return tensor.data_type if tensor is not None and tensor.data_type in FLOATS else 0

    def _small(self, name: str) -> NDArray[Any] | None:
        """The value of a constant that is a list, or one number."""
        tensor = self.tensors.get(name)
        return tensor_array(tensor, self._folder) if tensor is not None and math.prod(tensor.dims) <= SMALL else None


def without_traces(value: NDArray[Any]) -> NDArray[Any]:
    """Floats, with 0 for what is so small that it only makes a model slow: a fit leaves it where the target is always
    0, and so does weight decay."""
    traces = (value != 0) & (np.abs(value) < _TRACE)
    return np.where(traces, np.zeros((), value.dtype), value) if traces.any() else value
