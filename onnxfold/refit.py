"""The least-squares level of recovery: readers of a folded model are refitted to the original's activations.

Node by node in graph order: the inputs are those of the model as folded and refitted so far, the targets those of the
original, so what went wrong before is made up for where it still can be. Where a branch joins a sum, the target is the
original's sum less the other summand as it is now: errors of the stream do not pile up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper
from scipy.sparse import csr_matrix

from .analyse import Analysis
from .bodies import captures
from .edits import axis_matrix
from .holders import HOLDERS
from .linear import Linear, linear
from .merge import Merge
from .model import Model
from .moments import LEAST_ROWS, MOST_FEATURES, Moments, share_of_places
from .nbits import NBITS
from .pooled import Fit, Pool, add_rows, channel_moments, mean_inputs, pools, share_of_rows
from .prefix import Prefix
from .progress import Progress, silent
from .recover import Recovery
from .recover.least_squares import refit, remap, rescale, scaled
from .recover.rounding import rounded
from .session import Feeds
from .tails import Followers, Tail
from .weights import Weights

RIDGE = 0.1
_FEW = 4.0  # the ridge grows by so much where there are as many features as rows
_FAINT = 1e-4  # a normalisation's scale below this times the largest hides what it scales: nothing to aim at there


@dataclass(frozen=True)
class Refitted:
    """One node: its output, and the relative squared error of that before and after, on the samples used.

    Readers too wide for the moments of all their inputs are refitted by channel-level maps (`Fit.CHANNELS`; the errors
    are those of kernel positions taken one by one), or not at all (`Fit.NONE`; the errors are NaN); nor are those that
    compute on integers (`Fit.INTEGERS`).
    """

    output: str
    before: float
    after: float
    fit: Fit = Fit.FULL


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
    prefix: Prefix | None = None,
    rows: int = LEAST_ROWS,
    progress: Progress[Any] = silent,
    changed: frozenset[str] = frozenset(),
    aims: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Refitted, ...]:
    """Refit `folded` (the model with `merges`, changed in place) on `feeds`: every linear node whose inputs changed.

    With `only`, those of them that make these tensors. Nodes that see NaN or infinity stay as merged. `changed` names
    tensors that differ without a merge; a weight among them that several nodes share stays, and the normalisation (or
    bias) behind each of these nodes is fitted. `aims`: sums that are to be like another tensor of the original. `level`
    STATISTICS restores means and variances of the outputs alone, and leaves readers alone that are too wide. `prefix`
    is of the same feeds, kept from one call to the next; `rows` of patches are used at least (`share_of_places`).
    Raises what onnxruntime raises for a model that does not run.
    """
    weights = Weights(folded, model)
    followers = Followers(folded.graph, weights.read)
    everything = changed | touched(analysis, merges)
    jobs = _jobs(model, folded, weights, followers, set(everything), changed, aims)
    jobs = [job for job in jobs if only is None or job.node.y in only]
    wide = [job.node.y for job in jobs if job.node.features > MOST_FEATURES]
    alone = [job.node.y for job in jobs if job.node.y in wide and not job.shared]
    found = pools(analysis, _originals(model, alone)) if level is Recovery.LEAST_SQUARES else {}
    left = [y for y in wide if y not in found]
    jobs = [replace(job, pool=found.get(job.node.y)) for job in jobs if job.node.y not in left]
    before, now = (prefix or Prefix(model, feeds)).begin(folded, everything)
    made = {name: index for index, node in enumerate(model.proto.graph.node) for name in node.output}
    last_use = {name: number for number, job in enumerate(jobs) for name in job.targets}
    waiting: list[dict[str, NDArray[Any]]] = [{} for _ in feeds]
    rng = np.random.default_rng(seed)
    done = list[Refitted]()
    for number, job in enumerate(progress("refitting", jobs)):
        last = max(made[job.node.y], made.get(job.sum, 0))
        targets = {name for name, use in last_use.items() if use >= number}
        for kept, new in zip(waiting, before.advance(last + 1, targets), strict=True):
            kept.update({name: value for name, value in new.items() if name not in kept})
        have = now.advance(job.index, [job.node.x, *([job.tail.other] if job.tail.other else [])])
        matrix = _output_matrix(analysis, merges, job.node)
        if job.shared:
            one = _rescale_one(job, have, waiting, matrix, weights, folded, rows, rng)
        elif job.pool is None:
            one = _refit_one(job, have, waiting, matrix, weights, folded, level, ridge, rows, rng)
        else:
            one = _remap_one(job, job.pool, model, have, waiting, matrix, weights, folded, ridge, rows, rng)
        done += [one] if one is not None else []
        for kept in waiting:
            for name in [name for name in kept if last_use[name] <= number]:
                del kept[name]
    integers = [y for y in _on_integers(folded, set(everything)) if only is None or y in only]
    unfitted = {**dict.fromkeys(left, Fit.NONE), **dict.fromkeys(integers, Fit.INTEGERS)}
    return (*done, *(Refitted(y, np.nan, np.nan, how) for y, how in unfitted.items()))


def _on_integers(folded: ModelProto, changed: set[str]) -> list[str]:
    """The outputs of nodes that take weights as integers, of which one input or the weight is in `changed`."""
    holders = {node.output[0]: (node, HOLDERS.get((node.domain, node.op_type))) for node in folded.graph.node}
    return [y for y, (n, one) in holders.items() if one is not None and one.computes and changed.intersection(n.input)]


@dataclass(frozen=True)
class _Job:
    index: int
    proto: NodeProto
    node: Linear
    tail: Tail
    pool: Pool | None = None
    integers: bool = False  # a kernel that takes such weights takes no bias of floats
    shared: bool = False  # the weight is not this node's alone: what follows it is fitted instead
    aim: str = ""  # what the sum that it joins is to be like; '' for the same sum of the original

    @property
    def sum(self) -> str:
        """The tensor of the original that the sum is to be like; '' where there is no sum."""
        return self.aim if self.tail.join and self.aim else self.tail.join

    @property
    def targets(self) -> tuple[str, ...]:
        """The tensors of the original that this looks at."""
        seen = (self.node.y, self.sum, self.node.x if self.pool is not None else "")
        return tuple(filter(None, seen))

    @property
    def can(self) -> bool:
        """Whether there is, or can be, a bias."""
        has = self.node.bias or self.tail.mean or self.tail.added
        return bool(has or not (self.node.op in ("MatMul", NBITS) or self.integers))


def _jobs(
    model: Model,
    folded: ModelProto,
    weights: Weights,
    followers: Followers,
    touched: set[str],
    shares: frozenset[str],
    aims: Mapping[str, str],
) -> list[_Job]:
    """The linear nodes of `folded`, in order, whose input depends on something that changed, or whose weight is one of
    `shares`, which several nodes have."""
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
        shared = found is not None and used[found.weight] > 1
        alone = found is not None and (not shared or found.weight in shares)
        if found is not None and found.bias:
            alone = alone and used[found.bias] == 1 and weights.read(found.bias) is not None
        moved = found is not None and (found.x in touched or (shared and found.weight in shares))
        if found is not None and alone and moved and found.y in known:
            stored, tail = found.weight in weights.shelf.stored, followers.tail(found)
            jobs.append(
                _Job(index, node, found, tail, integers=stored, shared=shared, aim=aims.get(tail.join, ""))
            )  # fmt: skip
        if any(name in touched for name in (*node.input, *captures(node))):
            touched.update(filter(None, node.output))
    return jobs


def _originals(model: Model, outputs: Sequence[str]) -> dict[str, Linear]:
    """The linear nodes of the original that make `outputs`, as they were."""
    wanted, found = set(outputs), dict[str, Linear]()
    for node in model.proto.graph.node:
        if wanted.intersection(node.output):
            shape = model.graph.tensor(node.input[1]).shape or ()
            one = linear(node, [d for d in shape if isinstance(d, int)])
            found.update({} if one is None else {one.y: one})
    return found


def touched(analysis: Analysis, merges: Mapping[str, Merge]) -> frozenset[str]:
    """The tensors, weights and activations, that merges make narrower."""
    return frozenset(p.tensor for g in analysis.groups if g.name in merges for p in g.places)


def _output_matrix(analysis: Analysis, merges: Mapping[str, Merge], node: Linear) -> csr_matrix | None:
    """[new, old] for the channels of the node's output, None where they stay as they are."""
    groups = [(p, merges[g.name]) for g in analysis.groups if g.name in merges for p in g.places if p.tensor == node.y]
    return axis_matrix(analysis, groups, node.y) if groups else None


