"""Every reverse rule of ours against finite differences, and that onnx-ad's own table is left as it was."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from differences import CURVED_RTOL, LINEAR_RTOL, check, graph, normal
from onnx import helper, parser
from onnx_ad.rules import REVERSE

from onnxfold.calibration.synthetic import loss as objective
from onnxfold.runtime.autodiff.adjoints import RULES
from onnxfold.runtime.autodiff.emitter import LOSS, Emitter
from onnxfold.runtime.autodiff.reverse import with_gradient
from onnxfold.runtime.session import Session


@pytest.mark.parametrize("group", [1, 2, 4], ids=["dense", "grouped", "depthwise"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(
    ("kernel", "pads", "dilation"),
    [((3, 3), (1, 1, 1, 1), 1), ((1, 1), (0, 0, 0, 0), 1), ((3, 2), (0, 1, 1, 0), 2), ((3, 3), (4, 3, 0, 5), 1)],
    ids=["same", "point", "dilated", "padded beyond the kernel"],
)
def test_conv(group: int, stride: int, kernel: tuple[int, int], pads: tuple[int, ...], dilation: int) -> None:
    at = {"x": normal(2, 4, 9, 10), "w": normal(8, 4 // group, *kernel), "b": normal(8)}
    body = (
        f"y = Conv <group: int = {group}, strides: ints = [{stride},{stride}],"
        f" pads: ints = [{','.join(map(str, pads))}], dilations: ints = [{dilation},{dilation}]> (x, w, b)"
    )
    check(graph(body, at), at, LINEAR_RTOL, 1.0)


def test_conv_of_constant_weights() -> None:
    at = {"x": normal(2, 4, 9, 10)}
    check(graph("y = Conv <group: int = 2> (x, w)", at, w=normal(8, 2, 3, 2)), at, LINEAR_RTOL, 1.0)


def test_conv_with_a_bias_that_stays() -> None:
    at = {"w": normal(8, 4, 3, 2)}
    body = "y = Conv <strides: ints = [4, 4]> (x, w, b)"  # the last row and columns of x meet no window
    check(graph(body, at, x=normal(2, 4, 9, 10), b=normal(8)), at, LINEAR_RTOL, 1.0)


@pytest.mark.parametrize("group", [1, 2, 4], ids=["dense", "grouped", "depthwise"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(
    ("kernel", "pads", "dilation", "more"),
    [
        ((3, 3), (1, 1, 1, 1), 1, 0),
        ((1, 1), (0, 0, 0, 0), 1, 0),
        ((3, 2), (0, 1, 1, 0), 2, 0),
        ((2, 3), (1, 0, 0, 2), 1, 1),
    ],
    ids=["same", "point", "dilated", "longer output"],
)
def test_conv_transpose(
    group: int, stride: int, kernel: tuple[int, int], pads: tuple[int, ...], dilation: int, more: int
) -> None:
    at = {"x": normal(2, 4, 5, 6), "w": normal(4, 8 // group, *kernel), "b": normal(8)}
    body = (
        f"y = ConvTranspose <group: int = {group}, strides: ints = [{stride},{stride}],"
        f" pads: ints = [{','.join(map(str, pads))}], dilations: ints = [{dilation},{dilation}],"
        f" output_padding: ints = [{min(more, stride - 1)},0]> (x, w, b)"
    )
    check(graph(body, at), at, LINEAR_RTOL, 1.0)


@pytest.mark.parametrize("auto", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_conv_that_pads_by_itself(auto: str, stride: int) -> None:
    at = {"x": normal(2, 4, 9, 10), "w": normal(8, 4, 3, 4)}
    body = f'y = Conv <auto_pad: string = "{auto}", strides: ints = [{stride},{stride}]> (x, w)'
    check(graph(body, at), at, LINEAR_RTOL, 1.0)


def test_conv_along_one_axis() -> None:
    at = {"x": normal(2, 3, 12), "w": normal(6, 3, 5)}
    check(graph("y = Conv <strides: ints = [2], pads: ints = [2,2]> (x, w)", at), at, LINEAR_RTOL, 1.0)


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
    at = {"x": normal(2, 3, 9, 10)}
    check(graph("y = Slice (x, s, e, a, t)", at, **bounds), at, LINEAR_RTOL, 1.0)


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
    check(graph(body, {"x": x}, **bounds), {"x": x}, CURVED_RTOL, 1e-2)


def test_moments() -> None:
    proto = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 18]> agraph (float[4,3,5,5] x) => (float[4,3,5,5] y) { y = Relu (x) }'
    )
    del proto.graph.output[:]
    emit = Emitter(proto.graph)
    layer = objective.ChannelStatistics("y", np.array([0.1, -0.2, 0.5]), np.array([1.0, 0.5, 2.0]))
    emit.output(emit.op("Identity", [objective.fit_loss(emit, [layer], {"y": (4, 3, 5, 5)})], LOSS), [1])
    proto = onnx.shape_inference.infer_shapes(proto)
    x = 0.3 + np.abs(np.random.default_rng(3).standard_normal((4, 3, 5, 5))).astype(np.float32)
    check(proto, {"x": x}, CURVED_RTOL, 1e-3)
    session = Session(with_gradient(proto, LOSS, ["x"]).SerializeToString())
    found = dict(zip(session.outputs, session.run({"x": x}), strict=True))
    np.testing.assert_allclose(found[objective.MEANS], x.mean((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(found[objective.SQUARES], np.square(x).mean((0, 2, 3)), rtol=1e-5)


def test_the_gradient_of_a_wrong_rule_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    at = {"x": normal(2, 3, 4, 5)}
    proto = graph("y = Relu (x)", at)
    monkeypatch.setitem(RULES, "Relu", lambda _ctx, _node, grads: list(grads))  # passes all of it
    with pytest.raises(AssertionError):
        check(proto, at, CURVED_RTOL, 1e-2)


def test_onnx_ads_table_is_put_back() -> None:
    before = dict(REVERSE)
    with_gradient(graph("y = Relu (x)", {"x": normal(2, 3)}), LOSS, ["x"])
    assert before == REVERSE
    unknown = graph("y = Relu (x)", {"x": normal(2, 3)})
    unknown.graph.node[0].CopyFrom(helper.make_node("MaxRoiPool", ["x"], ["y"]))
    with pytest.raises(Exception, match="MaxRoiPool"):
        with_gradient(unknown, LOSS, ["x"])
    assert before == REVERSE
