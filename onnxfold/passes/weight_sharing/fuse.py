"""From sets of layers to a fused model: align, fuse, fit the shared weights, then refit what follows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from ...analysis.analyze import analyze
from ...analysis.result import Analysis
from ...errors import ExecutionError
from ...folding.merge import Merge
from ...model.model import Model, load
from ...model.save import inline
from ...options.choices import Fusion
from ...progress import Progress, silent
from ...recovery.reconstruct import Changes, ReconstructionSettings, Refitted, reconstruct
from ...runtime.session import Feeds
from ...runtime.shared_prefix import SharedPrefix
from ...transform.edits import edits
from ...transform.emit import emit
from .alignment import alignable, aligned, permutations
from .joint_fit import joint, seen
from .layers import Layer, layers
from .tying import fused, tie_edits

Floats = NDArray[np.float64]
Shapes = Mapping[str, Sequence[int]] | None


@dataclass(frozen=True, eq=False)
class Fused:
    """A model whose layers share weights.

    `base` is the original as aligned: the same function, channels in another order. `changed` names the shared weights.
    `aims`: by sum of `proto`, the tensor of `base` that it should equal (where blocks were dropped). `moves`: how the
    groups of the original were permuted. `failure`: why the weights were not repaired, where they were to be.
    """

    base: Model
    proto: ModelProto = field(repr=False)
    changed: frozenset[str]
    aims: Mapping[str, str] = field(default_factory=dict)
    moves: Mapping[str, Merge] = field(default_factory=dict)
    refitted: tuple[Refitted, ...] = ()
    failure: ExecutionError | None = None


def brought_together(model: Model, analysis: Analysis, moves: Mapping[str, Merge], shapes: Shapes) -> Model:
    """The model with groups permuted; itself where nothing moves."""
    if not moves:
        return model
    proto = emit(model, edits(model, analysis, moves))
    if len(proto.graph.node) < len(model.proto.graph.node):  # nodes that computed a permuted weight are gone
        return load(inline(proto, model.folder), shapes)
    return replace(model, proto=proto, path=None)


@dataclass(frozen=True)
class FuseSettings:
    """How several weights become one: by `fusion`, their inner channels brought into one order first if `align`;
    `seed`: of what is drawn (`Fusion.MIX`, and the rows of samples that are looked at)."""

    fusion: Fusion
    align: bool = True
    seed: int = 0


def fuse_layers(
    model: Model,
    analysis: Analysis,
    sets: Sequence[Sequence[Layer]],
    settings: FuseSettings,
    *,
    shapes: Shapes = None,
    feeds: Sequence[Feeds] | None = None,
    bypass: Mapping[str, str] | None = None,
) -> Fused:
    """The model in which the layers of each of `sets` have one weight.

    Args:
        shapes: of inputs with open dimensions.
        feeds: samples; with them, the shared weights are those that serve all layers of a set best.
        bypass: by tensor, what its consumers read instead (the sums of blocks that are dropped).

    Raises what onnxruntime raises.
    """
    moves = permutations(aligned(sets, model.constants.array, alignable(analysis))) if settings.align else {}
    base = brought_together(model, analysis, moves, shapes)
    now = {layer.key: layer for layer in layers(base)[0]}
    here = [[now[layer.key] for layer in one] for one in sets]
    known = seen(base, [layer for one in here for layer in one], feeds, settings.seed) if feeds else {}
    values = dict[str, Floats]()
    for one in here:
        weights = [base.constants.array(layer.weight).astype(np.float64) for layer in one]
        value, node = fused(weights, settings.fusion, settings.seed), one[0].linear
        if all(layer.key in known for layer in one):
            best = joint([known[layer.key] for layer in one], node.matrix(value))
            value = node.tensor(best.weight, one[0].shape)
        values[one[0].weight] = value
    changes = replace(tie_edits(base, here, values), bypass=bypass or {})
    return Fused(base, emit(base, changes), frozenset(values), moves=moves)


def repaired(
    fused: Fused,
    feeds: Sequence[Feeds],
    changed: frozenset[str] = frozenset(),
    seed: int = 0,
    progress: Progress[Any] = silent,
) -> Fused:
    """With all that follows a shared weight (or another tensor that `changed`) refitted to the original, in order."""
    proto = ModelProto()
    proto.CopyFrom(fused.proto)
    changes = Changes(tensors=fused.changed | changed, aims=fused.aims)
    done = reconstruct(
        SharedPrefix(fused.base, feeds),
        analyze(fused.base),
        changes,
        proto,
        ReconstructionSettings(seed=seed),
        progress,
    )
    return replace(fused, proto=proto, refitted=done)
