"""The least-squares level of recovery: readers of a folded model are refitted to the original's activations.

Node by node in graph order: the inputs are those of the model as folded and refitted so far, the targets those of the
original, so what went wrong before is made up for where it still can be. Where a branch joins a sum, the target is the
original's sum less the other summand as it is now: errors of the stream do not pile up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper
from scipy.sparse import csr_matrix

from .analyse import Analysis
from .emit import axis_matrix
from .graph import captures
from .linear import Linear, linear
from .merge import Merge
from .model import Model, tensor_array
from .moments import MOST_FEATURES, Moments, share_of_places
from .progress import Progress, silent
from .recover import Recovery
from .recover.least_squares import refit, rescale
from .session import Feeds
from .tails import Followers, Tail
from .walk import Walk

RIDGE = 0.1
_FEW = 4.0  # the ridge grows by so much where there are as many features as rows
_FAINT = 1e-4  # a normalisation's scale below this times the largest hides what it scales: nothing to aim at there


@dataclass(frozen=True)
class Refitted:
    """One node: its output, and the relative squared error of that before and after, on the samples used."""

    output: str
    before: float
    after: float


class _Weights:
    """The float constants of a proto that may be changed in place."""

    def __init__(self, proto: ModelProto, folder: Path | None) -> None:
        self._folder = folder
        self.tensors = {t.name: t for t in proto.graph.initializer}
        for node in proto.graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
                self.tensors[node.output[0]] = node.attribute[0].t
        self.names = set(self.tensors) | {n for node in proto.graph.node for n in (*node.input, *node.output)}

    def read(self, name: str) -> NDArray[Any] | None:
        tensor = self.tensors.get(name)
        return None if tensor is None or tensor.data_type not in (1, 10, 11) else tensor_array(tensor, self._folder)

    def write(self, name: str, value: NDArray[Any]) -> None:
        tensor = self.tensors[name]
        old = tensor_array(tensor, self._folder)
        new = numpy_helper.from_array(np.ascontiguousarray(value.reshape(old.shape).astype(old.dtype)), tensor.name)
        for field in ("float_data", "int32_data", "double_data", "raw_data", "external_data", "data_location"):
            tensor.ClearField(field)
        tensor.raw_data = new.raw_data


@np.errstate(invalid="ignore", over="ignore")  # what is not finite is found where moments are read
def refit_readers(
    model: Model,
    analysis: Analysis,
    merges: Mapping[str, Merge],
    folded: ModelProto,
    feeds: Sequence[Feeds],
    *,
    level: Recovery = Recovery.LEAST_SQUARES,
    only: frozenset[str] | None = None,
    ridge: float = RIDGE,
    seed: int = 0,
    progress: Progress[Any] = silent,
) -> tuple[Refitted, ...]:
    """Refit `folded` (the model with `merges`, changed in place) on `feeds`: every linear node whose inputs changed.

    With `only`, those of them that make these tensors. Nodes that see NaN or infinity stay as merged. `level`
    STATISTICS restores means and variances of the outputs alone. Raises what onnxruntime raises for a model that does
    not run.
    """
    weights = _Weights(folded, model.folder)
    followers = Followers(folded.graph, weights.read)
    jobs = _jobs(model, folded, weights, followers, set(_touched(analysis, merges)))
    jobs = [job for job in jobs if only is None or job.node.y in only]
    before, now = Walk(model.proto, feeds, model.folder), Walk(folded, feeds, model.folder)
    made = {name: index for index, node in enumerate(model.proto.graph.node) for name in node.output}
    last_use = {name: number for number, job in enumerate(jobs) for name in (job.node.y, job.tail.join) if name}
    waiting: list[dict[str, NDArray[Any]]] = [{} for _ in feeds]
    rng = np.random.default_rng(seed)
    done = list[Refitted]()
    for number, job in enumerate(progress("refitting", jobs)):
        last = max(made[job.node.y], made.get(job.tail.join, 0))
        targets = {name for name, use in last_use.items() if use >= number}
        for kept, new in zip(waiting, before.advance(last + 1, targets), strict=True):
            kept.update({name: value for name, value in new.items() if name not in kept})
        have = now.advance(job.index, [job.node.x, *([job.tail.other] if job.tail.other else [])])
        matrix = _output_matrix(analysis, merges, job.node)
        one = _refit_one(job, have, waiting, matrix, weights, folded, level, ridge, rng)
        done += [one] if one is not None else []
        for kept in waiting:
            for name in [name for name in kept if last_use[name] <= number]:
                del kept[name]
    return tuple(done)


@dataclass(frozen=True)
class _Job:
    index: int
    proto: NodeProto
    node: Linear
    tail: Tail


def _jobs(model: Model, folded: ModelProto, weights: _Weights, followers: Followers, touched: set[str]) -> list[_Job]:
    """The linear nodes of `folded`, in order, whose input depends on something that changed."""
    jobs, used = list[_Job](), dict[str, int]()
    for name in [v.name for v in folded.graph.output]:
        used[name] = used.get(name, 0) + 1
    for node in folded.graph.node:
        for name in (*node.input, *captures(node)):
            used[name] = used.get(name, 0) + 1
    known = {name for node in model.proto.graph.node for name in node.output}
    for index, node in enumerate(folded.graph.node):
        value = weights.read(node.input[1]) if len(node.input) > 1 else None
        found = linear(node, value.shape) if value is not None else None
        alone = found is not None and used[found.weight] == 1
        if found is not None and found.bias:
            alone = alone and used[found.bias] == 1 and weights.read(found.bias) is not None
        if found is not None and alone and found.x in touched and found.y in known and found.features <= MOST_FEATURES:
            jobs.append(_Job(index, node, found, followers.tail(found)))
        if any(name in touched for name in (*node.input, *captures(node))):
            touched.update(filter(None, node.output))
    return jobs


def _touched(analysis: Analysis, merges: Mapping[str, Merge]) -> list[str]:
    return [p.tensor for g in analysis.groups if g.name in merges for p in g.places]


def _output_matrix(analysis: Analysis, merges: Mapping[str, Merge], node: Linear) -> csr_matrix | None:
    """[new, old] for the channels of the node's output, None where they stay as they are."""
    groups = [(p, merges[g.name]) for g in analysis.groups if g.name in merges for p in g.places if p.tensor == node.y]
    return axis_matrix(analysis, groups, node.y) if groups else None


