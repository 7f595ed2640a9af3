"""What operators compute of lists of integers about shapes: how they move, pick and fill (arithmetic: numeric.py).

One rule each, from the values of inputs to those of outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import numpy_helper

from ..graph import Node
from .numeric import NUMERIC
from .values import LIMIT, Operands, Value, Values, count, listed, whole

_RANGE = 256  # elements: longer ones are positions, no lists of lengths


def _shape(v: Operands, n: Node) -> Values:
    dims = v.shape(n.inputs[0])
    end = n.attrs.get("end")
    return listed(dims[n.attrs.get("start", 0) : end])


def _filled(v: Operands, n: Node) -> Values:
    """ConstantOfShape: a short list, or a number."""
    lengths = v.ints(n.inputs[0])
    if count(tuple(lengths)) > LIMIT:
        raise ValueError("too long to be shape arithmetic")
    value = n.attrs.get("value")
    number = 0 if value is None else numpy_helper.to_array(value).ravel()[0]
    if number != int(number):
        raise TypeError("not an integer")
    out = np.empty(lengths, object)
    out[...] = Value(int(number))
    return out


def _range(v: Operands, n: Node) -> Values:
    start, limit, delta = (int(v.ints(name)[0]) for name in n.inputs)
    numbers = range(start, limit, delta)
    if len(numbers) > _RANGE:
        raise ValueError("too long to be shape arithmetic")
    return listed([Value(number) for number in numbers])


def _gather(v: Operands, n: Node) -> Values:
    return whole(np.take(v.need(n.inputs[0]), _indices(v, n), axis=n.attrs.get("axis", 0)))


def _gather_elements(v: Operands, n: Node) -> Values:
    return np.take_along_axis(v.need(n.inputs[0]), _indices(v, n), axis=n.attrs.get("axis", 0))


def _gather_nd(v: Operands, n: Node) -> Values:
    if n.attrs.get("batch_dims", 0):
        raise ValueError("no picking of lengths")
    index = _indices(v, n)
    return whole(v.need(n.inputs[0])[tuple(np.moveaxis(index, -1, 0))])


def _indices(v: Operands, n: Node) -> Any:
    return np.array(v.ints(n.inputs[1]), np.int64).reshape(v.need(n.inputs[1]).shape)


def _scatter_nd(v: Operands, n: Node) -> Values:
    out, index = v.need(n.inputs[0]).copy(), _indices(v, n)
    if n.attrs.get("reduction", "none") not in ("none", b"none"):
        raise ValueError("no setting of lengths")
    out[tuple(np.moveaxis(index, -1, 0))] = v.need(n.inputs[2])
    return out


def _scatter_elements(v: Operands, n: Node) -> Values:
    out = v.need(n.inputs[0]).copy()
    if out.ndim != 1 or n.attrs.get("reduction", "none") not in ("none", b"none"):
        raise ValueError("no setting of lengths")
    out[_indices(v, n)] = v.need(n.inputs[2])
    return out


def _slice(v: Operands, n: Node) -> Values:
    x = v.need(n.inputs[0])
    if n.version < 10:
        starts, ends = n.attrs["starts"], n.attrs["ends"]
        axes, steps = n.attrs.get("axes", list(range(len(starts)))), [1] * len(starts)
    else:
        starts, ends = v.ints(n.inputs[1]), v.ints(n.inputs[2])
        more = [v.ints(n.inputs[i]) if len(n.inputs) > i and n.inputs[i] else None for i in (3, 4)]
        axes, steps = more[0] or list(range(len(starts))), more[1] or [1] * len(starts)
    cut = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step < 0:  # what lies before the beginning is the very start
            start, end = max(start, -x.shape[axis]), None if end < -x.shape[axis] else end
        cut[axis] = slice(start, end, step)
    return whole(x[tuple(cut)])


def _split(v: Operands, n: Node) -> Sequence[Values]:
    x, axis = v.need(n.inputs[0]), n.attrs.get("axis", 0)
    given = v.ints(n.inputs[1]) if len(n.inputs) > 1 and n.inputs[1] else n.attrs.get("split")
    part = -(-x.shape[axis] // len(n.outputs))
    sizes = given or [part] * len(n.outputs)
    found: Sequence[Values] = np.split(x, np.cumsum(sizes)[:-1].tolist(), axis)
    return found


def _axes(v: Operands, n: Node) -> list[int]:
    return v.ints(n.inputs[1]) if len(n.inputs) > 1 and n.inputs[1] else list(n.attrs["axes"])


def _unsqueeze(v: Operands, n: Node) -> Values:
    return np.expand_dims(v.need(n.inputs[0]), tuple(_axes(v, n)))


def _squeeze(v: Operands, n: Node) -> Values:
    given = "axes" in n.attrs or (len(n.inputs) > 1 and n.inputs[1])
    return whole(np.squeeze(v.need(n.inputs[0]), axis=tuple(_axes(v, n)) if given else None))


def _concat(v: Operands, n: Node) -> Values:
    return np.concatenate([v.need(i) for i in n.inputs], axis=n.attrs["axis"])


def _reshape(v: Operands, n: Node) -> Values:
    x, target = v.need(n.inputs[0]), v.ints(n.inputs[1]) if len(n.inputs) > 1 else list(n.attrs["shape"])
    if not n.attrs.get("allowzero", 0):
        target = [x.shape[i] if size == 0 else size for i, size in enumerate(target)]
    return x.reshape(target)


def _flatten(v: Operands, n: Node) -> Values:
    x = v.need(n.inputs[0])
    axis = n.attrs.get("axis", 1)
    rows = count(x.shape[: axis + x.ndim if axis < 0 else axis])
    return x.reshape(rows, x.size // rows)


def _transpose(v: Operands, n: Node) -> Values:
    return np.transpose(v.need(n.inputs[0]), n.attrs.get("perm"))


def _expand(v: Operands, n: Node) -> Values:
    x, target = v.need(n.inputs[0]), tuple(v.ints(n.inputs[1]))
    shape = np.broadcast_shapes(x.shape, target)
    if count(shape) > LIMIT:
        raise ValueError("too long to be shape arithmetic")
    return np.broadcast_to(x, shape)


def _tile(v: Operands, n: Node) -> Values:
    x, times = v.need(n.inputs[0]), v.ints(n.inputs[1])
    if len(times) != x.ndim or x.size * count(tuple(times)) > LIMIT:
        raise ValueError("too long to be shape arithmetic")
    return np.tile(x, times)


def _one_hot(v: Operands, n: Node) -> Values:
    """Of two values the first everywhere, the second where an index points: torch writes the repeats of a
    repeat_interleave so."""
    rows, depth, (off, on) = v.need(n.inputs[0]).shape, v.ints(n.inputs[1])[0], v.need(n.inputs[2])
    if count(rows) * depth > LIMIT:
        raise ValueError("too long to be shape arithmetic")
    out = np.full((count(rows), depth), off, object)
    for row, place in enumerate(v.ints(n.inputs[0])):
        if -depth <= place < depth:
            out[row, place] = on
    return np.moveaxis(out.reshape(*rows, depth), -1, n.attrs.get("axis", -1))


def _same(v: Operands, n: Node) -> Values:
    return v.need(n.inputs[0])


# Operands that operators use as lengths only; their rules follow them.
TAKES_LENGTHS: Mapping[str, tuple[int, ...]] = {
    "Reshape": (1,), "Expand": (1,), "Tile": (1,), "Slice": (1, 2), "Split": (1,), "Pad": (1,), "Resize": (3,),
    "ConstantOfShape": (0,),
}  # fmt: skip
RULES: Mapping[str, Callable[[Operands, Node], Values | Sequence[Values]]] = {
    **NUMERIC,
    "Shape": _shape, "ConstantOfShape": _filled, "Range": _range, "Identity": _same,
    "Gather": _gather, "GatherElements": _gather_elements, "GatherND": _gather_nd, "Slice": _slice, "Split": _split,
    "ScatterND": _scatter_nd, "ScatterElements": _scatter_elements, "Concat": _concat, "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze, "Reshape": _reshape, "Flatten": _flatten, "Transpose": _transpose, "Expand": _expand,
    "Tile": _tile, "OneHot": _one_hot,
}  # fmt: skip
