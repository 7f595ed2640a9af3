"""The loss of deep inversion, appended to a graph as ONNX nodes.

Statistics of BatchNormalization (Yin et al., "Dreaming to Distill", CVPR 2020, arXiv 1912.08795; here relative to the
spread of each channel): mean over layers of the mean over channels of (mean - m)^2 / v + log(variance / v)^2, where m
and v are the running statistics and mean and variance are taken over the batch and all spatial positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from ...frozen import read_only
from ...model.model import Model
from ...runtime.autodiff.adjoints import MOMENTS
from ...runtime.autodiff.emitter import PREFIX, Emitter
from ...runtime.outputs import raw_outputs
from . import bn_prior as fused
from .bn_prior import Prior

FIT, TARGET = PREFIX + "fit", PREFIX + "target"
MEANS, SQUARES, CONTRAST = PREFIX + "means", PREFIX + "squares", PREFIX + "contrast"


@dataclass(frozen=True)
class ChannelStatistics:
    """A tensor [N, C, ...] and what its channels should look like: `mean` [C], `variance` [C] over N and space."""

    tensor: str
    mean: NDArray[np.float64]
    variance: NDArray[np.float64]

    def __post_init__(self) -> None:
        read_only(self)

    @property
    def alive(self) -> NDArray[np.bool_]:
        """[C] channels that vary at all; the others are left out of the loss."""
        return np.asarray(self.variance > 1e-6 * self.variance.max(initial=0))


def class_scores(model: Model) -> str | None:
    """The class scores, before a final softmax, if the only output is that: [N, classes] or [N, classes, 1, ...]."""
    names = raw_outputs(model.graph)
    if len(model.graph.outputs) != 1 or len(names) != 1:
        return None
    info = model.graph.tensor(names[0])
    shape = info.shape or ()
    if len(shape) < 2 or not isinstance(shape[1], int) or shape[1] < 2 or any(d != 1 for d in shape[2:]):
        return None
    return names[0] if info.dtype in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16) else None


def moments(emit: Emitter, tensor: str, shape: Sequence[int]) -> tuple[str, str]:
    """Tensors [C]: the mean and the mean square of `tensor` [N, C, ...] over all axes but 1."""
    names = [emit.name(), emit.name()]
    emit.graph.node.append(onnx.helper.make_node(MOMENTS, [tensor], names, rank=len(shape)))
    for name in names:  # onnx cannot infer the shapes of an operator of ours
        emit.graph.value_info.append(onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, [shape[1]]))
    return names[0], names[1]


def fit_loss(emit: Emitter, layers: Sequence[ChannelStatistics], shapes: Mapping[str, Sequence[int]]) -> str:
    """A tensor [1], the loss of the module's docstring; the moments of all layers become outputs MEANS and SQUARES."""
    found = [moments(emit, layer.tensor, shapes[layer.tensor]) for layer in layers]
    total = sum(len(layer.mean) for layer in layers)
    mean = emit.op("Concat", [mean for mean, _ in found], MEANS, axis=0)
    square = emit.op("Concat", [square for _, square in found], SQUARES, axis=0)
    emit.output(mean, [total])
    emit.output(square, [total])
    variance = np.concatenate([np.where(layer.alive, layer.variance, 1) for layer in layers])
    share = np.concatenate([layer.alive / (len(layer.mean) * len(layers)) for layer in layers])
    centered = emit.op("Sub", [mean, emit.constant(np.concatenate([layer.mean for layer in layers]))])
    off = emit.op("Mul", [centered, emit.constant(1 / np.sqrt(variance))])
    spread = emit.op("Sub", [square, emit.op("Mul", [mean, mean])])
    relative = emit.op("Mul", [spread, emit.constant(1 / variance)])
    # a channel that is constant over the batch: bounded below, or the logarithm has no bound
    log = emit.op("Log", [emit.op("Max", [relative, emit.constant([1e-4])])])
    both = emit.op("Add", [emit.op("Mul", [off, off]), emit.op("Mul", [log, log])])
    weighted = emit.op("Mul", [both, emit.constant(share)])
    return emit.op("ReduceSum", [weighted, emit.constant([0], np.int64)], keepdims=1)


