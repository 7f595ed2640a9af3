"""What onnxfold does, as functions: each makes options of its keywords, runs a list of passes, and reports.

Keywords are those of the options; `onnxfold.options.parameters` says what each may be.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from .compat import Unpack
from .errors import RequestError
from .model.model import Source, load, named
from .options.budget import DEFAULT_BUDGET, Budget
from .options.choices import Method, Step
from .options.keywords import CompareKeywords, FoldKeywords, FuseKeywords, RankKeywords, SweepKeywords
from .options.options import (
    ChoiceOptions,
    CompareOptions,
    FoldOptions,
    FuseOptions,
    RankOptions,
    SweepOptions,
    given_or_made,
)
from .options.parts import DistillOptions, PlanningOptions, SelectionOptions
from .options.width_plan import WidthPlan
from .passes.base import Pipeline, Run, State
from .passes.block_check import CheckBlock
from .passes.calibrate import AnnounceTime, CollectSamples
from .passes.choice.explore import ExploreChains
from .passes.choice.whole_layers import whole_layers
from .passes.choice.work import folds_to, work_of
from .passes.compare import Compare, check_inputs
from .passes.fold import PreparePlanning
from .passes.lists import Announce, finishing, folding, fusing, quantizable
from .passes.measure import measuring
from .passes.prepare import Analyze, Inspect
from .passes.provenance import noting
from .passes.reached import KeepUnreached
from .passes.several import Decisions
from .passes.sweep import FoldToShares
from .passes.weight_sharing.ranking import FindUnits, RankLayers
from .progress import Progress, silent
from .report.build import (
    analysis_report,
    choice_report,
    compare_report,
    fold_report,
    fuse_report,
    inspect_report,
    layers_report,
    sweep_report,
)
from .report.choice_report import ChoiceReport
from .report.fold_report import FoldReport
from .report.fold_result import Applied, FoldResult, Plan, committed
from .report.layers_report import LayersReport
from .report.plans.analyzed import Analyzed
from .report.plans.made import price_of, widths_found
from .report.plans.plan_file import read_plan
from .report.sweep_report import SweepReport
from .report.written import check_written, files_of

PathLike = str | os.PathLike[str]


def fold(
    model: Source,
    output: PathLike | None = None,
    *,
    options: FoldOptions | None = None,
    progress: Progress[Any] = silent,
    announce: Announce = None,
    **given: Unpack[FoldKeywords],
) -> FoldResult:
    """Make a model smaller by merging or dropping channels, and measure what that did.

    Args:
        model: path of an .onnx file, or a ModelProto. It is never changed.
        output: where to write the result (atomically); None writes nothing.
        options: all options at once, instead of keywords and `output`.
        progress: called with a title and a list, yields its items; `onnxfold.progress.on_terminal` shows a bar.
        announce: told before anything that takes long how long that may be.

    How much (one of these; with none, `max_error` is 0.1):
        ratio: share of channels to remove in every group, 0..1.
        target_params: share of the parameters that may remain; the smallest uniform ratio that meets it.
        target_macs: likewise for multiply-accumulates.
        target_size: share of the bytes of the file, external data included, that may remain in what is written to
            `output` (saved otherwise, it may take a few bytes more).
        target_latency: share of the median latency that may remain on the first of `providers`, measured on this
            machine: another one, or another run, may choose otherwise.
        max_error: the relative L2 error of the outputs that may be made, measured on samples held back.
        min_agreement: the share of these samples whose largest output must stay the same one.
        max_drop: by how much `metric` may fall, in its units. About eight folds are measured to find the smallest that
            keeps it. Beside another budget it is a limit: a result that breaks it is not written.
        allow: steps that a target of size or latency may be met with (`Step`), or "all": of the chains that meet it,
            the one that loses least is written; the report says what is better otherwise. By default folding alone.
        group_ratios: ratios of groups that a regular expression fits (as `include` does), the first one that does; with
            them, `ratio` is that of all others (default 0).
        plan: the widths themselves: a `Plan`, the path of one (docs/plan.md), or ``{"conv1": 48}``, widths by the name
            of a group or of a layer that makes one's channels. Groups that are not named stay whole.

    Which channels:
        method: how channels are chosen (`Method`).
        clusterer: the compiled core, or scikit-learn's k-means (`Clusterer`).
        include, exclude: regular expressions on group names and the names of the nodes that produce the channels.
        round_to: kept widths are multiples of this (1 switches it off), or "auto": of what kernels compute at once.
        device: where the result is going to run (`Device`), which sets what "auto" means; None: anywhere.
        fold_heads: also fold heads that key-value caches among the inputs and outputs have: their declared shapes
            change, `past` and `present` of a layer together. Models are compared with empty caches (or zeros, where
            their length is fixed); the report says which changed.
        fold_residual: also fold residual streams, whose channels norms go over. That is never exact, but measured on
            samples: channels go, or the basis changes and directions go, whichever loses less. Embeddings and every
            layer that reads or writes the stream become narrower (docs/design/residual.md).

    On which inputs:
        effort: how much time may be spent (`Effort`); "fast" works from the weights alone.
        calibration: your own inputs (`onnxfold.calibration.reader` says in which forms); None makes synthetic ones.
        samples: how many of your inputs are used at most.
        preprocess: how pixels become numbers, where calibration inputs are images: a `Preprocess`, its text, a preset
            like "imagenet", or a preprocessor_config.json; None: as such a file beside the model says.
        synthetic: an .npz file to write the synthetic inputs to, and a .png beside it where they are images.

    Repair and what follows:
        recovery: how the merge is repaired (`Recovery`).
        refine: train the weights of the result for a few hundred steps to do what the original does on the samples,
            without labels; kept only where it helps on samples held back. The report says what came of it.
        steps: of that; None: what `effort` allows for a model of this size.
        quantize: store the result in fewer bits (`Quantization`), by what onnxruntime brings for that; True is INT8, by
            its static quantization with the samples. `max_error`, `min_agreement` and `max_drop` hold for the whole,
            other budgets for what comes before; where nothing can be folded within them, the model is quantized as it
            is.

    Your own measure:
        metric: a function of the path of an .onnx file that returns a number, higher is better; it is called with the
            original first. Or "FILE.py:FUNCTION", which is called in a process of its own.
        metric_timeout: the seconds that FILE.py:FUNCTION may take for one model; a function given in Python has no
            limit.

    Running and writing:
        input_shapes: shapes for inputs that leave dimensions open, ``{name: (1, 3, 224, 224)}``.
        providers: onnxruntime providers to measure on; None: the CPU, and CUDA where there is one.
        seed: the same seed gives the same bytes.
        threads: for clustering; 0 for all. Does not change the result.
        latency: measure latencies too.
        allow_unmeasured: write the result even where no provider can run the original, so that nothing is measured.
        provenance: let the metadata of the result say which onnxfold made it, with which options, of which file (the
            SHA-256 of the .onnx file; a model in memory has none). Nothing else of the metadata changes.
        save_plan: a JSON file to write the widths to, to edit them and to fold by (`plan`). It is there for a result
            that fails its checks, too.
        external_data: store weights of over 1 KiB beside the output file.
        max_memory: bytes. A model that takes more to run (or is over 2 GiB) is never loaded whole: weights alone
            decide, read group by group, and the check is of files and one block (docs/large-models.md).
        jobs: so many groups are merged at a time. Does not change the result.
        scheduler: the address of a Dask scheduler whose workers merge the groups, like "tcp://127.0.0.1:8786".
        keep_bn: leave BatchNormalization behind convolutions that the fold changed; else it is taken into them.
        resume: go on from the groups that an interrupted run for the same `output`, model and options has merged, and
            keep what is merged in case this one is interrupted (for a model that is streamed that is always kept).

    Raises:
        RequestError, ModelError, NothingToFoldError, PlanError, QuantizationError: see `onnxfold.errors`.
        ValidationError: the result failed its checks (its `report` attribute has them); nothing was written.
    """
    o = given_or_made(FoldOptions, options, _read(given if output is None else {**given, "output": output}))
    with Run(o.runtime, progress) as run:
        plans = [] if o.output.save_plan is None else [(Path(o.output.save_plan), "the plan")]
        followed = given.get("plan")
        check_written(
            [model], o.calibration.data, o.output.path, o.calibration.save_synthetic, plans, o.measure.metric,
            [(Path(followed), "the plan")] if isinstance(followed, str | os.PathLike) else [],
        )  # fmt: skip
        state = Pipeline(
            Analyze(o.selection, o.scale.max_memory, not o.stores_alone),
            *noting(o),
            *measuring(o.measure),
            *quantizable(o),
            *folding(o, announce),
            *([] if o.chooses else [*finishing(o, o.budget, o.scale.max_memory), CheckBlock()]),
        ).run(State.load(model, o.runtime.input_shapes, o.scale.max_memory), run)
        plan = None if o.chooses else _planned(state, o, model, progress)
        if plan is not None and o.output.save_plan is not None:
            plan.save(o.output.save_plan)
        return committed(state, fold_report(state, o, run), o.output, plan)


def _read(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The keywords of `fold` and `fuse`, with the plan in a file read. Raises RequestError."""
    plan, folding = given.get("plan"), given.get("folding")
    read: Mapping[str, Any] = {"plan": read_plan(plan)} if isinstance(plan, str | os.PathLike) else {}
    inside = {"folding": _read(folding)} if isinstance(folding, Mapping) else {}
    return {**given, **read, **inside}


