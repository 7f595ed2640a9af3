"""Weights of which only the numbers that are not 0 are stored."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, SparseTensorProto

from .external_data import tensor_array
from .subgraphs import DEFAULT_DOMAINS, every_node

SPARSE_INITIALIZER, SPARSE_VALUE = "a sparse_initializer", "a Constant with a sparse_value"


def sparse_weights(proto: ModelProto) -> dict[str, SparseTensorProto]:
    """Those of a model by name: its sparse initializers, and what Constant nodes make of a `sparse_value`."""
    found = {sparse.values.name: sparse for sparse in proto.graph.sparse_initializer}
    for node in every_node(proto):
        held = sparse_value(node)
        if held is not None:
            found[node.output[0]] = held
    return found


def sparse_value(node: NodeProto) -> SparseTensorProto | None:
    """The sparse tensor that a Constant node holds, if it has that form."""
    if node.op_type != "Constant" or node.domain not in DEFAULT_DOMAINS:
        return None
    return next((a.sparse_tensor for a in node.attribute if a.name == "sparse_value"), None)


def stored_numbers(sparse: SparseTensorProto) -> int:
    """How many numbers are stored."""
    return math.prod(sparse.values.dims)


def dense(sparse: SparseTensorProto, folder: Path | None) -> NDArray[Any]:
    """All of its numbers, zeros included."""
    values, indices = tensor_array(sparse.values, folder), tensor_array(sparse.indices, folder)
    whole = np.zeros(tuple(sparse.dims), values.dtype)
    if indices.ndim == 2:
        whole[tuple(indices.T)] = values
    else:
        whole.reshape(-1)[indices] = values
    return whole
