"""What must be true of every graph: analyzed without an error, both oracles, no blind oracle, folds that run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, numpy_helper
from scipy.sparse import csr_matrix

import onnxfold
from onnxfold.analysis.analyze import analyze
from onnxfold.analysis.costs import count_parameters
from onnxfold.analysis.groups import ChannelGroup, Place, Role
from onnxfold.analysis.result import Analysis
from onnxfold.errors import NothingToFoldError, PlanError
from onnxfold.evaluation.metrics import relative_l2
from onnxfold.folding.merge import Merge, folding, pruning, rearranging
from onnxfold.model.model import Model, load
from onnxfold.runtime.outputs import raw_outputs, with_outputs
from onnxfold.runtime.probe_inputs import index_limits, probe
from onnxfold.runtime.session import Session
from onnxfold.testing import duplication, pairs, permutation
from onnxfold.transform.edits import edits
from onnxfold.transform.emit import emit

from .build import build
from .recipe import Recipe

ORACLE_RTOL = 2e-5  # float32, sums in another order, up to 12 steps of them; measured 5e-6
NOISE = 1e-6  # relative, on every weight: what a graph makes of it says how well it is conditioned
ILL = 30.0  # an oracle may err by this many times what NOISE does: then the graph is skipped, not failed
MATTERS = 0.05  # channels matter where noise as large as the weight that makes them changes the outputs this much
CONTROL = 1e-4  # what an oracle must then show when this weight is left out; measured 2e-3 and more
RATIOS = (0.25, 0.5)
OPEN_BATCH = 3

Array = NDArray[Any]


@dataclass
class Outcome:
    """What was seen of a graph: `problems` should be empty; `skipped` says why an oracle could not judge."""

    recipe: Recipe
    steps: list[str] = field(default_factory=list)
    operators: Counter[str] = field(default_factory=Counter)
    groups: list[int] = field(default_factory=list)
    folds: int = 0
    refusals: int = 0
    controls: int = 0
    skipped: str = ""
    problems: list[str] = field(default_factory=list)


class ProblemError(Exception):
    """A property that does not hold."""


class SkipError(Exception):
    """A graph that says nothing: outputs of zeros or infinities, or a bad condition."""


class Judge:
    """The properties, one after the other; the original is run once."""

    def __init__(self, recipe: Recipe) -> None:
        self.outcome = Outcome(recipe)
        self.proto, self.outcome.steps = build(recipe)
        self.outcome.operators = Counter(node.op_type for node in self.proto.graph.node)
        onnx.checker.check_model(self.proto, full_check=True)
        self.rng = np.random.default_rng(recipe.seed)

    def run(self) -> Outcome:
        checks: Sequence[Callable[[], None]] = (self.analyzed, self.oracles, self.alone, self.folded)
        for check in checks:
            try:
                check()
            except SkipError as reason:
                self.outcome.skipped = str(reason)
                if check == self.analyzed:
                    break
            except Exception as error:  # whatever it is, it is the finding
                self.outcome.problems.append(f"{check.__name__}: {type(error).__name__}: {error}")
                if check == self.analyzed:
                    break
        return self.outcome

    # the properties ---------------------------------------------------------------------------------------------

    def analyzed(self) -> None:
        """Analysis never raises, and finds the same twice."""
        self.model: Model = load(self.proto)
        self.names = raw_outputs(self.model.graph)
        try:
            first = Session(self.proto.SerializeToString())
        except Exception as error:  # onnxruntime's exceptions share no base class
            if "Fusion" in str(error):
                raise SkipError("onnxruntime breaks it by a fusion of its own") from error
            raise
        held = {t.name for t in self.proto.graph.initializer}
        specs = [spec for spec in first.inputs if spec.name not in held]
        self.feeds = probe(specs, batch=OPEN_BATCH, limits=index_limits(self.model.graph))
        self.plain = [np.asarray(x) for x in first.run(self.feeds)]
        self.found: Analysis = analyze(self.model)
        self.outcome.groups = [group.size for group in self.found.groups]

    def oracles(self) -> None:
        """Permuted, nothing changes; made redundant and folded, nothing; without one weight, something does."""
        if not self.found.groups:
            return
        expected = self.outputs(self.proto)
        if not all(np.isfinite(x).all() for x in expected):
            raise SkipError("not finite")
        if not any(np.abs(x).max() > 1e-6 for x in expected):
            raise SkipError("all zero")
        self.permute(expected)
        self.duplicate()
        for group in self.found.groups:
            self.control(group, expected)

    def permute(self, expected: Sequence[Array]) -> None:
        merges = {group.name: permutation(group, self.rng) for group in self.found.groups}
        self.same("permute", self.proto, expected, emit(self.model, edits(self.model, self.found, merges)))

    def duplicate(self) -> None:
        copying = {group.name: duplication(group) for group in self.found.groups}
        copies = emit(self.model, edits(self.model, self.found, copying))
        twice = load(copies)
        again = analyze(twice)
        if [group.size for group in again.groups] != self.outcome.groups:
            raise ProblemError(f"duplicate: other groups in the copy: {[g.size for g in again.groups]}")
        merges = {group.name: folding(pairs(group)) for group in again.groups}
        self.same("duplicate", copies, self.outputs(copies), emit(twice, edits(twice, again, merges)))

    def control(self, group: ChannelGroup, expected: Sequence[Array]) -> None:
        """Without its first making weight, a permutation of the group shows, if this weight matters at all.

        Where the largest number of a row stands may stay the same whatever was done to the rows: nothing to see there.
        """
        if any(node.op in ("ArgMax", "ArgMin") for node in self.model.graph.nodes):
            return
        place = _producer(group)
        order = _rolled(group)
        if place is None or (order == np.arange(group.size)).all():
            return
        for share in (1.0, 0.1):  # behind a Relu that is 0 for all inputs here, only large noise shows
            if not share * MATTERS <= self.error(expected, _noisy(self.proto, share, self.rng, place)) < math.inf:
                return  # a padded channel to a power is 0, but infinite where noise makes the power negative
        matrix = csr_matrix((np.ones(group.size), (np.arange(group.size), order)))
        broken = edits(
            self.model, self.found, {group.name: rearranging(matrix, matrix)},
            frozenset([(place.tensor, place.axis, place.blocks)]),
        )  # fmt: skip
        seen = self.error(expected, emit(self.model, broken))
        self.outcome.controls += 1
        if not seen > CONTROL:
            raise ProblemError(f"control: {seen:.2g} without '{place.tensor}' in group {group.name} of {group.size}")

    def alone(self) -> None:
        """Every group pruned alone, and all folded at random: valid models that run, with fewer parameters."""
        labels = {group.name: _labels(group, self.rng) for group in self.found.groups}
        evaluators: list[Mapping[str, Merge]] = [{name: folding(one) for name, one in labels.items()}]
        for name, merge in evaluators[0].items():
            evaluators.append({name: pruning(merge.keep, merge.before)})
        for merges in evaluators:
            if any(merge.after < merge.before for merge in merges.values()):
                self.valid(emit(self.model, edits(self.model, self.found, merges)))

    def folded(self) -> None:
        """The whole way at two ratios: a model of the same interface that is smaller, or a clear refusal."""
        for ratio in RATIOS:
            try:
                result = onnxfold.fold(self.proto, ratio=ratio, round_to=1, effort="fast", latency=False)
            except (NothingToFoldError, PlanError):
                self.outcome.refusals += 1
            else:
                self.valid(result.model)
                self.outcome.folds += 1

    # how they are judged ----------------------------------------------------------------------------------------

    def valid(self, after: ModelProto) -> None:
        onnx.checker.check_model(after, full_check=True)
        if _interface(after) != _interface(self.proto):
            raise ProblemError("another interface")
        found = [np.asarray(x) for x in Session(after.SerializeToString()).run(self.feeds)]
        if [x.shape for x in found] != [x.shape for x in self.plain]:
            raise ProblemError(f"shapes {[x.shape for x in found]}, not {[x.shape for x in self.plain]}")
        if not _may_part(self.model) and count_parameters(after) >= count_parameters(self.proto):
            raise ProblemError(f"{count_parameters(after)} parameters, not fewer than {count_parameters(self.proto)}")

    def same(self, what: str, before: ModelProto, expected: Sequence[Array], after: ModelProto) -> None:
        error = self.error(expected, after)
        if error <= ORACLE_RTOL:
            return
        noise = max(self.error(expected, _noisy(before, NOISE, self.rng)) for _ in range(4))
        if error <= ILL * noise:
            raise SkipError("ill-conditioned")
        raise ProblemError(f"{what}: error {error:.3g} ({NOISE:g} of noise makes {noise:.2g})")

    def error(self, expected: Sequence[Array], after: ModelProto) -> float:
        """The largest over all outputs; infinite where they are not finite."""
        errors = [relative_l2(a, b) for a, b in zip(expected, self.outputs(after), strict=True)]
        return max(e if math.isfinite(e) else math.inf for e in errors)

    def outputs(self, proto: ModelProto) -> list[Array]:
        """Of a version of the model, before a final softmax."""
        shown = with_outputs(proto, self.names, self.model.graph)
        return [np.asarray(x) for x in Session(shown.SerializeToString()).run(self.feeds)]


def judge(recipe: Recipe) -> Outcome:
    """All properties of one graph."""
    return Judge(recipe).run()


def _producer(group: ChannelGroup) -> Place | None:
    made = [place for place in group.parameters if place.role is Role.PRODUCES]
    return max(made, key=lambda place: place.positions.size, default=None)


def _rolled(group: ChannelGroup) -> NDArray[np.int64]:
    """Every channel takes the place of its neighbor in its cell."""
    order = np.arange(group.size)
    for cell in range(group.blocks):
        mine = np.flatnonzero(group.cells == cell)
        order[mine] = np.roll(mine, 1)
    return order


def _labels(group: ChannelGroup, rng: np.random.Generator) -> NDArray[np.int64]:
    """Random clusters, two thirds as many as channels, equally many in every cell."""
    labels = np.zeros(group.size, np.int64)
    for cell in range(group.blocks):
        mine = np.flatnonzero(group.cells == cell)
        k = max(1, 2 * len(mine) // 3)
        labels[mine] = cell * k + rng.permutation(np.arange(len(mine)) % k)
    return labels


def _noisy(proto: ModelProto, share: float, rng: np.random.Generator, only: Place | None = None) -> ModelProto:
    """A copy with noise on its weights, as large as `share` of their root mean square; or on one place alone."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    held = {o: a.t for n in copy.graph.node if n.op_type == "Constant" for o in n.output for a in n.attribute}
    for name, tensor in [*held.items(), *((t.name, t) for t in copy.graph.initializer)]:
        if tensor.data_type == TensorProto.FLOAT and (only is None or name == only.tensor):
            array = numpy_helper.to_array(tensor)
            noise = share * rng.standard_normal(array.shape) * np.sqrt(np.mean(array**2))
            if only is not None and only.blocks == 1:
                here = np.zeros(array.shape[only.axis], bool)
                here[only.positions] = True
                noise *= np.moveaxis(here[(...,) + (None,) * (array.ndim - 1)], 0, only.axis)
            tensor.CopyFrom(numpy_helper.from_array((array + noise).astype(np.float32), tensor.name))
    return copy


def _interface(proto: ModelProto) -> list[bytes]:
    held = {tensor.name for tensor in proto.graph.initializer}
    values = [v for v in (*proto.graph.input, *proto.graph.output) if v.name not in held]
    return [value.SerializeToString() for value in values]


def _may_part(model: Model) -> bool:
    """Whether weights are computed from others: stored once, two versions of them may become two."""
    return any(
        node.op != "Constant" and all(o in model.constants for o in node.outputs if o) for node in model.graph.nodes
    )