def _planned(state: State, o: FoldOptions, model: Source, progress: Progress[Any]) -> Plan:
    """The plan of what was decided for the budget of `o`."""
    return Plan(widths_found(state, o.budget), price_of(state), _applying(model, o, progress), files_of(model, o))


def _applying(model: Source, o: FoldOptions, progress: Progress[Any]) -> Applied:
    """Folds a model by a plan, with options that were for another budget."""

    def apply(widths: WidthPlan, output: str | None) -> FoldResult:
        asked = replace(o, budget=Budget.plan(widths), output=replace(o.output, path=output, save_plan=None))
        return fold(model, options=asked, progress=progress)

    return apply


def analyze(
    model: Source,
    *,
    options: FoldOptions | None = None,
    progress: Progress[Any] = silent,
    **given: Unpack[FoldKeywords],
) -> Analyzed:
    """The channel groups of a model, and plans for it: ``onnxfold.analyze("in.onnx").plan(onnxfold.Macs(0.7))``.

    Args:
        model, options, progress, and all keywords that are no budget and write nothing: as in `onnxfold.fold`. The
            budget is what `Analyzed.plan` takes.

    Raises:
        RequestError, ModelError, NothingToFoldError: see `onnxfold.errors`.
    """
    o = given_or_made(FoldOptions, options, given)
    if o.budget != DEFAULT_BUDGET or o.chooses:
        raise RequestError("analyze takes no budget: give it to `plan`, as in analyze(model).plan(Macs(0.7))")
    if o.output.path is not None or o.output.save_plan is not None:
        raise RequestError("analyze writes no model and no plan: name the files in `Plan.apply` and `Plan.save`")
    check_written([model], o.calibration.data, None, o.calibration.save_synthetic, metric=o.measure.metric)
    made = Decisions(model, o, progress)

    def planned(budget: Budget) -> Plan:
        state = made.analyzed if budget.widths is not None else made.decided(budget)
        return _planned(state, replace(o, budget=budget), model, progress)

    return Analyzed(analysis_report(made.analyzed), planned)


