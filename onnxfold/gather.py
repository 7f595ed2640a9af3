"""What clustering and recovery know of a group: plain arrays, one row per channel. No ONNX beyond this module.

Weights outside the model's file are read when they are looked at, and in blocks of columns where there are many. A
group in this form can be sent to another process.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .analyse import Analysis
from .channels import ChannelGroup, Place, Role
from .errors import ModelError
from .external import Stretch
from .linear import WEIGHTS
from .model import Model

Floats = NDArray[np.floating[Any]]
_PRODUCTS = (
    "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "Einsum", "QGemm", "QLinearMatMul", "DynamicQuantizeMatMul",
    "MatMulIntegerToFloat", "MatMulNBits",
)  # fmt: skip
RECURRENT = ("LSTM", "GRU", "RNN")


BLOCK_ENTRIES = 2**23  # of a block: 32 MiB in float32


@dataclass(frozen=True, eq=False)
class Part:
    """One parameter's share of every channel: the numbers at `positions` [n, r] along an axis of a tensor.

    `source`: the tensor, or where it is. `axis` is seen apart by `blocks` parts of axis 0 (`Place`).
    """

    tensor: str
    source: NDArray[Any] | Stretch = field(repr=False)
    axis: int
    blocks: int
    positions: NDArray[np.int64] = field(repr=False)

    @property
    def width(self) -> int:
        """How many numbers a channel has."""
        length = self.blocks * self.source.shape[self.axis]
        return int(self.positions.shape[1]) * (math.prod(self.source.shape) // length if length else 0)

    @property
    def values(self) -> Floats:
        """[n, width] all of them, in float64 if that is what they are, else float32. Raises ModelError for NaN and
        infinity, naming the tensor and where in it."""
        return self._columns(slice(None))

    def pieces(self) -> Iterator[Floats]:
        """`values` by columns, in blocks of `BLOCK_ENTRIES` at most (or of one position along the axis)."""
        n, r = self.positions.shape
        step = max(1, BLOCK_ENTRIES // max(1, n * r))
        for begin in range(0, self.width // max(1, r), step):
            yield self._columns(slice(begin, begin + step))

    def _columns(self, columns: slice) -> Floats:
        array = self.source if isinstance(self.source, np.ndarray) else self.source.array()
        n, r = self.positions.shape
        if r == 0:
            return np.empty((n, 0))
        first = along(array, self.axis, self.blocks)
        taken = first.reshape(first.shape[0], -1)[:, columns][self.positions.ravel()].reshape(n, -1)
        if taken.dtype != np.float64:
            taken = taken.astype(np.float32)
        if not np.isfinite(taken).all():
            check_finite(self.tensor, array)
        return taken


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

    @property
    def entries(self) -> int:
        """How many numbers all channels have together."""
        return self.size * sum(p.width for p in (*self.rows, *self.filters, *self.vectors, *self.columns))

    def part(self, tensor: str) -> Part:
        """Making parameter `tensor`."""
        return next(p for p in (*self.rows, *self.filters, *self.vectors) if p.tensor == tensor)


def gather(model: Model, analysis: Analysis, group: ChannelGroup) -> GroupWeights:
    """The parameters of `group`. Raises ModelError for NaN or infinite vectors (weights are looked at when read)."""
    rows, filters, vectors, columns = list[Part](), list[Part](), list[Part](), list[Part]()
    gates = {place.tensor for place in group.parameters if _recurrent(model, place)}
    for place in group.parameters:
        part = _part(model, place)
        if place.role is Role.READS:
            columns.append(part)
        elif part.width == place.positions.shape[1] or _per_gate(model, place):
            check_finite(part.tensor, model.constants.array(part.tensor))
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


def check_finite(name: str, values: NDArray[Any]) -> None:
    """Raise ModelError if one of the values of parameter `name` is NaN or infinite."""
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


def _part(model: Model, place: Place) -> Part:
    source = model.constants.outside(place.tensor) or model.constants.array(place.tensor)
    return Part(place.tensor, source, place.axis, place.blocks, place.positions)


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
    known = {p.tensor: p.values for p in vectors} if analysis.norms else {}
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
