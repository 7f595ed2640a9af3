"""How often the nodes in bodies of Scan run: once for every position of what is scanned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnx import AttributeProto, NodeProto, helper

from ..model.model import Model
from ..model.subgraphs import opened

Dims = tuple[tuple[str, int], ...]  # lengths that are multiplied: (tensor, axis)


def steps(model: Model, shapes: Mapping[str, tuple[int, ...]]) -> dict[int, Dims]:
    """By the index of a node in a body, the axes whose lengths say how often it runs. Bodies of Loop, whose condition
    may end them at any time, count once."""
    found = dict[int, Dims]()
    within = dict[int, Dims]()  # by the identity of an owner in a body, how often that runs itself
    index, bodies = model.graph.main, opened(model.proto)
    for body in bodies:
        often = within.get(id(body.owner), ())
        if body.owner.op_type == "Scan":
            often += _scanned(body.owner, shapes)
        for node in body.graph.node:
            if often:
                found[index] = often
                within[id(node)] = often
            index += 1
    return found


def _scanned(node: NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> Dims:
    """The axis of the first tensor that a Scan takes apart, () where its shape is not known."""
    attributes: dict[str, Any] = {
        a.name: helper.get_attribute_value(a) for a in node.attribute if a.type != AttributeProto.GRAPH
    }
    count = attributes["num_scan_inputs"]
    name, axis = node.input[len(node.input) - count], attributes.get("scan_input_axes", [0])[0]
    rank = len(shapes.get(name, ()))
    return ((name, axis % rank),) if rank and -rank <= axis < rank else ()