def fuse(
    model: Source,
    output: PathLike | None = None,
    *,
    options: FuseOptions | None = None,
    progress: Progress[Any] = silent,
    **given: Unpack[FuseKeywords],
) -> FoldResult:
    """Let layers that are alike share one weight, drop residual blocks that do little, and measure what that did.

    Args:
        model, output, options, progress: as in `onnxfold.fold`, and so are calibration, samples, preprocess, effort,
            refine, steps, quantize, metric, metric_timeout, input_shapes, providers, seed, latency,
            external_data, provenance. Layers that share a weight are trained as one, and go on sharing in INT8.
        how: how the shared weight comes about (`Fusion`); None shares none.
        distance: how alike layers are (`Distance`); the nearest share first.
        share: the share of the layers, 0..1, that lose their own weights.
        target_size: the share of the bytes of the file that may remain; not with `share`.
        max_error: the largest relative L2 error of the outputs. Then every two layers are joined, repaired and measured
            one after another. With none of the three, 0.1.
        max_drop: a limit to all of these, as beside another budget in `fold`.
        drop_blocks: so many residual blocks (3), or a percentage of them ("25%"), are dropped before.
        whole: compare and fuse whole residual blocks, not single layers.
        align: permute inner channels so that layers match before they share.
        folding: arguments of `onnxfold.fold`, such as ``{"ratio": 0.3}``: channels are folded before all that.
        recovery: "least-squares" fits the shared weights and refits what follows them, "none" does not, "auto" does
            where samples can be had.
        include, exclude: regular expressions on the names of layers and of blocks (their sums).

    Raises:
        RequestError, ModelError, NothingToFoldError, PlanError, QuantizationError: see `onnxfold.errors`.
        ValidationError: the result failed its checks (its `report` attribute has them); nothing was written.
    """
    o = given_or_made(FuseOptions, options, _read(given if output is None else {**given, "output": output}))
    with Run(o.runtime, progress) as run:
        check_written([model], o.calibration.data, o.output.path, o.calibration.save_synthetic, metric=o.measure.metric)
        state = Pipeline(*fusing(o), *finishing(o, o.sharing.limits)).run(
            State.load(model, o.runtime.input_shapes), run
        )
        return committed(state, fuse_report(state, o, run), o.output)


