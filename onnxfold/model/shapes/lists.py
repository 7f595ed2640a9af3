"""Lists of integers that a graph puts together (Concat of numbers and lengths): which numbers in them can be edited."""

from __future__ import annotations

from typing import Any, Protocol

from numpy.typing import NDArray
from onnx import numpy_helper

from ..graph import Graph, Names, Node

SAME = ("Cast", "Identity", "Unsqueeze", "Squeeze", "Reshape")  # operators that leave the numbers of a list as they are


class ListConstants(Names, Protocol):
    """What is needed of a model's constants."""

    def array(self, name: str) -> NDArray[Any]: ...


def behind(graph: Graph, constants: ListConstants, name: str, index: int) -> tuple[int, int, int] | None:
    """Where element `index` of computed list `name` comes from: (producer, number of its input, index in that).

    None where it comes from more than one place, or the producer is none that is followed. Of a product the factor that
    is a constant counts, if there is just one; of a Where that replaces -1 in a list, the list.
    """
    producer = graph.producer.get(name)
    if producer is None or graph.nodes[producer].domain != "":
        return None
    node, before = graph.nodes[producer], 0
    if node.op in SAME:
        return producer, 0, index
    if node.op == "Concat":
        for number, piece in enumerate(node.inputs):
            size = length(graph, piece)
            if size is None:
                return None
            if index < before + size:
                return producer, number, index - before
            before += size
    if node.op == "Mul":
        plain = [number for number, factor in enumerate(node.inputs) if factor in constants]
        if len(plain) == 1:
            return producer, plain[0], index if (length(graph, node.inputs[plain[0]]) or 1) > 1 else 0
    if node.op == "Where" and _stays(graph, constants, node, index):
        return producer, 2, index
    return None


def _stays(graph: Graph, constants: ListConstants, node: Node, index: int) -> bool:
    """Whether Where(list == negative numbers, others, list) gives element `index` of the list: a number of 0 or more.

    So exporters write the target of an Expand in which -1 may stand.
    """
    producer = graph.producer.get(node.inputs[0])
    if producer is None or graph.nodes[producer].op != "Equal" or node.inputs[2] not in graph.nodes[producer].inputs:
        return False
    compared = [name for name in graph.nodes[producer].inputs if name != node.inputs[2]]
    found = source(graph, constants, node.inputs[2], index)
    if found is None or found[2] or len(compared) != 1:
        return False
    other = _number(graph, constants, compared[0], index)
    return other is not None and other < 0 <= int(constants.array(found[0]).reshape(-1)[found[1]])


def _number(graph: Graph, constants: ListConstants, name: str, index: int) -> int | None:
    """Element `index` of a list that is constant, filled with one number, or a product of such; None for another."""
    if name in constants:
        array = constants.array(name).reshape(-1)
        return int(array[index if array.size > 1 else 0])
    producer = graph.producer.get(name)
    node = None if producer is None else graph.nodes[producer]
    if node is not None and node.op == "ConstantOfShape" and "value" in node.attrs:
        return int(numpy_helper.to_array(node.attrs["value"]).ravel()[0])
    if node is not None and node.op == "Mul":
        left, right = (_number(graph, constants, factor, index) for factor in node.inputs)
        return None if left is None or right is None else left * right
    return None


def length(graph: Graph, name: str) -> int | None:
    """How many numbers a list holds; None where that is open, or it is no list."""
    shape = graph.tensor(name).shape
    if shape is None or len(shape) > 1:
        return None
    size = shape[0] if shape else 1
    return size if isinstance(size, int) else None


def source(graph: Graph, constants: ListConstants, name: str, index: int) -> tuple[str, int, bool] | None:
    """The constant that element `index` of list `name` is made from, the index in it, and whether it is a factor; None
    where it is made otherwise."""
    factor = False
    while name not in constants:
        found = behind(graph, constants, name, index)
        if found is None:
            return None
        producer, number, index = found
        factor = factor or graph.nodes[producer].op == "Mul"
        name = graph.nodes[producer].inputs[number]
    return name, index, factor


def single(graph: Graph, constants: ListConstants, name: str, index: int) -> bool:
    """Whether element `index` of the computed list `name` can give way to a plain number: it is a list by itself, here
    or further back."""
    while name not in constants:
        if length(graph, name) == 1:
            return True
        found = behind(graph, constants, name, index)
        if found is None:
            return False
        producer, number, index = found
        name = graph.nodes[producer].inputs[number]
    return False
