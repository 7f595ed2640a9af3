"""Steps that give a stored tensor another form and lose nothing: Transpose, Reshape, Cast between floats, a factor...

What such a step makes can be written back: `backward` gives the tensor that `forward` makes it of.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

from .subgraphs import DEFAULT_DOMAINS

Array = NDArray[Any]
Read = Callable[[str], "Array | None"]
"""The value of a small constant (a list, a factor); None for what is none."""

_AXES = frozenset(("Squeeze", "Unsqueeze"))
SELECTS = frozenset(("Gather",))  # parts of a tensor, some perhaps more than once: the rest is lost
OPERATORS = frozenset(("Identity", "Cast", "Mul", "Div", "Transpose", "Reshape", "Flatten")) | _AXES


def source(node: NodeProto, kind: Callable[[str], int], read: Read, selects: bool = False) -> str:
    """The tensor that a node gives another form; '' where it is no step that can be undone.

    `kind` tells the ONNX element type of a tensor of floats, 0 of any other. `selects`: Gather counts too, as for a
    tensor of which nothing else is used.
    """
    if node.op_type not in (OPERATORS | SELECTS if selects else OPERATORS):
        return ""
    if node.domain not in DEFAULT_DOMAINS or len(node.output) != 1:
        return ""
    data = str(node.input[0])
    if node.op_type in ("Mul", "Div"):
        scaled = [name for name, other in zip(node.input, reversed(node.input), strict=True) if _factor(other, read)]
        if len(scaled) != 1 or (node.op_type == "Div" and scaled[0] != data):
            return ""
        data = str(scaled[0])
    if not kind(data) or (node.op_type == "Cast" and not _floats(node)) or not _settled(node, read):
        return ""
    return data


def forward(node: NodeProto, value: Array, read: Read) -> Array:
    """What the node makes of `value`."""
    match node.op_type:
        case "Cast":
            with np.errstate(over="ignore"):
                return value.astype(_type(node))
        case "Mul" | "Div":
            factor = _other(node, read).reshape(())
            scaled = np.asarray(value * factor if node.op_type == "Mul" else value / factor, value.dtype)
            return scaled.reshape(made_shape(node, value.shape, read))
        case "Transpose":
            return value.transpose(permutation(node, value.ndim))
        case "Gather":
            axis, indices = _selected(node, value.ndim, read)
            return np.take(value, indices, axis)
    return value.reshape(made_shape(node, value.shape, read))


def backward(node: NodeProto, value: Array, shape: Sequence[int], dtype: np.dtype[Any], read: Read) -> Array:
    """What the node makes `value` of: of this `shape` and type."""
    match node.op_type:
        case "Mul" | "Div":
            factor = _other(node, read).astype(np.float64).reshape(())
            value = value / factor if node.op_type == "Mul" else value * factor
        case "Transpose":
            value = value.transpose(np.argsort(permutation(node, value.ndim)))
        case "Gather":
            axis, indices = _selected(node, len(shape), read)
            whole = np.zeros(shape, value.dtype)
            whole[(slice(None),) * axis + (indices,)] = value
            value = whole
    with np.errstate(over="ignore"):  # of float16: whoever asks looks
        return np.ascontiguousarray(value.reshape(shape).astype(dtype))


def made_shape(node: NodeProto, shape: Sequence[int], read: Read) -> tuple[int, ...]:
    """The shape of what the node makes of a tensor of this `shape`."""
    match node.op_type:
        case "Mul" | "Div":
            return (*(1,) * (_other(node, read).ndim - len(shape)), *shape)
        case "Transpose":
            return tuple(shape[axis] for axis in permutation(node, len(shape)))
        case "Gather":
            axis, indices = _selected(node, len(shape), read)
            return (*shape[:axis], *indices.shape, *shape[axis + 1 :])
        case "Reshape":
            return _target(_listed(node, read), shape, bool(_attribute(node, "allowzero", 0)))
        case "Flatten":
            axis = int(_attribute(node, "axis", 1)) % (len(shape) + 1) if shape else 0
            return math.prod(shape[:axis]), math.prod(shape[axis:])
        case "Squeeze":
            gone = {axis % len(shape) for axis in _axes(node, read)}
            return tuple(n for axis, n in enumerate(shape) if axis not in gone)
        case "Unsqueeze":
            axes = _axes(node, read)
            new, left = {axis % (len(shape) + len(axes)) for axis in axes}, iter(shape)
            return tuple(1 if axis in new else next(left) for axis in range(len(shape) + len(axes)))
    return tuple(shape)


def made_axes(node: NodeProto, axes: Sequence[int | None], shape: Sequence[int], read: Read) -> list[int | None]:
    """The axes of the first tensor of a chain that those of the node's output are, by those of its input, a tensor of
    this `shape`; None for what is no single one."""
    match node.op_type:
        case "Mul" | "Div":
            return [*(None,) * (_other(node, read).ndim - len(axes)), *axes]
        case "Transpose":
            return [axes[axis] for axis in permutation(node, len(axes))]
        case "Gather":
            at, indices = _selected(node, len(axes), read)
            return [*axes[:at], *(None,) * indices.ndim, *axes[at + 1 :]]
        case "Reshape" | "Flatten":
            made = made_shape(node, shape, read)
            return list(axes) if made == tuple(shape) else [None] * len(made)
        case "Squeeze":
            gone = {axis % len(axes) for axis in _axes(node, read)}
            return [one for axis, one in enumerate(axes) if axis not in gone]
        case "Unsqueeze":
            new = _axes(node, read)
            added, left = {axis % (len(axes) + len(new)) for axis in new}, iter(axes)
            return [None if axis in added else next(left) for axis in range(len(axes) + len(new))]
    return list(axes)


def new_lengths(node: NodeProto, before: Sequence[int], after: Sequence[int], read: Read) -> dict[int, int]:
    """What must change in the list of a Reshape (by index) so that it makes `after` of a tensor of shape `before`."""
    listed = _listed(node, read).tolist() if node.op_type == "Reshape" else []
    copies = not _attribute(node, "allowzero", 0)
    made = {i: (before[i] if n == 0 and copies else n) for i, n in enumerate(listed) if n != -1}
    return {i: after[i] for i, n in made.items() if n != after[i]}


def _factor(name: str, read: Read) -> bool:
    """Whether a constant is one number that can be divided by."""
    value = read(name)
    return value is not None and value.size == 1 and bool(np.isfinite(value).all() and (value != 0).all())


def _other(node: NodeProto, read: Read) -> Array:
    """The factor of a Mul or a Div."""
    return next(value for value in map(read, reversed(node.input)) if value is not None and value.size == 1)


def _floats(node: NodeProto) -> bool:
    return np.issubdtype(_type(node), np.floating) or _type(node).name == "bfloat16"


def _type(node: NodeProto) -> np.dtype[Any]:
    return np.dtype(helper.tensor_dtype_to_np_dtype(int(_attribute(node, "to", 1))))


def _settled(node: NodeProto, read: Read) -> bool:
    """Whether what a step does is plain: its list is a constant, or its axes are named."""
    if node.op_type in ("Reshape", "Gather"):
        return len(node.input) > 1 and read(node.input[1]) is not None
    return node.op_type not in _AXES or bool(_axes(node, read))


def _listed(node: NodeProto, read: Read) -> NDArray[np.int64]:
    value = read(node.input[1])
    assert value is not None
    return value.astype(np.int64)


def selected_from(node: NodeProto, before: Sequence[int], made: Sequence[int], read: Read) -> tuple[int, ...] | None:
    """The shape of what a Gather selects `made` from, whose length along its axis is that of `before`; None where the
    selection itself has another shape."""
    axis, indices = _selected(node, len(before), read)
    behind = axis + indices.ndim
    if tuple(made[axis:behind]) != indices.shape:
        return None
    return (*made[:axis], before[axis], *made[behind:])


def _selected(node: NodeProto, rank: int, read: Read) -> tuple[int, NDArray[np.int64]]:
    """The axis of a Gather, and what it selects along that."""
    indices = read(node.input[1])
    assert indices is not None
    return int(_attribute(node, "axis", 0)) % rank, indices.astype(np.int64)


def _axes(node: NodeProto, read: Read) -> list[int]:
    value = read(node.input[1]) if len(node.input) > 1 and node.input[1] else None
    return [int(a) for a in (_attribute(node, "axes", ()) if value is None else value.ravel())]


def _target(listed: NDArray[np.int64], shape: Sequence[int], exact: bool) -> tuple[int, ...]:
    made = [shape[i] if n == 0 and not exact else n for i, n in enumerate(map(int, listed))]
    if -1 in made:
        rest = math.prod(n for n in made if n != -1)
        made[made.index(-1)] = math.prod(shape) // rest if rest else 0
    return tuple(made)


def permutation(node: NodeProto, rank: int) -> list[int]:
    """The axes of its input that those of a Transpose are."""
    return list(_attribute(node, "perm", range(rank)[::-1]))


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    found = next((a for a in node.attribute if a.name == name), None)
    return default if found is None else helper.get_attribute_value(found)
