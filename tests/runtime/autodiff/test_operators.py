"""The gradient of every operator in the trained networks against central differences, for inputs and for weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from differences import CURVED_RTOL, check, graph, normal
from onnx_ad.rules import REVERSE
from tiny import MODELS, SHARED

Array = np.ndarray[Any, Any]
STEP = 1e-2
LENGTHS = {"Shape", "ConstantOfShape", "Equal", "Mod", "Constant"}  # they compute lengths, conditions and constants
ROUNDING = {"QuantizeLinear", "DequantizeLinear"}  # gone before gradients are written: see gradient/prepare.py


@dataclass(frozen=True)
class Case:
    """A graph, the float inputs that are differentiated, and what stays."""

    body: str
    at: dict[str, Array] = field(repr=False)
    constants: dict[str, Any] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        return self.body


def positive(*shape: int) -> Array:
    return 0.5 + np.abs(normal(*shape))


def apart(*shape: int) -> Array:
    """Numbers 0.1 apart and as far from 0: no difference steps over a kink."""
    order = np.random.default_rng(2).permutation(int(np.prod(shape)))
    return ((order - len(order) // 2 + 0.5) * 0.1).astype(np.float32).reshape(shape)


X = normal(2, 3, 6, 5)
CASES = [
    Case("y = Add (x, w)", {"x": X, "w": normal(3, 1, 1)}),
    Case("y = Sub (x, w)", {"x": X, "w": normal(3, 1, 1)}),
    Case("y = Mul (x, w)", {"x": X, "w": normal(3, 1, 5)}),
    Case("y = Div (x, w)", {"x": X, "w": positive(3, 1, 1)}),
    Case("y = Pow (x, e)", {"x": X}, {"e": np.float32(2)}),
    Case("y = Sqrt (x)", {"x": positive(2, 3, 6, 5)}),
    Case("y = Relu (x)", {"x": apart(2, 3, 6, 5)}),
    Case("y = Clip (x, lo, hi)", {"x": apart(2, 3, 6, 5)}, {"lo": np.float32(-1), "hi": np.float32(2)}),
    Case("y = Softmax <axis: int = 1> (x)", {"x": X}),
    Case("y = Softmax (x)", {"x": X}),
    Case("y = ReduceMean <keepdims: int = 1> (x, a)", {"x": X}, {"a": np.array([-1])}),
    Case("y = ReduceMean <keepdims: int = 0> (x, a)", {"x": X}, {"a": np.array([2, 3])}),
    Case("y = GlobalAveragePool (x)", {"x": X}),
    Case("y = AveragePool <kernel_shape: ints = [2, 3], strides: ints = [2, 1], pads: ints = [0, 1, 0, 1]> (x)",
         {"x": X}),
    Case("y = AveragePool <kernel_shape: ints = [6, 5]> (x)", {"x": X}),
    Case("y = MaxPool <kernel_shape: ints = [2, 2], strides: ints = [2, 2]> (x)", {"x": apart(2, 3, 6, 5)}),
    Case(
        "y = MaxPool <kernel_shape: ints = [3, 3], strides: ints = [2, 2], pads: ints = [1, 1, 1, 1]> (x)",
        {"x": apart(2, 3, 6, 5)},
    ),
    Case("y = Concat <axis: int = 1> (x, w, x)", {"x": X, "w": normal(2, 4, 6, 5)}),
    Case("y = Pad (x, p)", {"x": X}, {"p": np.array([0, 1, 0, 2, 0, 0, 1, 3])}),
    Case("y = Reshape (x, s)", {"x": X}, {"s": np.array([0, -1, 10])}),
    Case("y = Flatten (x)", {"x": X}),
    Case("y = Squeeze (x, a)", {"x": normal(2, 1, 5)}, {"a": np.array([1])}),
    Case("y = Unsqueeze (x, a)", {"x": X}, {"a": np.array([1, -1])}),
    Case("y = Transpose <perm: ints = [0, 2, 3, 1]> (x)", {"x": X}),
    Case("y = Slice (x, s, e, a, t)", {"x": X}, {"s": [1], "e": [9], "a": [2], "t": [1]}),
    Case("y = Slice (x, s, e, a, t)", {"x": X}, {"s": [0, 1], "e": [9, 9], "a": [2, 3], "t": [2, 2]}),
    Case("y = Gather <axis: int = 1> (x, i)", {"x": X}, {"i": np.array([2, 0, 2])}),
    Case("y = Gather <axis: int = 2> (x, i)", {"x": X}, {"i": np.array(3)}),
    Case("y = Expand (x, s)", {"x": normal(1, 1, 5)}, {"s": np.array([2, 3, 5])}),
    Case("y = Where (c, x, w)", {"x": X, "w": normal(2, 3, 6, 5, seed=3)}, {"c": normal(2, 3, 6, 5, seed=4) > 0}),
    Case("y = Identity (x)", {"x": X}),
    Case("y = Cast <to: int = 1> (x)", {"x": X}),
    Case("y = Gemm (x, w, b)", {"x": normal(4, 6), "w": normal(6, 5), "b": normal(5)}),
    Case(
        "y = Gemm <transB: int = 1, alpha: float = 0.5, beta: float = 2.0> (x, w, b)",
        {"x": normal(4, 6), "w": normal(5, 6), "b": normal(5)},
    ),
    Case("y = MatMul (x, w)", {"x": normal(2, 4, 6), "w": normal(6, 5)}),
    Case("y = MatMul (x, w)", {"x": normal(2, 3, 4, 6), "w": normal(2, 3, 6, 5)}),
    Case("y = LayerNormalization (x, w, b)", {"x": normal(2, 4, 6), "w": normal(6), "b": normal(6)}),
    Case(
        "y = BatchNormalization (x, w, b, m, v)", {"x": X, "w": normal(3), "b": normal(3)},
        {"m": normal(3, seed=8), "v": positive(3)},
    ),
    Case("y = Conv <pads: ints = [1, 1, 1, 1]> (x, w, b)", {"x": X, "w": normal(4, 3, 3, 3), "b": normal(4)}),
    Case("y = Conv <group: int = 3, strides: ints = [2, 2]> (x, w)", {"x": X, "w": normal(6, 1, 3, 3)}),
    Case(
        "y = ConvTranspose <strides: ints = [2, 2], pads: ints = [1, 0, 0, 1]> (x, w, b)",
        {"x": X, "w": normal(3, 2, 3, 3), "b": normal(2)},
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradient(case: Case) -> None:
    check(graph(case.body, case.at, **case.constants), case.at, CURVED_RTOL, STEP)


def covered() -> set[str]:
    return {case.body.split("=", 1)[1].split()[0] for case in CASES}


def test_every_operator_of_the_digits_networks_is_here() -> None:
    networks = sorted(MODELS.glob("*.onnx"))
    assert networks
    used = {node.op_type for path in networks for node in onnx.load(path).graph.node}
    assert used - covered() - LENGTHS - ROUNDING == set()


def test_every_operator_of_the_cifar_networks_is_here() -> None:
    networks = [*sorted(SHARED.glob("cifar10_*.onnx")), *sorted(SHARED.glob("vit_*.onnx"))]
    if not networks:
        pytest.skip(f"no networks in {SHARED}")
    used = {node.op_type for path in networks for node in onnx.load(path).graph.node}
    assert used - covered() - LENGTHS - ROUNDING == set()


@pytest.mark.parametrize("op", ["Softmax", "MatMul", "LayerNormalization", "MaxPool"])
def test_a_wrong_rule_is_seen(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = REVERSE[op]

    def wrong(ctx: Any, node: Any, grads: Any) -> Any:
        first, *rest = right(ctx, node, grads)
        return [ctx.b.op("Mul", [first, ctx.constant(1.05, 1)]), *rest]

    monkeypatch.setitem(REVERSE, op, wrong)
    case = next(case for case in CASES if f" {op} " in case.body)
    with pytest.raises(AssertionError):
        check(graph(case.body, case.at, **case.constants), case.at, CURVED_RTOL, STEP)
