"""Values of single TensorProtos: made, replaced, or left to whoever writes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from .subgraphs import subgraphs


def made(array: NDArray[Any], name: str, kind: int = 0) -> TensorProto:
    """A tensor called `name`, of element type `kind` (0: that of the array)."""
    tensor = numpy_helper.from_array(np.asarray(array, order="C"), name)
    if kind:
        tensor.data_type = kind
    return tensor


def replaced(tensor: TensorProto, array: NDArray[Any]) -> None:
    """New values for `tensor`, whose name, documentation, metadata and kind of storage stay."""
    new = made(array, tensor.name, tensor.data_type)
    external = tensor.data_location == TensorProto.EXTERNAL
    for data in ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "raw_data", "dims"):
        tensor.ClearField(data)
    tensor.dims.extend(new.dims)
    tensor.raw_data = new.raw_data
    if external:  # the bytes are here now; the writer moves them out again
        tensor.ClearField("external_data")
        tensor.data_location = TensorProto.DEFAULT


@dataclass(frozen=True, eq=False)
class Pending:
    """Values that are computed when they are written: `make` gives them, of this shape."""

    shape: tuple[int, ...]
    make: Callable[[], NDArray[Any]] = field(repr=False)


def settled(array: NDArray[Any] | Pending) -> NDArray[Any]:
    """The values, computed now where they were left for later."""
    return array.make() if isinstance(array, Pending) else array


def deferred(tensor: TensorProto, pending: Pending) -> None:
    """Another shape for `tensor`, an external one, whose values nobody can read before they are written."""
    tensor.ClearField("dims")
    tensor.dims.extend(pending.shape)
    for entry in tensor.external_data:
        if entry.key == "location":
            entry.value = ""


def is_deferred(tensor: TensorProto) -> bool:
    """Whether the values of `tensor` are left to the writer."""
    return tensor.data_location == TensorProto.EXTERNAL and not any(
        entry.key == "location" and entry.value for entry in tensor.external_data
    )


def all_names(graph: GraphProto) -> set[str]:
    """The names of all tensors of a graph and its bodies."""
    names = {name for node in graph.node for name in (*node.input, *node.output)}
    names |= {v.name for v in (*graph.input, *graph.output, *graph.value_info)} | {t.name for t in graph.initializer}
    for node in graph.node:
        for body in subgraphs(node):
            names |= all_names(body)
    return names


def replace_constant(node: NodeProto, array: NDArray[Any]) -> None:
    """New values for a Constant node, in the attribute that holds them where that can."""
    held = node.attribute[0]
    if held.name == "value":
        replaced(held.t, array)
    elif held.name == "value_floats" and array.ndim == 1 and array.dtype == np.float32:
        held.floats[:] = array.tolist()
    elif held.name == "value_ints" and array.ndim == 1 and array.dtype == np.int64:
        held.ints[:] = array.tolist()
    else:
        held.CopyFrom(helper.make_attribute("value", made(array, "", 0)))
