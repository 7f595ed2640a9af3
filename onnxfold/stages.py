"""The first stages, which all commands share: load, analyse, say which groups may shrink; and probe inputs."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from onnx import ModelProto

from .analyse import Analysis, analyse
from .bodies import every_initializer
from .compress import Compressor
from .constants import FLOATS
from .costs import Costs, costs
from .crew import Crew
from .errors import ModelError, NothingToFoldError, OnnxFoldError
from .inference import contradiction
from .inputs import index_limits, probe
from .model import Model, load
from .request import Manner, Patterns
from .room import streamed
from .session import Feeds, Session
from .store import inline
from .trial import Trial, with_outputs
from .validate import brief
from .workfolder import WorkFolder

Source = str | os.PathLike[str] | ModelProto
Shapes = Mapping[str, Sequence[int]] | None
PROBE_WORK = 4e9  # MACs; probe batches are made smaller for larger models


@dataclass(frozen=True)
class Subject:
    """A model, what its analysis found, the groups `chosen` to shrink, and why others are not (`notes`, by name).

    `streamed`: it is never loaded whole (`room.streamed`). `fold_heads`: the heads of its caches may change.
    """

    name: str
    model: Model
    analysis: Analysis = field(repr=False)
    prices: Costs
    chosen: tuple[str, ...]
    notes: Mapping[str, str]

    streamed: bool = False
    fold_heads: bool = False

    def compressor(self, manner: Manner, crew: Crew | None = None, kept: WorkFolder | None = None) -> Compressor:
        """What merges its groups in this manner, by `crew`; what is `kept` of an earlier run counts."""
        how = (manner.method, manner.clusterer, manner.seed, manner.threads)
        return Compressor(self.model, self.analysis, *how, crew, self.streamed, kept)


def subject(
    source: Source, shapes: Shapes, patterns: Patterns, max_memory: int | None = None, fold_heads: bool = False
) -> Subject:
    """Load and analyse a model that is to be folded, within `max_memory` bytes if that is given.

    Raises ModelError, RequestError, NothingToFoldError.
    """
    model = load(source, shapes)
    streams = streamed(model, max_memory)
    _check_weights(model, streams)
    analysis = analysed(model, fold_heads)
    notes = notes_on(analysis, patterns)
    chosen = tuple(g.name for g in analysis.groups if g.name not in notes)
    if not chosen:
        raise NothingToFoldError(_nothing(model, analysis, any(patterns)))
    return Subject(named(source), model, analysis, costs(model, shapes), chosen, notes, streams, fold_heads)


def analysed(model: Model, fold_heads: bool = False) -> Analysis:
    """The analysis (`analyse`). Where it fails on a model that shape inference or onnxruntime refuses, or that declares
    shapes which its tensors do not have, the model is to blame."""

    try:
        return analyse(model, fold_heads=fold_heads)
    except OnnxFoldError:
        raise
    except Exception as error:
        what = model.path or "the model given"
        if reason := contradiction(model.proto) or _refusal(model):
            blame = f"{what} cannot be analysed ({error}) nor run ({reason}): export the model again"
        elif reason := _false_shape(model):
            blame = f"{what} cannot be analysed ({error}): {reason}: export the model again"
        else:
            raise  # a bug of ours
        raise ModelError(blame) from error


def _feeds(model: Model, session: Session) -> Feeds:
    return probe(session.inputs, batch=2, limits=index_limits(model.graph))


def _refusal(model: Model) -> str:
    """Why onnxruntime does not run a model; '' if it does."""
    try:
        Trial(model, lambda session: [_feeds(model, session)]).outputs(model.proto)
    except Exception as error:  # onnxruntime's exceptions share no base class
        return brief(error)
    return ""


def _false_shape(model: Model) -> str:
    """A tensor that has another shape when the model is run than the model says, in words; '' if there is none."""
    main = model.graph.nodes[: len(model.proto.graph.node)]
    names = [name for node in main for name in node.outputs if model.graph.tensor(name).shape is not None]
    shown = inline(with_outputs(model.proto, names, model.graph), model.folder)
    session = Session(shown.SerializeToString())
    for name, value in zip(names, session.run(_feeds(model, session)), strict=True):
        said, has = model.graph.tensor(name).shape or (), np.shape(value)
        if len(said) != len(has) or any(isinstance(a, int) and a != b for a, b in zip(said, has, strict=True)):
            return f"'{name}' has shape {list(has)}, not {list(said)} as the model says"
    return ""


def notes_on(analysis: Analysis, patterns: Patterns) -> dict[str, str]:
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


def probes(model: Model, prices: Costs, shapes: Shapes, seed: int) -> Callable[[Session], Feeds]:
    """How to make probe inputs, once a session tells what the model takes."""
    batch = int(min(8, max(2, PROBE_WORK // max(1, prices.macs({})))))

    def make(session: Session) -> Feeds:
        return probe(session.inputs, batch=batch, seed=seed, shapes=shapes, limits=index_limits(model.graph))

    return make


def on_disk(model: Model, folder: Path) -> Path:
    """The model's file, or one written to `folder`."""
    if model.path is not None:
        return model.path
    handle, name = tempfile.mkstemp(suffix=".onnx", dir=folder)
    with os.fdopen(handle, "wb") as file:
        file.write(model.proto.SerializeToString())
    return Path(name)


def named(source: Source) -> str:
    """What reports call a model."""
    return "model" if isinstance(source, ModelProto) else os.fspath(source)


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


def _nothing(model: Model, analysis: Analysis, filtered: bool) -> str:
    if analysis.groups and filtered:
        return "no group matches --include and --exclude: --inspect lists their names"
    reasons = "; ".join(r.kind + (f" ({r.channels} channels)" if r.channels else "") for r in analysis.refusals[:3])
    return f"nothing to fold in {model.path or 'this model'}: {reasons or 'no weight makes channels'}"
