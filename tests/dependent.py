"""Transformers whose residual stream has dead directions, or duplicate channels: what a fold of it must not lose."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto
from transformer import NETS, Draw, Style, build, feeds

from onnxfold.analysis.analyze import analyze
from onnxfold.analysis.groups import Role
from onnxfold.analysis.rotation import Stream, streams
from onnxfold.model.editable_weights import Weights
from onnxfold.model.model import Model, load
from onnxfold.runtime.session import Feeds


def network(net: str, style: Style) -> tuple[ModelProto, Feeds]:
    """One of the small networks of the tests, and inputs."""
    proto = build(NETS[net], style).model(Draw())
    return proto, feeds(proto, NETS[net], 2 if style is Style.DYNAMO else 1)


def stream(model: Model) -> Stream:
    """Its residual stream, which must be one group."""
    (found,) = streams(model, analyze(model, fold_residual=True)).values()
    return found


def of_rank(proto: ModelProto, rank: int, seed: int = 0) -> ModelProto:
    """The same network, all that is written into its stream within `rank` random directions of it."""
    model = load(proto)
    n = stream(model).group.size
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, rank)))
    return _written(model, q @ q.T)


def with_dead(proto: ModelProto, channels: NDArray[np.int64]) -> ModelProto:
    """The same network, nothing written into some channels of its stream."""
    model = load(proto)
    keep = np.ones(stream(model).group.size)
    keep[channels] = 0
    return _written(model, np.diag(keep))


def _written(model: Model, matrix: NDArray[np.float64]) -> ModelProto:
    """All writers of the stream times `matrix`."""
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    weights = Weights(proto, model)
    for place in stream(model).group.parameters:
        operators = {model.graph.nodes[i].op for i in place.nodes}
        scales = "Mul" in operators or any(op.endswith("Normalization") for op in operators)  # they write nothing
        if place.role is Role.PRODUCES and not scales:
            old: Any = weights.read(place.tensor)
            new = np.moveaxis(np.tensordot(old, matrix, (place.axis, 0)), -1, place.axis)
            weights.write(place.tensor, new.astype(old.dtype))
    return proto
