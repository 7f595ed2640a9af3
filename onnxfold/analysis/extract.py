"""What clustering and recovery know of a group: plain arrays, one row per channel. No ONNX beyond this module.

Weights outside the model's file are read when they are looked at, and in blocks of columns where there are many. A
group in this form can be sent to another process.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..folding.group_weights import GroupWeights, Norm, Part, check_finite
from ..model.linear import RECURRENT, WEIGHTS
from ..model.model import Model
from .groups import ChannelGroup, Place, Role
from .result import Analysis

Floats = NDArray[np.floating[Any]]
_PRODUCTS = (
    "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "Einsum", "QGemm", "QLinearMatMul", "DynamicQuantizeMatMul",
    "MatMulIntegerToFloat", "MatMulInteger", "MatMulNBits",
)  # fmt: skip


def gather(model: Model, analysis: Analysis, group: ChannelGroup) -> GroupWeights:
    """The parameters of `group`. Raises ModelError for NaN or infinite vectors (weights are looked at when read)."""
    rows, filters, vectors, columns = list[Part](), list[Part](), list[Part](), list[Part]()
    gates = {place.tensor for place in group.parameters if _recurrent(model, place)}
    for place in stored_once(model, group.parameters):
        part = _part(model, place)
        if place.role is Role.CONSUMES:
            columns.append(part)
        elif part.width == place.positions.shape[1] or _per_gate(model, place):
            check_finite(part.tensor, model.constants.array(part.tensor))
            vectors.append(part)
        elif _contracts(model, place):
            rows.append(part)
        else:
            filters.append(part)
    norms = tuple(_norms(model, analysis, [*rows, *filters], vectors))
    normalized = {norm.producer for norm in norms}
    made = [p.tensor for p in (*rows, *filters) if p.tensor not in normalized and p.tensor not in gates]
    plain = tuple((tensor, _bias(model, tensor)) for tensor in made)
    return GroupWeights(group.size, tuple(rows), tuple(filters), tuple(vectors), tuple(columns), norms, plain)


def stored_once(model: Model, places: Sequence[Place]) -> list[Place]:
    """The places, of those on the same axis of one stored tensor only the first."""
    found = dict[object, Place]()
    for place in places:
        found.setdefault((*model.tied.place(place.tensor, place.axis), place.blocks), place)
    return list(found.values())


def _part(model: Model, place: Place) -> Part:
    source = model.constants.outside(place.tensor) or model.constants.array(place.tensor)
    return Part(place.tensor, source, place.axis, place.blocks, place.positions)


def _contracts(model: Model, place: Place) -> bool:
    """Whether the making weight reads other channels (a depthwise filter or a spread constant does not)."""
    for node in (model.graph.nodes[i] for i in place.nodes):
        if node.op in _PRODUCTS or (node.op in RECURRENT and place.tensor in node.inputs[1:3]):
            return True
        shape = model.graph.tensor(place.tensor).shape or ()
        if (
            node.op in ("Conv", "ConvTranspose", "FusedConv", "QLinearConv", "ConvInteger", "DeformConv")
            and shape[1 - place.axis] != 1
        ):
            return True
    return False


def _per_gate(model: Model, place: Place) -> bool:
    """Whether the parameter has one number for every unit, gate and direction: biases, peepholes and first states."""
    return _recurrent(model, place) and not _contracts(model, place)


def _recurrent(model: Model, place: Place) -> bool:
    """Whether a recurrent layer uses the parameter."""
    return any(model.graph.nodes[i].op in RECURRENT for i in place.nodes)


def _norms(model: Model, analysis: Analysis, rows: list[Part], vectors: list[Part]) -> list[Norm]:
    known = {p.tensor: p.values for p in vectors} if analysis.norms else {}
    making = {p.tensor for p in rows}
    found = []
    for norm in analysis.norms:
        names = (norm.scale, norm.bias, norm.mean, norm.var)
        if not all(name in known and known[name].shape[1] == 1 for name in names):
            continue
        gamma, beta, mean, var = (known[name][:, 0] for name in names)
        node = model.graph.nodes[model.graph.consumers[norm.scale][0]]
        index = model.graph.producer.get(node.inputs[0])
        producer = bias = ""
        if index is not None:
            before = model.graph.nodes[index]
            alone = model.graph.consumers.get(before.outputs[0], ()) == (node.index,)
            if alone and len(before.inputs) > 1 and before.inputs[1] in making:
                producer = before.inputs[1]
                bias = before.inputs[2] if len(before.inputs) > 2 and before.inputs[2] in known else ""
        found.append(Norm(norm.scale, gamma, beta, mean, var, norm.epsilon, producer, bias))
    return found


def _bias(model: Model, weight: str) -> str:
    node = model.graph.nodes[model.graph.consumers[weight][0]]
    slot = WEIGHTS.get(node.op, (0, None))[1]
    bias = node.inputs[slot] if slot is not None and slot < len(node.inputs) else ""
    return bias if bias in model.constants else ""
