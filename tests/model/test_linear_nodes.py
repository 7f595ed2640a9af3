"""Linear nodes as a matrix beside patches: the product is what onnxruntime gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from helpers import constant, model
from numpy.typing import NDArray
from onnx import ModelProto, helper

from onnxfold.model.linear import Linear, linear
from onnxfold.runtime.session import Session

PRODUCT_RTOL = 1e-6  # float32 sums of some hundred terms, in another order. Measured under 5e-7

# name: operator with attributes, shape of x, shape of w, whether there is a bias
CONVS: Mapping[str, tuple[str, tuple[int, ...], tuple[int, ...], bool]] = {
    "plain": ("Conv", (2, 3, 6, 7), (5, 3, 3, 3), True),
    "no bias": ("Conv", (2, 3, 6, 7), (5, 3, 3, 3), False),
    "1x1": ("Conv", (2, 3, 6, 7), (5, 3, 1, 1), True),
    "strides": ("Conv <strides=[2,3]>", (2, 3, 9, 11), (5, 3, 3, 2), True),
    "1x1 strides": ("Conv <strides=[2,2]>", (2, 3, 7, 8), (5, 3, 1, 1), True),
    "pads": ("Conv <pads=[1,1,1,1]>", (2, 3, 6, 6), (5, 3, 3, 3), True),
    "asymmetric pads": ("Conv <pads=[0,1,3,2]>", (2, 3, 6, 6), (5, 3, 3, 3), True),
    "asymmetric pads, strides": ("Conv <pads=[2,0,1,3], strides=[2,2]>", (2, 3, 6, 9), (5, 3, 3, 3), True),
    "dilations": ("Conv <dilations=[2,3]>", (2, 3, 9, 10), (5, 3, 3, 2), True),
    "dilations, strides, pads": (
        "Conv <dilations=[2,1], strides=[2,3], pads=[1,2,0,1]>", (2, 3, 9, 10), (5, 3, 3, 4), True,
    ),
    "same upper": ("Conv <auto_pad=\"SAME_UPPER\">", (2, 3, 5, 8), (5, 3, 4, 2), True),
    "same upper, strides": ("Conv <auto_pad=\"SAME_UPPER\", strides=[2,3]>", (2, 3, 6, 8), (5, 3, 3, 4), True),
    "same lower": ("Conv <auto_pad=\"SAME_LOWER\">", (2, 3, 5, 8), (5, 3, 4, 2), True),
    "same lower, strides": ("Conv <auto_pad=\"SAME_LOWER\", strides=[2,3]>", (2, 3, 6, 8), (5, 3, 3, 4), True),
    "valid": ("Conv <auto_pad=\"VALID\", strides=[2,1]>", (2, 3, 6, 7), (5, 3, 3, 3), True),
    "groups": ("Conv <group=2, pads=[1,1,1,1]>", (2, 4, 6, 6), (6, 2, 3, 3), True),
    "depthwise": ("Conv <group=4, pads=[1,1,1,1], strides=[2,2]>", (2, 4, 6, 6), (4, 1, 3, 3), True),
    "depthwise, two each": ("Conv <group=4>", (2, 4, 6, 6), (8, 1, 3, 3), False),
    "1-D": ("Conv <strides=[2], pads=[1,2], dilations=[2]>", (2, 3, 12), (5, 3, 3), True),
    "1-D groups": ("Conv <group=3>", (2, 3, 12), (6, 1, 3), True),
    "3-D": (
        "Conv <strides=[1,2,1], pads=[1,0,2,0,1,1], dilations=[1,1,2]>", (2, 3, 4, 5, 6), (5, 3, 3, 2, 2), True,
    ),
    "3-D groups": ("Conv <group=2>", (1, 4, 4, 4, 4), (4, 2, 2, 3, 3), False),
    "single place": ("Conv", (3, 4, 3, 3), (5, 4, 3, 3), True),
    "up": ("ConvTranspose", (2, 3, 4, 5), (3, 5, 3, 3), True),
    "up, no bias": ("ConvTranspose", (2, 3, 4, 5), (3, 5, 3, 3), False),
    "up, strides": ("ConvTranspose <strides=[2,3]>", (2, 3, 4, 5), (3, 5, 3, 2), True),
    "up, kernel as long as its stride": ("ConvTranspose <strides=[2,2]>", (2, 3, 4, 5), (3, 5, 2, 2), True),
    "up, stride longer than the kernel": ("ConvTranspose <strides=[3,4]>", (2, 3, 4, 5), (3, 5, 2, 2), True),
    "up, pads": ("ConvTranspose <strides=[2,2], pads=[1,0,2,1]>", (2, 3, 5, 6), (3, 5, 4, 4), True),
    "up, output padding": (
        "ConvTranspose <strides=[2,3], pads=[1,1,1,1], output_padding=[1,2]>", (2, 3, 4, 5), (3, 5, 3, 3), True,
    ),
    "up, output padding out of reach": (
        "ConvTranspose <strides=[3,3], output_padding=[2,2]>", (2, 3, 4, 5), (3, 5, 2, 2), True,
    ),
    "up, dilations": (
        "ConvTranspose <strides=[2,1], dilations=[3,2], pads=[1,2,0,1]>", (2, 3, 4, 5), (3, 5, 2, 3), True,
    ),
    "up, pads over the kernel": ("ConvTranspose <pads=[3,3,3,3]>", (2, 3, 9, 9), (3, 5, 3, 3), True),
    "up, same upper": ("ConvTranspose <auto_pad=\"SAME_UPPER\", strides=[2,2]>", (2, 3, 4, 5), (3, 5, 3, 4), True),
    "up, same lower": ("ConvTranspose <auto_pad=\"SAME_LOWER\", strides=[2,2]>", (2, 3, 4, 5), (3, 5, 3, 4), True),
    "up, valid": ("ConvTranspose <auto_pad=\"VALID\", strides=[2,2]>", (2, 3, 4, 5), (3, 5, 3, 4), True),
    "up to a shape": ("ConvTranspose <output_shape=[8,11], strides=[2,2]>", (2, 3, 4, 5), (3, 5, 3, 4), True),
    "up to a shape, same upper": (
        "ConvTranspose <output_shape=[8,11], auto_pad=\"SAME_UPPER\", strides=[2,2]>",
        (2, 3, 4, 5), (3, 5, 3, 4), True,
    ),
    "up, groups": ("ConvTranspose <group=2, strides=[2,2]>", (2, 4, 4, 5), (4, 3, 3, 3), True),
    "up, depthwise": ("ConvTranspose <group=4, strides=[2,2], pads=[1,1,1,1]>", (2, 4, 4, 5), (4, 1, 4, 4), True),
    "up, 1-D": ("ConvTranspose <strides=[2], pads=[1,2], dilations=[2]>", (2, 3, 8), (3, 5, 3), True),
    "up, 1-D groups": ("ConvTranspose <group=3, output_padding=[1], strides=[4]>", (2, 6, 5), (6, 2, 4), False),
    "up, 3-D": (
        "ConvTranspose <strides=[1,2,2], pads=[1,0,1,0,1,1]>", (1, 3, 3, 3, 4), (3, 4, 3, 2, 3), True,
    ),
    "Gemm": ("Gemm", (6, 4), (4, 5), True),
    "Gemm no bias": ("Gemm", (6, 4), (4, 5), False),
    "Gemm transB": ("Gemm <transB=1>", (6, 4), (5, 4), True),
    "MatMul": ("MatMul", (6, 4), (4, 5), False),
    "MatMul 3-D": ("MatMul", (2, 3, 4), (4, 5), False),
    "MatMul 4-D": ("MatMul", (2, 3, 2, 4), (4, 5), False),
}  # fmt: skip


def built(case: str) -> tuple[ModelProto, Linear, NDArray[Any], NDArray[Any]]:
    """The model of a case, its node, x and what onnxruntime makes of it."""
    op, x_shape, w_shape, bias = CONVS[case]
    text = f"(float[{','.join(map(str, x_shape))}] x) => (float y) {{ y = {op} (x, w{', b' if bias else ''}) }}"
    outputs = w_shape[0] if op.startswith("Conv") or "transB" in op else w_shape[1]
    if op.startswith("ConvTranspose"):
        outputs = w_shape[1] * int(op.partition("group=")[2][:1] or 1)
    proto = model(text, {"w": w_shape, **({"b": (outputs,)} if bias else {})})
    node = linear(proto.graph.node[0], w_shape)
    assert node is not None
    x = np.random.default_rng(1).standard_normal(x_shape).astype(np.float32)
    return proto, node, x, np.asarray(Session(proto.SerializeToString()).run({"x": x})[0])


def product(proto: ModelProto, node: Linear, patches: NDArray[Any]) -> NDArray[Any]:
    """patches @ matrix' + bias, as [rows, channels]."""
    matrix = node.matrix(constant(proto, "w"))
    assert matrix.shape == (node.groups, node.outputs, node.features)
    bias = constant(proto, node.bias) if node.bias else 0.0
    flat = np.concatenate([patches[:, g] @ matrix[g].T for g in range(node.groups)], axis=1)
    return np.asarray(flat + bias)


