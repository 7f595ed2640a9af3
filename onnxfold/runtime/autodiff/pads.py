"""Zeros that a Pad node adds around the input of a Conv, as the Conv's own pads.

onnxruntime does the same for the forward pass. In a gradient, every such node would cost a Slice of the whole tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, helper, numpy_helper

from ...model.constants import constant_attribute
from .parts import attributes

_EXPLICIT = (b"NOTSET", b"")  # auto_pad


def absorb_pads(graph: GraphProto) -> None:
    """Let every Conv of `graph` that follows a Pad of zeros along spatial axes read what that reads, in place.

    Pad nodes stay where they are: pruning removes those that nothing reads any more.
    """
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    for node in graph.node:
        held = constant_attribute(node) if node.op_type == "Constant" else None
        if held is not None:
            constants[node.output[0]] = numpy_helper.to_array(held.t)
    around = {n.output[0]: (n, p) for n in graph.node if (p := _zeros(n, constants)) is not None}
    for node in graph.node:
        attrs = attributes(node)
        if node.op_type == "Conv" and node.input[0] in around and attrs.get("auto_pad", b"NOTSET") in _EXPLICIT:
            pad, more = around[node.input[0]]
            before = attrs.get("pads", [0] * len(more))
            if len(more) == len(before):
                kept = [a for a in node.attribute if a.name not in ("pads", "auto_pad")]
                kept.append(helper.make_attribute("pads", [a + b for a, b in zip(before, more, strict=True)]))
                copies = [type(a).FromString(a.SerializeToString()) for a in kept]
                del node.attribute[:]
                node.attribute.extend(copies)
                node.input[0] = pad.input[0]


def _zeros(node: NodeProto, constants: Mapping[str, NDArray[Any]]) -> Sequence[int] | None:
    """The spatial pads of a Pad node (before, then behind) that adds zeros along no other axis, else None."""
    if node.op_type != "Pad" or attributes(node).get("mode", b"constant") != b"constant":
        return None
    if not all(name in constants for name in node.input[1:] if name) or len([n for n in node.input[3:] if n]):
        return None
    if len(node.input) > 2 and node.input[2] and np.any(constants[node.input[2]]):
        return None
    pads = constants[node.input[1]].reshape(2, -1)
    if pads.shape[1] < 3 or (pads < 0).any() or pads[:, :2].any():
        return None
    return [int(p) for p in pads[:, 2:].reshape(-1)]
