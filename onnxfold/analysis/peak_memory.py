"""The peak memory of a model's activations, as a static estimate: which tensors have to exist at the same time.

Nodes of the main graph run one after another, in the order of the file. A tensor lives from the node that makes it to
the last one that uses it, inputs from the beginning, outputs to the end. Weights do not count, nor does what kernels
need while they run or what is made inside the bodies of If, Loop and Scan. Reshaping copies nothing, and what lies
between a QuantizeLinear and a DequantizeLinear is only kept as integers, as kernels for integers do it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate

from onnx import TensorProto, helper

from ..model.graph import Node
from ..model.model import Model
from ..model.subgraphs import captures
from .costs import Costs

_SIZED = {*helper.get_all_tensor_dtypes()} - {TensorProto.UNDEFINED, TensorProto.STRING}  # so many bytes a number
_VIEWS = ("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "DequantizeLinear")


@dataclass(eq=False)
class _Buffer:
    """Memory that is in use from step `first` to step `last`, of so many `bytes` (None: nobody knows)."""

    first: int
    last: int
    bytes: int | None


def peak_memory(model: Model, prices: Costs, lengths: Mapping[tuple[str, int], int] | None = None) -> int | None:
    """Bytes of all activations that exist at the same time, where they are most, at the shapes that `prices` are for
    (batch 1), with the changed axis `lengths`. None where the size of one is not known."""
    buffers = list(_buffers(model, prices, lengths or {}))
    steps = [0] * (len(model.graph.main_nodes) + 3)
    for one in buffers:
        if one.bytes is None:
            return None
        steps[one.first] += one.bytes
        steps[one.last + 1] -= one.bytes
    return max(accumulate(steps))


def _buffers(model: Model, prices: Costs, lengths: Mapping[tuple[str, int], int]) -> Iterable[_Buffer]:
    """The memory that activations lie in. Step 0 comes before the first node, the last one after all of them."""
    graph, found = model.graph, dict[str, _Buffer]()
    inputs, outputs = frozenset(graph.inputs), frozenset(graph.outputs)
    for name in graph.inputs:
        if name not in model.constants:
            found[name] = _Buffer(0, 0, _bytes(model, prices, name, lengths))
    for step, (node, proto) in enumerate(zip(graph.main_nodes, model.proto.graph.node, strict=True), 1):
        for name in (*node.inputs, *captures(proto)):
            if name in found:
                found[name].last = step
        for name in _made(node, model):
            size, there = _bytes(model, prices, name, lengths), found.get(_place(node, name, model, inputs, outputs))
            if there is None:
                found[name] = _Buffer(step, step, size)
            else:
                found[name] = there
                there.bytes = min((one for one in (there.bytes, size) if one is not None), default=None)
    for name in graph.outputs:
        if name in found:
            found[name].last = len(graph.main_nodes) + 1
    return {id(one): one for one in found.values()}.values()


def _made(node: Node, model: Model) -> Iterator[str]:
    """The activations that a node makes."""
    yield from (name for name in node.outputs if name and name not in model.constants)


def _place(node: Node, name: str, model: Model, inputs: frozenset[str], outputs: frozenset[str]) -> str:
    """The tensor in whose memory an output lies: one that is only seen in another way, or only stored as integers; ''
    for memory of its own."""
    graph, source = model.graph, node.inputs[0] if node.inputs else ""
    if name in outputs or name != node.outputs[0]:
        return ""
    if node.op == "QuantizeLinear":
        alone = source not in inputs and source not in outputs and len(graph.consumers.get(source, ())) == 1
        return source if alone else ""
    return source if node.op in _VIEWS else ""


def _bytes(model: Model, prices: Costs, name: str, lengths: Mapping[tuple[str, int], int]) -> int | None:
    kind, count = model.graph.tensor(name).dtype, prices.count(name, lengths)
    if kind not in _SIZED or count is None:
        return None
    return count * int(helper.tensor_dtype_to_np_dtype(kind).itemsize)
