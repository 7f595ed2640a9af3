"""Constants of one proto that are stored as integers, read and written as floats: the one place that writes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

from .constants import Constants, constant_attribute
from .external_data import tensor_array
from .quantized.packing import PackedLayout, layout
from .quantized.scheme import Floats, Scheme, dequantize, requantize
from .quantized.tensor import Stored, following, integers_of, scheme_of, written
from .subgraphs import captures, every_initializer, every_node
from .tensors import made, replaced

Array = NDArray[Any]


class IntegerWeights:
    """The stored constants of `proto`, a version of the model that `constants` are of; written in place."""

    def __init__(self, proto: ModelProto, constants: Constants, folder: Path | None) -> None:
        self._proto, self._constants, self._folder = proto, constants, folder
        self.stored = constants.stored
        self.left = set[str]()  # what nothing reads any longer
        self._nodes: dict[str, NodeProto] = {n: node for node in every_node(proto) for n in node.output if n}
        self._tensors: dict[str, TensorProto] = {}
        self._uses: dict[str, int] = {}
        if self.stored:
            self._look()

    def read(self, name: str) -> Array:
        """The values of constant `name`, as floats."""
        return dequantize(integers_of(self.stored[name], self), self.scheme(name), self._constants.float_type(name))

    def scheme(self, name: str) -> Scheme:
        """How `name` is stored now."""
        return scheme_of(self.stored, name, self)

    def scheme_for(self, name: str, values: Array) -> Scheme:
        """How `name` would be stored with these values."""
        return requantize(values, self.scheme(name))[1]

    def write(self, values: Mapping[str, Array], schemes: Mapping[str, Scheme] | None = None) -> None:
        """Store new `values`. `schemes`: those that they had before they were rounded, where these changed too.

        Where the scale of a weight changes, so do the integers of the biases that go by it.
        """
        todo = dict(values)
        for name in values:
            factor = self.stored[name].factor
            if factor is not None and factor.weight not in todo and not self._holds(name, values[name]):
                todo[factor.weight] = self.read(factor.weight)
        for bias, weight in self._biases().items():
            if weight in todo and bias not in todo:
                todo[bias] = self.read(bias)
        for name in [name for name in todo if self.stored[name].factor is None]:
            least = self._least(name, todo)
            integers, scheme = requantize(todo[name], (schemes or {}).get(name) or self.scheme(name), least)
            self._put(name, integers, scheme)
        for name in [name for name in todo if self.stored[name].factor is not None]:
            scheme = self._following(name)
            whole = np.rint(np.asarray(todo[name], np.float64) / scheme.scale)
            self._put(name, np.clip(whole, scheme.low, scheme.high).astype(np.int64), scheme)

    def _following(self, bias: str) -> Scheme:
        one = self.stored[bias]
        assert one.factor is not None
        return following(one, self.scheme(one.factor.weight))

    def _biases(self) -> dict[str, str]:
        """The weight that each bias goes by, where there is one."""
        return {name: one.factor.weight for name, one in self.stored.items() if one.factor is not None}

    def _holds(self, bias: str, values: Array) -> bool:
        """Whether a bias fits its integers as its weight is scaled now."""
        scheme = self._following(bias)
        return bool((np.abs(np.asarray(values, np.float64)) <= scheme.scale * scheme.high).all())

    def _least(self, weight: str, todo: Mapping[str, Array]) -> Floats | float:
        """The scales below which the biases of `weight` (all in `todo`) would leave the range of their integers."""
        least: Floats | float = 0.0
        for name, of in self._biases().items():
            one = self.stored[name]
            if of == weight and one.factor is not None:
                size = np.abs(np.asarray(todo[name], np.float64)) / (one.high * one.factor.x_scale)
                least = np.maximum(least, size.max(initial=0.0) if self.stored[weight].axis is None else size)
        return least * (1 + 1e-6)  # the scale is rounded to float32

    def _put(self, name: str, integers: Array, scheme: Scheme) -> None:
        one = self.stored[name]
        for slot, array in written(one, integers, scheme, self).items():
            self._replace(name, slot, array)

    def part(self, one: Stored, slot: int) -> Array | None:
        """The tensor at an input of the node that holds a constant, if there is one."""
        name = self._name(one.name, slot)
        return self._of(name) if name else None

    def layout(self, one: Stored) -> PackedLayout | None:
        """How the integers of a constant share bytes, by what its node says now."""
        if one.layout is None:
            return None
        return layout({a.name: a.i for a in self._nodes[one.owner].attribute})

    # single tensors ---------------------------------------------------------------------------------------------

    def _look(self) -> None:
        graph = self._proto.graph
        self._tensors = {t.name: t for t in every_initializer(self._proto)}
        for node in graph.node:
            held = constant_attribute(node) if node.op_type == "Constant" else None
            if held is not None:
                self._tensors[node.output[0]] = held.t
            for name in (*node.input, *captures(node)):
                self._uses[name] = self._uses.get(name, 0) + 1
        for value in graph.output:
            self._uses[value.name] = self._uses.get(value.name, 0) + 1

    def _name(self, name: str, slot: int) -> str:
        """The tensor at an input of the node that holds `name`; '' if there is none."""
        owner, slot = self.stored[name].place(slot)
        inputs = self._nodes[owner].input
        return inputs[slot] if slot < len(inputs) else ""

    def _of(self, tensor: str) -> Array:
        if tensor in self._tensors:
            return tensor_array(self._tensors[tensor], self._folder)
        return self._constants.stored_array(tensor)

    def _replace(self, name: str, slot: int, array: Array) -> None:
        """New values for a part of `name`: where they were, or beside that if others need what was there."""
        old = self._name(name, slot)
        if old in self._tensors and self._uses[old] == 1:
            replaced(self._tensors[old], array)
            self._declare(old, array)
            return
        if old and np.array_equal(self._of(old), array):
            return
        owner, slot = self.stored[name].place(slot)
        inputs = self._nodes[owner].input
        fresh = self._fresh(old or f"{name}_zero_point")
        graph = self._proto.graph
        graph.initializer.append(made(array, fresh))
        self._tensors[fresh], self._uses[fresh] = graph.initializer[-1], 1
        if self._proto.ir_version < 4:  # then every initializer must be listed as an input too
            kind = graph.initializer[-1].data_type
            graph.input.append(helper.make_tensor_value_info(fresh, kind, array.shape))
        while len(inputs) <= slot:
            inputs.append("")
        inputs[slot] = fresh
        if old:
            self._uses[old] -= 1
            if not self._uses[old]:
                self.left.add(old)

    def _declare(self, name: str, array: Array) -> None:
        graph = self._proto.graph
        for value in [v for v in (*graph.input, *graph.value_info) if v.name == name]:
            for dim, size in zip(value.type.tensor_type.shape.dim, array.shape, strict=False):
                dim.dim_value = size

    def _fresh(self, base: str) -> str:
        taken = {*self._uses, *self._tensors, *self._nodes}
        number, name = 0, f"{base}_folded"
        while name in taken:
            number += 1
            name = f"{base}_folded{number}"
        return name
