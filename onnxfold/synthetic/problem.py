"""From a model to what Adam can walk down: a session that gives the loss and its gradient for a chunk of inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from ..inputs import concrete_shape
from ..model import Model
from ..session import InputSpec, Session
from . import objective
from .fused import FEWEST, Prior, convolutions
from .gradients import PREFIX, with_gradient
from .norms import take_out
from .objective import FIT, LOSS, MEANS, SQUARES, TARGET, Layer
from .prepare import activation_bytes, prune, shapes_of, static_copy

Floats = NDArray[np.float32]
_BUDGET = 1 << 30  # bytes of activations per chunk; the gradient graph takes about three times as much
_BATCHES = (64, 32, 16, 8)  # below 8 the statistics of a chunk say little


@dataclass(frozen=True)
class Goal:
    """What the inputs are made from, for the user, and the weights of cross-entropy and smoothness beside it."""

    kind: str
    entropy: float
    smoothness: float


# Tuned on CIFAR-10 ResNet-20. Beside statistics, cross-entropy of weight 0.1 spoils the fit, and none costs spread.
STATISTICS = Goal("deep inversion from BatchNormalization statistics", 0.01, 0.2)
PRIOR = Goal("deep inversion from convolution weights and biases", 0.001, 2.0)
CLASS_SPREAD = "deep inversion from class spread"
CLASSES = Goal(CLASS_SPREAD, 1.0, 1.0)


@dataclass(frozen=True)
class Value:
    """Losses and gradient at one point; `means` and `squares` [channels of all layers] where statistics are fitted."""

    loss: float
    fit: float
    gradient: Floats
    means: NDArray[np.float64]
    squares: NDArray[np.float64]


@dataclass(frozen=True)
class Terms:
    """What the loss is made of: statistics to match, priors, class scores [batch, classes] (None and 0 without)."""

    layers: tuple[Layer, ...]
    priors: tuple[Prior, ...]
    scores: str | None
    classes: int

    @property
    def goal(self) -> Goal:
        """The name and the weights of this mixture."""
        return STATISTICS if self.layers else PRIOR if self.priors else CLASSES


@dataclass(frozen=True)
class Problem:
    """`session` computes LOSS and its gradient with respect to input `name` of `shape` (first axis: the chunk)."""

    session: Session
    name: str
    shape: tuple[int, ...]
    terms: Terms

    def evaluate(self, x: Floats, target: Floats | None) -> Value:
        """The loss and its gradient at `x`; `target` [chunk, classes] one-hot where there are classes."""
        feeds: dict[str, Any] = {self.name: x}
        if target is not None:
            feeds[TARGET] = target
        found = dict(zip(self.session.outputs, self.session.run(feeds), strict=True))
        nothing = np.zeros(0)
        loss = float(found[LOSS][0])
        return Value(
            loss, float(found[FIT][0]) if FIT in found else loss, found[PREFIX + self.name].reshape(self.shape),
            np.asarray(found.get(MEANS, nothing), np.float64), np.asarray(found.get(SQUARES, nothing), np.float64),
        )  # fmt: skip


class UnsuitableError(Exception):
    """Why deep inversion does not apply to a model."""


def pose(
    model: Model, specs: Sequence[InputSpec], count: int, shapes: Mapping[str, Sequence[int]], provider: str
) -> Problem:
    """The problem of a model.

    Raises:
        UnsuitableError: with the reason.
        Exception: what onnx, onnx-ad or onnxruntime raise on the way.
    """
    if len(specs) != 1:
        raise UnsuitableError(f"it has {len(specs)} inputs")
    spec = specs[0]
    if spec.dtype is None or np.dtype(spec.dtype).kind != "f":
        raise UnsuitableError("its input is no floating-point tensor")
    shape = concrete_shape(spec.shape, 1, shapes.get(spec.name))
    if len(shape) < 2:
        raise UnsuitableError("its input has no batch axis")
    proto, shape = _chunked(model, spec.name, shape, count)
    terms = _terms(proto, model, shape[0], len(shape))
    graph = with_gradient(_with_loss(proto, terms, shape[0]), LOSS, [spec.name])
    return Problem(Session(graph.SerializeToString(), provider), spec.name, shape, terms)


def _terms(proto: ModelProto, model: Model, batch: int, rank: int) -> Terms:
    """What `proto`, the static copy of `model`, gives to make a loss of. Takes its BatchNormalization out."""
    layers = take_out(proto.graph, model)
    known = shapes_of(proto)
    layers = [layer for layer in layers if layer.tensor in known and layer.alive.any()]
    scores = objective.class_scores(model)
    if scores is not None and (scores not in known or known[scores][0] != batch):
        scores = None
    covered = {layer.tensor for layer in layers} | {scores}
    priors = [p for p in convolutions(proto.graph) if p.tensor in known and p.tensor not in covered]
    if len(priors) < FEWEST or rank != 4:  # the laws of fused.py were measured on networks for images
        priors = []
    if not layers and not priors and scores is None:
        raise UnsuitableError("it has neither BatchNormalization, nor convolutions with a bias, nor class scores")
    return Terms(tuple(layers), tuple(priors), scores, known[scores][1] if scores else 0)


def _chunked(model: Model, name: str, shape: Sequence[int], count: int) -> tuple[ModelProto, tuple[int, ...]]:
    """The static copy of the largest chunk whose activations fit into memory."""
    for batch in _BATCHES:
        full = (min(batch, count), *shape[1:])
        proto = static_copy(model, {name: full})
        if activation_bytes(proto) <= _BUDGET or batch == _BATCHES[-1]:
            break
    return proto, full


def _with_loss(proto: ModelProto, terms: Terms, batch: int) -> ModelProto:
    """`proto` with the outputs LOSS and, where something is fitted, FIT; changed in place."""
    known = shapes_of(proto)
    del proto.graph.output[:]
    emit = objective.Emitter(proto.graph)
    summands = []
    total = len(terms.layers) + len(terms.priors)
    if terms.layers:
        fit = objective.fit_loss(emit, terms.layers, known)
        summands.append(emit.op("Mul", [fit, emit.constant([len(terms.layers) / total])]))
    if terms.priors:
        fit = objective.prior_loss(emit, terms.priors, known)
        summands.append(emit.op("Mul", [fit, emit.constant([len(terms.priors) / total])]))
    if summands:
        emit.output(emit.op("Sum", summands, FIT), [1])
    if terms.scores is not None:
        entropy = objective.class_loss(emit, terms.scores, batch, terms.classes)
        summands.append(emit.op("Mul", [entropy, emit.constant([terms.goal.entropy])]))
    emit.output(emit.op("Sum", summands, LOSS), [1])
    prune(proto.graph)
    return proto
