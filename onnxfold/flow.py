"""The flow: load, analyse, plan, cluster, merge, recover, emit, validate, report."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto

from .analyse import Analysis, analyse
from .channels import ChannelGroup
from .cluster import Clusterer
from .compress import Compressor
from .costs import Costs, costs, count_parameters
from .decide import decide, decide_sampled
from .errors import ModelError, NothingToFoldError, OnnxFoldError, ValidationError
from .evidence import gather_evidence, given_up, keep_samples
from .features import Method
from .graph import contradiction
from .images import Preprocess
from .inputs import DESCRIPTION, index_limits, probe
from .merge import Merge
from .model import FLOATS, Model, load
from .plan import Aim, Budget, round_width
from .progress import Progress, silent
from .recover import Recovery
from .report import FoldReport, GroupReport, Size
from .request import check_seed, make_budget, one_of, patterns
from .sampled import Sampled
from .samples import Effort, Samples
from .session import Feeds, Session, resolve_providers
from .store import check_target, staged
from .trial import Trial
from .validate import Check, brief, check

Source = str | os.PathLike[str] | ModelProto
PROBE_WORK = 4e9  # MACs; probe batches are made smaller for larger models


@dataclass(frozen=True)
class FoldResult:
    """A folded model and what is known about it. `model` refers to the original's external data, if that has any."""

    model: ModelProto = field(repr=False)
    report: FoldReport
    _source: Model = field(repr=False)

    def save(self, path: str | os.PathLike[str], external_data: bool = False) -> None:
        """Write the model atomically, with a new external data file where the original has one."""
        target = Path(path)
        check_target(target, self._source.path)
        with staged(self.model, self._source, target, external_data) as written:
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
    max_error: float | None = None,
    min_agreement: float | None = None,
    effort: Effort | str = Effort.BALANCED,
    calibration: object = None,
    samples: int = 128,
    preprocess: Preprocess | None = None,
    synthetic: str | os.PathLike[str] | None = None,
    round_to: int = 8,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    clusterer: Clusterer | str = Clusterer.NATIVE,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    providers: Sequence[str] | None = None,
    seed: int = 0,
    threads: int = 0,
    latency: bool = True,
    external_data: bool = False,
    progress: Progress[Any] = silent,
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
        max_error: the relative L2 error of the outputs that may be made, measured on samples held back.
        min_agreement: the share of these samples whose largest output must stay the same one.
            At most one of the five; with none, `max_error` is 0.1.
        effort: how much time may be spent (`Effort`); "fast" works from the weights alone.
        calibration: the user's own inputs (`calibration.read_calibration` says in which forms); None makes synthetic
            ones from the model.
        samples: how many of the user's inputs are used at most.
        preprocess: how pixels become numbers, where calibration inputs are images.
        synthetic: an .npz file to write the synthetic inputs to, and a .png beside it where they are images.
        round_to: kept widths are multiples of this (1 switches it off).
        include, exclude: regular expressions on group names and the names of the nodes that make the channels.
        clusterer: the compiled core, or scikit-learn's k-means.
        input_shapes: shapes for inputs that leave dimensions open, ``{name: (1, 3, 224, 224)}``.
        providers: onnxruntime providers to measure on; None: the CPU, and CUDA where there is one.
        seed: the same seed gives the same bytes.
        threads: for clustering; 0 for all. Does not change the result.
        latency: measure latencies too.
        external_data: store weights of over 1 KiB beside the output file.
        progress: called with a title and a list, yields its items; `onnxfold.progress.on_terminal` shows a bar.

    Raises:
        RequestError, ModelError, NothingToFoldError, PlanError: see `onnxfold.errors`.
        ValidationError: the result failed its checks (its `report` attribute has them); nothing was written.
    """
    begin = time.perf_counter()
    method, recovery, clusterer = one_of(Method, method), one_of(Recovery, recovery), one_of(Clusterer, clusterer)
    effort = one_of(Effort, effort)
    check_seed(seed, threads)
    budget = make_budget(ratio, target_params, target_macs, max_error, min_agreement, round_to)
    usable, missing = resolve_providers(providers)
    compiled = patterns(include, exclude)
    if output is not None:
        check_target(Path(output), None if isinstance(model, ModelProto) else Path(model))
    loaded = load(model, input_shapes)
    _check_weights(loaded)
    analysis = _analyse(loaded)
    notes = _notes(analysis, compiled)
    chosen = [g.name for g in analysis.groups if g.name not in notes]
    if not chosen:
        raise NothingToFoldError(_nothing(loaded, analysis, bool(include or exclude)))
    seconds = {"analyse": time.perf_counter() - begin}
    work = Compressor(loaded, analysis, method, clusterer, seed, threads)
    prices = costs(loaded, input_shapes)
    evidence = gather_evidence(
        loaded, calibration, samples, preprocess, effort, method, recovery, seed, input_shapes, progress
    )
    if synthetic is not None:
        keep_samples(evidence, calibration, Path(synthetic))
    seconds["samples"] = time.perf_counter() - begin - seconds["analyse"]
    decision = None
    feeds: Feeds | Callable[[Session], Feeds]
    if evidence is not None and evidence.trusted:
        repair = Recovery.LEAST_SQUARES if recovery is Recovery.AUTO else recovery
        try:
            sampled = Sampled(work, evidence, chosen, method, repair, progress)
            decision = decide_sampled(sampled, prices, budget, progress)
            evidence = replace(evidence, notes=(*evidence.notes, *sampled.notes))
            recovery, feeds, described = repair, evidence.check[0], evidence.described
        except OnnxFoldError:
            raise
        except Exception as error:  # onnxruntime's share no base class
            evidence = given_up(evidence, error, method, recovery)
    if decision is None:
        recovery = Recovery.CLOSED_FORM if recovery is Recovery.AUTO else recovery
        feeds = probes = _probes(loaded, prices, input_shapes, seed)
        described = DESCRIPTION
        trial = Trial(loaded, lambda session: [probes(session)])
        decision = decide(work, prices, budget, chosen, recovery, trial, progress)
    merges, proto = decision.folded.merges, decision.folded.proto
    if not merges:
        raise NothingToFoldError(_left(budget, work, chosen))
    seconds["fold"] = time.perf_counter() - begin - sum(seconds.values())
    after_costs = work.lengths({name: merge.after for name, merge in merges.items()})
    with tempfile.TemporaryDirectory(prefix="onnxfold-") as scratch:
        target = Path(output) if output is not None else Path(scratch) / "folded.onnx"
        with staged(proto, loaded, target, external_data) as written:
            verdict = check(
                loaded.path or _dump(loaded.proto, Path(scratch)), written.path, feeds, providers=usable,
                missing=missing, protos=(loaded.proto, proto), inputs=described, latency=latency,
            )  # fmt: skip
            seconds["validate"] = time.perf_counter() - begin - sum(seconds.values())
            report = FoldReport(
                _name(model), "" if output is None else os.fspath(output),
                _settings(
                    method, recovery, clusterer, budget, decision.ratio, seed, include, exclude, effort, evidence
                ),
                Size(loaded.size, count_parameters(loaded.proto), prices.macs({})),
                Size(written.size, count_parameters(proto), prices.macs(after_costs)),
                _group_reports(analysis, work, merges, notes, budget.round_to), analysis.refusals,
                _with_notes(verdict, loaded.size, written.size, evidence), seconds,
            )  # fmt: skip
            if not verdict.passed:
                raise _failed(report)
            if output is not None:
                written.commit()
    return FoldResult(proto, report, loaded)


def inspect(
    model: Source,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    input_shapes: Mapping[str, Sequence[int]] | None = None,
) -> FoldReport:
    """What could be folded in a model, and what is kept and why. Writes nothing; raises as `fold` does."""
    compiled = patterns(include, exclude)
    loaded = load(model, input_shapes)
    analysis = _analyse(loaded)
    notes = _notes(analysis, compiled)
    groups = tuple(_group_report(g, g.size, 0, 0.0, notes.get(g.name, "")) for g in analysis.groups)
    size = Size(loaded.size, count_parameters(loaded.proto), costs(loaded, input_shapes).macs({}))
    return FoldReport(_name(model), "", {}, size, None, groups, analysis.refusals, None)


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
    feeds = inputs if inputs is not None else _probes(old, prices, input_shapes, seed)
    with tempfile.TemporaryDirectory(prefix="onnxfold-") as scratch:
        paths = [m.path or _dump(m.proto, Path(scratch)) for m in (old, new)]
        verdict = check(
            paths[0], paths[1], feeds, providers=usable, missing=missing, protos=(old.proto, new.proto),
            inputs=DESCRIPTION if inputs is None else "the inputs given", latency=latency,
        )  # fmt: skip
    sizes = [
        Size(m.size, count_parameters(m.proto), c.macs({})) for m, c in ((old, prices), (new, costs(new, input_shapes)))
    ]
    return FoldReport(_name(before), _name(after), {"seed": seed}, sizes[0], sizes[1], (), (), verdict)


def _probes(
    model: Model, prices: Costs, shapes: Mapping[str, Sequence[int]] | None, seed: int
) -> Callable[[Session], Feeds]:
    """How to make probe inputs, once a session tells what the model takes."""

    def make(session: Session) -> Feeds:
        return probe(session.inputs, batch=_batch(prices), seed=seed, shapes=shapes, limits=index_limits(model.graph))

    return make


def _batch(prices: Costs) -> int:
    return int(min(8, max(2, PROBE_WORK // max(1, prices.macs({})))))


def _dump(proto: ModelProto, folder: Path) -> Path:
    handle, name = tempfile.mkstemp(suffix=".onnx", dir=folder)
    with os.fdopen(handle, "wb") as file:
        file.write(proto.SerializeToString())
    return Path(name)


def _analyse(model: Model) -> Analysis:
    """The analysis. Where it fails on a model that shape inference or onnxruntime refuses, the model is to blame."""

    def feeds(session: Session) -> list[Feeds]:
        return [probe(session.inputs, batch=2, limits=index_limits(model.graph))]

    try:
        return analyse(model)
    except OnnxFoldError:
        raise
    except Exception as error:
        reason = contradiction(model.proto)
        if not reason:
            try:
                Trial(model, feeds).outputs(model.proto)
            except Exception as second:  # onnxruntime's exceptions share no base class
                reason = brief(second)
        if not reason:
            raise  # a bug of ours
        what = model.path or "the model given"
        raise ModelError(f"{what} cannot be analysed ({error}) nor run ({reason}): export the model again") from error


def _check_weights(model: Model) -> None:
    """Refuse NaN in any weight. Infinity is refused only where it would be merged: masks and bounds may hold it."""
    for tensor in model.proto.graph.initializer:
        if tensor.data_type in FLOATS and (bad := np.isnan(model.constants.array(tensor.name))).any():
            at = [int(i) for i in np.argwhere(bad)[0]]
            raise ModelError(f"weight '{tensor.name}' is NaN at {at}: the model is broken, export it again")


def _notes(analysis: Analysis, patterns: tuple[list[re.Pattern[str]], list[re.Pattern[str]]]) -> dict[str, str]:
    """Why groups are left out, by name."""
    include, exclude = patterns
    notes = {}
    for group in analysis.groups:
        names = (group.name, *group.makers)
        if include and not any(p.search(name) for p in include for name in names):
            notes[group.name] = "not included"
        elif any(p.search(name) for p in exclude for name in names):
            notes[group.name] = "excluded"
    return notes


def _group_reports(
    analysis: Analysis, work: Compressor, merges: Mapping[str, Merge], notes: Mapping[str, str], round_to: int
) -> tuple[GroupReport, ...]:
    out = []
    for group in analysis.groups:
        merge = merges.get(group.name)
        if merge is None:
            note = notes.get(group.name, "kept by the budget")
            width = work.widths([group.name])[0]
            if group.name not in notes and round_width(width, 0, round_to) == group.size:
                note = f"too narrow for --round-to {round_to}"
            out.append(_group_report(group, group.size, 0, 0.0, note))
        else:
            merged = int((np.bincount(merge.labels[merge.labels >= 0]) > 1).sum())
            out.append(_group_report(group, merge.after, merged, work.relative_error(group.name, merge), ""))
    return tuple(out)


def _group_report(group: ChannelGroup, after: int, clusters: int, error: float, note: str) -> GroupReport:
    return GroupReport(group.name, group.size, after, group.blocks, clusters, error, group.makers, group.readers, note)


def _with_notes(verdict: Check, before: int, after: int, evidence: Samples | None) -> Check:
    """The verdict with what else the user should know."""
    notes = [*verdict.notes, *(() if evidence is None else evidence.notes)]
    if after > before:
        notes.append(f"the file grew by {after - before} bytes")
    return Check(verdict.problems, tuple(notes), verdict.providers, verdict.inputs)


def _failed(report: FoldReport) -> ValidationError:
    error = ValidationError(f"{report.model}: the folded model was not written: {report.verdict}")
    error.report = report
    return error


def _nothing(model: Model, analysis: Analysis, filtered: bool) -> str:
    if analysis.groups and filtered:
        return "no group matches --include and --exclude: --inspect lists their names"
    reasons = "; ".join(f"{r.kind} ({r.channels} channels)" for r in analysis.refusals[:3])
    return f"nothing to fold in {model.path or 'this model'}: {reasons or 'no weight makes channels'}"


def _left(budget: Budget, work: Compressor, chosen: Sequence[str]) -> str:
    widest = max(width.size for width in work.widths(chosen))
    if budget.aim in (Aim.QUALITY, Aim.AGREEMENT):
        return (
            f"no group can shrink while the outputs keep --{budget.aim.value} {budget.value:g}: ask for more with "
            "--ratio, for example --ratio 0.1"
        )
    return (
        f"this budget removes nothing: the widest group has {widest} channels, kept widths are multiples of "
        f"{budget.round_to} (--round-to)"
    )


def _settings(
    method: Method,
    recovery: Recovery,
    clusterer: Clusterer,
    budget: Budget,
    ratio: float | None,
    seed: int,
    include: Sequence[str],
    exclude: Sequence[str],
    effort: Effort,
    evidence: Samples | None,
) -> dict[str, Any]:
    return {
        "effort": effort.value, "samples": None if evidence is None else evidence.described,
        "samples_match": None if evidence is None else evidence.match,
        "samples_used": evidence is not None and evidence.trusted,
        "method": method.value, "recovery": recovery.value, "clusterer": clusterer.value,
        "budget": {budget.aim.value: budget.value}, "uniform_ratio": ratio, "round_to": budget.round_to, "seed": seed,
        "include": list(include), "exclude": list(exclude),
    }  # fmt: skip


def _name(model: Source) -> str:
    return "model" if isinstance(model, ModelProto) else os.fspath(model)
