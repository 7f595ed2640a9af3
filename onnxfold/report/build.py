"""From the state that passes leave to the report on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..analysis.costs import Size, costs, count_parameters
from ..analysis.coverage import coverage
from ..calibration.samples import sample_count
from ..calibration.thumbnails import contact_sheet_of
from ..evaluation.verdict import Check
from ..model.graph import deprecated
from ..model.kv_cache import changed
from ..model.metadata import source_hash
from ..model.model import load
from ..options.budget import Aim, Budget
from ..options.options import ChoiceOptions, FoldOptions, FuseOptions, RankOptions, SweepOptions
from ..options.parts import OutputOptions
from ..passes.base import Run, State
from ..passes.choice.explore import ChoiceRecord
from ..passes.choice.row import original_row
from ..passes.choice.target import ChainChosen
from ..passes.compare import Compared
from ..passes.distillation.result import RefinementReport
from ..passes.fold import FoldRecord, GroupOutcome
from ..passes.prepare import Inspected
from ..passes.provenance import bytes_noted
from ..passes.quantization.result import QuantizationReport
from ..passes.sizes import size_of, size_written
from ..passes.sweep import SweepRecord, recommended
from ..passes.weight_sharing.distances import pairs
from ..passes.weight_sharing.ranking import LayersRanked
from ..passes.weight_sharing.share import BlocksDropped, WeightsShared
from ..planning.given_plan import plan_notes
from ..planning.time_estimate import Estimate
from ..recovery.channel_maps import wide_notes
from ..units import in_percent
from .choice_report import ChoiceReport
from .fold_report import FoldReport
from .group_report import GroupReport
from .layer_sizes import counted, layer_sizes
from .layers_report import LayersReport
from .provenance import provenance
from .sweep_report import SweepReport
from .wording import counted as counted_inputs

_FAR = 0.9  # of a target: what is left below that was not asked for
_CLOSE = 0.03  # of a latency: what differs by less is noise


def fold_report(state: State, options: FoldOptions, run: Run) -> FoldReport:
    """The report of a fold."""
    subject, record, expected = state.known, state.done(FoldRecord), state.found(Estimate)
    prices, model = subject.prices, subject.model
    assert state.staged is not None
    seconds = dict(run.clock.seconds)
    if expected is not None:
        seconds["estimated"] = expected.samples + expected.fold
    before, after = size_of(model, prices), size_written(state, prices, record.lengths)
    return FoldReport(
        state.name, options.output.path or "", _settings(record, options.budget),
        before, after, tuple(map(_group, record.groups)), subject.analysis.refusals,
        _verdict(state, options.budget).noting(steps_note(options.budget, before, after)),
        seconds, coverage(subject.analysis, prices), state.found(RefinementReport),
        quantization=state.found(QuantizationReport),
        interface=changed(model.graph, subject.analysis.caches, record.lengths), notes=_notes(state),
        layers=layer_sizes(counted(model, prices), counted(model, prices, record.lengths)),
        sheet=contact_sheet_of(state.samples), provenance=provenance(model.path, _written(state, options.output)),
    )  # fmt: skip


def fuse_report(state: State, options: FuseOptions, run: Run) -> FoldReport:
    """The report of a fusion, after a fold if there was one."""
    sharing, shared, folded = options.sharing, state.done(WeightsShared), state.found(FoldRecord)
    source, written = state.source, state.staged
    assert written is not None
    before: Mapping[str, Any] = {}
    if folded is not None and options.folding is not None:
        before = _settings(folded, options.folding.budget)
    limits, samples = sharing.limits, state.samples
    verdict = state.done(Check).noting(*(() if samples is None else samples.notes))
    if written.size > (limits.target_size or 1) * source.size:
        verdict = verdict.noting(f"the file is {written.size / source.size:.3f} times the size of the original")
    after = load(written.path, options.runtime.input_shapes)
    prices, smaller = costs(source, state.shapes), costs(after, state.shapes)
    return FoldReport(
        state.name, options.output.path or "",
        {
            **before, "effort": options.calibration.effort.value,
            "samples": None if samples is None else samples.described, "samples_used": shared.samples_used,
            "recovery": "least-squares" if shared.repaired else "none", "seed": options.runtime.seed,
            "include": list(sharing.include), "exclude": list(sharing.exclude),
            "fuse": None if sharing.how is None else sharing.how.value, "distance": sharing.distance.value,
            "share": limits.share, "file_share": limits.target_size, "largest_error": limits.max_error,
            "drop_blocks": sharing.drop_blocks, "whole_blocks": sharing.whole, "aligned": sharing.align,
        },
        size_of(source, prices),
        replace(size_of(after, smaller), file=written.size, parameters=count_parameters(state.current.proto)),
        () if folded is None else tuple(map(_group, folded.groups)), (), verdict, dict(run.clock.seconds),
        refinement=state.found(RefinementReport), shared=shared.shared, dropped=state.done(BlocksDropped).shown,
        quantization=state.found(QuantizationReport), notes=_notes(state),
        layers=layer_sizes(counted(source, prices), counted(after, smaller)), sheet=contact_sheet_of(samples),
        provenance=provenance(source.path, _written(state, options.output)),
    )  # fmt: skip


def sweep_report(state: State, options: SweepOptions, run: Run) -> SweepReport:
    """The report of a sweep."""
    subject, record = state.known, state.done(SweepRecord)
    before = size_of(subject.model, subject.prices)
    samples, last = record.last.samples, record.last.done(FoldRecord)
    return SweepReport(
        state.name, {**last.settings, "at": list(options.at)}, before, record.rows,
        recommended(record.rows, before), _judged_on(record.last),
        (*(() if samples is None else samples.notes), *_notes(state)), dict(run.clock.seconds),
        provenance(subject.model.path),
    )  # fmt: skip


def choice_report(state: State, options: ChoiceOptions, run: Run) -> ChoiceReport:
    """The report of several chains."""
    subject, record = state.known, state.done(ChoiceRecord)
    before = size_of(subject.model, subject.prices)
    last = record.last
    settings: Mapping[str, Any] = {"effort": options.calibration.effort.value, "seed": options.runtime.seed}
    settings = settings if last is None else last.done(FoldRecord).settings
    samples = state.samples if last is None else last.samples
    return ChoiceReport(
        state.name, {**settings, "at": list(options.at), "allow": [step.value for step in options.allow]}, before,
        (original_row(before, record.rows), *record.rows),
        "nothing" if last is None or last.inputs is None else _judged_on(last),
        (*(() if samples is None else samples.notes), *_notes(state)), dict(run.clock.seconds),
        provenance(subject.model.path),
    )  # fmt: skip


def _judged_on(last: State) -> str:
    """What the models were measured on, and how many of these, as the last one was."""
    assert last.inputs is not None
    check = last.found(Check)
    known = None if check is None else check.quality
    count = sample_count(last.inputs.judge.batches) if known is None else known.samples
    return counted_inputs(count, last.inputs.described)


def analysis_report(state: State) -> FoldReport:
    """As `inspect_report`, of a model that is analyzed to be folded."""
    known = state.known
    return inspect_report(state.adding(Inspected(known.analysis, known.prices, known.notes)))


def inspect_report(state: State) -> FoldReport:
    """What could be folded in a model, and what is kept and why."""
    found, model = state.done(Inspected), state.source
    groups = tuple(_group(GroupOutcome(g, g.size, note=found.notes.get(g.name, ""))) for g in found.analysis.groups)
    size = size_of(model, found.prices)
    covered = coverage(found.analysis, found.prices)
    layers = counted(model, found.prices)
    return FoldReport(
        state.name, "", {}, size, None, groups, found.analysis.refusals, None, coverage=covered, notes=_notes(state),
        layers=layer_sizes(layers, layers), provenance=provenance(model.path),
    )  # fmt: skip


def compare_report(state: State, name: str, seed: int) -> FoldReport:
    """Two models beside each other; `name` is the second one's."""
    found = state.done(Compared)
    models = state.source, found.after
    prices = [costs(model, state.shapes) for model in models]
    before, after = map(size_of, models, prices)
    layers = layer_sizes(*(counted(model, price) for model, price in zip(models, prices, strict=True)))
    return FoldReport(
        state.name, name, {"seed": seed}, before, after, (), (), state.done(Check), notes=_notes(state), layers=layers,
        provenance=provenance(state.source.path, found.after.path),
    )  # fmt: skip


