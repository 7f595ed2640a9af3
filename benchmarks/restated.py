"""The language model of the benchmarks, said again in the fused operators that optimizers write.

GroupQueryAttention wants heads whose length is a multiple of 16; the model's are 8 long, and are filled up
with zeros, which change nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

HEADS, GROUPS, LAYERS = 8, 4, 5  # GROUPS: key and value heads
LENGTH, FILLED = 8, 16  # of a head
EPSILON = 1e-5


def restated(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` as it was exported, [B, T] words to [B, T, words] scores, in GroupQueryAttention,
    SimplifiedLayerNormalization and their like of com.microsoft."""
    held = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    tables = [name for name, x in held.items() if name in ("cos", "sin")]
    linear = [node.input[1] for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in held]
    weights: dict[str, NDArray[Any]] = {name: held[name] for name in ("emb.weight", "nf.weight")}
    weights |= {name: np.pad(held[name], ((0, 0), (0, (FILLED - LENGTH) // 2))) for name in tables}
    nodes, count = [], iter(range(10_000))

    def op(kind: str, inputs: list[str], outputs: int = 1, domain: str = "", **attributes: Any) -> list[str]:
        names = [f"{kind}_{next(count)}" for _ in range(outputs)]
        nodes.append(helper.make_node(kind, inputs, names, names[0], domain=domain, **attributes))
        return names

    def product(x: str, name: str, makes: int = 0, reads: int = 0) -> str:
        """x times a weight that makes, or reads, so many heads."""
        weights[name] = _filled(_filled(held[name].T, reads).T, makes)
        return op("MatMul", [x, name])[0]

    def number(name: str, value: Any, kind: Any = np.int64) -> str:
        weights[name] = np.asarray(value, kind)
        return name

    own = "com.microsoft"
    (size,) = op("Shape", ["input_ids"])
    (batch,) = op("Gather", [size, number("first", [0])])
    (length,) = op("Gather", [size, number("second", 1)])
    (total,) = op("Cast", [length], to=TensorProto.INT32)
    (last,) = op("Sub", [total, number("one", 1, np.int32)])
    (lasts,) = op("Expand", [last, batch])
    (stream,) = op("Gather", ["emb.weight", "input_ids"])
    branch, parts = "", iter(linear)
    for i in range(LAYERS):
        for scale in (f"b.{i}.n1.weight", f"b.{i}.n2.weight"):
            weights[scale] = held[scale]
        x, stream = _norm(op, branch, stream, f"b.{i}.n1.weight")
        q, k, v = (product(x, next(parts), makes=heads) for heads in (HEADS, GROUPS, GROUPS))
        attended = op(
            "GroupQueryAttention", [q, k, v, "", "", lasts, total, *tables], 3, own, num_heads=HEADS,
            kv_num_heads=GROUPS, do_rotary=1, rotary_interleaved=1, scale=LENGTH**-0.5,
        )[0]  # fmt: skip
        x, stream = _norm(op, product(attended, next(parts), reads=HEADS), stream, f"b.{i}.n2.weight")
        gate, up = product(x, next(parts)), product(x, next(parts))
        (gated,) = op("Mul", [op("Mul", [gate, op("Sigmoid", [gate])[0]])[0], up])
        branch = product(gated, next(parts))
    x, _ = _norm(op, branch, stream, "nf.weight")
    scores = product(x, next(parts))
    nodes[-1].output[0] = "logits"
    assert scores != "logits" and next(parts, None) is None
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "stories", [value("input_ids", TensorProto.INT64, ["B", "T"])],
        [value("logits", TensorProto.FLOAT, ["B", "T", len(held["emb.weight"])])],
        [numpy_helper.from_array(np.ascontiguousarray(x), name) for name, x in weights.items()],
    )  # fmt: skip
    versions = [helper.make_opsetid("", 17), helper.make_opsetid(own, 1)]
    return helper.make_model(graph, opset_imports=versions, ir_version=9)


def _norm(op: Any, branch: str, stream: str, scale: str) -> tuple[str, str]:
    """What a normalization makes of stream and branch, and their sum."""
    how: dict[str, Any] = {"epsilon": EPSILON}
    if not branch:
        return op("SimplifiedLayerNormalization", [stream, scale], axis=-1, **how)[0], stream
    found = op("SkipSimplifiedLayerNormalization", [stream, branch, scale], 4, "com.microsoft", **how)
    return found[0], found[3]


def _filled(weight: NDArray[Any], heads: int) -> NDArray[Any]:
    """[n, heads * LENGTH] with zeros behind every head; 0 heads: as it is."""
    if not heads:
        return weight
    apart = weight.reshape(len(weight), heads, LENGTH)
    return np.pad(apart, ((0, 0), (0, 0), (0, FILLED - LENGTH))).reshape(len(weight), heads * FILLED)