def sweep(
    model: Source,
    *,
    at: Sequence[float] | None = None,
    options: SweepOptions | None = None,
    progress: Progress[Any] = silent,
    announce: Announce = None,
    **given: Unpack[SweepKeywords],
) -> SweepReport:
    """Fold a model to several shares of its MACs, measure each, and recommend the one at the knee. Writes no model.

    Args:
        at: the shares of the multiply-accumulates that may remain, each above 0 and at most 1, in any order.
        model and all others: as in `fold`; `metric` is measured for every row. Nothing is fitted on the samples held
            back: the errors are measured on them.

    Budgets that cannot be met give a row that says so. The knee is that of `onnxfold.planning.knee` on the curve of
    output errors over MACs removed, from the original on.

    Raises:
        RequestError, ModelError: see `onnxfold.errors`.
        PlanError, NothingToFoldError: no budget can be met, or none removes anything.
    """
    o = given_or_made(SweepOptions, options, given if at is None else {**given, "at": at})
    with Run(o.runtime, progress) as run:
        state = Pipeline(
            Analyze(o.selection),
            *measuring(o.measure),
            AnnounceTime(
                o.planning, o.calibration, announce=announce,
                more=f", and the time to fold and measure {len(o.at)} models", work=folds_to(o.at),
            ),
            CollectSamples(o.planning, o.calibration),
            KeepUnreached(o.planning),
            PreparePlanning(o.planning),
            FoldToShares(o.planning, o.calibration, o.at, o.runtime.latency),
        ).run(State.load(model, o.runtime.input_shapes), run)  # fmt: skip
        return sweep_report(state, o, run)