def _written(state: State, output: OutputOptions) -> Path | None:
    """The file that is going to be put in place, under its temporary name; None where none is."""
    return None if output.path is None or state.staged is None else state.staged.path


def _notes(state: State) -> tuple[str, ...]:
    """What there is to know of the model, and of the inputs that were made."""
    old = deprecated(state.source.proto)
    return tuple(filter(None, (old and f"the ONNX checker rejects {old}, but onnxruntime runs it", state.lengths.note)))


def _settings(record: FoldRecord, budget: Budget) -> dict[str, Any]:
    asked = budget.value if budget.widths is None else budget.widths.shrinks
    return {**record.settings, "budget": {budget.aim.value: asked}, "uniform_ratio": record.ratio}


def _group(found: GroupOutcome) -> GroupReport:
    group = found.group
    return GroupReport(
        group.name, group.size, found.after, group.blocks, found.clusters, found.error, group.producers,
        group.consumers, found.note, found.curve,
    )  # fmt: skip


def _verdict(state: State, budget: Budget) -> Check:
    """The verdict with what else the user should know."""
    record, samples, verdict = state.done(FoldRecord), state.samples, state.done(Check)
    assert state.staged is not None and state.planner is not None
    kept = state.planner.workspace.checkpoint
    chosen = state.found(ChainChosen)
    notes = [f"quantized only: {record.left}" if record.left else "", *(() if kept is None else kept.notes)]
    notes += [] if chosen is None else [chosen.words]
    notes += () if samples is None else samples.notes
    if budget.widths is not None:
        notes += plan_notes(budget.widths, state.known.analysis.groups, source_hash(state.source))
    notes += wide_notes({one.output: one.fit for one in record.refitted})
    grown = state.staged.size - bytes_noted(state) - state.source.size
    if grown > 0:
        notes.append(f"the file grew by {grown} bytes")
    return verdict.noting(*notes, latency_note(budget, verdict))


