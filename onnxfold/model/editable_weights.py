"""The float constants of a proto that may be changed in place, however they are stored."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from .constants import FLOATS
from .external_data import tensor_array
from .integer_weights import IntegerWeights
from .model import Model
from .quantized.scheme import Scheme


class Weights:
    """The float constants of a proto that may be changed in place: also those that Identity nodes make of others, and
    those stored as integers."""

    def __init__(self, proto: ModelProto, model: Model) -> None:
        self._folder = model.folder
        self.integers = IntegerWeights(proto, model.constants, model.folder)
        self.tensors = {t.name: t for t in proto.graph.initializer}
        self._copies: dict[str, NodeProto] = {}
        for node in proto.graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
                self.tensors[node.output[0]] = node.attribute[0].t
            elif node.op_type == "Identity" and self._tensor(node.input[0]) is not None:
                self._copies[node.output[0]] = node
        self.names = set(self.tensors) | {n for node in proto.graph.node for n in (*node.input, *node.output)}

    def read(self, name: str) -> NDArray[Any] | None:
        """The values of constant `name`; None for one that is no constant, or not of floats."""
        if name in self.integers.stored:
            return self.integers.read(name)
        tensor = self._tensor(name)
        return None if tensor is None or tensor.data_type not in FLOATS else tensor_array(tensor, self._folder)

    def kind(self, name: str) -> int:
        """The ONNX element type of constant `name`: that of its scale where it is stored as integers."""
        if name in self.integers.stored:
            return int(helper.np_dtype_to_tensor_dtype(np.dtype(self.integers.scheme(name).dtype)))
        tensor = self._tensor(name)
        assert tensor is not None
        return tensor.data_type

    def write(self, name: str, value: NDArray[Any], scheme: Scheme | None = None) -> None:
        """Change constant `name`, as integers by `scheme` where it is stored so. What an Identity makes becomes a
        constant of its own: others may read the source."""
        if name in self.integers.stored:
            schemes = {} if scheme is None else {name: scheme}
            self.integers.write({name: value.reshape(self.integers.read(name).shape)}, schemes)
            return
        tensor = self._tensor(name)
        assert tensor is not None
        old = tensor_array(tensor, self._folder)
        new = numpy_helper.from_array(np.ascontiguousarray(value.reshape(old.shape).astype(old.dtype)), tensor.name)
        if name in self._copies:
            node = self._copies.pop(name)
            node.CopyFrom(helper.make_node("Constant", [], [name], name=node.name, value=new))
            self.tensors[name] = node.attribute[0].t
            return
        for field in ("float_data", "int32_data", "double_data", "raw_data", "external_data", "data_location"):
            tensor.ClearField(field)
        tensor.raw_data = new.raw_data

    def _tensor(self, name: str) -> TensorProto | None:
        while name in self._copies:
            name = self._copies[name].input[0]
        return self.tensors.get(name)
