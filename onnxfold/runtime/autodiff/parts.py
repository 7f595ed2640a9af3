"""What the reverse rules share: their types, and adjoints with and without the axis of seeds.

A rule gets onnx-ad's context, the primal node and the adjoints of its outputs, and returns one contribution per input,
or None to leave the node to onnx-ad's own rule. An adjoint has the shape of its tensor and one more axis at the end, of
length 1 here (one seed). onnx-ad itself is imported in reverse.py only, so the context is duck-typed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

Adjoints = Sequence[str | None]
Rule = Callable[[Any, NodeProto, Adjoints], list[str | None] | None]


def attributes(node: NodeProto) -> dict[str, Any]:
    """The attributes of a node, by name."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def plain(ctx: Any, adjoint: str, like: str, shape: Sequence[int]) -> str:
    """The adjoint of tensor `like`, of this shape, without the axis of seeds."""
    return reshaped(ctx, ctx.full(adjoint, like), shape)


def seeded(ctx: Any, value: str, shape: Sequence[int]) -> str:
    """A plain adjoint with the axis of seeds put back."""
    return reshaped(ctx, value, [*shape, 1])


def reshaped(ctx: Any, value: str, shape: Sequence[int]) -> str:
    """The same numbers in another shape."""
    return str(ctx.b.op("Reshape", [value, ctx.b.ints(shape)], stem="shaped"))


def weights(ctx: Any, array: NDArray[Any], name: str) -> str:
    """A constant, of the element type that tensor `name` has."""
    return str(ctx.b.constant(np.ascontiguousarray(array), ctx.dtype(name), array.shape))
