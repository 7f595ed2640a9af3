"""Shapes of the outputs of any one operator: by onnx, and where it knows none by what the operator is like.

onnx has no shapes for GroupNormalization, for some operators of ai.onnx.ml, nor for onnxruntime's own. Of these, those
that compute on integers what others compute on floats (QGemm, QLinearAveragePool) have the shapes of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import onnx
from onnx import NodeProto, TensorProto, helper

from ..dimensions import Dim
from ..graph import MICROSOFT, Graph, Node
from .contrib_ops import fused_shapes
from .inference import NodeMemo, infer_node

Shape = tuple[Dim, ...]
Found = dict[str, tuple[Shape | None, int]]
_LEARNING = "ai.onnx.ml"
_OPSET = 17  # of the operators that others are like


def output_shapes(
    graph: Graph, node: Node, proto: NodeProto, data: Mapping[str, TensorProto], memo: NodeMemo | None = None
) -> Found:
    """Shapes and element types of the outputs of one node, from those of its inputs and the values in `data`.

    What is not known is left out, or has the shape None. `memo`: what was found before.
    """
    found = infer_node(graph, node, proto, data, memo)
    if found and all(shape is not None for shape, _ in found.values()):
        return found
    other = fused_shapes(graph, node) or _plain(graph, node) or _like(graph, node, data)
    return {**found, **other}


def _plain(graph: Graph, node: Node) -> Found:
    """Of operators that give one tensor of a shape that is easy to say."""
    rule = _PLAIN.get((node.domain, node.op))
    if rule is None or not node.inputs:
        return {}
    info = graph.tensor(node.inputs[0])
    shape = None if info.shape is None else rule(node, info.shape)
    kind = info.dtype if node.domain != _LEARNING or node.op in ("Imputer", "Binarizer") else TensorProto.FLOAT
    return {} if shape is None else {node.outputs[0]: (shape, kind)}


def _same(node: Node, x: Shape) -> Shape:
    return x


def _features(node: Node, x: Shape) -> Shape | None:
    """FeatureVectorizer: all inputs side by side, as many features of each as it says."""
    sizes = node.attrs.get("inputdimensions")
    return None if not sizes else (x[0] if len(x) > 1 else 1, sum(sizes))


def _targets(node: Node, x: Shape) -> Shape:
    """Regressors: one number for every sample and target."""
    return (x[0] if len(x) > 1 else 1, int(node.attrs.get("targets", node.attrs.get("n_targets", 1))))


_PLAIN: Mapping[tuple[str, str], Callable[[Node, Shape], Shape | None]] = {
    ("", "GroupNormalization"): _same,
    **{(_LEARNING, op): _same for op in ("Scaler", "Normalizer", "Imputer", "Binarizer")},
    (_LEARNING, "FeatureVectorizer"): _features,
    **{(_LEARNING, op): _targets for op in ("LinearRegressor", "SVMRegressor", "TreeEnsembleRegressor")},
    **{(MICROSOFT, op): _same for op in ("QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax")},
}
_LIKE: Mapping[str, tuple[str, slice]] = {
    "FusedConv": ("Conv", slice(0, 2)),
    "QGemm": ("Gemm", slice(0, 4, 3)),
    "GemmFastGelu": ("MatMul", slice(0, 2)),
    "DynamicQuantizeMatMul": ("MatMul", slice(0, 2)),
    "MatMulIntegerToFloat": ("MatMul", slice(0, 2)),
    "MatMulInteger16": ("MatMul", slice(0, 2)),
    "MulInteger": ("Mul", slice(0, 3, 2)),
    "QLinearAdd": ("Add", slice(0, 4, 3)),
    "QLinearMul": ("Mul", slice(0, 4, 3)),
    "QLinearConcat": ("Concat", slice(2, None, 3)),
    "QLinearAveragePool": ("AveragePool", slice(0, 1)),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", slice(0, 1)),
    "QuantizeLinear": ("Identity", slice(0, 1)),
    "DequantizeLinear": ("Identity", slice(0, 1)),
    "DynamicQuantizeLSTM": ("LSTM", slice(0, 3)),
}
"""Operators of com.microsoft with the shapes of an operator of onnx on some of their inputs."""
_TYPE_OF = {"QGemm": 8, "QLinearConcat": 1, "QuantizeLinear": 2, "DequantizeLinear": 1}
_OPEN = {"GemmFastGelu", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "DynamicQuantizeLSTM", "FusedConv"}


def _like(graph: Graph, node: Node, data: Mapping[str, TensorProto]) -> Found:
    """Of an operator that has the shapes of another one, as far as onnx has these."""
    like = _LIKE.get(node.op)
    if node.domain != MICROSOFT or like is None or node.attrs.get("channels_last", 0):
        return {}
    other = replace(node, op=like[0], domain="", inputs=node.inputs[like[1]], version=_OPSET)
    tensors = {name: replace(graph.tensor(name), dtype=TensorProto.FLOAT) for name in other.inputs if name}
    taken = onnx.defs.get_schema(like[0], _OPSET).attributes
    known = {key: value for key, value in node.attrs.items() if key in taken}
    proto = helper.make_node(like[0], list(other.inputs), list(node.outputs), **known)
    found = infer_node(replace(graph, tensors=tensors), other, proto, data)
    return {name: (shape, _kind(graph, node)) for name, (shape, _) in found.items()}


def _kind(graph: Graph, node: Node) -> int:
    """The element type of what an operator of com.microsoft gives."""
    if node.op in _OPEN:
        return next((k for name in node.inputs if (k := graph.tensor(name).dtype) in (1, 10, 11, 16)), 1)
    slot = _TYPE_OF.get(node.op, 0)
    given = slot < len(node.inputs) and node.inputs[slot]
    unsaid = {"QGemm": TensorProto.FLOAT, "QuantizeLinear": TensorProto.UINT8}.get(node.op, TensorProto.UNDEFINED)
    return graph.tensor(node.inputs[slot]).dtype if given else unsaid