def prior_loss(emit: Emitter, priors: Sequence[Prior], shapes: Mapping[str, Sequence[int]]) -> str:
    """A tensor [1]: mean over `priors` of the terms that bn_prior.py explains.

    Layers are rows of one matrix [priors, channels], padded behind: a few nodes for all of them, not thirty for each.
    """
    mean, square = _rows(emit, [moments(emit, prior.tensor, shapes[prior.tensor]) for prior in priors], priors)
    width, one, axis = max(len(p.bias) for p in priors), emit.constant([1.0]), emit.constant([1], np.int64)
    alive = np.stack([_padded(p.alive / p.alive.sum(), width) for p in priors])
    level = np.array([[p.level] for p in priors])
    share = emit.constant(alive)
    spread = emit.op("Sub", [square, emit.op("Mul", [mean, mean])])
    deviation = emit.op("Sqrt", [emit.op("Max", [spread, emit.constant(1e-4 * level**2)])])
    bias = np.stack([_padded(fused.SLOPE * p.bias, width) for p in priors])
    shifted = emit.op("Div", [emit.op("Sub", [mean, emit.constant(bias)]), deviation])
    position = emit.op("Sub", [shifted, emit.constant([fused.SHIFT])])
    log = emit.op("Log", [deviation])
    relative = emit.op("Sub", [log, emit.constant(np.stack([_padded(p.log_norm, width) for p in priors]))])
    middle = emit.op("ReduceSum", [emit.op("Mul", [relative, share]), axis], keepdims=1)
    uneven = emit.op("Sub", [relative, middle])
    found = emit.op("ReduceSum", [emit.op("Mul", [log, share]), axis], keepdims=1)
    off = emit.op("Sub", [found, emit.constant(np.log(level))])
    terms = ((position, fused.POSITION * alive), (uneven, fused.EVENNESS * alive), (off, np.array([[fused.LEVEL]])))
    losses = []
    for residual, weight in terms:
        bounded = emit.op("Log", [emit.op("Add", [emit.op("Mul", [residual, residual]), one])])
        weighted = emit.op("Mul", [bounded, emit.constant(weight / len(priors))])
        losses.append(emit.op("ReduceSum", [weighted, emit.constant([0, 1], np.int64)], keepdims=0))
    return emit.op("Reshape", [emit.op("Sum", losses), emit.constant([1], np.int64)])


def _rows(emit: Emitter, found: Sequence[tuple[str, str]], priors: Sequence[Prior]) -> tuple[str, str]:
    """Matrices [priors, channels] of the means and the mean squares in `found`, with zeros behind shorter rows."""
    lengths = [len(p.bias) for p in priors]
    width, kinds = max(lengths), []
    for names in zip(*found, strict=True):
        parts = []
        for name, length in zip(names, lengths, strict=True):
            parts.append(name)
            if length < width:
                parts.append(emit.constant(np.zeros(width - length)))
        flat = emit.op("Concat", parts, axis=0)
        kinds.append(emit.op("Reshape", [flat, emit.constant([len(priors), width], np.int64)]))
    return kinds[0], kinds[1]


def _padded(row: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    return np.pad(row, (0, width - len(row)))


def class_loss(emit: Emitter, scores: str, batch: int, classes: int) -> str:
    """A tensor [1]: the cross-entropy of `scores` against the one-hot input TARGET [batch, classes]."""
    emit.graph.input.append(onnx.helper.make_tensor_value_info(TARGET, TensorProto.FLOAT, [batch, classes]))
    flat = emit.op("Reshape", [scores, emit.constant([batch, classes], np.int64)])
    logs = emit.op("LogSoftmax", [flat], axis=1)
    picked = emit.op("ReduceSum", [emit.op("Mul", [logs, TARGET]), emit.constant([0, 1], np.int64)], keepdims=0)
    return emit.op("Mul", [picked, emit.constant([-1 / batch])])


def contrast(emit: Emitter, scores: str, batch: int, classes: int) -> None:
    """Make CONTRAST [1] an output: the standard deviation of `scores` over the classes, mean over the samples."""
    flat = emit.op("Reshape", [scores, emit.constant([batch, classes], np.int64)])
    across = emit.constant([1], np.int64)
    centered = emit.op("Sub", [flat, emit.op("ReduceMean", [flat, across], keepdims=1)])
    variance = emit.op("ReduceMean", [emit.op("Mul", [centered, centered]), across], keepdims=0)
    everything = emit.constant([0], np.int64)
    emit.output(emit.op("ReduceMean", [emit.op("Sqrt", [variance]), everything], CONTRAST, keepdims=1), [1])


def match(layers: Sequence[ChannelStatistics], mean: NDArray[np.float64], square: NDArray[np.float64]) -> float:
    """How well moments (concatenated over `layers`) fit, from 0 to 1: 1 - the mean over layers of the mean over
    channels of [min(1, |mean - m| / sqrt(v)) + min(1, |log(variance / v)|)] / 2.
    """
    per_layer, at = [], 0
    for layer in layers:
        part, alive = slice(at, at := at + len(layer.mean)), layer.alive
        expected = layer.variance[alive]
        variance = np.maximum(square[part] - np.square(mean[part]), 0)[alive]
        off = np.minimum(1, np.abs(mean[part] - layer.mean)[alive] / np.sqrt(expected))
        spread = np.minimum(1, np.abs(np.log(np.maximum(variance / expected, 1e-9))))
        if alive.any():
            per_layer.append(float(np.mean(off + spread)) / 2)
    return 1 - float(np.mean(per_layer)) if per_layer else 0.0
