"""The least-squares level of recovery: consumers of a folded model are refitted to the original's activations.

Node by node in graph order: the inputs are those of the model as folded and refitted so far, the targets those of the
original, so each consumer also corrects errors of earlier ones. Where a branch joins a sum, the target is the
original's sum minus the other summand as it is now: errors of a residual stream do not accumulate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper
from scipy.sparse import csr_matrix

from ..analysis.result import Analysis
from ..folding.merge import Merge
from ..folding.ridge import varying
from ..frozen import read_only
from ..model.editable_weights import Weights
from ..model.model import Model
from ..options.choices import Recovery
from ..progress import Progress, silent, steps
from ..runtime.shared_prefix import SharedPrefix
from .channel_maps import ChannelPooling, Fit, add_rows, channel_moments, mean_inputs, poolings, share_of_rows
from .consumers import Refittable, find_refittable, on_integers, originals, output_matrix, touched
from .gptq import rounded
from .least_squares import refit, remap, rescale, scaled
from .moments import LEAST_ROWS, MOST_FEATURES, Moments, share_of_places

RIDGE = 0.1
_FEW = 4.0  # the ridge grows by so much where there are as many inputs as rows
_FAINT = 1e-4  # of the largest scale of a normalization: channels scaled by less get the original's output as target,
# because dividing by their scale would only amplify noise


@dataclass(frozen=True)
class Refitted:
    """One node: its output, and the relative squared error of that before and after, on the samples used.

    Consumers too wide for the moments of all their inputs are refitted by channel-level maps (`Fit.CHANNELS`; the
    errors are those of kernel positions taken one by one), or not at all (`Fit.NONE`; the errors are NaN); nor are
    those that compute on integers (`Fit.INTEGERS`).
    """

    output: str
    before: float
    after: float
    fit: Fit = Fit.FULL


@dataclass(frozen=True)
class Changes:
    """What makes a version of a model differ from the original: the `merges` of its groups, by name, and the `tensors`
    that differ without a merge. `aims`: sums of the version that should equal another tensor of the original, where not
    the sum of the same name (blocks between the two were dropped).
    """

    merges: Mapping[str, Merge] = field(default_factory=dict)
    tensors: frozenset[str] = frozenset()
    aims: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ReconstructionSettings:
    """How consumers are fitted.

    `level`: STATISTICS restores means and variances of the outputs alone, and leaves consumers alone that are too wide.
    `ridge`: of the mean variance of the inputs. `rows`: of patches that are used at least (`share_of_places`). `seed`:
    of their choice. `only`: the outputs of the nodes that are fitted; None for all.
    """

    level: Recovery = Recovery.LEAST_SQUARES
    ridge: float = RIDGE
    rows: int = LEAST_ROWS
    seed: int = 0
    only: frozenset[str] | None = None

    def includes(self, output: str) -> bool:
        """Whether the node that makes this tensor is fitted."""
        return self.only is None or output in self.only


@np.errstate(invalid="ignore", over="ignore")  # what is not finite is found where moments are read
def reconstruct(
    original: SharedPrefix,
    analysis: Analysis,
    changes: Changes,
    folded: ModelProto,
    settings: ReconstructionSettings | None = None,
    progress: Progress[Any] = silent,
) -> tuple[Refitted, ...]:
    """Refit every linear node of `folded` whose inputs changed, in place, to give what it gave in the original.

    Args:
        original: the model before the `changes`, on the samples to fit on. The same one can serve many calls, which
            then run what comes before the changes once.
        analysis: of the original.
        folded: the model with the `changes`. Nodes that see NaN or infinity stay as they are in it. A changed weight
            that several nodes share stays too: the normalization (or bias) behind each of these nodes is fitted.

    Raises what onnxruntime raises for a model that does not run.
    """
    settings, model, merges = settings or ReconstructionSettings(), original.model, changes.merges
    weights, everything = Weights(folded, model), changes.tensors | touched(analysis, merges)
    found = find_refittable(model, folded, weights, everything, changes.tensors, changes.aims)
    found = [consumer for consumer in found if settings.includes(consumer.node.y)]
    consumers, unfitted = _by_width(found, model, analysis, settings.level)
    before, now = original.begin(folded, everything)
    made = {name: index for index, node in enumerate(model.proto.graph.node) for name in node.output}
    last_use = {name: number for number, consumer in enumerate(consumers) for name in consumer.targets}
    waiting: list[dict[str, NDArray[Any]]] = [{} for _ in original.feeds]
    fitting = _Fitting(model, weights, folded, settings, np.random.default_rng(settings.seed))
    done = list[Refitted]()
    for number, consumer in enumerate(progress("reconstructing", consumers)):
        last = max(made.get(name, 0) for name in consumer.targets)
        targets = {name for name, use in last_use.items() if use >= number}
        for kept, new in zip(waiting, before.advance(last + 1, targets), strict=True):
            kept.update({name: value for name, value in new.items() if name not in kept})
        have = now.advance(consumer.index, consumer.inputs)
        one = fitting.fit(_Seen(consumer, have, waiting, output_matrix(analysis, merges, consumer.node)))
        done += [one] if one is not None else []
        for kept in waiting:
            for name in [name for name in kept if last_use[name] <= number]:
                del kept[name]
    unfitted.update((y, Fit.INTEGERS) for y in on_integers(folded, everything) if settings.includes(y))
    return (*done, *(Refitted(y, np.nan, np.nan, how) for y, how in unfitted.items()))


def _by_width(
    found: Sequence[Refittable], model: Model, analysis: Analysis, level: Recovery
) -> tuple[list[Refittable], dict[str, Fit]]:
    """The consumers that can be fitted, those that are too wide with their pooling; and the outputs of the others."""
    wide = [consumer.node.y for consumer in found if consumer.node.features > MOST_FEATURES]
    alone = [consumer.node.y for consumer in found if consumer.node.y in wide and not consumer.shared]
    pooled = poolings(analysis, originals(model, alone)) if level is Recovery.LEAST_SQUARES else {}
    unfitted = {y: Fit.NONE for y in wide if y not in pooled}
    fitted = [replace(one, pooling=pooled.get(one.node.y)) for one in found if one.node.y not in unfitted]
    return fitted, unfitted


@dataclass(frozen=True)
class _Seen:
    """A consumer and what it is fitted to: per batch, tensors of the folded model `now` and of the original (`wanted`).

    `matrix` [new, old]: of the channels of its output, None where these stay as they are.
    """

    consumer: Refittable
    now: Sequence[Mapping[str, NDArray[Any]]]
    wanted: Sequence[Mapping[str, NDArray[Any]]]
    matrix: csr_matrix | None

    def __post_init__(self) -> None:
        read_only(self)

    def places(self) -> int:
        """Positions of the output, over all batches."""
        return sum(self.consumer.node.positions(w[self.consumer.node.y]) for w in self.wanted)

    def targets(self) -> Iterator[NDArray[Any]]:
        """Per batch, what the node should give: the original's output, or what its sum lacks to be that of the
        original."""
        node, epilogue = self.consumer.node, self.consumer.epilogue
        axis = node.axis
        shape = [1] * self.now[0][node.x].ndim
        shape[axis] = -1
        faint = np.abs(epilogue.scale) <= _FAINT * max(np.abs(epilogue.scale).max(initial=0), 1e-30)
        safe = np.where(faint, 1.0, epilogue.scale)
        for h, w in zip(self.now, self.wanted, strict=True):
            target, sums = _channels(self.matrix, w[node.y], axis), self._sums(h, w)
            if sums is not None:
                missing = (_channels(self.matrix, sums[0], axis).astype(np.float32) - sums[1]) / safe.reshape(shape)
                aimed = missing - (epilogue.shift / safe).reshape(shape) if self.consumer.sum else missing + target
                target = np.where(faint.reshape(shape), target, aimed)
            yield target

    def _sums(
        self, now: Mapping[str, NDArray[Any]], wanted: Mapping[str, NDArray[Any]]
    ) -> tuple[NDArray[Any], NDArray[Any]] | None:
        """The sum in the original (the other summand there if it has no name), and the other summand as it is now,
        with the axes of the node's output; None where that joins no sum."""
        node, other = self.consumer.node, self.consumer.epilogue.other
        total = self.consumer.sum or other
        if not other or other not in now or total not in wanted:
            return None
        whole, beside, shape = wanted[total], now[other], wanted[node.y].shape
        if whole.shape == shape:
            return whole, beside
        rows = node.windows is None and whole.size == math.prod(shape) and whole.shape[-1:] == shape[-1:]
        if rows and beside.shape[:-1] == whole.shape[:-1]:  # behind a Reshape
            return whole.reshape(shape), beside.reshape(*shape[:-1], beside.shape[-1])
        return None


