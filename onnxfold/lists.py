"""Lists of integers that a graph puts together (Concat of numbers and lengths): which numbers in them can be edited."""

from __future__ import annotations

from typing import Protocol

from .graph import Graph

SAME = ("Cast", "Identity", "Unsqueeze", "Squeeze", "Reshape")  # operators that leave the numbers of a list as they are


class Known(Protocol):
    """What is needed of a model's constants."""

    def __contains__(self, name: str) -> bool: ...


def behind(graph: Graph, constants: Known, name: str, index: int) -> tuple[int, int, int] | None:
    """Where element `index` of computed list `name` comes from: (maker, number of its input, index in that).

    None where it comes from more than one place, or the maker is none that is followed. Of a product the factor that
    is a constant counts, if there is just one.
    """
    maker = graph.producer.get(name)
    if maker is None or graph.nodes[maker].domain != "":
        return None
    node, before = graph.nodes[maker], 0
    if node.op in SAME:
        return maker, 0, index
    if node.op == "Concat":
        for number, piece in enumerate(node.inputs):
            size = length(graph, piece)
            if size is None:
                return None
            if index < before + size:
                return maker, number, index - before
            before += size
    if node.op == "Mul":
        plain = [number for number, factor in enumerate(node.inputs) if factor in constants]
        if len(plain) == 1:
            return maker, plain[0], index if (length(graph, node.inputs[plain[0]]) or 1) > 1 else 0
    return None


def length(graph: Graph, name: str) -> int | None:
    """How many numbers a list holds; None where that is open, or it is no list."""
    shape = graph.tensor(name).shape
    if shape is None or len(shape) > 1:
        return None
    size = shape[0] if shape else 1
    return size if isinstance(size, int) else None


def source(graph: Graph, constants: Known, name: str, index: int) -> tuple[str, int, bool] | None:
    """The constant that element `index` of list `name` is made from, the index in it, and whether it is a factor; None
    where it is made otherwise."""
    factor = False
    while name not in constants:
        found = behind(graph, constants, name, index)
        if found is None:
            return None
        maker, number, index = found
        factor = factor or graph.nodes[maker].op == "Mul"
        name = graph.nodes[maker].inputs[number]
    return name, index, factor


def single(graph: Graph, constants: Known, name: str, index: int) -> bool:
    """Whether element `index` of the computed list `name` can give way to a plain number: it is a list by itself, here
    or further back."""
    while name not in constants:
        if length(graph, name) == 1:
            return True
        found = behind(graph, constants, name, index)
        if found is None:
            return False
        maker, number, index = found
        name = graph.nodes[maker].inputs[number]
    return False
