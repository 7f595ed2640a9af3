"""From a model to a problem for Adam: a session that gives the loss and its gradient for a chunk of inputs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, ValueInfoProto

from ...frozen import read_only
from ...model.model import Model
from ...model.shapes.nominal import concrete_shape
from ...model.subgraphs import captures
from ...runtime.autodiff.emitter import LOSS, Emitter
from ...runtime.autodiff.prepare import activation_bytes, prune, shapes_of, static_copy
from ...runtime.autodiff.reverse import PREFIX, with_gradient, without_gradient
from ...runtime.batching import Batching
from ...runtime.probe_inputs import index_limits, probe
from ...runtime.session import InputSpec, Session
from ..origin import Origin
from . import loss as objective
from .bn_prior import FEWEST, Prior, convolutions
from .bn_statistics import take_out
from .loss import CONTRAST, FIT, MEANS, SQUARES, TARGET, ChannelStatistics

Floats = NDArray[np.float32]
_BUDGET = 1 << 30  # bytes of activations per chunk; the gradient graph takes about three times as much
_BATCHES = (64, 32, 16, 8)  # of less than 8 samples, statistics are too uncertain


@dataclass(frozen=True)
class InversionGoal:
    """What inputs are fitted to, and the weights of cross-entropy and smoothness beside that; `excess`: only roughness
    above that of the inputs at the start counts."""

    origin: Origin
    entropy: float
    smoothness: float
    excess: bool = False


# Tuned on CIFAR-10 ResNet-20. Beside statistics, cross-entropy of weight 0.1 spoils the fit, and none costs spread. A
# prior tells little about the inputs, but pictures are nearly as rough as photographs: kept so by weights of 5 to 100,
# MobileNetV1 at 85 and 70 % of its MACs has 51 to 52 and 27 to 33 % right, with one of 2 on all roughness 47 and 22.
# Where twice the roughness was allowed, a ResNet-20 with a quarter of its inner channels lost 4 points.
STATISTICS = InversionGoal(Origin.BN_STATISTICS, 0.01, 0.2)
PRIOR = InversionGoal(Origin.CONV_PRIOR, 0.001, 20.0, excess=True)
CLASSES = InversionGoal(Origin.CLASS_SPREAD, 1.0, 1.0)


@dataclass(frozen=True)
class LossValue:
    """Losses and gradients (by input) at one point; `means` and `squares` [channels of all layers] where statistics are
    fitted; `contrast`, the deviation of class scores, where there are only priors to fit (else nan)."""

    loss: float
    fit: float
    gradients: Mapping[str, Floats]
    means: NDArray[np.float64]
    squares: NDArray[np.float64]
    contrast: float = float("nan")

    def __post_init__(self) -> None:
        read_only(self)


@dataclass(frozen=True)
class Terms:
    """What the loss is made of: statistics to match, priors, class scores [batch, classes] (None and 0 without)."""

    layers: tuple[ChannelStatistics, ...]
    priors: tuple[Prior, ...]
    scores: str | None
    classes: int

    @property
    def goal(self) -> InversionGoal:
        """The name and the weights of this mixture."""
        return STATISTICS if self.layers else PRIOR if self.priors else CLASSES


@dataclass(frozen=True)
class InversionProblem:
    """`session` computes LOSS and its gradients with respect to the inputs in `shapes`; those in `fixed` stay.

    `chunk` samples lie along the first axis of every input. `apart`: the model takes one sample at a time, and its
    inputs need not have a batch axis at all (chunk is 1).
    """

    session: Session
    shapes: Mapping[str, tuple[int, ...]]
    terms: Terms
    chunk: int
    apart: bool = False
    fixed: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        read_only(self)

    def evaluate(self, x: Mapping[str, Floats], target: Floats | None) -> LossValue:
        """The loss and its gradients at `x`; `target` [chunk, classes] one-hot where there are classes."""
        known = {i.name for i in self.session.inputs}
        feeds: dict[str, Any] = {name: value for name, value in {**x, **self.fixed}.items() if name in known}
        if target is not None:
            feeds[TARGET] = target
        found = dict(zip(self.session.outputs, self.session.run(feeds), strict=True))
        nothing = np.zeros(0)
        loss = float(found[LOSS][0])
        made = ((name, PREFIX + name, shape) for name, shape in self.shapes.items())
        gradients = {name: found[adjoint].reshape(shape) for name, adjoint, shape in made if adjoint in found}
        return LossValue(
            loss, float(found[FIT][0]) if FIT in found else loss, gradients,
            np.asarray(found.get(MEANS, nothing), np.float64), np.asarray(found.get(SQUARES, nothing), np.float64),
            float(found[CONTRAST][0]) if CONTRAST in found else float("nan"),
        )  # fmt: skip


class NotInvertibleError(Exception):
    """Why deep inversion does not apply to a model."""


def pose(
    model: Model,
    specs: Sequence[InputSpec],
    count: int,
    shapes: Mapping[str, Sequence[int]],
    provider: str,
    apart: bool = False,
    seed: int = 0,
) -> InversionProblem:
    """The problem of a model: its floating-point inputs are searched for, the others are drawn once and stay.

    With `apart`, one sample at a time, in the shapes that the model declares.

    Raises:
        NotInvertibleError: with the reason.
        ExecutionError: what onnx, onnx-ad or onnxruntime refuse on the way.
    """
    proto, names, made = _posed(model, specs, count, shapes, apart, seed)
    return made(Session.of_version(with_gradient(proto, LOSS, names), None, provider))


def pose_losses(
    model: Model, specs: Sequence[InputSpec], count: int, shapes: Mapping[str, Sequence[int]], apart: bool = False
) -> InversionProblem:
    """The same without gradients, on the CPU: to ask how well inputs fit."""
    proto, _, made = _posed(model, specs, count, shapes, apart, 0)
    return made(Session.of_version(without_gradient(proto), None, lean=True))


def _posed(
    model: Model,
    specs: Sequence[InputSpec],
    count: int,
    shapes: Mapping[str, Sequence[int]],
    apart: bool,
    seed: int,
) -> tuple[ModelProto, list[str], Callable[[Session], InversionProblem]]:
    """A static copy of the model that computes the loss, the inputs that are searched for, and what makes the problem
    of a session that runs it."""
    floats = [s for s in specs if s.dtype is not None and np.dtype(s.dtype).kind == "f"]
    if not floats:
        raise NotInvertibleError("it has no floating-point input")
    own = {s.name: concrete_shape(s.shape, 1, shapes.get(s.name)) for s in specs}
    form = Batching.of(specs)
    apart = apart or (len(specs) > 1 and any(own[s.name] and s.name not in form.names for s in specs))
    if not apart and any(len(own[s.name]) < 2 for s in floats):
        raise NotInvertibleError("an input has no batch axis")
    drawn = probe(
        [s for s in specs if s not in floats], batch=1, seed=seed, shapes=shapes, limits=index_limits(model.graph)
    )
    proto, full = _chunked(model, own, 1 if apart else count)
    chunk = 1 if apart else next(iter(full.values()))[0]
    fixed = {n: np.array(np.broadcast_to(x, full[n])) for n, x in drawn.items()}
    rank = max(len(full[s.name]) for s in floats)
    terms = _terms(proto, model, chunk, rank)
    proto = _with_loss(proto, terms, chunk)
    used = {name for node in proto.graph.node for name in (*node.input, *captures(node))}
    found = {s.name: full[s.name] for s in floats if s.name in used}
    if not found:
        raise NotInvertibleError("nothing that could be matched depends on a floating-point input")
    _keep_inputs(proto, used)
    made = partial(InversionProblem, shapes=found, terms=terms, chunk=chunk, apart=apart, fixed=fixed)
    return proto, list(found), made


def _keep_inputs(proto: ModelProto, used: Collection[str]) -> None:
    """Only these inputs, in place."""
    kept = [ValueInfoProto.FromString(v.SerializeToString()) for v in proto.graph.input if v.name in used]
    del proto.graph.input[:]
    proto.graph.input.extend(kept)


def _terms(proto: ModelProto, model: Model, batch: int, rank: int) -> Terms:
    """The terms of the loss that `proto`, the static copy of `model`, allows. Removes its BatchNormalization nodes."""
    layers = take_out(proto.graph, model)
    known = shapes_of(proto.graph)
    layers = [layer for layer in layers if layer.tensor in known and layer.alive.any()]
    scores = objective.class_scores(model)
    if scores is not None and (scores not in known or known[scores][0] != batch):
        scores = None
    covered = {layer.tensor for layer in layers} | {scores}
    priors = [p for p in convolutions(proto.graph) if p.tensor in known and p.tensor not in covered]
    if len(priors) < FEWEST or rank != 4:  # the laws of fused.py were measured on networks for images
        priors = []
    if not layers and not priors and scores is None:
        raise NotInvertibleError("it has neither BatchNormalization, nor convolutions with a bias, nor class scores")
    return Terms(tuple(layers), tuple(priors), scores, known[scores][1] if scores else 0)


def _chunked(
    model: Model, own: Mapping[str, Sequence[int]], count: int
) -> tuple[ModelProto, dict[str, tuple[int, ...]]]:
    """The static copy of the largest chunk whose activations fit into memory, and the shapes of its inputs."""
    batches = dict.fromkeys(min(batch, count) for batch in _BATCHES)
    for batch in batches:
        full = {name: (batch, *shape[1:]) if count > 1 else tuple(shape) for name, shape in own.items()}
        full = {name: shape if own[name] else () for name, shape in full.items()}
        proto = static_copy(model, full)
        if activation_bytes(proto) <= _BUDGET:
            break
    return proto, full


def _with_loss(proto: ModelProto, terms: Terms, batch: int) -> ModelProto:
    """`proto` with the outputs LOSS and, where something is fitted, FIT; changed in place."""
    known = shapes_of(proto.graph)
    del proto.graph.output[:]
    emit = Emitter(proto.graph)
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
        if terms.goal is PRIOR:
            objective.contrast(emit, terms.scores, batch, terms.classes)
    emit.output(emit.op("Sum", summands, LOSS), [1])
    prune(proto.graph)
    return proto
