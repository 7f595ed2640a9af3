"""Edits written into a copy of the user's own ModelProto: single tensors and lengths; all else stays."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto

from ..model.model import Model
from ..model.subgraphs import every_initializer, every_node, opened
from ..model.tensors import Pending, all_names, deferred, made, replace_constant, replaced, settled

Kinds = Mapping[str, int]


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
        """Nodes read other tensors: by (node, input)."""
        for (index, number), name in inputs.items():
            self.give(self.nodes[index], number, name)

    def bypass(self, bypass: Mapping[str, str]) -> None:
        """All consumers of a tensor read another one instead; its producer is removed if nothing else needs it."""
        for name in bypass:
            instead = name
            while instead in bypass:
                instead = bypass[instead]
            for index in self.model.graph.consumers.get(name, ()):
                for number in [i for i, given in enumerate(self.nodes[index].input) if given == name]:
                    self.give(self.nodes[index], number, instead)
        self.bypassed |= bool(bypass)

    def arrays(
        self, arrays: Mapping[str, NDArray[Any] | Pending], follow: Collection[str] = (), kinds: Kinds | None = None
    ) -> None:
        """New values of constants. The constants `follow` are computed from them by nodes that stay; those that `kinds`
        names are stored in another element type, with a Cast behind."""
        changed = {*arrays, *follow}
        for name, array in arrays.items():
            if self._feeds_constants(name, changed):
                self._beside(name, settled(array))
                continue
            if isinstance(array, Pending):
                deferred(self.initializers[name], array)
            elif kinds and name in kinds:
                self._behind_cast(name, array, kinds[name])
            elif not self._in_place(name, array):
                self._release(self.model.graph.producer[name])
                self._add(made(array, name, 0))

    def _behind_cast(self, name: str, array: NDArray[Any], kind: int) -> None:
        """New values for a computed constant, stored in the element type `kind`."""
        index, own = self.model.graph.producer[name], self.model.graph.tensor(name).dtype
        held = self.constant(name, array.astype(onnx.helper.tensor_dtype_to_np_dtype(kind)), kind)
        self.more.append((index, onnx.helper.make_node("Cast", [held], [name], to=own)))
        self.uses[held] = 1
        self._release(index)

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

    def _feeds_constants(self, name: str, changed: Collection[str]) -> bool:
        """Whether a constant that stays as it is (the other half of a shared weight, say) is computed from `name`."""
        made = [o for i in self.model.graph.consumers.get(name, ()) for o in self.model.graph.nodes[i].outputs if o]
        return any(o in self.model.constants and o not in changed for o in made)

    def _beside(self, name: str, array: NDArray[Any]) -> None:
        """New values under a name of their own, for all consumers that do not compute constants."""
        fresh = self.constant(name, array, self.initializers[name].data_type if name in self.initializers else 0)
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

    def give(self, node: NodeProto, number: int, name: str) -> None:
        """Let input `number` of a node be the tensor `name`."""
        old = node.input[number]
        if name != old:
            node.input[number] = name
            self.uses[old] -= 1
            self.uses[name] = self.uses.get(name, 0) + 1
            self.suspects.add(old)

    def constant(self, like: str, value: NDArray[Any], dtype: int = 0) -> str:
        """A new constant with a name made from `like`; `dtype`: its element type in ONNX, 0 for that of the array."""
        name = self.fresh(like)
        self._add(made(value, name, dtype))
        return name

    def copy_of(self, index: int, output: str, before: int) -> NodeProto:
        """A copy of node `index` that makes a new tensor, named after `output`, just before node `before`."""
        node = NodeProto()
        node.CopyFrom(self.nodes[index])
        node.name = self.fresh(node.name) if node.name else ""
        node.output[0] = self.fresh(output)
        for given in node.input:
            self.uses[given] = self.uses.get(given, 0) + 1
        self.more.append((before, node))
        return node

    def multiply(self, index: int, axis: int, factors: NDArray[np.float64]) -> None:
        """What node `index`, which takes a mean, reads first is multiplied by `factors` along `axis` before, for this
        node alone; where they are all the same, what it gives is, by their square where it squares."""
        node = self.nodes[index]
        if (factors == factors[0]).all():
            self._multiply_mean(index, float(factors[0]) ** (2 if node.op_type == "ReduceSumSquare" else 1))
            return
        given, info = node.input[0], self.model.graph.tensor(self.model.graph.nodes[index].inputs[0])
        kind = onnx.helper.tensor_dtype_to_np_dtype(info.dtype)
        behind = len(info.shape or ()) - axis - 1
        name = self.constant(f"{given}_counts", factors.reshape([-1, *[1] * behind]).astype(kind), info.dtype)
        made = onnx.helper.make_node("Mul", [given, name], [self.fresh(given)], name=self.fresh(f"{node.name}_counts"))
        made.domain = node.domain
        self.uses[name] = 1
        self.more.append((index, made))
        node.input[0] = made.output[0]
        self.uses[made.output[0]] = 1

    def _multiply_mean(self, index: int, factor: float) -> None:
        """What node `index` gives is multiplied by `factor`, under the same name: other nodes read it, so the next node
        is one of the same graph."""
        node, result = self.nodes[index], self.nodes[index].output[0]
        kind = self.model.graph.tensor(result).dtype
        values = np.asarray([factor], onnx.helper.tensor_dtype_to_np_dtype(kind))
        name, node.output[0] = self.constant(f"{result}_share", values, kind), self.fresh(result)
        made = onnx.helper.make_node("Mul", [node.output[0], name], [result], name=self.fresh(f"{node.name}_share"))
        made.domain = node.domain
        self.uses |= {name: 1, node.output[0]: 1}
        self.more.append((index + 1, made))

    def lengths(self, lengths: Mapping[tuple[str, int], int]) -> None:
        graphs = (self.graph, *self.bodies)
        for value in [v for graph in graphs for v in (*graph.value_info, *graph.input, *graph.output)]:
            for axis, dim in enumerate(value.type.tensor_type.shape.dim):
                if (value.name, axis) in lengths and value.name not in self.as_they_were and dim.HasField("dim_value"):
                    dim.dim_value = lengths[value.name, axis]

    def sweep(self) -> None:
        """Add new nodes, and remove what the edits left without a consumer: replaced nodes, then their inputs, and so
        on."""
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
        if self.bypassed:  # with a whole part of the graph, the shapes declared for its tensors go too
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

    def set_input(self, node: NodeProto, number: int, values: Mapping[Any, int], instead_of: str | None = None) -> None:
        """New `values`, by index (None: the only one), in the constant that is input `number` of a node, for this node
        alone. Where it has no such input, the list replaces the attribute `instead_of`."""
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
        name = self.constant(old or f"{node.name or node.op_type}_sizes", array)
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

    def fresh(self, base: str) -> str:
        """A name that nothing has yet."""
        number, name = 0, f"{base}_folded"
        while name in self.names:
            number += 1
            name = f"{base}_folded{number}"
        self.names.add(name)
        return name