@pytest.mark.parametrize("case", CONVS)
def test_product_is_the_output(case: str) -> None:
    proto, node, x, y = built(case)
    assert (node.x, node.y, node.weight, node.bias) == ("x", "y", "w", "b" if CONVS[case][3] else "")
    patches = node.patches(x, y.shape, None)
    rows = node.rows(y, None)
    assert patches.shape == (node.positions(y), node.groups, node.features)
    assert rows.shape == (node.positions(y), node.groups * node.outputs)
    assert np.abs(product(proto, node, patches) - rows).max() <= PRODUCT_RTOL * np.abs(rows).max()


@pytest.mark.parametrize("case", CONVS)
def test_chosen_places(case: str) -> None:
    _, node, x, y = built(case)
    total = node.positions(y)
    chosen = np.sort(np.random.default_rng(2).choice(total, max(1, total // 3), replace=False))
    np.testing.assert_array_equal(node.rows(y, chosen), node.rows(y, None)[chosen])
    np.testing.assert_array_equal(node.patches(x, y.shape, chosen), node.patches(x, y.shape, None)[chosen])


@pytest.mark.parametrize("case", CONVS)
def test_matrix_and_tensor_are_inverse(case: str) -> None:
    proto, node, _, _ = built(case)
    weight = constant(proto, "w")
    back = node.tensor(node.matrix(weight), weight.shape)
    np.testing.assert_array_equal(back, weight)
    assert back.flags.c_contiguous


def test_rows_follow_the_batch() -> None:
    """Sample by sample, place by place: what sensitivity analysis and refitting rely on when they sum up batches."""
    _, node, x, y = built("strides")
    one = [node.patches(x[i : i + 1], y[i : i + 1].shape, None) for i in range(len(x))]
    np.testing.assert_array_equal(np.concatenate(one), node.patches(x, y.shape, None))


def test_one_dimensional_vector() -> None:
    proto = model("(float[4] x) => (float y) { y = MatMul (x, w) }", {"w": (4, 5)})
    node = linear(proto.graph.node[0], (4, 5))
    assert node is not None
    x = np.arange(4, dtype=np.float32)
    y = np.asarray(Session(proto.SerializeToString()).run({"x": x})[0])
    assert node.positions(y) == 1
    np.testing.assert_allclose(product(proto, node, node.patches(x, y.shape, None)), node.rows(y, None), rtol=1e-5)


NONE: Mapping[str, tuple[str, Sequence[str], Sequence[int] | None, Mapping[str, Any]]] = {
    "Gemm alpha": ("Gemm", ["x", "w", "b"], (4, 5), {"alpha": 0.5}),
    "Gemm beta": ("Gemm", ["x", "w", "b"], (4, 5), {"beta": 2.0}),
    "Gemm transA": ("Gemm", ["x", "w"], (4, 5), {"transA": 1}),
    "MatMul of activations": ("MatMul", ["x", "z"], None, {}),
    "MatMul of a stack": ("MatMul", ["x", "w"], (3, 4, 5), {}),
    "MatMul of a vector": ("MatMul", ["x", "w"], (4,), {}),
    "Conv of activations": ("Conv", ["x", "z"], None, {}),
    "scalar weight": ("MatMul", ["x", "w"], (), {}),
    "transposed convolution of activations": ("ConvTranspose", ["x", "z"], None, {}),
    "Mul": ("Mul", ["x", "w"], (4, 5), {}),
    "Relu": ("Relu", ["x"], (4, 5), {}),
    "another domain": ("Conv", ["x", "w"], (5, 3, 3, 3), {"domain": "com.example"}),
}


@pytest.mark.parametrize("case", NONE)
def test_what_is_not_linear(case: str) -> None:
    op, inputs, shape, attributes = NONE[case]
    assert linear(helper.make_node(op, inputs, ["y"], **attributes), shape) is None


@pytest.mark.parametrize("domain", ["", "ai.onnx"])
@pytest.mark.parametrize("attributes", [{}, {"alpha": 1.0, "beta": 1.0, "transA": 0}])
def test_defaults_spelled_out(domain: str, attributes: Mapping[str, Any]) -> None:
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], domain=domain, **attributes)
    assert linear(node, (4, 5)) == Linear("Gemm", "x", "y", "w", "b", 1, 4, 5, 1)