def steps_note(budget: Budget, before: Size, after: Size) -> str:
    """How far a target for MACs or parameters was overshot, in words; '' where it was not by much."""
    counts = {
        Aim.MACS: (after.macs, before.macs, "MACs"), Aim.PARAMS: (after.parameters, before.parameters, "parameters")
    }  # fmt: skip
    left, of, what = counts.get(budget.aim, (1, 0, ""))
    if left >= _FAR * budget.value * of:
        return ""
    return (
        f"{in_percent(left / of)} of the {what} remain, well below `{budget.aim.parameter}={budget.value:g}`: "
        "channels go in steps, and smaller ones (`round_to`) come closer"
    )


def latency_note(budget: Budget, verdict: Check) -> str:
    """How far the latency that was measured last is from the one that was asked for, in words; '' where it is close, or
    none was."""
    speedup = next((one.speedup for one in verdict.providers if one.speedup is not None), None)
    if budget.aim is not Aim.LATENCY or speedup is None or abs(1 / speedup / budget.value - 1) <= _CLOSE:
        return ""
    asked = f"`{budget.aim.parameter}={budget.value:g}`"
    if 1 / speedup > budget.value:
        return (
            f"the latency is {in_percent(1 / speedup)} of the original's, above {asked}, which was met before: timings "
            "on this machine vary"
        )
    return (
        f"the latency is {in_percent(1 / speedup)} of the original's, below {asked}: channels go in steps, and timings "
        "vary; a higher target keeps more channels"
    )


def layers_report(state: State, options: RankOptions) -> LayersReport:
    """How alike the layers of a model are."""
    found = state.done(LayersRanked)
    return LayersReport(
        state.name, options.distance.value, options.align, found.samples, tuple(pairs(found.classes)), found.left,
        provenance(state.source.path),
    )  # fmt: skip
