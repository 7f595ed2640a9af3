"""The flow: load, analyse, plan, cluster, merge, recover, emit, validate, report."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto

from . import integers, refinement
from .caches import changed
from .channels import ChannelGroup
from .cluster import Clusterer
from .compress import Compressor
from .costs import costs, count_parameters
from .coverage import coverage
from .crew import Crew
from .ending import Checking, Clock, Ending, Training, in_float32
from .errors import NothingToFoldError, RequestError
from .estimate import Estimate, estimate, estimate_streamed
from .evidence import gather_evidence, keep_samples, refuse_samples
from .excerpt import block_checked, check_block
from .features import Method
from .images import Preprocess
from .inputs import DESCRIPTION
from .merge import Merge
from .model import Model, load
from .plan import Aim, Budget, round_width
from .planner import Planner
from .pooled import wide_notes
from .progress import Progress, silent
from .recover import Recovery
from .refit import Refitted
from .report import FoldReport, GroupReport, Size
from .request import Manner, check_jobs, check_seed, make_budget, patterns
from .room import check_memory, comparable
from .samples import Effort, Samples
from .session import Feeds, resolve_providers
from .stages import Source, Subject, analysed, named, notes_on, on_disk, probes, subject
from .store import check_target, staged
from .tensors import Pending
from .validate import SLOWER, Check, check
from .workfolder import key_of, work_folder


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
        quantize: store the result in INT8, by onnxruntime's static quantisation with the samples. `max_error` and
            `min_agreement` hold for the whole, other budgets for what comes before; where nothing can be folded within
            them, the model is quantised as it is.
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
        RequestError, ModelError, NothingToFoldError, PlanError, QuantisationError: see `onnxfold.errors`.
        ValidationError: the result failed its checks (its `report` attribute has them); nothing was written.
    """
    clock = Clock()
    manner = Manner.of(method, recovery, clusterer, effort, seed, threads, include, exclude)
    budget = make_budget(
        ratio, target_params, target_macs, max_error, min_agreement, target_size, target_latency, round_to, group_ratios
    )
    check_jobs(jobs)
    crew = Crew(jobs, scheduler)
    usable, missing = resolve_providers(providers)
    if output is not None:
        check_target(Path(output), None if isinstance(model, ModelProto) else Path(model))
    found = subject(model, input_shapes, manner.patterns, max_memory, fold_heads)
    loaded, caches = found.model, found.analysis.caches
    if quantize:
        integers.check_quantisable(loaded, found.streamed, calibration is not None or manner.effort is not Effort.FAST)
    if (refine or quantize) and caches:
        what = "--refine" if refine else "--quantize"
        raise RequestError(f"{what} compares caches as they were: leave out {what}, or --fold-heads")
    if found.streamed:
        refuse_samples(calibration, manner.method, manner.recovery, budget.aim, refine)
        check_memory(loaded, found.analysis, found.chosen, 1 if crew.away else jobs, max_memory)
    crew.check()
    clock.mark("analyse")
    if found.streamed:
        expected: Estimate | None = estimate_streamed(found, budget)
    else:
        size = refinement.extent(loaded, manner.effort, input_shapes, steps) if refine else None
        expected = estimate(found, manner, 0 if calibration is None else samples, ratio is None, input_shapes, size)
    if announce is not None and expected is not None and expected.worth_saying:
        announce(str(expected))
    evidence = None if found.streamed else gather_evidence(
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
            kept = stack.enter_context(work_folder(target, key_of(loaded, *how), resume))
        planner = Planner(
            found, manner, evidence, input_shapes, progress, providers=usable, target=target,
            external_data=external_data, crew=crew, kept=kept,
        )  # fmt: skip
        planned = budget
        if quantize:
            value = integers.narrowed(budget.aim, budget.value, planner.trial, loaded, planner.evidence)
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
        verdict = ended.verdict.noting(f"only quantised: {left}" if left else "")
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
            taken, coverage(found.analysis, found.prices), ended.refined, quantisation=ended.quantised,
            interface=changed(loaded.graph, caches, lengths),
        )  # fmt: skip
        ended.commit(report, output is not None)
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
    analysis = analysed(loaded, fold_heads)
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


def _group_reports(
    found: Subject, work: Compressor, merges: Mapping[str, Merge], round_to: int
) -> tuple[GroupReport, ...]:
    out = []
    for group in found.analysis.groups:
        merge = merges.get(group.name)
        if merge is None:
            note = found.notes.get(group.name, "kept by the budget")
            width = work.widths([group.name])[0]
            if group.name not in found.notes and round_width(width, 0, round_to) == group.size:
                note = f"too narrow for --round-to {round_to}"
            out.append(_group_report(group, group.size, 0, 0.0, note))
        else:
            merged = int((np.bincount(merge.labels[merge.labels >= 0]) > 1).sum())
            out.append(_group_report(group, merge.after, merged, work.relative_error(group.name, merge), ""))
    return tuple(out)


def _group_report(group: ChannelGroup, after: int, clusters: int, error: float, note: str) -> GroupReport:
    return GroupReport(group.name, group.size, after, group.blocks, clusters, error, group.makers, group.readers, note)


def _with_notes(
    verdict: Check, before: int, after: int, evidence: Samples | None, budget: Budget, refitted: Sequence[Refitted]
) -> Check:
    """The verdict with what else the user should know."""
    notes = [*verdict.notes, *(() if evidence is None else evidence.notes)]
    notes += wide_notes({one.output: one.fit for one in refitted})
    if after > before:
        notes.append(f"the file grew by {after - before} bytes")
    speedup = verdict.providers[0].speedup if verdict.providers else None
    if budget.aim is Aim.LATENCY and speedup is not None and 1 / speedup > SLOWER * budget.value:
        notes.append(
            f"{1 / speedup:.2f} of the latency in this check, though --{budget.aim.value} {budget.value:g} was met "
            "before: timings on this machine vary"
        )
    return Check(verdict.problems, tuple(notes), verdict.providers, verdict.inputs)
