"""Shapes of operators that onnxruntime's optimizer makes (com.microsoft), which onnx's own inference does not know.

From the operators' specification (onnxruntime, docs/ContribOperators.md): outputs that are left out here are open.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from ..dimensions import Dim
from ..graph import MICROSOFT, Graph, Node

Shape = tuple[Dim, ...]
Shapes = list[Shape | None]


def fused_shapes(graph: Graph, node: Node) -> dict[str, tuple[Shape | None, int]]:
    """Shapes and element types of the outputs of one fused node, by name; empty where nothing is known."""
    rule = _RULES.get(node.op)
    infos = [graph.tensor(name) for name in node.inputs if name]
    if rule is None or not infos or node.domain != MICROSOFT:
        return {}
    shapes = [graph.tensor(name).shape if name else None for name in node.inputs]
    try:
        found = rule(node, [*shapes, *[None] * 12])
    except (TypeError, IndexError, ValueError, ZeroDivisionError):
        return {}
    kind = next((i.dtype for i in infos if i.dtype in (1, 10, 11, 16)), 1)  # the floating type that it computes in
    return {name: (shape, kind) for name, shape in zip(node.outputs, found, strict=False) if name and shape is not None}


def _same(node: Node, x: Shapes) -> Shapes:
    return [x[0]]


def _skip(node: Node, x: Shapes) -> Shapes:
    """Output, mean, inverse deviation and the sum of the inputs."""
    return [x[0], None, None, x[0]]


def _causal(node: Node, x: Shapes) -> Shapes:
    """CausalConvWithState: as long as its input; the state is as long as the kernel reaches back."""
    a, w = x[0], x[1]
    if a is None or node.attrs.get("channels_last", 0) or node.attrs.get("state_window", 0):
        return [a]
    reach = w[-1] if w is not None and len(w) == len(a) else None
    back = (reach - 1) * int(node.attrs.get("dilation", 1)) if isinstance(reach, int) else None
    return [a, x[3] or (*a[:-1], back)]


def _halved(node: Node, x: Shapes) -> Shapes:
    """SwiGLU and BiasSplitGelu: a gate and what it is for, in two tensors or side by side in one."""
    if x[0] is None or (node.op == "SwiGLU" and x[1] is not None):
        return [x[0]]
    return [(*x[0][:-1], _part(x[0][-1], 2))]


def _embedded(node: Node, x: Shapes) -> Shapes:
    ids, table = x[0], x[2]
    return [(*ids, table[-1]), None, (*ids, table[-1])] if ids is not None and table is not None else []


def _product(node: Node, x: Shapes) -> Shapes:
    """FusedMatMul, of matrices or stacks of them."""
    a, b = x[0], x[1]
    if a is None or b is None or len(a) < 2 or len(b) < 2:
        return []
    rows = a[-1] if node.attrs.get("transA", 0) else a[-2]
    columns = b[-2] if node.attrs.get("transB", 0) else b[-1]
    longer = a if len(a) >= len(b) else b
    stacks = [_either(*pair) for pair in zip(_stacks(a, len(longer)), _stacks(b, len(longer)), strict=True)]
    return [(*stacks, rows, columns)]


def _stacks(shape: Shape, rank: int) -> Shape:
    return (1,) * (rank - len(shape)) + shape[:-2]


def _either(a: Dim, b: Dim) -> Dim:
    return b if a == 1 else a


def _gemm(node: Node, x: Shapes) -> Shapes:
    a, b = x[0], x[1]
    if a is None or b is None:
        return []
    return [(a[1 if node.attrs.get("transA", 0) else 0], b[0 if node.attrs.get("transB", 0) else 1])]


def _narrow(node: Node, x: Shapes) -> Shapes:
    """MatMulNBits and its like: the last axis becomes N long."""
    return [(*x[0][:-1], int(node.attrs["N"]))] if x[0] is not None else []


def _packed(node: Node, x: Shapes) -> Shapes:
    """Attention: as wide as the values."""
    a, w = x[0], x[1]
    if a is None or w is None:
        return []
    sizes = node.attrs.get("qkv_hidden_sizes")
    width = sizes[2] if sizes else _part(w[1], 3)
    return [(*a[:2], width), None]


def _heads(node: Node, x: Shapes) -> Shapes:
    """MultiHeadAttention: tokens of the queries, as wide as the values; keys and values of all tokens."""
    q, v, heads = x[0], x[2], int(node.attrs["num_heads"])
    if q is None or v is None or len(q) != 3:
        return []
    wide = v[2] if len(v) == 3 else _times(v[1], v[3])
    past = [None if p is None else (p[0], heads, None, p[3]) for p in (x[6], x[7])]
    return [(q[0], q[1], wide), *past]


def _grouped(node: Node, x: Shapes) -> Shapes:
    """GroupQueryAttention: as wide as the queries."""
    q, heads, kv = x[0], int(node.attrs["num_heads"]), int(node.attrs["kv_num_heads"])
    if q is None:
        return []
    wide = q[2] if x[1] is not None else _times(_part(q[2], heads + 2 * kv), heads)
    return [(q[0], q[1], wide), *[None if p is None else (p[0], kv, None, p[3]) for p in (x[3], x[4])]]


def _part(dim: Dim, parts: int) -> Dim:
    return dim // parts if isinstance(dim, int) and not dim % parts else None


def _times(a: Dim, b: Dim) -> Dim:
    return math.prod((a, b)) if isinstance(a, int) and isinstance(b, int) else None


_RULES: Mapping[str, Callable[[Node, Shapes], Shapes]] = {
    **dict.fromkeys(
        (
            "Gelu",
            "FastGelu",
            "QuickGelu",
            "BiasGelu",
            "RotaryEmbedding",
            "SimplifiedLayerNormalization",
            "LayerNormalization",
            "GroupNormalization",
            "GroupNorm",
            "BiasAdd",
            "BiasDropout",
            "BiasSoftmax",
            "ScaledSiLU",
            "DequantizeLinear",
        ),
        _same,
    ),
    "CausalConvWithState": _causal,
    "SkipGroupNorm": lambda node, x: [x[0], x[0]],
    **dict.fromkeys(("SwiGLU", "BiasSplitGelu"), _halved),
    **dict.fromkeys(("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"), _skip),
    **dict.fromkeys(("MatMulNBits", "MatMulBnb4", "MatMulFpQ4"), _narrow),
    "EmbedLayerNormalization": _embedded,
    **dict.fromkeys(("FusedMatMul", "FusedMatMulActivation", "TransposeMatMul"), _product),
    "FusedGemm": _gemm,
    "Attention": _packed,
    "MultiHeadAttention": _heads,
    "GroupQueryAttention": _grouped,
}
