"""The first pass of every command: load, analyze, say which groups may shrink, and refuse broken models."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..analysis.analyze import analyze
from ..analysis.costs import Costs, costs
from ..analysis.result import Analysis
from ..analysis.rotation import streams as residual_streams
from ..errors import ExecutionError, ModelError, NothingToFoldError, OnnxFoldError
from ..evaluation.candidates import Evaluator
from ..model.constants import FLOATS
from ..model.model import Model, Source
from ..model.shapes.inference import contradiction
from ..model.subgraphs import every_initializer
from ..options.parts import Patterns, PlanningOptions, SelectionOptions
from ..planning.memory import streamed
from ..planning.subject import Subject
from ..progress import Phase
from ..runtime.outputs import with_outputs
from ..runtime.probe_inputs import index_limits, probe
from ..runtime.session import Feeds, Session, brief
from ..transform.plain_norms import plain_norms
from ..units import did_you_mean
from .base import BasePass, Run, State

_log = logging.getLogger(__name__)


class Analyze(BasePass):
    """Finds the channel groups of the model, and which of them may shrink; refuses broken weights."""

    name = "analyze"
    requires = frozenset[str]()
    provides = frozenset(("analysis",))
    phases = (Phase.ANALYZE,)

    def __init__(self, selection: SelectionOptions, max_memory: int | None = None, needed: bool = True) -> None:
        """`max_memory`: bytes; a model that takes more to run is never loaded whole. `needed`: whether a model without
        a group that may shrink is refused; else something is to be done with it all the same."""
        self._selection, self._max_memory, self._needed = selection, max_memory, needed

    def __call__(self, state: State, run: Run) -> State:
        """Raises ModelError, NothingToFoldError."""
        model, selection = state.source, self._selection
        streams = streamed(model, self._max_memory)
        if state.lengths.refusal and not streams:
            raise ModelError(state.lengths.refusal)
        _check_weights(model, streams)
        analysis = analyzed(model, selection.fold_heads, selection.fold_residual)
        model = _turnable(model, analysis) if selection.fold_residual and not streams else model
        notes = notes_on(analysis, selection.patterns)
        chosen = tuple(g.name for g in analysis.groups if g.name not in notes)
        if not chosen and self._needed:
            raise NothingToFoldError(nothing_to_fold(model, analysis, selection.patterns))
        _log.info("%d channel groups, of which %d may shrink", len(analysis.groups), len(chosen))
        for name, why in notes.items():
            _log.debug("group %s stays: %s", name, why)
        _warn(analysis, selection.patterns)
        prices = costs(model, state.shapes)
        found = Subject(
            state.name, model, analysis, prices, chosen, notes, streams, selection.fold_heads, selection.fold_residual,
            shapes=state.shapes,
        )  # fmt: skip
        return state.adding(subject=found)


def _turnable(model: Model, analysis: Analysis) -> Model:
    """The model with scales of norms taken into what reads them, where that lets a residual stream change its basis."""
    plain = plain_norms(model, analysis)
    return plain if any(not one.obstacle() for one in residual_streams(plain, analysis).values()) else model


def subject_of(source: Source, planning: PlanningOptions, max_memory: int | None = None) -> Subject:
    """A model that is loaded and analyzed, for those who plan without a pipeline. Raises as `Analyze` does."""
    shapes = planning.runtime.input_shapes
    with Run(planning.runtime) as run:
        return Analyze(planning.selection, max_memory)(State.load(source, shapes, max_memory), run).known


@dataclass(frozen=True, eq=False)
class Inspected:
    """What `Inspect` found: the analysis, the costs, and why groups are left out, by name."""

    analysis: Analysis = field(repr=False)
    prices: Costs
    notes: Mapping[str, str]


class Inspect(BasePass):
    """Finds the channel groups of any model that can be read. Leaves `Inspected`."""

    name = "analyze"
    requires = frozenset[str]()
    phases = (Phase.ANALYZE,)

    def __init__(self, selection: SelectionOptions) -> None:
        self._selection = selection

    def __call__(self, state: State, run: Run) -> State:
        analysis = analyzed(state.source, self._selection.fold_heads, self._selection.fold_residual)
        notes = notes_on(analysis, self._selection.patterns)
        _warn(analysis, self._selection.patterns)
        return state.adding(Inspected(analysis, costs(state.source, state.shapes), notes))


def analyzed(model: Model, fold_heads: bool = False, fold_residual: bool = False) -> Analysis:
    """The analysis (`analyze`). Where it fails on a model that shape inference or onnxruntime refuses, or that declares
    shapes which its tensors do not have, the model is to blame; and where biases do not fit, it is not begun."""
    what = model.path or "the model given"
    if wrong := _wrong_bias(model):
        raise ModelError(f"{what} cannot be analyzed: {wrong}: export the model again")
    try:
        return analyze(model, fold_heads=fold_heads, fold_residual=fold_residual)
    except OnnxFoldError:
        raise
    except Exception as error:
        if reason := contradiction(model.proto) or _refusal(model):
            blame = f"{what} cannot be analyzed ({error}) nor run ({reason}): export the model again"
        elif reason := _false_shape(model):
            blame = f"{what} cannot be analyzed ({error}): {reason}: export the model again"
        else:
            raise  # a bug of ours
        raise ModelError(blame) from error


def _feeds(model: Model, session: Session) -> Feeds:
    return probe(session.inputs, batch=2, limits=index_limits(model.graph))


def _refusal(model: Model) -> str:
    """Why onnxruntime does not run a model; '' if it does."""
    try:
        Evaluator(model, lambda session: [_feeds(model, session)]).outputs(model.proto)
    except (ExecutionError, OnnxFoldError) as error:
        return brief(error)
    return ""


def _wrong_bias(model: Model) -> str:
    """A convolution's bias that has not one value for each of its channels, in words; '' if there is none.

    onnxruntime runs convolutions whose bias is a column; before 1.24 also those whose bias is empty, where it crashes
    on transposed ones."""
    for node in model.graph.nodes:
        if node.op in ("Conv", "ConvTranspose") and len(node.inputs) > 2 and node.inputs[2]:
            weight, bias = (model.graph.tensor(name).shape for name in node.inputs[1:3])
            made = weight[node.op == "ConvTranspose"] if weight and len(weight) > 2 else None
            if isinstance(made, int) and bias is not None:
                made *= int(node.attrs.get("group", 1)) if node.op == "ConvTranspose" else 1
                if bias != (made,):
                    return f"the bias of '{node.label}' has shape {list(bias)}, not {[made]}"
    return ""


def _false_shape(model: Model) -> str:
    """A tensor that has another shape when the model is run than the model says, in words; '' if there is none."""
    main = model.graph.nodes[: len(model.proto.graph.node)]
    names = [name for node in main for name in node.outputs if model.graph.tensor(name).shape is not None]
    session = Session.of_version(with_outputs(model.proto, names, model.graph), model.folder)
    for name, value in zip(names, session.run(_feeds(model, session)), strict=True):
        said, has = model.graph.tensor(name).shape or (), np.shape(value)
        if len(said) != len(has) or any(isinstance(a, int) and a != b for a, b in zip(said, has, strict=True)):
            return f"'{name}' has shape {list(has)}, not {list(said)} as the model says"
    return ""


def unmatched(analysis: Analysis, patterns: Sequence[re.Pattern[str]]) -> dict[str, str]:
    """The patterns that fit no group and no node that produces one, each with the name it is close to, in words."""
    names = [name for group in analysis.groups for name in (group.name, *group.producers)]
    unfit = [pattern.pattern for pattern in patterns if not any(map(pattern.search, names))]
    return {pattern: did_you_mean(pattern, names) for pattern in unfit}


def _warn(analysis: Analysis, patterns: Patterns) -> None:
    """Of patterns that do nothing, where others do."""
    for name, given in zip(("include", "exclude"), patterns, strict=True):
        for pattern, meant in unmatched(analysis, given).items():
            _log.warning("no group matches the pattern '%s' in `%s`%s", pattern, name, meant)


def notes_on(analysis: Analysis, patterns: Patterns) -> dict[str, str]:
    """Why groups are left out, by name."""
    include, exclude = patterns
    notes = {}
    for group in analysis.groups:
        names = (group.name, *group.producers)
        if include and not any(p.search(name) for p in include for name in names):
            notes[group.name] = "not included"
        elif any(p.search(name) for p in exclude for name in names):
            notes[group.name] = "excluded"
    return notes


def _check_weights(model: Model, streams: bool) -> None:
    """Refuse NaN in weights, though not one alone: that is what a Where fills in, say.

    Infinity is refused only where it would be merged: masks and bounds may hold it. Where a model is streamed, weights
    outside its file are looked at when they are merged, or copied."""
    for tensor in every_initializer(model.proto):
        if tensor.data_type not in FLOATS or math.prod(tensor.dims) == 1:
            continue
        if streams and model.constants.outside(tensor.name) is not None:
            continue
        if (bad := np.isnan(model.constants.array(tensor.name))).any():
            at = [int(i) for i in np.argwhere(bad)[0]]
            raise ModelError(f"weight '{tensor.name}' is NaN at {at}: the model is broken, export it again")


def nothing_to_fold(model: Model, analysis: Analysis, patterns: Patterns) -> str:
    """Why no group may shrink, where none may."""
    if analysis.groups and any(patterns):
        meant = next(iter(unmatched(analysis, patterns[0]).values()), "")
        return f"no group matches `include` and `exclude`{meant or ': `inspect` lists all groups'}"
    reasons = "; ".join(r.kind + (f" ({r.channels} channels)" if r.channels else "") for r in analysis.refusals[:3])
    return f"nothing to fold in {model.path or 'this model'}: {reasons or 'no weight produces channels'}"
