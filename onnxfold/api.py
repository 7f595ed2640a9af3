"""The flow: load, analyze, plan, cluster, merge, recover, emit, validate, report."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from onnx import ModelProto

from .analysis.costs import Size, costs, count_parameters
from .analysis.coverage import coverage
from .calibration.collect import collect_samples, keep_samples, refuse_samples
from .errors import NothingToFoldError, PlanError, RequestError, ValidationError
from .evaluation.verdict import check
from .model.kv_cache import changed
from .model.model import Model, Source, load, named
from .model.save import check_target, inline, on_disk, staged
from .model.tensors import Pending
from .options.budget import Aim, Budget, Limits
from .options.choices import DEFAULT_METRIC, SHARES, Clusterer, Effort, Fusion, Method, Metric, Recovery
from .options.options import DEFAULT_MAX_ERROR, Manner, Training, check_jobs, check_seed, make_budget, one_of, patterns
from .options.preprocess import Preprocess
from .passes import distillation as refinement
from .passes import quantization as integers
from .passes.block_check import block_checked, check_block
from .passes.distillation.schedule import check_steps
from .passes.finalize import Checking, Ended, Ending, in_float32
from .passes.prepare import analyzed, notes_on, subject
from .passes.quantization.quantize import check_quantizable, narrowed
from .passes.sweep import SweepRow, _row, _shares, recommended
from .passes.weight_sharing.alignment import alignable
from .passes.weight_sharing.distances import alone, nothing, pairs, rank
from .passes.weight_sharing.layers import layers
from .passes.weight_sharing.residual_blocks import blocks, whole_blocks
from .passes.weight_sharing.result import Dropped
from .passes.weight_sharing.share import _REPAIRS, _check_possible, _shared, _Work
from .planning.checkpoint import checkpoint, key_of
from .planning.executor import Executor
from .planning.memory import check_memory, comparable
from .planning.planner import Planner
from .planning.subject import probes
from .planning.time_estimate import Estimate, estimate, estimate_streamed
from .progress import Clock, Progress, silent
from .report.build import _group_report, _group_reports, _with_notes
from .report.fold_report import FoldReport
from .report.layers_report import LayersReport
from .report.sweep_report import SweepReport
from .runtime.probe_inputs import DESCRIPTION
from .runtime.session import Feeds, resolve_providers


def sweep(
    model: Source,
    *,
    at: Sequence[float] = SHARES,
    method: Method | str = Method.AUTO,
    recovery: Recovery | str = Recovery.AUTO,
    effort: Effort | str = Effort.BALANCED,
    calibration: object = None,
    samples: int = 128,
    preprocess: Preprocess | None = None,
    round_to: int = 8,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    fold_heads: bool = False,
    clusterer: Clusterer | str = Clusterer.NATIVE,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    providers: Sequence[str] | None = None,
    seed: int = 0,
    threads: int = 0,
    latency: bool = True,
    progress: Progress[Any] = silent,
    announce: Callable[[str], None] | None = None,
) -> SweepReport:
    """Fold a model to several shares of its MACs, measure each, and recommend the one at the knee. Writes no model.

    Args:
        at: the shares of the multiply-accumulates that may remain, each above 0 and at most 1, in any order.
        model and all others: as in `fold`. Nothing is fitted on the samples held back: the errors are measured on them.

    Budgets that cannot be met give a row that says so. The knee is that of `knee.knee` on the curve of output errors
    over MACs removed, from the original on.

    Raises:
        RequestError, ModelError: see `onnxfold.errors`.
        PlanError, NothingToFoldError: no budget can be met, or none removes anything.
    """
    begin = time.perf_counter()
    manner = Manner.of(method, recovery, clusterer, effort, seed, threads, include, exclude)
    budgets = [Budget(Aim.MACS, share, round_to) for share in _shares(at)]
    usable, missing = resolve_providers(providers)
    found = subject(model, input_shapes, manner.patterns, fold_heads=fold_heads)
    if found.streamed:
        raise RequestError(f"{found.name} is over 2 GiB, too large to be run here: fold it to one target at a time")
    seconds = {"analyze": time.perf_counter() - begin}
    expected = estimate(found, manner, 0 if calibration is None else samples, True, input_shapes)
    if announce is not None and expected is not None and expected.worth_saying:
        announce(f"{expected}, and the time to fold and measure {len(budgets)} models")
    evidence = collect_samples(
        found.model, calibration, samples, preprocess, manner.effort, manner.method, manner.recovery, seed,
        input_shapes, progress, usable,
    )  # fmt: skip
    seconds["samples"] = time.perf_counter() - begin - seconds["analyze"]
    with tempfile.TemporaryDirectory(prefix="onnxfold-") as folder:
        target = Path(folder) / "folded.onnx"
        planner = Planner(found, manner, evidence, input_shapes, progress, providers=usable, target=target)
        original = on_disk(found.model, Path(folder))
        way = None
        while way != planner.sampled:  # all rows the same way, also where the samples prove useless at a later one
            way, rows, refused = planner.sampled, list[SweepRow](), list[PlanError | NothingToFoldError]()
            for budget in budgets:
                try:
                    rows.append(_row(planner, budget, original, target, usable, missing, latency))
                except (PlanError, NothingToFoldError) as error:
                    refused.append(error)
                    rows.append(SweepRow(budget.value, None, None, None, (), (), str(error)))
    if len(refused) == len(budgets):
        raise next((error for error in refused if isinstance(error, PlanError)), refused[0])
    seconds["sweep"] = time.perf_counter() - begin - sum(seconds.values())
    before = Size(found.model.size, count_parameters(found.model.proto), found.prices.macs({}))
    return SweepReport(
        found.name, {**planner.settings(round_to), "at": [b.value for b in budgets]}, before, tuple(rows),
        recommended(rows, before), planner.described, () if planner.evidence is None else planner.evidence.notes,
        seconds,
    )  # fmt: skip


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
        RequestError, ModelError, NothingToFoldError, PlanError, QuantizationError: see `onnxfold.errors`.
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
        check_quantizable(loaded, False, calibration is not None or spent is not Effort.FAST)
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
    evidence = collect_samples(
        loaded, calibration, samples, preprocess, spent, Method.FOLD, sampling, seed, input_shapes, progress, usable,
        refine or quantize,
    )  # fmt: skip
    work = _Work(loaded, start, evidence, input_shapes, chosen, level, seed, align, progress)
    clock.mark("samples")
    if quantize and limits.error is not None:
        within = narrowed(Aim.QUALITY, limits.error, work.evaluator, loaded, evidence)
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
        pairs = work.pairs(made, None if first is None else first.maps()) if refine else None
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
            dropped=tuple(Dropped(b.name, work.influence[b.name]) for b in dropped), quantization=ended.quantized,
        )  # fmt: skip
        _commit_or_raise(ended, report, output is not None)
    return FoldResult(ended.proto, report, loaded)


def rank_layers(
    model: Source,
    *,
    metric: Metric | str = Metric.WASSERSTEIN,
    whole: bool = False,
    align: bool = True,
    effort: Effort | str = Effort.BALANCED,
    calibration: object = None,
    samples: int = 128,
    preprocess: Preprocess | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    providers: Sequence[str] | None = None,
    seed: int = 0,
    progress: Progress[Any] = silent,
) -> LayersReport:
    """How alike the layers of a model are, pair by pair; arguments as in `onnxfold.fuse`.

    Samples are only made, or read, for a metric that needs them. Raises RequestError, ModelError, and
    NothingToFoldError where no two layers could share a weight.
    """
    kind, spent = one_of(Metric, metric), one_of(Effort, effort)
    check_seed(seed)
    usable, _ = resolve_providers(providers)
    loaded = load(model, input_shapes)
    found, left = layers(loaded)
    units = whole_blocks(blocks(loaded), found) if whole else alone(found)
    if not units:
        raise NothingToFoldError(nothing(loaded.path or "this model", whole, left))
    evidence = None
    if kind.sampled:
        evidence = collect_samples(
            loaded, calibration, samples, preprocess, spent, Method.FOLD, Recovery.AUTO, seed, input_shapes, progress,
            usable,
        )  # fmt: skip
    feeds = evidence.fit if evidence is not None and evidence.trusted else None
    free = alignable(analyzed(loaded)) if align else {}
    ranked = rank(loaded, units, kind, free, feeds, progress)
    described = None if evidence is None else evidence.described
    return LayersReport(named(model), kind.value, align, described, tuple(pairs(ranked)), tuple(ranked), left)


@dataclass(frozen=True)
class FoldResult:
    """A folded model and what is known about it. `model` refers to the original's external data, if that has any.

    Of a model too large to be in memory, new values are not in `model`: `save` computes them while it writes. `maps()`
    says what became of the channels of activations.
    """

    model: ModelProto = field(repr=False)
    report: FoldReport
    _source: Model = field(repr=False)
    _pending: Mapping[str, Pending] = field(default_factory=dict, repr=False)
    maps: Callable[[], Mapping[str, refinement.Map | None]] = field(default=dict, repr=False)

    def save(self, path: str | os.PathLike[str], external_data: bool = False) -> None:
        """Write the model atomically, with a new external data file where the original has one."""
        target = Path(path)
        check_target(target, self._source.path)
        with staged(self.model, self._source, target, external_data, self._pending) as written:
            written.commit()


def fold(
    model: Source,
    output: str | os.PathLike[str] | None = None,
    *,
    method: Method | str = Method.AUTO,
    recovery: Recovery | str = Recovery.AUTO,
    ratio: float | None = None,
    target_params: float | None = None,
    target_macs: float | None = None,
    target_size: float | None = None,
    target_latency: float | None = None,
    max_error: float | None = None,
    min_agreement: float | None = None,
    effort: Effort | str = Effort.BALANCED,
    calibration: object = None,
    samples: int = 128,
    preprocess: Preprocess | None = None,
    synthetic: str | os.PathLike[str] | None = None,
    refine: bool = False,
    steps: int | None = None,
    quantize: bool = False,
    round_to: int = 8,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    fold_heads: bool = False,
    clusterer: Clusterer | str = Clusterer.NATIVE,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    providers: Sequence[str] | None = None,
    seed: int = 0,
    threads: int = 0,
    latency: bool = True,
    external_data: bool = False,
    group_ratios: Mapping[str, float] | None = None,
    max_memory: int | None = None,
    jobs: int = 1,
    scheduler: str = "",
    resume: bool = False,
    progress: Progress[Any] = silent,
    announce: Callable[[str], None] | None = None,
) -> FoldResult:
    """Make a model smaller by merging similar channels, and measure what that did.

    Args:
        model: path of an .onnx file, or a ModelProto. It is never changed.
        output: where to write the result (atomically); None writes nothing.
        method: how channels are chosen (`Method`).
        recovery: how the merge is repaired (`Recovery`).
        ratio: share of channels to remove in every group, 0..1.
        target_params: share of the parameters that may remain; the smallest uniform ratio that meets it.
        target_macs: likewise for multiply-accumulates.
        target_size: share of the bytes of the file, external data included, that may remain in what is written to
            `output` (saved otherwise, it may take a few bytes more).
        target_latency: share of the median latency that may remain on the first of `providers`, measured on this
            machine: another one, or another run, may choose otherwise.
        max_error: the relative L2 error of the outputs that may be made, measured on samples held back.
        min_agreement: the share of these samples whose largest output must stay the same one.
            At most one of the seven; with none, `max_error` is 0.1.
        effort: how much time may be spent (`Effort`); "fast" works from the weights alone.
        calibration: the user's own inputs (`calibration.read_calibration` says in which forms); None makes synthetic
            ones from the model.
        samples: how many of the user's inputs are used at most.
        preprocess: how pixels become numbers, where calibration inputs are images.
        synthetic: an .npz file to write the synthetic inputs to, and a .png beside it where they are images.
        refine: train the weights of the result for a few hundred steps to do what the original does on the samples,
            without labels; kept only where it helps on samples held back. The report says what came of it.
        steps: of that; None: what `effort` allows for a model of this size.
        quantize: store the result in INT8, by onnxruntime's static quantization with the samples. `max_error` and
            `min_agreement` hold for the whole, other budgets for what comes before; where nothing can be folded within
            them, the model is quantized as it is.
        round_to: kept widths are multiples of this (1 switches it off).
        include, exclude: regular expressions on group names and the names of the nodes that make the channels.
        fold_heads: also fold heads that key-value caches among the inputs and outputs have: their declared shapes
            change, `past` and `present` of a layer together (`caches.find_caches` says what counts as a cache). Models
            are compared with empty caches (or zeros, where their length is fixed); the report says which changed.
        clusterer: the compiled core, or scikit-learn's k-means.
        input_shapes: shapes for inputs that leave dimensions open, ``{name: (1, 3, 224, 224)}``.
        providers: onnxruntime providers to measure on; None: the CPU, and CUDA where there is one.
        seed: the same seed gives the same bytes.
        threads: for clustering; 0 for all. Does not change the result.
        latency: measure latencies too.
        external_data: store weights of over 1 KiB beside the output file.
        group_ratios: ratios of groups that a regular expression fits (as `include` does), the first one that does; with
            them, `ratio` is that of all others (default 0).
        max_memory: bytes. A model that takes more to run (or is over 2 GiB) is never loaded whole: weights alone
            decide, read group by group, and the check is of files and one block (docs/large-models.md).
        jobs: so many groups are merged at a time. Does not change the result.
        scheduler: the address of a Dask scheduler whose workers merge the groups, like "tcp://127.0.0.1:8786".
        resume: go on from the groups that an interrupted run for the same `output`, model and options has merged, and
            keep what is merged in case this one is interrupted (for a model that is streamed that is always kept).
        progress: called with a title and a list, yields its items; `onnxfold.progress.on_terminal` shows a bar.
        announce: told before anything that takes long how long that may be.

    Raises:
        RequestError, ModelError, NothingToFoldError, PlanError, QuantizationError: see `onnxfold.errors`.
        ValidationError: the result failed its checks (its `report` attribute has them); nothing was written.
    """
    clock = Clock()
    manner = Manner.of(method, recovery, clusterer, effort, seed, threads, include, exclude)
    budget = make_budget(
        ratio, target_params, target_macs, max_error, min_agreement, target_size, target_latency, round_to, group_ratios
    )
    check_jobs(jobs)
    executor = Executor(jobs, scheduler)
    usable, missing = resolve_providers(providers)
    if output is not None:
        check_target(Path(output), None if isinstance(model, ModelProto) else Path(model))
    found = subject(model, input_shapes, manner.patterns, max_memory, fold_heads)
    loaded, caches = found.model, found.analysis.caches
    if quantize:
        integers.check_quantizable(loaded, found.streamed, calibration is not None or manner.effort is not Effort.FAST)
    if (refine or quantize) and caches:
        what = "--refine" if refine else "--quantize"
        raise RequestError(f"{what} compares caches as they were: leave out {what}, or --fold-heads")
    if found.streamed:
        refuse_samples(calibration, manner.method, manner.recovery, budget.aim, refine)
        check_memory(loaded, found.analysis, found.chosen, 1 if executor.away else jobs, max_memory)
    executor.check()
    clock.mark("analyze")
    if found.streamed:
        expected: Estimate | None = estimate_streamed(found, budget)
    else:
        size = refinement.extent(loaded, manner.effort, input_shapes, steps) if refine else None
        expected = estimate(found, manner, 0 if calibration is None else samples, ratio is None, input_shapes, size)
    if announce is not None and expected is not None and expected.worth_saying:
        announce(str(expected))
    evidence = None if found.streamed else collect_samples(
        loaded, calibration, samples, preprocess, manner.effort, manner.method, manner.recovery, seed, input_shapes,
        progress, usable, refine or quantize,
    )  # fmt: skip
    if synthetic is not None:
        keep_samples(evidence, calibration, Path(synthetic))
    clock.mark("samples")
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="onnxfold-")))
        target = Path(output) if output is not None else scratch / "folded.onnx"
        kept = None
        if output is not None and (resume or found.streamed):
            how = (manner.method, manner.recovery, manner.clusterer, seed, found.streamed, fold_heads)
            kept = stack.enter_context(checkpoint(target, key_of(loaded, *how), resume))
        planner = Planner(
            found, manner, evidence, input_shapes, progress, providers=usable, target=target,
            external_data=external_data, executor=executor, kept=kept,
        )  # fmt: skip
        planned = budget
        if quantize:
            value = integers.narrowed(budget.aim, budget.value, planner.evaluator, loaded, planner.evidence)
            planned = replace(budget, value=value, quantized=True)
        decision = planner.decide(planned)
        merges, pending = decision.folded.merges, decision.folded.pending
        maps = partial(refinement.maps_of, found.analysis, merges)
        left = "" if merges else planner.nothing_left(budget)
        if left and not quantize:
            raise NothingToFoldError(left)
        clock.mark("fold")
        training = Training(steps, manner.effort, seed) if refine and merges else None
        ending = Ending(
            loaded, planner.evidence, target, scratch, training, quantize, external_data, clock, progress
        )  # fmt: skip
        checking = Checking(
            planner.feeds, planner.described, usable, missing, latency,
            found.streamed and not comparable(loaded, max_memory), caches,
        )  # fmt: skip
        ended = stack.enter_context(ending.of(
            decision.folded.proto, checking, pairs=refinement.Counterparts(maps()) if training else None,
            budget=(budget.aim, budget.value), pending=pending, within=None if kept is None else kept.staging,
        ))  # fmt: skip
        verdict = ended.verdict.noting(f"only quantized: {left}" if left else "")
        if found.streamed:
            verdict = block_checked(verdict, check_block(loaded, found.analysis, merges, ended.written.path))
        verdict = verdict.noting(*(() if kept is None else kept.notes))
        clock.mark("validate")
        lengths = planner.work.lengths({name: merge.after for name, merge in merges.items()})
        taken = clock.seconds if expected is None else {**clock.seconds, "estimated": expected.samples + expected.fold}
        report = FoldReport(
            found.name, "" if output is None else os.fspath(output),
            {
                **planner.settings(round_to), "budget": {budget.aim.value: budget.value},
                "uniform_ratio": decision.ratio,
            },
            Size(loaded.size, count_parameters(loaded.proto), found.prices.macs({})),
            Size(ended.written.size, count_parameters(ended.proto), found.prices.macs(lengths)),
            _group_reports(found, planner.work, merges, round_to), found.analysis.refusals,
            _with_notes(
                verdict, loaded.size, ended.written.size, planner.evidence, budget, decision.folded.refitted
            ),
            taken, coverage(found.analysis, found.prices), ended.refined, quantization=ended.quantized,
            interface=changed(loaded.graph, caches, lengths),
        )  # fmt: skip
        _commit_or_raise(ended, report, output is not None)
    return FoldResult(ended.proto, report, loaded, pending, maps)


def inspect(
    model: Source,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    fold_heads: bool = False,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
) -> FoldReport:
    """What could be folded in a model, and what is kept and why. Writes nothing; raises as `fold` does."""
    compiled = patterns(include, exclude)
    loaded = load(model, input_shapes)
    analysis = analyzed(loaded, fold_heads)
    notes = notes_on(analysis, compiled)
    groups = tuple(_group_report(g, g.size, 0, 0.0, notes.get(g.name, "")) for g in analysis.groups)
    prices = costs(loaded, input_shapes)
    size = Size(loaded.size, count_parameters(loaded.proto), prices.macs({}))
    return FoldReport(
        named(model), "", {}, size, None, groups, analysis.refusals, None, coverage=coverage(analysis, prices)
    )


def compare(
    before: Source,
    after: Source,
    *,
    inputs: Feeds | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    providers: Sequence[str] | None = None,
    seed: int = 0,
    latency: bool = True,
) -> FoldReport:
    """Measure any two models with the same inputs and outputs against each other: sizes, latency, output errors.

    Args:
        before, after: paths or ModelProtos.
        inputs: arrays by input name; None makes random ones.
        input_shapes, providers, seed, latency: as in `fold`.
    """
    usable, missing = resolve_providers(providers)
    check_seed(seed)
    old, new = load(before, input_shapes), load(after, input_shapes)
    prices = costs(old, input_shapes)
    feeds = inputs if inputs is not None else probes(old, prices, input_shapes, seed)
    with tempfile.TemporaryDirectory(prefix="onnxfold-") as scratch:
        paths = [on_disk(m, Path(scratch)) for m in (old, new)]
        verdict = check(
            paths[0], paths[1], feeds, providers=usable, missing=missing, protos=(old.proto, new.proto),
            inputs=DESCRIPTION if inputs is None else "the inputs given", latency=latency,
            in_float32=in_float32(old, new.proto, new.folder),
        )  # fmt: skip
    sizes = [
        Size(m.size, count_parameters(m.proto), c.macs({})) for m, c in ((old, prices), (new, costs(new, input_shapes)))
    ]
    return FoldReport(named(before), named(after), {"seed": seed}, sizes[0], sizes[1], (), (), verdict)


def _commit_or_raise(ended: Ended, report: FoldReport, keep: bool) -> None:
    """Put the file in place, if it is to be kept. Raises ValidationError where its checks failed."""
    if report.check is None or not report.check.passed:
        error = ValidationError(f"{report.model}: the result was not written: {report.verdict}")
        error.report = report
        raise error
    if keep:
        ended.written.commit()
