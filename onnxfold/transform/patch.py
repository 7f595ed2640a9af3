"""Edits written into a copy of the user's own ModelProto: single tensors, integers, lengths; all else stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto

from ..errors import RuleError
from ..model.model import Model
from ..model.shapes.lists import behind, length
from ..model.subgraphs import every_initializer, every_node, opened
from ..model.tensors import Pending, all_names, deferred, made, replace_constant, replaced, settled
from .edits import Integer


@dataclass(frozen=True)
class Number:
    """Element `index` of a list: its new value; `plain`: in place of all that computes it."""

    index: int
    value: int
    plain: bool


class Patch:
    """Edits of one ModelProto in place; node indices stay those of the original until `sweep`."""

    def __init__(self, proto: ModelProto, model: Model) -> None:
        self.graph, self.model = proto.graph, model
        self.bodies = [body.graph for body in opened(proto)]
        self.nodes = every_node(proto)
        self.initializers = {t.name: t for t in every_initializer(proto)}
        self.uses: dict[str, int] = {}
        for node, seen in zip(self.nodes, model.graph.nodes, strict=True):
            for name in (*node.input, *seen.captures):
                self.uses[name] = self.uses.get(name, 0) + 1
        for value in [v for graph in (self.graph, *self.bodies) for v in graph.output]:
            self.uses[value.name] = self.uses.get(value.name, 0) + 1
        self.names = set(self.uses) | set(self.initializers) | all_names(self.graph)
        self.gone: set[int] = set()
        self.more: list[tuple[int, NodeProto]] = []  # nodes to stand before that one
        self.suspects: set[str] = set()
        self.as_they_were: set[str] = set()  # weights whose new values have a name of their own
        self.bypassed = False

    def inputs(self, inputs: Mapping[tuple[int, int], str]) -> None:
        """Nodes read other tensors."""
        for (index, number), name in inputs.items():
            self._give(self.nodes[index], number, name)

    def bypass(self, bypass: Mapping[str, str]) -> None:
        """All who read a tensor read another one; what made it may go."""
        for name in bypass:
            instead = name
            while instead in bypass:
                instead = bypass[instead]
            for index in self.model.graph.consumers.get(name, ()):
                for number in [i for i, given in enumerate(self.nodes[index].input) if given == name]:
                    self._give(self.nodes[index], number, instead)
        self.bypassed |= bool(bypass)

    def arrays(self, arrays: Mapping[str, NDArray[Any] | Pending]) -> None:
        for name, array in arrays.items():
            if self._feeds_constants(name, arrays):
                self._beside(name, settled(array))
                continue
            if isinstance(array, Pending):
                deferred(self.initializers[name], array)
            elif not self._in_place(name, array):
                self._release(self.model.graph.producer[name])
                self._add(made(array, name, 0))

    def _in_place(self, name: str, array: NDArray[Any]) -> bool:
        """New values for constant `name` where they are stored; False if another node computes them."""
        if name in self.initializers:
            replaced(self.initializers[name], array)
            return True
        node = self.nodes[self.model.graph.producer[name]]
        if node.op_type != "Constant":
            return False
        replace_constant(node, array)
        return True

    def _feeds_constants(self, name: str, arrays: Mapping[str, NDArray[Any] | Pending]) -> bool:
        """Whether a constant that stays as it is (the other half of a shared weight, say) is computed from `name`."""
        made = [o for i in self.model.graph.consumers.get(name, ()) for o in self.model.graph.nodes[i].outputs if o]
        return any(o in self.model.constants and o not in arrays for o in made)

    def _beside(self, name: str, array: NDArray[Any]) -> None:
        """New values under a name of their own, for all consumers that do not compute constants."""
        fresh = self._fresh(name)
        self._add(made(array, fresh, self.initializers[name].data_type if name in self.initializers else 0))
        self.uses[fresh] = 0
        for index in self.model.graph.consumers[name]:
            if all(o in self.model.constants for o in self.model.graph.nodes[index].outputs if o):
                continue
            inputs = self.nodes[index].input
            for i in [i for i, given in enumerate(inputs) if given == name]:
                inputs[i] = fresh
                self.uses[name] -= 1
                self.uses[fresh] += 1
        self.suspects.add(name)
        self.as_they_were.add(name)

    def integers(self, changes: Sequence[Integer]) -> None:
        lists: dict[tuple[int, str | None, int | None], list[Integer]] = {}
        for one in changes:
            lists.setdefault((one.node, one.at.attr, one.at.input), []).append(one)
        lists = {key: counted for key, counted in lists.items() if any(c.new for c in counted)}
        computed = dict[str, dict[tuple[int, int], list[Integer]]]()
        for (index, attr, number), counted in lists.items():
            node = self.nodes[index]
            values = {one.at.index: one.value for one in counted}
            if attr is not None:
                self._set_attribute(node, attr, values)
                continue
            assert number is not None
            name = node.input[number] if number < len(node.input) else ""
            if name and name not in self.model.constants:
                computed.setdefault(name, {})[index, number] = [c for c in counted if c.new]
            else:
                self._set_input(node, number, values, counted[0].at.instead_of)
        for name, consumers in computed.items():
            self._computed(name, consumers)

    def numbers(self, numbers: Mapping[tuple[int, int], NDArray[Any]]) -> None:
        """Nodes read plain numbers in place of what is computed from lengths that change."""
        fresh = dict[str, str]()
        for (index, number), value in numbers.items():
            old = self.nodes[index].input[number]
            if old not in fresh:
                fresh[old] = self._fresh(old)
                self._add(made(value, fresh[old], self.model.graph.tensor(old).dtype))
            self._give(self.nodes[index], number, fresh[old])

    def _computed(self, name: str, consumers: Mapping[tuple[int, int], Sequence[Integer]]) -> None:
        """New numbers in the list `name`, which the graph puts together: in place where all who read it want the same,
        else in a list of its own for every set of numbers."""
        wanted = dict[tuple[Number, ...], list[tuple[int, int]]]()
        for consumer, counted in consumers.items():
            numbers = tuple(Number(c.at.index or 0, c.value, bool(c.at.lengths)) for c in counted)
            wanted.setdefault(numbers, []).append(consumer)
        alone = len(wanted) == 1 and self.uses[name] == len(consumers)
        for numbers, who in wanted.items():
            fresh = self._list(name, numbers, min(index for index, _ in who), alone)
            for index, number in who:
                self._give(self.nodes[index], number, fresh)

    def _give(self, node: NodeProto, number: int, fresh: str) -> None:
        """Let input `number` of a node be the tensor `fresh`."""
        old = node.input[number]
        if fresh != old:
            node.input[number] = fresh
            self.uses[old] -= 1
            self.uses[fresh] = self.uses.get(fresh, 0) + 1
            self.suspects.add(old)

    def _list(self, name: str, numbers: Sequence[Number], consumer: int, alone: bool) -> str:
        """List `name` with other `numbers`: `name` itself if `alone`, else one made just before node `consumer`."""
        graph, constants = self.model.graph, self.model.constants
        if length(graph, name) == 1 and numbers[0].plain:
            fresh = self._fresh(name)  # a length of other channels, which from now on is a number by itself
            value = np.full((1,) * len(graph.tensor(name).shape or ()), numbers[0].value)
            self._add(made(value, fresh, graph.tensor(name).dtype))
            return fresh
        pieces = dict[int, list[Number]]()
        for one in numbers:
            found = behind(graph, constants, name, one.index)
            if found is None:
                raise RuleError(f"element {one.index} of '{name}' cannot be found")
            producer, number, inside = found
            pieces.setdefault(number, []).append(replace(one, index=inside))
        node = self.nodes[producer]
        if not alone:
            node = NodeProto()
            node.CopyFrom(self.nodes[producer])
            node.name = self._fresh(node.name) if node.name else ""
            node.output[0] = self._fresh(name)
            for given in node.input:
                self.uses[given] = self.uses.get(given, 0) + 1
            self.more.append((consumer, node))
        for number, parts in pieces.items():
            piece = node.input[number]
            if piece in constants:
                self._set_input(node, number, {p.index: p.value for p in parts}, None)
            else:
                own = self._list(piece, parts, producer if alone else consumer, alone and self.uses[piece] == 1)
                self._give(node, number, own)
        return str(node.output[0])

    def lengths(self, lengths: Mapping[tuple[str, int], int]) -> None:
        graphs = (self.graph, *self.bodies)
        for value in [v for graph in graphs for v in (*graph.value_info, *graph.input, *graph.output)]:
            for axis, dim in enumerate(value.type.tensor_type.shape.dim):
                if (value.name, axis) in lengths and value.name not in self.as_they_were and dim.HasField("dim_value"):
                    dim.dim_value = lengths[value.name, axis]

    def sweep(self) -> None:
        """Add new nodes, drop what the edits left without a consumer: replaced nodes, then their inputs, and so on."""
        while self.suspects:
            name = self.suspects.pop()
            if self.uses.get(name, 0):
                continue
            if name in self.initializers:
                tensor = self.initializers.pop(name)
                owner = next(g for g in (self.graph, *self.bodies) if any(t.name == name for t in g.initializer))
                owner.initializer.remove(tensor)
                for value in [v for v in self.graph.input if v.name == name]:
                    self.graph.input.remove(value)
            elif name in self.model.graph.producer:
                index = self.model.graph.producer[name]
                node = self.nodes[index]
                if index not in self.gone and not any(self.uses.get(o, 0) for o in node.output):
                    self._release(index)
        if self.bypassed:  # a whole part of the graph went: so do the shapes declared of its tensors
            lost = {o for index in self.gone for o in self.nodes[index].output}
            for value in [v for v in self.graph.value_info if v.name in lost]:
                self.graph.value_info.remove(value)
        start = 0
        for graph in (self.graph, *self.bodies):
            own = range(start, start + len(graph.node))
            for index in reversed(own):
                if index in self.gone:
                    del graph.node[index - start]
                for node in [node for consumer, node in self.more if consumer == index]:
                    graph.node.insert(index - start, node)
            start = own.stop

    def _release(self, index: int) -> None:
        if index in self.gone:
            return
        self.gone.add(index)
        for name in self.nodes[index].input:
            self.uses[name] -= 1
            self.suspects.add(name)

    @staticmethod
    def _set_attribute(node: NodeProto, attr: str, values: Mapping[int | None, int]) -> None:
        found = next((a for a in node.attribute if a.name == attr), None)
        if None in values:
            if found is None:
                found = node.attribute.add(name=attr, type=onnx.AttributeProto.INT)
            found.i = values[None]
            return
        if found is None:
            found = node.attribute.add(name=attr, type=onnx.AttributeProto.INTS)
            found.ints.extend([0] * len(values))
        for i, value in values.items():
            assert i is not None
            found.ints[i] = value

    def _set_input(self, node: NodeProto, number: int, values: Mapping[Any, int], instead_of: str | None) -> None:
        old = node.input[number] if number < len(node.input) else ""
        if old:
            array = np.array(self.model.constants.array(old))
        else:
            array = np.zeros(len(values), np.int64)
            for attribute in [a for a in node.attribute if a.name == instead_of]:
                node.attribute.remove(attribute)
        for i, value in values.items():
            array.reshape(-1)[i or 0] = value
        if old and self.uses[old] == 1 and self._in_place(old, array):
            return
        name = self._fresh(old or f"{node.name or node.op_type}_sizes")
        self._add(made(array, name, 0))
        while len(node.input) <= number:
            node.input.append("")
        node.input[number] = name
        self.uses[name] = 1
        if old:
            self.uses[old] -= 1
            self.suspects.add(old)

    def _add(self, tensor: TensorProto) -> None:
        self.graph.initializer.append(tensor)
        self.initializers[tensor.name] = self.graph.initializer[-1]
        if self.model.proto.ir_version < 4:  # then every initializer must be listed as an input too
            self.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))

    def _fresh(self, base: str) -> str:
        number, name = 0, f"{base}_folded"
        while name in self.names:
            number += 1
            name = f"{base}_folded{number}"
        self.names.add(name)
        return name