@dataclass(frozen=True)
class _Fitting:
    """Fits consumers one by one; each gets weights that `fit` writes into `folded`."""

    model: Model
    weights: Weights
    folded: ModelProto
    settings: ReconstructionSettings
    rng: np.random.Generator

    def fit(self, seen: _Seen) -> Refitted | None:
        """None where the node sees values that are not finite, or nothing can be fitted: it stays as it was merged."""
        if seen.consumer.shared:
            return self._scales(seen) if seen.consumer.has_bias else None
        return self._weights(seen) if seen.consumer.pooling is None else self._channels(seen, seen.consumer.pooling)

    def _moments(self, seen: _Seen) -> Moments | None:
        """Of what the node reads and should give; None where that is not finite."""
        node = seen.consumer.node
        sums = Moments(node)
        share = share_of_places(node, seen.places(), self.settings.rows)
        for h, target in zip(steps("collecting statistics", seen.now), seen.targets(), strict=True):
            sums.add(h[node.x], target, share, self.rng)
        return sums if sums.finite else None

    def _weights(self, seen: _Seen) -> Refitted | None:
        """Fit all weights of the node."""
        consumer, node, sums = seen.consumer, seen.consumer.node, self._moments(seen)
        if sums is None:
            return None
        old, bias_too = self._read(node.weight), consumer.has_bias
        merged, ridge = node.matrix(old.astype(np.float64)), self._grown(sums.spread(), sums.count)
        if self.settings.level is Recovery.STATISTICS:
            solved, bias, before, after = rescale(sums, merged, bias=bias_too)
        else:
            solved, bias, before, after = refit(sums, merged, ridge, bias=bias_too)
        scheme = None
        if consumer.integers and self.settings.level is Recovery.LEAST_SQUARES:
            scheme = self.weights.integers.scheme_for(node.weight, node.tensor(solved, old.shape))
            solved, shift = rounded(node, solved, old.shape, scheme, sums, ridge, bias_too)
            bias = bias + shift
        self.weights.write(node.weight, node.tensor(solved, old.shape), scheme)
        if bias_too:
            self._set_bias(consumer, bias)
        return Refitted(node.y, before, after)

    def _scales(self, seen: _Seen) -> Refitted | None:
        """Fit the normalization behind a shared weight, or the bias alone: a factor and an offset for every channel."""
        node, epilogue, sums = seen.consumer.node, seen.consumer.epilogue, self._moments(seen)
        if sums is None:
            return None
        scales = bool(epilogue.mean and epilogue.gamma)
        matrices = node.matrix(self._read(node.weight).astype(np.float64))
        factor, bias, before, after = scaled(sums, matrices, fixed=not scales)
        if scales:
            gamma, mean = self._read(epilogue.gamma), self._read(epilogue.mean)
            self.weights.write(epilogue.gamma, gamma * factor)
            self.weights.write(epilogue.mean, (mean - bias) / factor)
        else:
            self._set_bias(seen.consumer, bias)
        return Refitted(node.y, before, after)

    def _channels(self, seen: _Seen, pooling: ChannelPooling) -> Refitted | None:
        """Fit a consumer that is too wide by a map from the channels it has to those the original had."""
        consumer, node, matrix = seen.consumer, seen.consumer.node, seen.matrix
        original = originals(self.model, [node.y])[node.y]
        whole = original.matrix(self.model.constants.array(node.weight).astype(np.float64))[0]
        target_rows = pooling.apart(whole if matrix is None else matrix @ whole)
        old = self._read(node.weight)
        merged = pooling.apart(node.matrix(old.astype(np.float64))[0])
        sums = channel_moments(merged.shape[1] + target_rows.shape[1])
        share = share_of_rows(seen.places())
        x, y, count = np.zeros(node.features), np.zeros(node.outputs), 0
        for h, w, target in zip(seen.now, seen.wanted, seen.targets(), strict=True):
            rows = np.concatenate([pooling.rows(node, h[node.x]), pooling.rows(original, w[node.x])], axis=1)
            add_rows(sums, rows, share_of_places(sums.node, len(rows) * len(seen.now), self.settings.rows), self.rng)
            more = mean_inputs(node, h[node.x], target, share, self.rng)
            x, y, count = x + more[0], y + more[1], count + more[2]
        if not (sums.finite and np.isfinite(x).all() and np.isfinite(y).all()):
            return None
        width = merged.shape[1]
        ridge = self._grown(sums.spread()[:, :width], sums.count)
        parts, before, after = remap(sums, merged, target_rows, ridge, consumer.has_bias)
        solved = pooling.together(parts)
        self.weights.write(node.weight, node.tensor(solved[None], old.shape))
        if consumer.has_bias:
            self._set_bias(consumer, (y - solved @ x) / count)
        return Refitted(node.y, before, after, Fit.CHANNELS)

    def _grown(self, spread: NDArray[Any], rows: int) -> float:
        """The ridge for so many rows of inputs of these variances [groups, features]."""
        return self.settings.ridge * (1 + _FEW * max(map(varying, spread)) / max(1, rows))

    def _set_bias(self, consumer: Refittable, bias: NDArray[np.float64]) -> None:
        node, epilogue, weights = consumer.node, consumer.epilogue, self.weights
        value = weights.read(node.bias) if node.bias else None
        if value is not None and value.size == bias.size:
            weights.write(node.bias, bias)
        elif epilogue.added:  # targets were taken before this addition: the fitted bias comes on top
            weights.write(epilogue.added, self._read(epilogue.added).ravel() + bias)
        elif epilogue.mean:
            weights.write(epilogue.mean, self._read(epilogue.mean).ravel() - bias)
        else:
            self._add_bias(consumer, bias)

    def _add_bias(self, consumer: Refittable, bias: NDArray[np.float64]) -> None:
        """Give the node a bias that it did not have."""
        weights, graph = self.weights, self.folded.graph
        name = f"{consumer.node.weight}_bias"
        while name in weights.names:
            name += "_"
        weights.names.add(name)
        kind = helper.tensor_dtype_to_np_dtype(weights.kind(consumer.node.weight))
        graph.initializer.append(numpy_helper.from_array(bias.astype(kind), name))
        if self.folded.ir_version < 4:
            tensor = graph.initializer[-1]
            graph.input.append(helper.make_tensor_value_info(name, tensor.data_type, tensor.dims))
        while len(consumer.proto.input) < 3:
            consumer.proto.input.append("")
        consumer.proto.input[2] = name

    def _read(self, name: str) -> NDArray[Any]:
        value = self.weights.read(name)
        assert value is not None
        return value


def _channels(matrix: csr_matrix | None, value: NDArray[Any], axis: int) -> NDArray[Any]:
    if matrix is None:
        return value
    moved = np.moveaxis(value, axis, 0)
    flat = np.ascontiguousarray(moved).reshape(moved.shape[0], -1)
    out = matrix.astype(np.float32) @ flat
    return np.moveaxis(out.reshape(matrix.shape[0], *moved.shape[1:]), 0, axis)
