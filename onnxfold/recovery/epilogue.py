"""What follows a linear node: a normalization, a bias added later, and the sum that it joins."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, numpy_helper
from onnx.external_data_helper import uses_external_data

from ..frozen import read_only
from ..model.linear import Linear
from ..model.subgraphs import captures

Floats = NDArray[np.float64]
Read = Callable[[str], "NDArray[Any] | None"]
_SKIPS = {("com.microsoft", "SkipLayerNormalization"): 4, ("com.microsoft", "SkipSimplifiedLayerNormalization"): 3}
"""Normalizations of a sum of two activations, and the input that holds a bias; the sum is output `_SUM`."""
_SUM = 3
_LEAST_SIDE = 8  # one in so many of the integers at least lies on either side of zero, where a pair only rounds


@dataclass(frozen=True, eq=False)
class Epilogue:
    """What follows a linear node with outputs y, up to the sum that it joins: it amounts to ``scale * y + shift``.

    `scale`, `shift` [channels]. `mean`, `gamma`: the running mean and the factor of the normalization that does this,
    by name, where nothing else reads them; `added`: the constant that is added as a bias. `other`: another activation
    that is added to that, and `join` the sum, where it has a name; '' where there is none. (Both
    may be of another shape than y: of more axes before the last.)
    """

    scale: Floats = field(repr=False)
    shift: Floats = field(repr=False)
    mean: str = ""
    added: str = ""
    join: str = ""
    other: str = ""
    gamma: str = ""

    def __post_init__(self) -> None:
        read_only(self)


class Epilogues:
    """Finds what follows nodes of a graph; `read` gives the value of a constant, or None for an activation."""

    def __init__(self, graph: GraphProto, read: Read) -> None:
        self._read = read
        self._consumers: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            for name in dict.fromkeys(filter(None, (*node.input, *captures(node)))):
                self._consumers.setdefault(name, []).append(node)
        self._tensors = {t.name: t for t in graph.initializer}
        self._outputs = {v.name for v in graph.output}

    def epilogue(self, node: Linear) -> Epilogue:
        """What follows `node`."""
        channels = node.groups * node.outputs
        scale, shift, mean, gamma_of, added, at = np.ones(channels), np.zeros(channels), "", "", "", node.y
        after = self._only(at)
        bias = _bias(after, at) if after is not None and node.bias == "" else ""
        value = self._read(bias) if bias else None
        if after is not None and value is not None and _per_channel(value, node) and len(self._consumers[bias]) == 1:
            added, shift = bias, value.astype(np.float64).ravel()
            if after.op_type != "Add":
                return Epilogue(scale, shift, added=added)
            at = after.output[0]
            after = self._only(at)
        if after is not None and after.op_type == "BatchNormalization" and node.windows is not None:
            values = [self._read(name) for name in after.input[1:5]]
            if all(v is not None and v.size == channels for v in values):
                gamma, beta, center, var = (np.asarray(v, np.float64).ravel() for v in values)
                epsilon = next((a.f for a in after.attribute if a.name == "epsilon"), 1e-5)
                scale = gamma / np.sqrt(var + epsilon)
                shift = scale * (shift - center) + beta
                gamma_of, mean = (n if len(self._consumers[n]) == 1 else "" for n in (after.input[1], after.input[3]))
                at = after.output[0]
                after = self._only(at)
        at = self._past_rounding(at)
        after = self._only(at)
        if after is not None and after.op_type == "Reshape" and node.windows is None:  # a Gemm's rows get their axes
            at = after.output[0]
            after = self._only(at)
        join, other, bias = self._sum(after, at) if after is not None else ("", "", "")
        value = self._read(bias) if bias else None
        if value is not None and value.size == channels:
            shift = shift + value.astype(np.float64).ravel()
            alone = node.bias == "" and not (added or mean) and len(self._consumers[bias]) == 1
            added = bias if alone else added
        return Epilogue(scale, shift, mean, added, join, other, gamma_of)

    def _sum(self, node: NodeProto, at: str) -> tuple[str, str, str]:
        """What `node` makes of the sum of `at` and another activation, that, and a bias it adds; each '' for none."""
        beside = next((name for name in node.input[:2] if name != at), "")
        if not beside or self._read(beside) is not None:
            return "", "", ""
        if node.op_type in ("Add", "Sum") and len(node.input) == 2:
            return node.output[0], beside, ""
        bias = _SKIPS.get((node.domain, node.op_type))
        if bias is None or at not in node.input[:2]:
            return "", "", ""
        made = node.output[_SUM] if len(node.output) > _SUM else ""
        return made, beside, node.input[bias] if len(node.input) > bias else ""

    def _only(self, name: str) -> NodeProto | None:
        consumers = self._consumers.get(name, [])
        return consumers[0] if len(consumers) == 1 and name not in self._outputs else None

    def _past_rounding(self, at: str) -> str:
        """`at`, or what pairs of QuantizeLinear and DequantizeLinear make of it where they only round."""
        while True:
            down = self._only(at)
            up = self._only(down.output[0]) if down is not None and down.op_type == "QuantizeLinear" else None
            if down is None or up is None or up.op_type != "DequantizeLinear" or not self._two_sided(down):
                return at
            at = up.output[0]

    def _two_sided(self, node: NodeProto) -> bool:
        """Whether a QuantizeLinear has integers on both sides of zero; with none below, it clips as a ReLU does."""
        zero = self._tensors.get(node.input[2]) if len(node.input) > 2 else None
        if zero is None or uses_external_data(zero) or math.prod(zero.dims) != 1:
            return False
        value = numpy_helper.to_array(zero).reshape(())
        if value.dtype not in (np.int8, np.uint8, np.int16, np.uint16):
            return False
        low, high = np.iinfo(value.dtype).min, np.iinfo(value.dtype).max
        return min(int(value) - low, high - int(value)) >= (high - low) / _LEAST_SIDE

    def users(self, name: str) -> Sequence[NodeProto]:
        """The nodes that read `name`."""
        return self._consumers.get(name, [])


def _bias(node: NodeProto, at: str) -> str:
    """What `node` adds to `at` before anything else; '' for nothing."""
    if node.op_type == "Add":
        return str(node.input[1] if node.input[0] == at else node.input[0])
    gelu = node.domain == "com.microsoft" and node.op_type in ("BiasGelu", "FastGelu")
    return str(node.input[1]) if gelu and len(node.input) > 1 and node.input[0] == at else ""


def _per_channel(value: NDArray[Any], node: Linear) -> bool:
    """Whether a constant that is added to the node's output gives every channel one number."""
    inner = 0 if node.windows is None else len(node.windows.kernel)  # axes behind the channels
    shape = (1,) * (1 + inner - value.ndim) + value.shape
    channel = len(shape) - 1 - inner
    return shape[channel] == node.groups * node.outputs and value.size == shape[channel]


def reader_of(arrays: Mapping[str, NDArray[Any]]) -> Read:
    """The `read` of `Epilogues` for constants given by name."""
    return arrays.get