def choose(
    model: Source,
    *,
    allow: str | Sequence[Step | str] | None = None,
    at: Sequence[float] | None = None,
    options: ChoiceOptions | None = None,
    progress: Progress[Any] = silent,
    announce: Announce = None,
    **given: Unpack[SweepKeywords],
) -> ChoiceReport:
    """Folding, fewer bits, or both: make and measure chains of steps, and say which to take. Writes no model.

    Args:
        allow: the steps to try (`Step`); None or "all" for all of them. Chains are every kind of quantization alone,
            folds to several shares
            of the MACs (`at`), the same in fewer bits, the best of these trained, layers that share weights and blocks
            that go.
        model and all others: as in `onnxfold.sweep`.

    What is expected to be worse in everything than something measured is not made: the report says which chains that
    is. "Leave it" may be the advice. Raises as `sweep` does, but a chain that cannot be made is a row that says why.
    """
    named = {name: value for name, value in (("allow", allow), ("at", at)) if value is not None}
    o = given_or_made(ChoiceOptions, options, {**given, **named})
    with Run(o.runtime, progress) as run:
        state = Pipeline(
            Analyze(o.selection, needed=o.folds_alone),
            *measuring(o.measure),
            AnnounceTime(
                o.planning,
                o.calibration,
                announce=announce,
                distill=DistillOptions() if Step.REFINE in o.allow else None,
                more=", and the time to make and measure models",
                work=work_of(o),
            ),
            CollectSamples(o.planning, o.calibration, training=o.trains),
            KeepUnreached(o.planning),
            PreparePlanning(o.planning),
            ExploreChains(o, whole_layers(model, o, run, fusing)),
        ).run(State.load(model, o.runtime.input_shapes), run)
        return choice_report(state, o, run)


def inspect(
    model: Source,
    *,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    fold_heads: bool = False,
    fold_residual: bool = False,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    progress: Progress[Any] = silent,
) -> FoldReport:
    """What could be folded in a model, and what is kept and why. Writes nothing; raises as `fold` does."""
    o = FoldOptions.of(
        include=include, exclude=exclude, fold_heads=fold_heads, fold_residual=fold_residual, input_shapes=input_shapes
    )
    with Run(o.runtime, progress) as run:
        state = State.load(model, o.runtime.input_shapes)
        return inspect_report(Pipeline(Inspect(o.selection)).run(state, run))


def compare(
    before: Source,
    after: Source,
    *,
    inputs: Mapping[str, NDArray[Any]] | None = None,
    options: CompareOptions | None = None,
    progress: Progress[Any] = silent,
    **given: Unpack[CompareKeywords],
) -> FoldReport:
    """Measure any two models with the same inputs and outputs against each other: sizes, latency, output errors.

    Args:
        before, after: paths or ModelProtos.
        inputs: arrays by input name; None takes `calibration`, or makes some.
        options: all other options at once, instead of keywords.
        progress, calibration, samples, preprocess, metric, metric_timeout, input_shapes, providers, seed, latency: as
            in `fold`.
    """
    o = given_or_made(CompareOptions, options, given)
    check_inputs(inputs, o.calibration)
    shapes = o.runtime.input_shapes
    with Run(o.runtime, progress) as run:
        state, other = State.load(before, shapes), load(after, shapes)
        state = Pipeline(*measuring(o.measure), Compare(other, inputs, o.calibration, o.runtime)).run(state, run)
        return compare_report(state, named(after), o.runtime.seed)


def rank_layers(
    model: Source,
    *,
    options: RankOptions | None = None,
    progress: Progress[Any] = silent,
    **given: Unpack[RankKeywords],
) -> LayersReport:
    """How alike the layers of a model are, pair by pair; keywords as in `onnxfold.fuse`.

    Samples are only made, or read, for a distance that needs them. Raises RequestError, ModelError, and
    NothingToFoldError where no two layers could share a weight.
    """
    o = given_or_made(RankOptions, options, given)
    method = SelectionOptions(method=Method.FOLD)
    planning = PlanningOptions(selection=method, effort=o.calibration.effort, runtime=o.runtime)
    with Run(o.runtime, progress) as run:
        state = Pipeline(
            FindUnits(o.whole),
            *([CollectSamples(planning, o.calibration)] if o.distance.sampled else []),
            RankLayers(o.distance, o.align),
        ).run(State.load(model, o.runtime.input_shapes), run)
        return layers_report(state, o)
