"""BatchNormalization behind a convolution taken into its weight and bias, where nothing else wants either.

The result is that of both nodes but for rounding: ``gamma (w x + b - mean) / sqrt(var + epsilon) + beta`` is a
convolution with the weight ``w gamma / sqrt(var + epsilon)``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from ..model.subgraphs import DEFAULT_DOMAINS, captures, every_node
from ..model.tensors import replaced

_EPSILON = 1e-5  # of BatchNormalization, where it says none
_INFERENCE = 7  # the first operator set whose BatchNormalization never trains unless it says so
_PARAMETERS = slice(1, 5)  # gamma, beta, mean, variance


def without_normalization(proto: ModelProto, changed: Collection[str]) -> ModelProto:
    """A copy of `proto` in which convolutions with a weight, or a normalization with parameters, among the `changed`
    constants have taken in the BatchNormalization behind them; `proto` itself where there is none.

    Left as they are: weights and parameters that other nodes or bodies use, that may be given as inputs, that are not
    of float32 or lie outside the file, and convolutions whose output anything else uses.
    """
    pairs = _Pairs(proto).found(changed)
    if not pairs:
        return proto
    made = ModelProto()
    made.CopyFrom(proto)
    for conv, norm in pairs:
        _take_in(made, made.graph.node[conv], made.graph.node[norm])
    for number in sorted((norm for _, norm in pairs), reverse=True):
        del made.graph.node[number]
    _sweep(made)
    return made


class _Pairs:
    """Which convolutions can take in the normalization behind them."""

    def __init__(self, proto: ModelProto) -> None:
        self._graph = proto.graph
        given = {value.name for value in proto.graph.input}
        self._opset = max((o.version for o in proto.opset_import if o.domain in DEFAULT_DOMAINS), default=1)
        self._plain = {t.name: t for t in proto.graph.initializer if _plain(t) and t.name not in given}
        self._uses = Counter(name for node in every_node(proto) for name in node.input)
        self._uses.update(name for node in proto.graph.node for name in captures(node))
        self._uses.update(value.name for value in proto.graph.output)
        self._uses.update(location.tensor_name for location in proto.graph.quantization_annotation)

    def found(self, changed: Collection[str]) -> list[tuple[int, int]]:
        """(number of the convolution, number of the normalization) of each pair."""
        makers = {node.output[0]: i for i, node in enumerate(self._graph.node) if node.output}
        pairs = []
        for number, node in enumerate(self._graph.node):
            conv = makers.get(node.input[0], -1) if _is(node, "BatchNormalization") else -1
            if conv >= 0 and self._fits(self._graph.node[conv], node):
                names = [*self._graph.node[conv].input[1:], *node.input[_PARAMETERS]]
                pairs += [(conv, number)] if any(name in changed for name in names) else []
        return pairs

    def _fits(self, conv: NodeProto, norm: NodeProto) -> bool:
        own = [*filter(None, conv.input[1:]), *norm.input[_PARAMETERS]]
        values = {a.name: helper.get_attribute_value(a) for a in norm.attribute}
        return (
            _is(conv, "Conv")
            and self._opset >= _INFERENCE
            and values.get("spatial", 1) == 1
            and len(norm.input) == 5
            and not any(norm.output[1:])
            and not values.get("training_mode", 0)
            and self._uses[conv.output[0]] == 1
            and all(name in self._plain and self._uses[name] == 1 for name in own)
            and len({*own}) == len(own)
            and all(_in_float32(made) for made in _taken_in(self._plain, conv, norm))
        )


def _taken_in(
    tensors: Mapping[str, TensorProto], conv: NodeProto, norm: NodeProto
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(weight, bias) of both nodes as one convolution."""
    gamma, beta, mean, variance = (_array(tensors[name]) for name in norm.input[_PARAMETERS])
    epsilon = next((a.f for a in norm.attribute if a.name == "epsilon"), _EPSILON)
    with np.errstate(all="ignore"):  # what is not finite is left as it is
        factor = gamma / np.sqrt(variance + epsilon)
        weight, bias = _array(tensors[conv.input[1]]), _array(tensors[conv.input[2]]) if _biased(conv) else 0.0
        return weight * factor.reshape(-1, *[1] * (weight.ndim - 1)), beta + (bias - mean) * factor


def _in_float32(values: NDArray[np.float64]) -> bool:
    """Whether they are numbers there too."""
    with np.errstate(over="ignore"):
        return bool(np.isfinite(values.astype(np.float32)).all())


def _biased(conv: NodeProto) -> bool:
    return len(conv.input) > 2 and bool(conv.input[2])


def _take_in(proto: ModelProto, conv: NodeProto, norm: NodeProto) -> None:
    """Change the weight and the bias of `conv`, in place; `norm` is not needed any more."""
    tensors = {t.name: t for t in proto.graph.initializer}
    weight, bias = _taken_in(tensors, conv, norm)
    where = conv.input[2] if _biased(conv) else norm.input[2]
    replaced(tensors[conv.input[1]], weight.astype(np.float32))
    replaced(tensors[where], bias.astype(np.float32))
    del conv.input[2:]
    conv.input.append(where)
    conv.output[0] = norm.output[0]


def _sweep(proto: ModelProto) -> None:
    """Without the parameters and the declared shapes that nothing uses any more, in place."""
    nodes = every_node(proto)
    used = {name for node in nodes for name in node.input} | {value.name for value in proto.graph.output}
    used |= {name for node in proto.graph.node for name in captures(node)}
    there = used | {name for node in nodes for name in node.output}
    given = {value.name for value in proto.graph.input}
    for kept, field in (
        ([t for t in proto.graph.initializer if t.name in used or t.name in given], proto.graph.initializer),
        ([v for v in proto.graph.value_info if v.name in there], proto.graph.value_info),
    ):
        copies = [type(one).FromString(one.SerializeToString()) for one in kept]
        del field[:]
        field.extend(copies)


def _is(node: NodeProto, op: str) -> bool:
    return node.op_type == op and node.domain in DEFAULT_DOMAINS


def _plain(tensor: TensorProto) -> bool:
    """Whether a tensor is of float32, with its values in the file."""
    return tensor.data_type == TensorProto.FLOAT and tensor.data_location != TensorProto.EXTERNAL


def _array(tensor: TensorProto) -> NDArray[np.float64]:
    found: NDArray[Any] = numpy_helper.to_array(tensor)
    return found.astype(np.float64)
