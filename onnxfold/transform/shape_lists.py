"""Numbers that count channels, written where they stand: in attributes, in constants, and in the lists that the graph
itself puts together (for a Reshape, say)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto

from ..errors import RuleError
from ..model.shapes.lists import behind, length
from .edits import Integer
from .patch import Patch


@dataclass(frozen=True)
class Number:
    """Element `index` of a list: its new value; `plain`: in place of all that computes it."""

    index: int
    value: int
    plain: bool


def write_integers(patch: Patch, changes: Sequence[Integer]) -> None:
    """Every list of integers with a new one in it gets all of its new values."""
    lists: dict[tuple[int, str | None, int | None], list[Integer]] = {}
    for one in changes:
        lists.setdefault((one.node, one.at.attr, one.at.input), []).append(one)
    lists = {key: counted for key, counted in lists.items() if any(c.new for c in counted)}
    computed = dict[str, dict[tuple[int, int], list[Integer]]]()
    for (index, attr, number), counted in lists.items():
        node = patch.nodes[index]
        values = {one.at.index: one.value for one in counted}
        if attr is not None:
            _set_attribute(node, attr, values)
            continue
        assert number is not None
        name = node.input[number] if number < len(node.input) else ""
        if name and name not in patch.model.constants:
            computed.setdefault(name, {})[index, number] = [c for c in counted if c.new]
        else:
            patch.set_input(node, number, values, counted[0].at.instead_of)
    for name, consumers in computed.items():
        _write_computed(patch, name, consumers)


def write_numbers(patch: Patch, numbers: Mapping[tuple[int, int], NDArray[Any]]) -> None:
    """Nodes read plain numbers in place of what is computed from lengths that change: by (node, input)."""
    fresh = dict[tuple[str, bytes], str]()
    for (index, number), value in numbers.items():
        old = patch.nodes[index].input[number]
        made = (old, value.tobytes())
        if made not in fresh:
            fresh[made] = patch.constant(old, value, patch.model.graph.tensor(old).dtype)
        patch.give(patch.nodes[index], number, fresh[made])


def _write_computed(patch: Patch, name: str, consumers: Mapping[tuple[int, int], Sequence[Integer]]) -> None:
    """New numbers in the list `name`, which the graph puts together: in place where all consumers want the same, else
    in a list of its own for every set of numbers."""
    wanted = dict[tuple[Number, ...], list[tuple[int, int]]]()
    for consumer, counted in consumers.items():
        numbers = tuple(Number(c.at.index or 0, c.value, bool(c.at.lengths)) for c in counted)
        wanted.setdefault(numbers, []).append(consumer)
    alone = len(wanted) == 1 and patch.uses[name] == len(consumers)
    for numbers, who in wanted.items():
        fresh = _list(patch, name, numbers, min(index for index, _ in who), alone)
        for index, number in who:
            patch.give(patch.nodes[index], number, fresh)


def _list(patch: Patch, name: str, numbers: Sequence[Number], consumer: int, alone: bool) -> str:
    """List `name` with other `numbers`: `name` itself if `alone`, else one made just before node `consumer`."""
    graph, constants = patch.model.graph, patch.model.constants
    if length(graph, name) == 1 and numbers[0].plain:  # a length of other channels: from now on a number by itself
        value = np.full((1,) * len(graph.tensor(name).shape or ()), numbers[0].value)
        return patch.constant(name, value, graph.tensor(name).dtype)
    pieces = dict[int, list[Number]]()
    for one in numbers:
        found = behind(graph, constants, name, one.index)
        if found is None:
            raise RuleError(f"element {one.index} of '{name}' cannot be found")
        producer, number, inside = found
        pieces.setdefault(number, []).append(replace(one, index=inside))
    node = patch.nodes[producer] if alone else patch.copy_of(producer, name, consumer)
    for number, parts in pieces.items():
        piece = node.input[number]
        if piece in constants:
            patch.set_input(node, number, {p.index: p.value for p in parts})
        else:
            own = _list(patch, piece, parts, producer if alone else consumer, alone and patch.uses[piece] == 1)
            patch.give(node, number, own)
    return str(node.output[0])


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
