"""The flow of layer fusion: fold (where asked for), drop blocks, rank, align, fuse, repair, validate, report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...analysis.costs import costs
from ...analysis.result import Analysis
from ...calibration.collect import given_up
from ...calibration.samples import Samples
from ...errors import ExecutionError, NothingToFoldError, RequestError
from ...evaluation.candidates import Evaluator
from ...model.model import Model
from ...options.budget import Limits
from ...options.choices import Fusion, Method, Metric, Recovery
from ...options.options import Patterns
from ...planning.subject import probes
from ...progress import Progress
from ...runtime.probe_inputs import DESCRIPTION
from ...runtime.session import Feeds, Session, brief
from ..distillation.block_targets import Counterparts, Map
from ..distillation.channel_maps import composed, maps_of
from ..prepare import analyzed
from .alignment import alignable
from .distances import Partition, Unit, alone, layer_sets, nothing, rank
from .fuse import Fused, Shapes, fuse_layers, repaired
from .layers import layers
from .residual_blocks import Block, blocks, bypasses, influence, whole_blocks, writers
from .result import Shared
from .search import blocks_asked, fuse_to, least_missed, size_of

_REPAIRS = (Recovery.AUTO, Recovery.NONE, Recovery.LEAST_SQUARES)
_NO_BLOCKS = "the model has no residual block with an identity skip that could be dropped"


def _check_possible(model: Model, sharing: bool, whole: bool, dropping: bool) -> None:
    """Raise NothingToFoldError where a model has nothing to share or to drop, before any time is spent on it."""
    found, left = layers(model)
    residual = blocks(model) if dropping or whole else []
    if dropping and not residual:
        raise NothingToFoldError(_NO_BLOCKS)
    if sharing and not (whole_blocks(residual, found) if whole else alone(found)):
        raise NothingToFoldError(nothing(model.path or "this model", whole, left))


class _Work:
    """One model (`start`, folded or not), the `original` that errors are measured against, and the samples."""

    def __init__(
        self,
        original: Model,
        start: Model,
        evidence: Samples | None,
        shapes: Shapes,
        chosen: Patterns,
        recovery: Recovery,
        seed: int,
        align: bool,
        progress: Progress[Any],
    ) -> None:
        self.original, self.start, self._shapes, self._seed = original, start, shapes, seed
        self.evidence, self._chosen, self._align, self._progress = evidence, chosen, align, progress
        self._recovery = recovery
        self.analysis: Analysis = analyzed(start)
        self.found, self.left = layers(start)
        self.blocks = [block for block in blocks(start) if self._wanted(block.name)]
        self.influence: dict[str, float] = {}
        self.evaluator = Evaluator(original, self._held)

    @property
    def sampled(self) -> bool:
        """Whether there are samples that may be fitted on."""
        return self.evidence is not None and self.evidence.trusted

    @property
    def repairs(self) -> bool:
        """Whether what was disturbed is fitted again."""
        return self.sampled and self._recovery is not Recovery.NONE

    @property
    def described(self) -> str:
        """What errors are measured on."""
        return self.evidence.described if self.evidence is not None and self.sampled else DESCRIPTION

    @property
    def feeds(self) -> Feeds | Callable[[Session], Feeds]:
        """What the result is checked on."""
        return self.evidence.check[0] if self.evidence is not None and self.sampled else self._probes

    def fit(self) -> Sequence[Feeds]:
        """What may be fitted on, and looked at."""
        if self.evidence is not None and self.sampled:
            return self.evidence.fit
        return [self._probes(Session.of(self.original))]

    def dropping(self, asked: str) -> list[Block]:
        """The blocks to drop. Raises RequestError, PlanError, NothingToFoldError."""
        if not self.blocks:
            raise NothingToFoldError(_NO_BLOCKS)
        count = blocks_asked(asked, len(self.blocks))
        try:
            self.influence = influence(self.start, self.blocks, self.fit())
        except ExecutionError as error:
            raise RequestError(f"--drop-blocks has to run the model, which fails: {brief(error)}") from error

        def missed(gone: Sequence[Block]) -> float:
            return self.evaluator.error(self._plain([], Fusion.MEAN, gone, None).proto)

        return least_missed(self.blocks, count, self.influence, missed)

    def sharing(
        self, how: Fusion, metric: Metric, limits: Limits, whole: bool, dropped: Sequence[Block]
    ) -> tuple[Partition, Fused]:
        """Layers that share weights within `limits`, in the model without the blocks `dropped`."""
        gone = {index for block in dropped for index in block.nodes}
        stay = [layer for layer in self.found if not gone.intersection(layer.nodes) and self._wanted(layer.name)]
        units = whole_blocks([b for b in self.blocks if b not in dropped], stay) if whole else alone(stay)
        if not units:
            raise NothingToFoldError(nothing(self.original.path or "this model", whole, self.left))
        free = alignable(self.analysis) if self._align else {}
        feeds = self.fit() if metric.sampled and self.sampled else None
        try:
            start = Partition(rank(self.start, units, metric, free, feeds, self._progress))
        except ExecutionError as error:
            if not metric.sampled:
                raise
            raise RequestError(f"--metric {metric.value} has to run the model, which fails: {brief(error)}") from error
        return fuse_to(
            start, limits, len(stay), lambda at: self.fused(at.sets, how, dropped),
            size_of(self.start, self.original.size - self._gone(dropped)), self.evaluator.error, self._progress,
        )  # fmt: skip

    def fused(self, sets: Sequence[Sequence[Unit]], how: Fusion, dropped: Sequence[Block]) -> Fused:
        """The model with these sets and without these blocks, repaired where samples can be used for that."""
        if self.evidence is not None and self.repairs:
            try:
                return self._repaired(sets, how, dropped)
            except ExecutionError as error:
                self.evidence = given_up(self.evidence, error, Method.FOLD, self._recovery)
        return self._plain(sets, how, dropped, None)

    def _repaired(self, sets: Sequence[Sequence[Unit]], how: Fusion, dropped: Sequence[Block]) -> Fused:
        """Of what was tried the version with the least error on the samples held back."""
        fit = self.fit()
        made = self._plain(sets, how, dropped, fit)
        instead, aims = bypasses(self.start.graph, dropped)
        moved = frozenset(instead.values())
        tried = [made, repaired(replace(made, aims={}), fit, moved, self._seed, self._progress)]
        if aims:
            again = moved | writers(self.start, aims)
            tried.append(repaired(replace(made, aims=aims), fit, again, self._seed, self._progress))
        return min(tried, key=lambda one: self.evaluator.error(one.proto))

    def pairs(self, made: Fused, folded: Mapping[str, Map | None] | None) -> Counterparts:
        """What activations of `made` are of those of the original, after a fold with these maps if there was one."""
        maps = maps_of(self.analysis, made.moves)
        return Counterparts(composed(folded, maps) if folded is not None else maps, made.aims)

    def _plain(
        self, sets: Sequence[Sequence[Unit]], how: Fusion, dropped: Sequence[Block], feeds: Sequence[Feeds] | None
    ) -> Fused:
        instead, _ = bypasses(self.start.graph, dropped)
        return fuse_layers(
            self.start, self.analysis, layer_sets(sets), how, seed=self._seed, shapes=self._shapes, feeds=feeds,
            align=self._align, bypass=instead,
        )  # fmt: skip

    def _gone(self, dropped: Sequence[Block]) -> int:
        """Bytes by which the file shrinks before any weight is shared."""
        proto = self._plain([], Fusion.MEAN, dropped, None).proto if dropped else self.start.proto
        return int(self.original.proto.ByteSize() - proto.ByteSize())

    def _wanted(self, name: str) -> bool:
        include, exclude = self._chosen
        named = not include or any(p.search(name) for p in include)
        return named and not any(p.search(name) for p in exclude)

    def _held(self, session: Session) -> Sequence[Feeds]:
        if self.evidence is not None and self.sampled:
            return self.evidence.check
        return [self._probes(session)]

    def _probes(self, session: Session) -> Feeds:
        return probes(self.original, costs(self.original, self._shapes), self._shapes, self._seed)(session)


def _shared(partition: Partition | None) -> tuple[Shared, ...]:
    if partition is None:
        return ()
    return tuple(
        Shared(tuple(layer.name for unit in one for layer in unit), one[0][0].shape, partition.distance(one))
        for one in partition.sets
    )
