"""What clustering and recovery know of a group: plain arrays, one row per channel. No ONNX beyond this module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .analyse import Analysis
from .channels import ChannelGroup, Place, Role
from .errors import ModelError
from .linear import WEIGHTS
from .model import Model

Floats = NDArray[np.floating[Any]]
_PRODUCTS = (
    "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "Einsum", "QGemm", "QLinearMatMul", "DynamicQuantizeMatMul",
    "MatMulIntegerToFloat", "MatMulNBits",
)  # fmt: skip
RECURRENT = ("LSTM", "GRU", "RNN")


@dataclass(frozen=True)
class Part:
    """One parameter's share of every channel: `values` [n, d]."""

    tensor: str
    values: Floats = field(repr=False)


@dataclass(frozen=True)
class Norm:
    """A BatchNormalization over the group's channels: vectors [n], and the weight that makes its input, if one does.

    `producer` and `bias` name parts of the group (a convolution straight before it); '' where there is none.
    """

    scale: str
    gamma: Floats
    beta: Floats
    mean: Floats
    var: Floats
    epsilon: float
    producer: str
    bias: str


@dataclass(frozen=True)
class GroupWeights:
    """All parameters of a group of `size` channels.

    `rows`: weights that make channels by contracting others. `filters`: depthwise weights. `vectors`: one number per
    channel (bias, gamma, ...), per gate for recurrent layers. `columns`: weights that read the channels. `plain`: names
    in `rows` whose output no BatchNormalization normalises, with the name of their bias ('' if none). Recurrent layers
    have none: their gates saturate, so what averaging takes from the inputs is not what the outputs lose.
    """

    size: int
    rows: tuple[Part, ...]
    filters: tuple[Part, ...]
    vectors: tuple[Part, ...]
    columns: tuple[Part, ...]
    norms: tuple[Norm, ...]
    plain: tuple[tuple[str, str], ...]

    def part(self, tensor: str) -> Floats:
        """The values of making parameter `tensor`."""
        return next(p.values for p in (*self.rows, *self.filters, *self.vectors) if p.tensor == tensor)


def gather(model: Model, analysis: Analysis, group: ChannelGroup) -> GroupWeights:
    """Read the parameters of `group`. Raises ModelError for NaN or infinite weights, naming the tensor and channel."""
    rows, filters, vectors, columns = list[Part](), list[Part](), list[Part](), list[Part]()
    gates = {place.tensor for place in group.parameters if _recurrent(model, place)}
    for place in group.parameters:
        part = Part(place.tensor, _values(model, place))
        if place.role is Role.READS:
            columns.append(part)
        elif part.values.shape[1] == place.positions.shape[1] or _per_gate(model, place):
            vectors.append(part)
        elif _contracts(model, place):
            rows.append(part)
        else:
            filters.append(part)
    norms = tuple(_norms(model, analysis, [*rows, *filters], vectors))
    normalised = {norm.producer for norm in norms}
    made = [p.tensor for p in (*rows, *filters) if p.tensor not in normalised and p.tensor not in gates]
    plain = tuple((tensor, _bias(model, tensor)) for tensor in made)
    return GroupWeights(group.size, tuple(rows), tuple(filters), tuple(vectors), tuple(columns), norms, plain)


def check_finite(model: Model, names: tuple[str, ...], read: Callable[[str], Floats] | None = None) -> None:
    """Raise ModelError if one of the parameters is NaN or infinite."""
    for name in names:
        values = (read or model.constants.array)(name)
        finite = np.isfinite(values.astype(np.float32) if values.dtype.itemsize < 4 else values)
        if not finite.all():
            at = [int(i) for i in np.argwhere(~finite)[0]]
            raise ModelError(f"weight '{name}' is not a finite number at {at}: the model is broken, export it again")


def along(array: NDArray[Any], axis: int, blocks: int) -> NDArray[Any]:
    """A view or copy of `array` with `axis` (seen apart by `blocks` parts of axis 0) first: [positions, ...]."""
    if blocks == 1:
        return np.moveaxis(array, axis, 0)
    parts = array.reshape(blocks, array.shape[0] // blocks, *array.shape[1:])
    moved = np.moveaxis(parts, axis + 1, 1)
    return moved.reshape(blocks * array.shape[axis], *moved.shape[2:])


def _values(model: Model, place: Place) -> Floats:
    array = model.constants.array(place.tensor)
    check_finite(model, (place.tensor,), lambda _: array)
    if array.dtype != np.float64:
        array = array.astype(np.float32)
    first = along(array, place.axis, place.blocks)
    n, r = place.positions.shape
    return first.reshape(first.shape[0], -1)[place.positions.ravel()].reshape(n, -1) if r else np.empty((n, 0))


def _contracts(model: Model, place: Place) -> bool:
    """Whether the making weight reads other channels (a depthwise filter or a spread constant does not)."""
    for node in (model.graph.nodes[i] for i in place.nodes):
        if node.op in _PRODUCTS or (node.op in RECURRENT and place.tensor in node.inputs[1:3]):
            return True
        shape = model.graph.tensor(place.tensor).shape or ()
        if node.op in ("Conv", "ConvTranspose", "FusedConv", "QLinearConv") and shape[1 - place.axis] != 1:
            return True
    return False


def _per_gate(model: Model, place: Place) -> bool:
    """Whether the parameter has one number for every unit, gate and direction: biases, peepholes and first states."""
    return _recurrent(model, place) and not _contracts(model, place)


def _recurrent(model: Model, place: Place) -> bool:
    """Whether a recurrent layer uses the parameter."""
    return any(model.graph.nodes[i].op in RECURRENT for i in place.nodes)


def _norms(model: Model, analysis: Analysis, rows: list[Part], vectors: list[Part]) -> list[Norm]:
    known = {p.tensor: p.values for p in vectors}
    making = {p.tensor for p in rows}
    found = []
    for norm in analysis.norms:
        names = (norm.scale, norm.bias, norm.mean, norm.var)
        if not all(name in known and known[name].shape[1] == 1 for name in names):
            continue
        gamma, beta, mean, var = (known[name][:, 0] for name in names)
        node = model.graph.nodes[model.graph.consumers[norm.scale][0]]
        maker = model.graph.producer.get(node.inputs[0])
        producer = bias = ""
        if maker is not None:
            before = model.graph.nodes[maker]
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
