"""The passes of layer fusion: residual blocks that do little are dropped, and layers that are alike share weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from ...analysis.costs import costs
from ...analysis.result import Analysis
from ...calibration.collect import given_up
from ...calibration.samples import Samples
from ...errors import ExecutionError, NothingToFoldError, RequestError
from ...evaluation.candidates import Evaluator
from ...model.model import Model, Shapes, load
from ...model.save import inline
from ...options.budget import Aim, Limits
from ...options.choices import Fusion, Method, Recovery
from ...options.parts import RuntimeOptions, SharingOptions
from ...planning.subject import CheckInputs, judge_without_samples, probes, reference_of
from ...progress import Phase, Progress
from ...runtime.session import Feeds, Session, brief
from ..base import BasePass, Candidate, Run, State
from ..distillation.block_targets import Counterparts, Map
from ..distillation.channel_maps import composed, maps_of
from ..prepare import analyzed
from ..provenance import bytes_noted
from ..quantization.quantize import narrowed
from .alignment import alignable
from .distances import Partition, Unit, alone, layer_sets, nothing, rank
from .fuse import Fused, FuseSettings, fuse_layers, repaired
from .layers import Layer, Left, layers
from .residual_blocks import Block, blocks, bypasses, influence, whole_blocks, writers
from .result import Dropped, Shared
from .search import blocks_asked, fuse_to, least_missed, size_of

_REPAIRS = (Recovery.AUTO, Recovery.NONE, Recovery.LEAST_SQUARES)
_NO_BLOCKS = "the model has no residual block with an identity shortcut to drop"


@dataclass(frozen=True)
class BlocksDropped:
    """The residual blocks that `DropBlocks` chose, and how far each was from the identity, by name."""

    blocks: tuple[Block, ...]
    influence: Mapping[str, float]

    @property
    def shown(self) -> tuple[Dropped, ...]:
        """The same for the report."""
        return tuple(Dropped(block.name, self.influence[block.name]) for block in self.blocks)


@dataclass(frozen=True)
class WeightsShared:
    """The layers that share weights after `ShareWeights`, and how they came to: `samples_used`, `repaired`."""

    shared: tuple[Shared, ...]
    samples_used: bool
    repaired: bool


class FindLayers(BasePass):
    """Refuses a model that has nothing to share or to drop, before any time is spent on it."""

    name = "analyze"
    requires = frozenset[str]()
    phases = (Phase.ANALYZE,)

    def __init__(self, options: SharingOptions, recovery: Recovery, folded: bool = False) -> None:
        """`folded`: channels are folded before, so the analysis comes with that. Raises RequestError for what makes no
        sense together."""
        self._options, self.provides = options, frozenset(() if folded else ("analysis",))
        if recovery not in _REPAIRS:
            choices = ", ".join(f"'{one.value}'" for one in _REPAIRS)
            raise RequestError(f"`recovery='{recovery.value}'` cannot repair shared weights: choose one of {choices}")
        if options.how is None and options.drop_blocks is None:
            raise RequestError("nothing to do: pass `how` or `drop_blocks`")

    def __call__(self, state: State, run: Run) -> State:
        """Raises NothingToFoldError."""
        options, model = self._options, state.source
        found, left = layers(model)
        residual = blocks(model) if options.drop_blocks is not None or options.whole else []
        if options.drop_blocks is not None and not residual:
            raise NothingToFoldError(_NO_BLOCKS)
        if options.how is not None and not (whole_blocks(residual, found) if options.whole else alone(found)):
            raise NothingToFoldError(nothing(model.path or "this model", options.whole, left))
        return state


class DropBlocks(BasePass):
    """Chooses the residual blocks that do the least. Leaves `BlocksDropped`."""

    name = "fold"
    requires = frozenset(("samples",))
    provides = frozenset(("dropped",))
    phases = (Phase.SHARE,)

    def __init__(self, options: SharingOptions, recovery: Recovery, runtime: RuntimeOptions) -> None:
        self._how = _How(options, recovery, runtime)

    def __call__(self, state: State, run: Run) -> State:
        """Raises RequestError, PlanError, NothingToFoldError."""
        work = SharingWork.of(state, self._how, run.progress)
        state = state.adding(work)
        asked = self._how.options.drop_blocks
        if asked is None:
            return state.adding(BlocksDropped((), {}))
        dropped, influenced = work.dropping(asked)
        return state.adding(BlocksDropped(tuple(dropped), influenced))


class ShareWeights(BasePass):
    """Lets layers share weights within limits, in the model without the dropped blocks. Leaves `WeightsShared`."""

    name = "fold"
    requires = frozenset(("samples", "dropped"))
    provides = frozenset(("candidate",))
    phases = (Phase.SHARE,)

    def __init__(self, options: SharingOptions, recovery: Recovery, quantized: bool) -> None:
        """`quantized`: INT8 follows, and a limit on the error holds for both together."""
        self._options, self._recovery, self._quantized = options, recovery, quantized

    def __call__(self, state: State, run: Run) -> State:
        """Raises PlanError for limits out of reach, NothingToFoldError where no two layers keep them."""
        work, dropped = state.done(SharingWork), state.done(BlocksDropped).blocks
        how, limits, samples = self._options.how, self._options.limits, state.samples
        if self._quantized and limits.max_error is not None:
            within = narrowed(Aim.QUALITY, limits.max_error, work.evaluator, state.source, samples)
            limits = replace(limits, max_error=within)
        partition = None
        if how is None:
            made = work.fused([], Fusion.MEAN, dropped)
        else:
            partition, made = work.sharing(how, limits, dropped)
        if made.failure is not None and samples is not None:
            samples = given_up(samples, made.failure, Method.FOLD, self._recovery)
        before = state.current.counterparts().maps if state.current.shrunk else None
        current = Candidate(made.proto, {}, lambda: work.pairs(made, before), True)
        whole = made.failure is None
        record = WeightsShared(_shared(partition), work.sampled and whole, work.repairs and whole)
        more = () if state.subject is None else state.subject.more
        inputs = CheckInputs.of(samples, work.unsampled, more)
        return state.adding(record, current=current, samples=samples, inputs=inputs)


@dataclass(frozen=True)
class _How:
    """How layers are compared and repaired."""

    options: SharingOptions
    recovery: Recovery
    runtime: RuntimeOptions

    def wanted(self, name: str) -> bool:
        """Whether a layer or block of this name may share weights, or go."""
        include, exclude = self.options.patterns
        named = not include or any(p.search(name) for p in include)
        return named and not any(p.search(name) for p in exclude)


@dataclass(frozen=True, eq=False)
class SharingWork:
    """One model (`start`, folded or not), the `original` that errors are measured against, the samples, and the bytes
    `beside` the model that the result is going to hold."""

    original: Model = field(repr=False)
    start: Model = field(repr=False)
    samples: Samples | None
    how: _How
    shapes: Shapes
    progress: Progress[Any] = field(repr=False)
    beside: int = 0

    @classmethod
    def of(cls, state: State, how: _How, progress: Progress[Any]) -> SharingWork:
        """The work on the candidate of a state."""
        start = state.source
        if state.current.shrunk:
            start = load(inline(state.current.proto, start.folder), how.runtime.input_shapes)
        return cls(state.source, start, state.samples, how, state.shapes, progress, bytes_noted(state))

    @cached_property
    def analysis(self) -> Analysis:
        """Of the model that layers are shared in."""
        return analyzed(self.start)

    @cached_property
    def found(self) -> tuple[Sequence[Layer], Sequence[Left]]:
        """Its layers that could share weights, and those that cannot."""
        return layers(self.start)

    @cached_property
    def blocks(self) -> list[Block]:
        """Its residual blocks that may go."""
        return [block for block in blocks(self.start) if self.how.wanted(block.name)]

    @cached_property
    def evaluator(self) -> Evaluator:
        """Measures errors on the samples held back, or on probe inputs."""
        inputs = CheckInputs.of(self.samples, self.unsampled)
        return Evaluator(self.original, inputs.several, reference=reference_of(self.samples))

    @property
    def sampled(self) -> bool:
        """Whether there are samples that may be fitted on."""
        return self.samples is not None and self.samples.trusted

    @property
    def repairs(self) -> bool:
        """Whether what was disturbed is fitted again."""
        return self.sampled and self.how.recovery is not Recovery.NONE

    def fit(self) -> Sequence[Feeds]:
        """What may be fitted on, and looked at."""
        if self.samples is not None and self.sampled:
            return self.samples.fit
        make = probes(self.original, costs(self.original, self.shapes), self.shapes, self.how.runtime.seed)
        return [make(Session.of(self.original))]

    def dropping(self, asked: str) -> tuple[list[Block], Mapping[str, float]]:
        """The blocks to drop, and how far each block is from the identity.

        Raises RequestError, PlanError, NothingToFoldError."""
        if not self.blocks:
            raise NothingToFoldError(_NO_BLOCKS)
        count = blocks_asked(asked, len(self.blocks))
        try:
            influenced = influence(self.start, self.blocks, self.fit())
        except ExecutionError as error:
            raise RequestError(f"`drop_blocks` has to run the model, which fails: {brief(error)}") from error

        def missed(gone: Sequence[Block]) -> float:
            return self.evaluator.error(self._plain([], Fusion.MEAN, gone, None).proto)

        return least_missed(self.blocks, count, influenced, missed), influenced

    def sharing(self, how: Fusion, limits: Limits, dropped: Sequence[Block]) -> tuple[Partition, Fused]:
        """Layers that share weights within `limits`, in the model without the blocks `dropped`."""
        options, (found, left) = self.how.options, self.found
        gone = {index for block in dropped for index in block.nodes}
        stay = [layer for layer in found if not gone.intersection(layer.nodes) and self.how.wanted(layer.name)]
        units = whole_blocks([b for b in self.blocks if b not in dropped], stay) if options.whole else alone(stay)
        if not units:
            raise NothingToFoldError(nothing(self.original.path or "this model", options.whole, left))
        free = alignable(self.analysis) if options.align else {}
        feeds = self.fit() if options.distance.sampled and self.sampled else None
        try:
            start = Partition(rank(self.start, units, options.distance, free, feeds, self.progress))
        except ExecutionError as error:
            raise RequestError(
                f"`distance='{options.distance.value}'` has to run the model, which fails: {brief(error)}"
            ) from error
        return fuse_to(
            start, limits, len(stay), lambda at: self.fused(at.sets, how, dropped),
            size_of(self.start, self.original.size - self._gone(dropped), self.beside), self.evaluator.error,
            self.progress,
        )  # fmt: skip

    def fused(self, sets: Sequence[Sequence[Unit]], how: Fusion, dropped: Sequence[Block]) -> Fused:
        """The model with these sets and without these blocks, repaired where samples can be used for that. Raises
        RequestError where the user insists on a repair that cannot be had."""
        if self.samples is not None and self.repairs:
            try:
                return self._repaired(sets, how, dropped)
            except ExecutionError as error:
                given_up(self.samples, error, Method.FOLD, self.how.recovery)
                return replace(self._plain(sets, how, dropped, None), failure=error)
        return self._plain(sets, how, dropped, None)

    def _repaired(self, sets: Sequence[Sequence[Unit]], how: Fusion, dropped: Sequence[Block]) -> Fused:
        """Of what was tried the version with the least error on the samples held back."""
        fit, seed = self.fit(), self.how.runtime.seed
        made = self._plain(sets, how, dropped, fit)
        instead, aims = bypasses(self.start.graph, dropped)
        moved = frozenset(instead.values())
        tried = [made, repaired(replace(made, aims={}), fit, moved, seed, self.progress)]
        if aims:
            again = moved | writers(self.start, aims)
            tried.append(repaired(replace(made, aims=aims), fit, again, seed, self.progress))
        return min(tried, key=lambda one: self.evaluator.error(one.proto))

    def pairs(self, made: Fused, folded: Mapping[str, Map | None] | None) -> Counterparts:
        """What activations of `made` are of those of the original, after a fold with these maps if there was one."""
        maps = maps_of(self.analysis, made.moves)
        return Counterparts(composed(folded, maps) if folded is not None else maps, made.aims)

    @cached_property
    def unsampled(self) -> CheckInputs:
        """What results are checked on where no samples are."""
        seed, model, shapes = self.how.runtime.seed, self.original, self.shapes
        probing = probes(model, costs(model, shapes), shapes, seed)
        return CheckInputs(lambda: judge_without_samples(model, probing, shapes, seed))

    def _plain(
        self, sets: Sequence[Sequence[Unit]], how: Fusion, dropped: Sequence[Block], feeds: Sequence[Feeds] | None
    ) -> Fused:
        instead, _ = bypasses(self.start.graph, dropped)
        settings = FuseSettings(how, self.how.options.align, self.how.runtime.seed)
        return fuse_layers(
            self.start, self.analysis, layer_sets(sets), settings, feeds=feeds, bypass=instead,
            shapes=self.how.runtime.input_shapes,
        )  # fmt: skip

    def _gone(self, dropped: Sequence[Block]) -> int:
        """Bytes by which the file shrinks before any weight is shared."""
        proto = self._plain([], Fusion.MEAN, dropped, None).proto if dropped else self.start.proto
        return int(self.original.proto.ByteSize() - proto.ByteSize())


def _shared(partition: Partition | None) -> tuple[Shared, ...]:
    if partition is None:
        return ()
    return tuple(
        Shared(tuple(layer.name for unit in one for layer in unit), one[0][0].shape, partition.distance(one))
        for one in partition.sets
    )
