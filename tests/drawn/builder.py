"""A graph in the making: nodes, weights, and the pool of tensors that later steps may take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, TypeProto, defs, helper, numpy_helper
from onnx.shape_inference import infer_node_outputs

BATCH = 2  # what shapes say for the batch while a graph is made, also where it stays open


class UnfitError(Exception):
    """No tensor in the pool is what a step takes, or the numbers ask for what cannot be: the step is left out."""


@dataclass(frozen=True)
class Tensor:
    """A tensor in the pool; the batch is axis 0, the channels are axis `channel`."""

    name: str
    shape: tuple[int, ...]
    channel: int = 1

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def channels(self) -> int:
        return self.shape[self.channel]

    @property
    def spatial(self) -> tuple[int, ...]:
        """The lengths of the other axes."""
        return tuple(d for axis, d in enumerate(self.shape) if axis not in (0, self.channel))


class Numbers:
    """The numbers of a step, one after the other; 0 when they are used up."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self._rest = list(numbers)

    def below(self, count: int) -> int:
        """From 0 to `count` - 1."""
        return (self._rest.pop(0) if self._rest else 0) % count

    def flag(self) -> bool:
        return self.below(2) == 1

    def pick(self, choices: Sequence[Any]) -> Any:
        return choices[self.below(len(choices))]

    def width(self) -> int:
        """A number of channels, 4 to 16."""
        return int(self.pick((4, 6, 8, 12, 16, 5, 7, 9)))


