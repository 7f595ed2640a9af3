"""The flow of layer fusion: fold (where asked for), drop blocks, rank, align, fuse, repair, validate, report."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from onnx import ModelProto

from ..analyse import Analysis
from ..costs import costs, count_parameters
from ..ending import Checking, Clock, Ending, Training
from ..errors import NothingToFoldError, OnnxFoldError, RequestError
from ..evidence import gather_evidence, given_up
from ..features import Method
from ..flow import FoldResult, fold
from ..images import Preprocess
from ..inputs import DESCRIPTION
from ..integers import check_quantisable, narrowed
from ..model import Model, load
from ..plan import Aim
from ..progress import Progress, silent
from ..recover import Recovery
from ..refinement import Counterparts, check_steps, composed, maps_of
from ..report import Dropped, FoldReport, Shared, Size
from ..request import DEFAULT_MAX_ERROR, Patterns, check_seed, one_of, patterns
from ..samples import Effort, Samples
from ..session import Feeds, Session, resolve_providers
from ..stages import Source, analysed, named, probes
from ..store import check_target, inline
from ..trial import Trial
from ..validate import brief
from .align import seats
from .blocks import Block, blocks, bypasses, influence, whole_blocks, writers
from .decide import Limits, blocks_asked, fuse_to, least_missed, size_of
from .find import layers
from .fusing import Fused, Shapes, fuse_layers, repaired
from .rank import Partition, Unit, alone, layer_sets, rank
from .ranking import nothing
from .similarity import Metric
from .tie import Fusion

DEFAULT_METRIC = Metric.WASSERSTEIN
_REPAIRS = (Recovery.AUTO, Recovery.NONE, Recovery.LEAST_SQUARES)
_NO_BLOCKS = "the model has no residual block with an identity skip that could be dropped"


def fuse(
    model: Source,
    output: str | os.PathLike[str] | None = None,
    *,
    how: Fusion | str | None = Fusion.MEAN,
    metric: Metric | str = DEFAULT_METRIC,
    share: float | None = None,
    target_size: float | None = None,
    max_error: float | None = None,
    drop_blocks: str | int | None = None,
    whole: bool = False,
    align: bool = True,
    folding: Mapping[str, Any] | None = None,
    recovery: Recovery | str = Recovery.AUTO,
    effort: Effort | str = Effort.BALANCED,
    calibration: object = None,
    samples: int = 128,
    refine: bool = False,
    steps: int | None = None,
    quantize: bool = False,
    preprocess: Preprocess | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    providers: Sequence[str] | None = None,
    seed: int = 0,
    latency: bool = True,
    external_data: bool = False,
    progress: Progress[Any] = silent,
) -> FoldResult:
    """Let layers that are alike share one weight, drop residual blocks that do little, and measure what that did.

    Args:
        model, output, calibration, samples, preprocess, input_shapes, providers, seed, latency, external_data,
            progress: as in `onnxfold.fold`.
        how: how the shared weight comes about (`Fusion`); None shares none.
        metric: how alike layers are (`Metric`); the nearest share first.
        share: the share of the layers, 0..1, that lose their own weights.
        target_size: the share of the bytes of the file that may remain; not with `share`.
        max_error: the largest relative L2 error of the outputs. Then every two layers are joined, repaired and measured
            one after another. With none of the three, 0.1.
        drop_blocks: so many residual blocks ("3"), or a percentage of them ("25%"), are dropped before.
        whole: compare and fuse whole residual blocks, not single layers.
        align: permute inner channels so that layers match before they share.
        folding: arguments of `onnxfold.fold`, such as ``{"ratio": 0.3}``: channels are folded before all that.
        recovery: "least-squares" fits the shared weights and refits what follows them, "none" does not, "auto" does
            where samples can be had.
        effort: "fast" works from weights and probe inputs alone.
        refine, steps: train the weights of the result, shared ones as one, as in `onnxfold.fold`.
        quantize: store the result in INT8 as there; what layers share they go on sharing.
        include, exclude: regular expressions on the names of layers and of blocks (their sums).

    Raises:
        RequestError, ModelError, NothingToFoldError, PlanError, QuantisationError: see `onnxfold.errors`.
        ValidationError: the result failed its checks (its `report` attribute has them); nothing was written.
    """
    clock = Clock()
    if how is not None and share is target_size is max_error is None:
        max_error = DEFAULT_MAX_ERROR
    limits = asked = Limits(share, target_size, max_error)
    kind, likeness = None if how is None else one_of(Fusion, how), one_of(Metric, metric)
    level, spent = one_of(Recovery, recovery), one_of(Effort, effort)
    if level not in _REPAIRS:
        raise RequestError(f"--recovery {level.value} cannot repair shared weights: choose auto, none or least-squares")
    if kind is None and drop_blocks is None:
        raise RequestError("nothing to do: give --fuse or --drop-blocks")
    check_seed(seed)
    chosen, (usable, missing) = patterns(include, exclude), resolve_providers(providers)
    if output is not None:
        check_target(Path(output), None if isinstance(model, ModelProto) else Path(model))
    loaded = load(model, input_shapes)
    if quantize:
        check_quantisable(loaded, False, calibration is not None or spent is not Effort.FAST)
    if refine:
        check_steps(steps)
    _check_possible(loaded, kind is not None, whole, drop_blocks is not None)
    first: FoldResult | None = None
    if folding:
        same: dict[str, Any] = {
            "recovery": level, "effort": spent, "calibration": calibration, "samples": samples, "seed": seed,
            "preprocess": preprocess, "input_shapes": input_shapes, "providers": providers, "latency": False,
            "progress": progress,
        }  # fmt: skip
        first = fold(model, **{**same, **folding})
        clock.take(first.report.seconds)
    start = load(inline(first.model, loaded.folder), input_shapes) if first is not None else loaded
    sampling = Recovery.AUTO if likeness.sampled else level
    evidence = gather_evidence(
        loaded, calibration, samples, preprocess, spent, Method.FOLD, sampling, seed, input_shapes, progress, usable,
        refine or quantize,
    )  # fmt: skip
    work = _Work(loaded, start, evidence, input_shapes, chosen, level, seed, align, progress)
    clock.mark("samples")
    if quantize and limits.error is not None:
        within = narrowed(Aim.QUALITY, limits.error, work.trial, loaded, evidence)
        limits = replace(limits, error=within)
    dropped = work.dropping(str(drop_blocks)) if drop_blocks is not None else []
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="onnxfold-")))
        target = Path(output) if output is not None else scratch / "fused.onnx"
        partition = None
        if kind is None:
            made = work.fused([], Fusion.MEAN, dropped)
        else:
            partition, made = work.sharing(kind, likeness, limits, whole, dropped)
        clock.mark("fold")
        training = Training(steps, spent, seed) if refine else None
        ending = Ending(loaded, evidence, target, scratch, training, quantize, external_data, clock, progress)
        checking = Checking(work.feeds, work.described, usable, missing, latency)
        aim = None if asked.error is None else (Aim.QUALITY, asked.error)
        pairs = work.pairs(made, first) if refine else None
        ended = stack.enter_context(ending.of(made.proto, checking, pairs=pairs, budget=aim))
        written = ended.written
        verdict = ended.verdict.noting(*(() if work.evidence is None else work.evidence.notes))
        if written.size > (limits.size or 1) * loaded.size:
            verdict = verdict.noting(f"the file takes {written.size / loaded.size:.3f} of the bytes of the original")
        after = load(written.path, input_shapes)
        clock.mark("validate")
        report = FoldReport(
            named(model), "" if output is None else os.fspath(output),
            {
                **(first.report.settings if first is not None else {}), "effort": spent.value,
                "samples": None if work.evidence is None else work.evidence.described,
                "samples_used": work.sampled,
                "recovery": (Recovery.LEAST_SQUARES if work.repairs else Recovery.NONE).value, "seed": seed,
                "include": list(include), "exclude": list(exclude), "fuse": None if kind is None else kind.value,
                "metric": likeness.value, "share": limits.share, "file_share": limits.size,
                "largest_error": asked.error, "drop_blocks": None if drop_blocks is None else str(drop_blocks),
                "whole_blocks": whole, "aligned": align,
            },
            Size(loaded.size, count_parameters(loaded.proto), costs(loaded, input_shapes).macs({})),
            Size(written.size, count_parameters(ended.proto), costs(after, input_shapes).macs({})),
            first.report.groups if first is not None else (), (), verdict, clock.seconds,
            refinement=ended.refined, shared=_shared(partition),
            dropped=tuple(Dropped(b.name, work.influence[b.name]) for b in dropped), quantisation=ended.quantised,
        )  # fmt: skip
        ended.commit(report, output is not None)
    return FoldResult(ended.proto, report, loaded)


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
        self.analysis: Analysis = analysed(start)
        self.found, self.left = layers(start)
        self.blocks = [block for block in blocks(start) if self._wanted(block.name)]
        self.influence: dict[str, float] = {}
        self.trial = Trial(original, self._held)

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
        return [self._probes(Session(inline(self.original.proto, self.original.folder).SerializeToString()))]

    def dropping(self, asked: str) -> list[Block]:
        """The blocks to drop. Raises RequestError, PlanError, NothingToFoldError."""
        if not self.blocks:
            raise NothingToFoldError(_NO_BLOCKS)
        count = blocks_asked(asked, len(self.blocks))
        try:
            self.influence = influence(self.start, self.blocks, self.fit())
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise RequestError(f"--drop-blocks has to run the model, which fails: {brief(error)}") from error

        def missed(gone: Sequence[Block]) -> float:
            return self.trial.error(self._plain([], Fusion.MEAN, gone, None).proto)

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
        free = seats(self.analysis) if self._align else {}
        feeds = self.fit() if metric.sampled and self.sampled else None
        try:
            start = Partition(rank(self.start, units, metric, free, feeds, self._progress))
        except OnnxFoldError:
            raise
        except Exception as error:  # as above
            if not metric.sampled:
                raise
            raise RequestError(f"--metric {metric.value} has to run the model, which fails: {brief(error)}") from error
        return fuse_to(
            start, limits, len(stay), lambda at: self.fused(at.sets, how, dropped),
            size_of(self.start, self.original.size - self._gone(dropped)), self.trial.error, self._progress,
        )  # fmt: skip

    def fused(self, sets: Sequence[Sequence[Unit]], how: Fusion, dropped: Sequence[Block]) -> Fused:
        """The model with these sets and without these blocks, repaired where samples can be used for that."""
        if self.evidence is not None and self.repairs:
            try:
                return self._repaired(sets, how, dropped)
            except OnnxFoldError:
                raise
            except Exception as error:  # as above
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
        return min(tried, key=lambda one: self.trial.error(one.proto))

    def pairs(self, made: Fused, first: FoldResult | None) -> Counterparts:
        """What activations of `made` are of those of the original, after a `first` fold if there was one."""
        maps = maps_of(self.analysis, made.moves)
        return Counterparts(composed(first.maps(), maps) if first is not None else maps, made.aims)

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
