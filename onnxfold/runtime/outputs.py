"""Which outputs of a model are compared, and versions of it that show them."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from ..errors import ExecutionError
from ..model.graph import Graph

_SQUASHING = ("Softmax", "LogSoftmax", "Sigmoid", "HardSigmoid", "Tanh", "Clip", "Identity", "Cast")


def raw_outputs(graph: Graph, skip: Container[str] = ()) -> list[str]:
    """The outputs but those in `skip`, without squashing operators at the end: a saturated softmax hides errors."""
    names = []
    for name in (output for output in graph.outputs if output not in skip):
        while name in graph.producer and graph.nodes[graph.producer[name]].op in _SQUASHING:
            name = graph.nodes[graph.producer[name]].inputs[0]
        names.append(name)
    return list(dict.fromkeys(names))


def as_array(name: str, value: Any) -> NDArray[Any]:
    """What output `name` holds as one array. Raises ExecutionError for a list of tensors of different shapes."""
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ExecutionError(f"'{name}' is a list of tensors of different shapes") from error


def with_outputs(proto: ModelProto, names: Sequence[str], graph: Graph) -> ModelProto:
    """A copy of `proto` that outputs exactly the tensors `names`."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    kept: Mapping[str, Any] = {v.name: v for v in proto.graph.output}
    del copy.graph.output[:]
    for name in names:
        if name in kept:
            copy.graph.output.append(kept[name])
        else:
            copy.graph.output.append(onnx.helper.make_tensor_value_info(name, graph.tensor(name).dtype or 1, None))
    return copy