class Builder:
    """Collects nodes and weights. Shapes are found by ONNX itself, node by node, with a batch of 2."""

    def __init__(self, opset: int, seed: int, open_batch: bool) -> None:
        self.opset, self.open_batch = opset, open_batch
        self.pool: list[Tensor] = []
        self.nodes: list[NodeProto] = []
        self.weights: dict[str, TensorProto] = {}
        self.inputs: dict[str, TypeProto] = {}
        self.outputs: list[Tensor] = []
        self._types: dict[str, TypeProto] = {}
        self.rng = np.random.default_rng(seed)
        self._count = 0

    # values -----------------------------------------------------------------------------------------------------

    def input(self, shape: Sequence[int], kind: int = TensorProto.FLOAT) -> Tensor:
        """A graph input; not yet in the pool."""
        name = f"x{len(self.inputs)}"
        self.inputs[name] = self._types[name] = helper.make_tensor_type_proto(kind, [BATCH, *shape])
        return Tensor(name, (BATCH, *shape))

    def constant(self, values: Any) -> str:
        """A constant as given: integers as int64, floats as float32, or as float16 where they are that."""
        array = np.asarray(values)
        kinds = {"i": np.int64, "f": np.float16 if array.dtype == np.float16 else np.float32}
        array = array.astype(kinds.get(array.dtype.kind, array.dtype))
        name = self._fresh("c" if array.dtype.kind == "f" else "n")
        self.weights[name] = numpy_helper.from_array(array, name)
        self._types[name] = helper.make_tensor_type_proto(self.weights[name].data_type, array.shape)
        return name

    def weight(self, *shape: int, reads: int | None = None) -> str:
        """Random, with a variance that keeps the scale of what is read: 1 / `reads` (all axes after the first)."""
        fan_in = max(1, int(np.prod(shape[1:])) if reads is None else reads)
        return self.constant(self.rng.standard_normal(shape) / np.sqrt(fan_in))

    def bias(self, *shape: int) -> str:
        return self.constant(0.3 * self.rng.standard_normal(shape))

    def positive(self, *shape: int) -> str:
        """Scales, variances: 0.5 to 1.5."""
        return self.constant(self.rng.uniform(0.5, 1.5, shape))

    # nodes ------------------------------------------------------------------------------------------------------

    def op(self, kind: str, *inputs: Tensor | str, **attributes: Any) -> str:
        """A node with one output: the output's name."""
        return self.ops(kind, *inputs, **attributes)[0]

    def ops(
        self, kind: str, *inputs: Tensor | str, outputs: int = 1, domain: str = "", shape: Any = None, **attributes: Any
    ) -> list[str]:
        """A node; the names of its outputs. `shape` tells their shape where ONNX does not find it."""
        names = [one.name if isinstance(one, Tensor) else one for one in inputs]
        made = [self._fresh(kind.lower()) for _ in range(outputs)]
        node = helper.make_node(kind, names, made, name=made[0], domain=domain, **attributes)
        kept = {name: value for name, value in attributes.items() if value is not None}
        if kept != attributes:
            return self.ops(kind, *inputs, outputs=outputs, domain=domain, shape=shape, **kept)
        found = self._infer(node) if shape is None else dict.fromkeys(made, self._like(names[0], shape))
        for name in made:
            if name not in found or any(not d.dim_value for d in found[name].tensor_type.shape.dim):
                raise UnfitError(f"{kind} has no certain shape")
            self._types[name] = found[name]
        self.nodes.append(node)
        return made

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(d.dim_value for d in self._types[name].tensor_type.shape.dim)

    def put(self, name: str, channel: int = 1) -> Tensor:
        """A tensor into the pool."""
        shape = self.shape(name)
        if len(shape) < 2 or shape[0] != BATCH or 0 in shape:
            raise UnfitError(f"{shape} is of no use to other steps")
        tensor = Tensor(name, shape, channel)
        self.pool.append(tensor)
        return tensor

    def take(self, n: Numbers, fits: Callable[[Tensor], bool]) -> Tensor:
        """One of the tensors that fit; 0 is the newest."""
        found = [tensor for tensor in reversed(self.pool) if fits(tensor)]
        if not found:
            raise UnfitError("no such tensor")
        return found[n.below(len(found))]

    def axes(self, kind: str, x: Tensor | str, axes: Sequence[int], since: int, **attributes: Any) -> str:
        """A node whose axes are an attribute before opset `since` and an input from then on."""
        if self.opset < since:
            return self.op(kind, x, axes=list(axes), **attributes)
        return self.op(kind, x, self.constant(list(axes)), **attributes)

    # the model --------------------------------------------------------------------------------------------------

    def model(self, shapes: bool = False) -> ModelProto:
        """What was made, with an open batch "N" where that was asked for."""
        values = [self._value(name) for name in self.inputs]
        outputs = [self._value(tensor.name) for tensor in self.outputs]
        graph = helper.make_graph(self.nodes, "drawn", values, outputs, [*self.weights.values()])
        if shapes:
            said = {value.name for value in (*values, *outputs)} | set(self.weights)
            graph.value_info.extend(self._value(tensor.name) for tensor in self.pool if tensor.name not in said)
        sets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=sets, ir_version=8 if self.opset < 19 else 10)

    def _value(self, name: str) -> Any:
        kind, shape = self._types[name].tensor_type.elem_type, list[Any](self.shape(name))
        return helper.make_tensor_value_info(name, kind, ["N", *shape[1:]] if self.open_batch else shape)

    def snapshot(self) -> tuple[int, int, set[str]]:
        return len(self.nodes), len(self.pool), set(self.weights)

    def restore(self, before: tuple[int, int, set[str]]) -> None:
        """Forget what was made since."""
        nodes, pool, weights = before
        del self.nodes[nodes:], self.pool[pool:]
        for name in set(self.weights) - weights:
            del self.weights[name]

    def _infer(self, node: NodeProto) -> dict[str, TypeProto]:
        try:
            schema = defs.get_schema(node.op_type, self.opset, node.domain)
            given = {name: self._types[name] for name in node.input if name}
            data = {name: self.weights[name] for name in given if name in self.weights}
            sets = [helper.make_opsetid("", self.opset)]
            return dict(infer_node_outputs(schema, node, given, data, opset_imports=sets))
        except (defs.SchemaError, RuntimeError) as error:  # shape inference raises its own RuntimeErrors
            raise UnfitError(str(error)) from error

    def _like(self, name: str, shape: Sequence[int]) -> TypeProto:
        return helper.make_tensor_type_proto(self._types[name].tensor_type.elem_type, shape)

    def _fresh(self, base: str) -> str:
        self._count += 1
        return f"{base}_{self._count}"
