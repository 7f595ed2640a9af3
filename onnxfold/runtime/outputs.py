"""Which tensors of a model are compared, and versions of it that show them."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from ..errors import ExecutionError
from ..model.constants import FLOATS
from ..model.graph import Graph, Node
from ..model.model import Model
from ..model.subgraphs import BODY_OPERATORS

_SQUASHING = ("Softmax", "LogSoftmax", "Sigmoid", "HardSigmoid", "Tanh", "Clip", "Identity", "Cast")
# Behind these, what was chosen by value is the input of more layers, not the output any more.
_MIXING = frozenset((
    "Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "FusedConv", "Gemm", "QGemm", "FusedGemm", "MatMul",
    "MatMulInteger", "MatMulNBits", "QLinearMatMul", "FusedMatMul", "Einsum", "LSTM", "GRU", "RNN", "Attention",
    "MultiHeadAttention", "GroupQueryAttention", "QAttention",
))  # fmt: skip
_COUNTING = frozenset(("Compress", "Unique", "NonZero", "NonMaxSuppression"))  # how many depends on values
_CHOOSING = _COUNTING | {"ArgMax", "ArgMin", "TopK", "Hardmax", "ZipMap"}
_OF_SHAPES = frozenset(("Shape", "Size"))


@dataclass(frozen=True)
class ComparedTensors:
    """What tells how far a version is from the original.

    Attributes:
        tensors: of floats: outputs before squashing operators at the end, and, for outputs that are chosen by value
            (classes, indices, boxes that survive), the scores and values that they are chosen from and by.
        counted: outputs whose number of elements depends on values.
    """

    tensors: tuple[str, ...]
    counted: frozenset[str]

    @classmethod
    def of(cls, model: Model, skip: Container[str] = ()) -> ComparedTensors:
        """For all outputs of a model but those in `skip`."""
        graph, flow = model.graph, _Flow(model)
        outputs = [name for name in graph.outputs if name not in skip]
        tensors = list[str]()
        for name in outputs:
            if name in flow.chosen:
                tensors += flow.chosen[name].tensors
            elif flow.is_quantity(name) or graph.tensor(name).dtype == TensorProto.UNDEFINED:
                tensors.append(_before_squashing(graph, name))
        counted = frozenset(name for name in outputs if name in flow.chosen and flow.chosen[name].counted)
        return cls(tuple(dict.fromkeys(tensors)), counted)


@dataclass(frozen=True)
class _Chosen:
    """A tensor that was chosen by value: from what and by what, and whether how much it holds depends on values too."""

    tensors: tuple[str, ...]
    counted: bool


class _Flow:
    """What the tensors of the main graph are: `chosen` by value since the last layer with weights, or quantities."""

    def __init__(self, model: Model) -> None:
        self._graph, self._integers = model.graph, set[str]()
        self.chosen = dict[str, _Chosen]()
        for node in self._graph.main_nodes:
            self._follow(node, [name for name in node.inputs if name and name not in model.constants])

    def is_quantity(self, name: str) -> bool:
        """Whether a tensor holds floats, or integers that quantized layers compute in their place."""
        return _is_float(self._graph, name) or name in self._integers

    def _follow(self, node: Node, varying: Sequence[str]) -> None:
        if node.op in _OF_SHAPES or node.op in BODY_OPERATORS:  # bodies may hold layers
            return
        outputs = [name for name in node.outputs if name]
        if node.op in _MIXING:
            self._integers |= {name for name in outputs if not _is_float(self._graph, name)}
            return
        before = [self.chosen[name] for name in varying if name in self.chosen]
        quantities = [name for name in varying if self.is_quantity(name)]
        if before or node.op in _CHOOSING or self._leaves_quantities(node, quantities):
            own = [_before_squashing(self._graph, name) for name in quantities if name not in self.chosen]
            tensors = dict.fromkeys([*(name for one in before for name in one.tensors), *own])
            if tensors:
                counted = node.op in _COUNTING or any(one.counted for one in before)
                self.chosen |= dict.fromkeys(outputs, _Chosen(tuple(tensors), counted))
        elif quantities:
            self._integers |= {name for name in outputs if not _is_float(self._graph, name)}

    def _leaves_quantities(self, node: Node, quantities: Sequence[str]) -> bool:
        """Whether a node makes of quantities what is none: comparisons, integers of floats, labels."""
        if not quantities:
            return False
        kinds = {self._graph.tensor(name).dtype for name in node.outputs if name} - {TensorProto.UNDEFINED}
        if not kinds or kinds & set(FLOATS):
            return False
        return TensorProto.BOOL in kinds or any(_is_float(self._graph, name) for name in quantities)


def _is_float(graph: Graph, name: str) -> bool:
    return graph.tensor(name).dtype in FLOATS


def _before_squashing(graph: Graph, name: str) -> str:
    """What a tensor was before squashing operators: a saturated softmax hides errors."""
    while name in graph.producer and graph.nodes[graph.producer[name]].op in _SQUASHING:
        before = graph.nodes[graph.producer[name]].inputs[0]
        if not _is_float(graph, before) and _is_float(graph, name):
            return name
        name = before
    return name


def raw_outputs(graph: Graph, skip: Container[str] = ()) -> list[str]:
    """The outputs but those in `skip`, without squashing operators at the end."""
    return list(dict.fromkeys(_before_squashing(graph, name) for name in graph.outputs if name not in skip))


def as_array(name: str, value: Any) -> NDArray[Any]:
    """What output `name` holds as one array. Raises ExecutionError for a list of tensors of different shapes."""
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ExecutionError(f"'{name}' is a list of tensors of different shapes") from error


def with_outputs(proto: ModelProto, names: Sequence[str], graph: Graph) -> ModelProto:
    """A copy of `proto` that outputs exactly the tensors `names`."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    kept: Mapping[str, Any] = {v.name: v for v in proto.graph.output}
    del copy.graph.output[:]
    for name in names:
        if name in kept:
            copy.graph.output.append(kept[name])
        else:
            copy.graph.output.append(onnx.helper.make_tensor_value_info(name, graph.tensor(name).dtype or 1, None))
    return copy