def _refit_one(
    job: _Job,
    have: Sequence[Mapping[str, NDArray[Any]]],
    wanted: Sequence[Mapping[str, NDArray[Any]]],
    matrix: csr_matrix | None,
    weights: Weights,
    folded: ModelProto,
    level: Recovery,
    ridge: float,
    least_rows: int,
    rng: np.random.Generator,
) -> Refitted | None:
    """None where the node sees values that are not finite: it stays as it was merged."""
    node = job.node
    sums = Moments(node)
    share = share_of_places(node, sum(node.positions(w[node.y]) for w in wanted), least_rows)
    for h, target in zip(have, _targets(job, have, wanted, matrix), strict=True):
        sums.add(h[node.x], target, share, rng)
    if not sums.finite:
        return None
    old = weights.read(node.weight)
    assert old is not None
    can = job.can
    ridge *= 1 + _FEW * node.features / max(1, sums.count)
    repair = rescale if level is Recovery.STATISTICS else partial(refit, ridge=ridge)
    solved, bias, before, after = repair(sums, node.matrix(old.astype(np.float64)), bias=can)
    scheme = None
    if job.integers and level is Recovery.LEAST_SQUARES:
        scheme = weights.shelf.scheme_for(node.weight, node.tensor(solved, old.shape))
        solved, shift = rounded(node, solved, old.shape, scheme, sums, ridge, can)
        bias = bias + shift
    weights.write(node.weight, node.tensor(solved, old.shape), scheme)
    if can:
        _set_bias(job, bias, weights, folded)
    return Refitted(node.y, before, after)