def _refit_one(
    job: _Job,
    have: Sequence[Mapping[str, NDArray[Any]]],
    wanted: Sequence[Mapping[str, NDArray[Any]]],
    matrix: csr_matrix | None,
    weights: _Weights,
    folded: ModelProto,
    level: Recovery,
    ridge: float,
    rng: np.random.Generator,
) -> Refitted | None:
    node, tail = job.node, job.tail
    sums = Moments(node)
    axis = node.axis
    shape = [1] * have[0][node.x].ndim
    shape[axis] = -1
    joined = bool(tail.join) and all(
        tail.other in h and tail.join in w and w[tail.join].shape == w[node.y].shape
        for h, w in zip(have, wanted, strict=True)
    )
    faint = np.abs(tail.scale) <= _FAINT * max(np.abs(tail.scale).max(initial=0), 1e-30)
    total = sum(node.positions(w[node.y]) for w in wanted)
    share = share_of_places(node, total)
    for h, w in zip(have, wanted, strict=True):
        target = _channels(matrix, w[node.y], axis)
        if joined:
            summed = _channels(matrix, w[tail.join], axis).astype(np.float32) - h[tail.other]
            safe = np.where(faint, 1.0, tail.scale)
            aimed = (summed - tail.shift.reshape(shape)) / safe.reshape(shape)
            target = np.where(faint.reshape(shape), target, aimed)
        sums.add(h[node.x], target, share, rng)
    if not sums.finite:
        return None
    old = weights.read(node.weight)
    assert old is not None
    old_matrix = node.matrix(old.astype(np.float64))
    can = bool(node.bias or tail.mean or tail.added or node.op != "MatMul")
    ridge *= 1 + _FEW * node.features / max(1, sums.count)
    repair = rescale if level is Recovery.STATISTICS else partial(refit, ridge=ridge)
    solved, bias, before, after = repair(sums, old_matrix, bias=can)
    weights.write(node.weight, node.tensor(solved, old.shape))
    if can:
        _set_bias(job, bias, weights, folded)
    return Refitted(node.y, before, after)


def _set_bias(job: _Job, bias: NDArray[np.float64], weights: _Weights, folded: ModelProto) -> None:
    node, tail = job.node, job.tail
    value = weights.read(node.bias) if node.bias else None
    if value is not None and value.size == bias.size:
        weights.write(node.bias, bias)
    elif tail.added:
        # the addition was part of the tail: what it adds is now what is left of it
        current = weights.read(tail.added)
        assert current is not None
        weights.write(tail.added, current.ravel() + bias)
    elif tail.mean:
        current = weights.read(tail.mean)
        assert current is not None
        weights.write(tail.mean, current.ravel() - bias)
    else:
        name = f"{node.weight}_bias"
        while name in weights.names:
            name += "_"
        weights.names.add(name)
        kind = helper.tensor_dtype_to_np_dtype(weights.tensors[node.weight].data_type)
        folded.graph.initializer.append(numpy_helper.from_array(bias.astype(kind), name))
        if folded.ir_version < 4:
            tensor = folded.graph.initializer[-1]
            folded.graph.input.append(helper.make_tensor_value_info(name, tensor.data_type, tensor.dims))
        while len(job.proto.input) < 3:
            job.proto.input.append("")
        job.proto.input[2] = name


def _channels(matrix: csr_matrix | None, value: NDArray[Any], axis: int) -> NDArray[Any]:
    if matrix is None:
        return value
    moved = np.moveaxis(value, axis, 0)
    flat = np.ascontiguousarray(moved).reshape(moved.shape[0], -1)
    out = matrix.astype(np.float32) @ flat
    return np.moveaxis(out.reshape(matrix.shape[0], *moved.shape[1:]), 0, axis)
