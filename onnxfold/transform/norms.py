"""Norms over channels of which fewer are left: their statistic, over k channels, is made to stand for that over n.

With the factor f of a merge (`Merge.squares`), ``x * scale / sqrt(f * mean(x * x) + epsilon)`` is what is wanted. An
operator has no place for f: it gets ``scale / sqrt(f)`` and ``epsilon / f``, which is the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

from ..analysis.groups import ChannelGroup
from ..analysis.result import Analysis
from ..folding.merge import Merge
from ..frozen import read_only
from ..model.model import Model

_USUAL = 1e-5  # epsilon, where a node says none
_OTHERS = {"SkipLayerNormalization": 1e-12, "SkipSimplifiedLayerNormalization": 1e-12}


@dataclass(frozen=True, eq=False)
class NormEdit:
    """Node `node` gets another `epsilon`, and its constant `scale`, input number `at`, the new values `values`, for
    this node alone where `own`, else in place."""

    node: int
    epsilon: float
    scale: str
    values: NDArray[Any]
    at: int
    own: bool

    def __post_init__(self) -> None:
        read_only(self)


def norm_edits(
    model: Model, analysis: Analysis, groups: Sequence[tuple[ChannelGroup, Merge]], arrays: Mapping[str, Any]
) -> Iterator[NormEdit]:
    """What changes in the operators that are norms over channels of these groups; `arrays`: what merges make of
    constants."""
    for norm in analysis.over_channels:
        node = model.graph.nodes[norm.node]
        tensor, result = node.inputs[0], node.outputs[0]
        here = [m for g, m in groups for p in g.places if norm.scale and (p.tensor, p.axis) == (tensor, norm.axis)]
        factor = here[0].squares.get(result, 1.0) if len(here) == 1 else 1.0
        if not here or (factor == 1.0 and not here[0].rotated):
            continue
        merged = arrays.get(norm.scale, model.constants.array(norm.scale))
        values = np.full_like(merged, model.constants.array(norm.scale).flat[0]) if here[0].rotated else merged
        epsilon = float(node.attrs.get("epsilon", _OTHERS.get(node.op, _USUAL)))
        new = (values / np.sqrt(factor)).astype(merged.dtype)
        at = list(node.inputs).index(norm.scale)
        yield NormEdit(norm.node, epsilon / factor, norm.scale, new, at, norm.scale not in arrays)


def uniform_scales(
    model: Model, groups: Sequence[tuple[ChannelGroup, Merge]], arrays: Mapping[str, Any]
) -> Iterator[tuple[str, NDArray[Any]]]:
    """New values, by name, of constants that multiply channels whose basis changes: one number, as before."""
    for group, merge in groups:
        for place in group.parameters if merge.rotated else ():
            if all(model.graph.nodes[index].op in ("Mul", "Div") for index in place.nodes):
                first = model.constants.array(place.tensor).flat[0]
                yield place.tensor, np.full_like(arrays[place.tensor], first)


def write_epsilon(node: NodeProto, value: float) -> None:
    """Set the attribute of a norm, in place."""
    kept = [a for a in node.attribute if a.name != "epsilon"]
    copies = [type(a).FromString(a.SerializeToString()) for a in kept]
    del node.attribute[:]
    node.attribute.extend([*copies, helper.make_attribute("epsilon", float(value))])
