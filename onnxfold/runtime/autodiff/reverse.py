"""Gradients of ONNX graphs, as ONNX graphs. The only module that imports onnx_ad (pinned: it is young)."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper
from onnx_ad import UnrollTooLarge, UnsupportedOperator, reverse
from onnx_ad.fold import fold_constants
from onnx_ad.rules import REVERSE

from ...errors import BUILTIN_ERRORS, ExecutionError, RuleError
from .adjoints import MOMENTS, RULES
from .pads import absorb_pads
from .parts import Adjoints
from .prepare import prune
from .simplify import without_seed_axis

PREFIX = "onnxfold_d_"  # the gradient with respect to input x is the output onnxfold_d_x
_SEEDS = "onnxfold_seeds"


def with_gradient(model: ModelProto, loss: str, inputs: list[str]) -> ModelProto:
    """`model` with one more output per name in `inputs`: d loss / d input, [*shape of the input, 1].

    Args:
        model: opset 18 or later, every shape static, initializers not listed as inputs.
        loss: a float32 graph output of shape [1].

    Raises:
        ExecutionError: onnx-ad cannot differentiate the model, or fails at it.
        RuleError: a rule of ours does.
    """
    try:
        source = _without_pads(model)
        with _own_rules():
            found = reverse(source, inputs=inputs, outputs=[loss], prefix=PREFIX, dim=_SEEDS, layout="onnx")
    except (UnsupportedOperator, UnrollTooLarge, *BUILTIN_ERRORS) as error:
        raise ExecutionError(str(error) or type(error).__name__) from error
    result = ModelProto()
    result.CopyFrom(found)
    seed = PREFIX + loss
    kept = [v for v in result.graph.input if v.name != seed]
    del result.graph.input[:]
    result.graph.input.extend(kept)
    result.graph.initializer.append(numpy_helper.from_array(np.ones((1, 1), np.float32), seed))
    _spelled_out(result.graph)
    without_seed_axis(result)
    prune(result.graph)
    # copies of bodies have equal names, which onnxruntime refuses; nodes without one are equal to its fusions (1.20)
    for at, node in enumerate(result.graph.node):
        node.name = f"{PREFIX}{at}"
    for value in result.graph.output:
        for d in value.type.tensor_type.shape.dim:
            if d.dim_param == _SEEDS:
                d.dim_value = 1
    return result


def _without_pads(model: ModelProto) -> ModelProto:
    """`model` with zeros around the input of a Conv as its pads; itself where there is no Pad."""
    if not any(node.op_type == "Pad" for node in model.graph.node):
        return model
    copy = ModelProto()
    copy.CopyFrom(fold_constants(model))  # exporters compute the pads
    absorb_pads(copy.graph)
    return copy


def without_gradient(model: ModelProto) -> ModelProto:
    """`model` with operators of ours spelled out, so that it runs; changed in place."""
    _spelled_out(model.graph)
    return model


def _missing(_: Any, node: NodeProto, __: Adjoints) -> Any:
    raise NotImplementedError(f"{node.op_type} '{node.output[0]}' has no reverse rule here")


def _spelled_out(graph: GraphProto) -> None:
    """Means in place of MOMENTS, in place. Input [N, C, ...], outputs [C]; the second is of the squares.

    Over [N, C, places]: onnxruntime would square an image in a layout of its own and turn the squares back, one by one.
    (GlobalAveragePool, which knows that layout, adds up too many numbers in a row: gradients were off by 2 to 4 %.)
    """
    nodes: list[NodeProto] = []
    for at, node in enumerate(graph.node):
        if node.op_type != MOMENTS:
            nodes.append(NodeProto.FromString(node.SerializeToString()))
            continue
        flat, square = f"{MOMENTS}_flat{at}", f"{MOMENTS}_square{at}"
        shape = numpy_helper.from_array(np.array([0, 0, -1]), f"{MOMENTS}_shape{at}")
        axes = numpy_helper.from_array(np.array([0, 2]), f"{MOMENTS}_axes{at}")
        graph.initializer.extend([shape, axes])
        nodes += [
            helper.make_node("Reshape", [node.input[0], shape.name], [flat]),
            helper.make_node("Mul", [flat, flat], [square]),
            helper.make_node("ReduceMean", [flat, axes.name], [node.output[0]], keepdims=0),
            helper.make_node("ReduceMean", [square, axes.name], [node.output[1]], keepdims=0),
        ]
    del graph.node[:]
    graph.node.extend(nodes)


_TABLE = threading.Lock()  # onnx-ad has one table for all threads


@contextlib.contextmanager
def _own_rules() -> Iterator[None]:
    """onnx-ad's table with the rules of adjoints.py in front of its own, for the length of one call; others wait."""
    with _TABLE:
        yield from _replaced_rules()


def _replaced_rules() -> Iterator[None]:
    before = dict(REVERSE)
    try:
        for op, rule in RULES.items():
            theirs = before.get(op, _missing)

            def first(ctx: Any, node: NodeProto, grads: Adjoints, ours: Any = rule, theirs: Any = theirs) -> Any:
                try:
                    found = ours(ctx, node, grads)
                except BUILTIN_ERRORS as error:
                    raise RuleError(f"the reverse rule for {node.op_type} fails: {error}") from error
                return theirs(ctx, node, grads) if found is None else found

            REVERSE[op] = first
        yield
    finally:
        REVERSE.clear()
        REVERSE.update(before)
