"""Every reverse rule of ours against finite differences, and that onnx-ad's own table is left as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper, parser
from onnx_ad.rules import REVERSE

from onnxfold.gradient.adjoints import RULES
from onnxfold.gradient.emitter import LOSS, Emitter
from onnxfold.gradient.reverse import PREFIX, with_gradient
from onnxfold.session import Session
from onnxfold.synthetic import objective

LINEAR_RTOL = 2e-4  # float32 sums of some hundred terms; a linear function has exact differences
CURVED_RTOL = 5e-3  # central differences of step 1e-2 in float32


def graph(body: str, shape: list[int], **weights: NDArray[Any]) -> ModelProto:
    """x of `shape` through `body` (which makes y), then LOSS = sum(y * random), opset 18, shapes inferred."""
    dims = ",".join(map(str, shape))
    text = f'<ir_version: 8, opset_import: ["" : 18]> agraph (float[{dims}] x) => (float[N] y) {{ {body} }}'
    proto = parser.parse_model(text)
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), n) for n, a in weights.items())
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    found = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph.output[0].type.tensor_type.shape
    out = [d.dim_value for d in found.dim]
    emit = Emitter(proto.graph)
    weight = emit.constant(np.random.default_rng(5).standard_normal(out))
    axes = emit.constant(list(range(len(out))), np.int64)
    total = emit.op("ReduceSum", [emit.op("Mul", ["y", weight]), axes], keepdims=0)
    del proto.graph.output[:]
    emit.output(emit.op("Reshape", [total, emit.constant([1], np.int64)], LOSS), [1])
    return onnx.shape_inference.infer_shapes(proto, data_prop=True)


def check(proto: ModelProto, shape: list[int], rtol: float, step: float, x: NDArray[Any] | None = None) -> None:
    """The gradient along four random directions against central differences."""
    rng = np.random.default_rng(0)
    session = Session(with_gradient(proto, LOSS, ["x"]).SerializeToString())
    x = rng.standard_normal(shape).astype(np.float32) if x is None else x

    def run(at: NDArray[Any]) -> dict[str, Any]:
        return dict(zip(session.outputs, session.run({"x": at.astype(np.float32)}), strict=True))

    gradient = run(x)[PREFIX + "x"].reshape(shape).astype(np.float64)
    assert np.abs(gradient).max() > 0
    for _ in range(4):
        way = rng.standard_normal(shape)
        ahead, behind = (float(run(x + s * step * way)[LOSS][0]) for s in (1, -1))
        scale = np.linalg.norm(gradient) * np.linalg.norm(way)
        assert abs((ahead - behind) / (2 * step) - np.sum(gradient * way)) <= rtol * scale


@pytest.mark.parametrize("group", [1, 2, 4], ids=["dense", "grouped", "depthwise"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(
    ("kernel", "pads", "dilation"),
    [((3, 3), (1, 1, 1, 1), 1), ((1, 1), (0, 0, 0, 0), 1), ((3, 2), (0, 1, 1, 0), 2), ((3, 3), (4, 3, 0, 5), 1)],
    ids=["same", "point", "dilated", "padded beyond the kernel"],
)
def test_conv(group: int, stride: int, kernel: tuple[int, int], pads: tuple[int, ...], dilation: int) -> None:
    weight = np.random.default_rng(1).standard_normal((8, 4 // group, *kernel)).astype(np.float32)
    body = (
        f"y = Conv <group: int = {group}, strides: ints = [{stride},{stride}],"
        f" pads: ints = [{','.join(map(str, pads))}], dilations: ints = [{dilation},{dilation}]> (x, w)"
    )
    check(graph(body, [2, 4, 9, 10], w=weight), [2, 4, 9, 10], LINEAR_RTOL, 1.0)


@pytest.mark.parametrize("auto", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_conv_that_pads_by_itself(auto: str, stride: int) -> None:
    weight = np.random.default_rng(1).standard_normal((8, 4, 3, 4)).astype(np.float32)
    body = f'y = Conv <auto_pad: string = "{auto}", strides: ints = [{stride},{stride}]> (x, w)'
    check(graph(body, [2, 4, 9, 10], w=weight), [2, 4, 9, 10], LINEAR_RTOL, 1.0)


def test_conv_along_one_axis() -> None:
    weight = np.random.default_rng(1).standard_normal((6, 3, 5)).astype(np.float32)
    check(
        graph("y = Conv <strides: ints = [2], pads: ints = [2,2]> (x, w)", [2, 3, 12], w=weight),
        [2, 3, 12],
        LINEAR_RTOL,
        1.0,
    )


@pytest.mark.parametrize(
    ("starts", "ends", "axes", "steps"),
    [
        ([0, 0], [99, 99], [2, 3], [2, 2]),
        ([1, 2], [8, -1], [-2, 3], [3, 2]),
        ([-7], [99], [2], [4]),
        ([1, 0], [2, 7], [0, 2], [1, 5]),
    ],
)
def test_strided_slice(starts: list[int], ends: list[int], axes: list[int], steps: list[int]) -> None:
    bounds = {n: np.array(v) for n, v in {"s": starts, "e": ends, "a": axes, "t": steps}.items()}
    check(graph("y = Slice (x, s, e, a, t)", [2, 3, 9, 10], **bounds), [2, 3, 9, 10], LINEAR_RTOL, 1.0)


@pytest.mark.parametrize(
    ("body", "kinks"),
    [
        ("y = Relu (x)", (0.0,)),
        ("y = Clip (x, lo, hi)", (-0.5, 0.5)),
        ("y = Clip (x, lo)", (-0.5,)),
        ("y = Clip (x, , hi)", (0.5,)),
    ],
)
def test_kinked(body: str, kinks: tuple[float, ...]) -> None:
    x = np.random.default_rng(3).standard_normal((2, 3, 4, 5)).astype(np.float32)
    for kink in kinks:  # nobody steps over a kink
        x[np.abs(x - kink) < 0.1] += 0.3
    bounds = {"lo": np.float32(-0.5), "hi": np.float32(0.5)}
    check(graph(body, [2, 3, 4, 5], **bounds), [2, 3, 4, 5], CURVED_RTOL, 1e-2, x)


def test_moments() -> None:
    proto = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 18]> agraph (float[4,3,5,5] x) => (float[4,3,5,5] y) { y = Relu (x) }'
    )
    del proto.graph.output[:]
    emit = Emitter(proto.graph)
    layer = objective.Layer("y", np.array([0.1, -0.2, 0.5]), np.array([1.0, 0.5, 2.0]))
    emit.output(emit.op("Identity", [objective.fit_loss(emit, [layer], {"y": (4, 3, 5, 5)})], LOSS), [1])
    proto = onnx.shape_inference.infer_shapes(proto)
    x = 0.3 + np.abs(np.random.default_rng(3).standard_normal((4, 3, 5, 5))).astype(np.float32)
    check(proto, [4, 3, 5, 5], CURVED_RTOL, 1e-3, x)
    session = Session(with_gradient(proto, LOSS, ["x"]).SerializeToString())
    found = dict(zip(session.outputs, session.run({"x": x}), strict=True))
    np.testing.assert_allclose(found[objective.MEANS], x.mean((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(found[objective.SQUARES], np.square(x).mean((0, 2, 3)), rtol=1e-5)


def test_the_gradient_of_a_wrong_rule_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    proto = graph("y = Relu (x)", [2, 3, 4, 5])
    monkeypatch.setitem(RULES, "Relu", lambda _ctx, _node, grads: list(grads))  # passes all of it
    with pytest.raises(AssertionError):
        check(proto, [2, 3, 4, 5], CURVED_RTOL, 1e-2)


def test_onnx_ads_table_is_put_back() -> None:
    before = dict(REVERSE)
    with_gradient(graph("y = Relu (x)", [2, 3]), LOSS, ["x"])
    assert before == REVERSE
    unknown = graph("y = Relu (x)", [2, 3])
    unknown.graph.node[0].CopyFrom(helper.make_node("MaxRoiPool", ["x"], ["y"]))
    with pytest.raises(Exception, match="MaxRoiPool"):
        with_gradient(unknown, LOSS, ["x"])
    assert before == REVERSE