def _rescale_one(
    job: _Job,
    have: Sequence[Mapping[str, NDArray[Any]]],
    wanted: Sequence[Mapping[str, NDArray[Any]]],
    matrix: csr_matrix | None,
    weights: Weights,
    folded: ModelProto,
    least_rows: int,
    rng: np.random.Generator,
) -> Refitted | None:
    """Fit the normalisation behind a shared weight, or the bias alone: a factor and an offset for every channel."""
    node, tail = job.node, job.tail
    if not job.can:
        return None
    sums = Moments(node)
    share = share_of_places(node, sum(node.positions(w[node.y]) for w in wanted), least_rows)
    for h, target in zip(have, _targets(job, have, wanted, matrix), strict=True):
        sums.add(h[node.x], target, share, rng)
    old = weights.read(node.weight)
    assert old is not None
    if not sums.finite:
        return None
    matrices, scales = node.matrix(old.astype(np.float64)), bool(tail.mean and tail.gamma)
    factor, bias, before, after = scaled(sums, matrices, fixed=not scales)
    if scales:
        gamma, mean = weights.read(tail.gamma), weights.read(tail.mean)
        assert gamma is not None and mean is not None
        weights.write(tail.gamma, gamma * factor)
        weights.write(tail.mean, (mean - bias) / factor)
    else:
        _set_bias(job, bias, weights, folded)
    return Refitted(node.y, before, after)


def _remap_one(
    job: _Job,
    pool: Pool,
    model: Model,
    have: Sequence[Mapping[str, NDArray[Any]]],
    wanted: Sequence[Mapping[str, NDArray[Any]]],
    matrix: csr_matrix | None,
    weights: Weights,
    folded: ModelProto,
    ridge: float,
    least_rows: int,
    rng: np.random.Generator,
) -> Refitted | None:
    """Refit a reader that is too wide by a map from the channels it has to those the original had."""
    node = job.node
    original = _originals(model, [node.y])[node.y]
    whole = original.matrix(model.constants.array(node.weight).astype(np.float64))[0]
    target_rows = pool.apart(whole if matrix is None else matrix @ whole)
    old = weights.read(node.weight)
    assert old is not None
    merged = pool.apart(node.matrix(old.astype(np.float64))[0])
    width = merged.shape[1] + target_rows.shape[1]
    sums = channel_moments(width)
    places = sum(node.positions(w[node.y]) for w in wanted)
    x, y, count = np.zeros(node.features), np.zeros(node.outputs), 0
    for h, w, target in zip(have, wanted, _targets(job, have, wanted, matrix), strict=True):
        rows = np.concatenate([pool.rows(node, h[node.x]), pool.rows(original, w[node.x])], axis=1)
        add_rows(sums, rows, share_of_places(sums.node, len(rows) * len(have), least_rows), rng)
        more = mean_inputs(node, h[node.x], target, share_of_rows(places), rng)
        x, y, count = x + more[0], y + more[1], count + more[2]
    if not (sums.finite and np.isfinite(x).all() and np.isfinite(y).all()):
        return None
    ridge *= 1 + _FEW * merged.shape[1] / max(1, sums.count)
    parts, before, after = remap(sums, merged, target_rows, ridge, job.can)
    solved = pool.together(parts)
    weights.write(node.weight, node.tensor(solved[None], old.shape))
    if job.can:
        _set_bias(job, (y - solved @ x) / count, weights, folded)
    return Refitted(node.y, before, after, Fit.CHANNELS)


def _targets(
    job: _Job,
    have: Sequence[Mapping[str, NDArray[Any]]],
    wanted: Sequence[Mapping[str, NDArray[Any]]],
    matrix: csr_matrix | None,
) -> Iterator[NDArray[Any]]:
    """Per batch, what the node should give: the original's output, or what is missing in the sum that it joins."""
    node, tail = job.node, job.tail
    axis = node.axis
    shape = [1] * have[0][node.x].ndim
    shape[axis] = -1
    joined = bool(tail.join) and all(
        tail.other in h and job.sum in w and w[job.sum].shape == w[node.y].shape
        for h, w in zip(have, wanted, strict=True)
    )
    faint = np.abs(tail.scale) <= _FAINT * max(np.abs(tail.scale).max(initial=0), 1e-30)
    for h, w in zip(have, wanted, strict=True):
        target = _channels(matrix, w[node.y], axis)
        if joined:
            summed = _channels(matrix, w[job.sum], axis).astype(np.float32) - h[tail.other]
            safe = np.where(faint, 1.0, tail.scale)
            aimed = (summed - tail.shift.reshape(shape)) / safe.reshape(shape)
            target = np.where(faint.reshape(shape), target, aimed)
        yield target


def _set_bias(job: _Job, bias: NDArray[np.float64], weights: Weights, folded: ModelProto) -> None:
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
        kind = helper.tensor_dtype_to_np_dtype(weights.kind(node.weight))
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
