"""Every reverse rule of ours against finite differences, and that onnx-ad's own table is left as it was."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from differences import CURVED_RTOL, LINEAR_RTOL, Array, check, graph, normal
from onnx import helper, numpy_helper, parser
from onnx_ad.rules import REVERSE

from onnxfold.calibration.synthetic import bn_prior
from onnxfold.calibration.synthetic import loss as objective
from onnxfold.runtime.autodiff.adjoints import RULES
from onnxfold.runtime.autodiff.emitter import LOSS, Emitter
from onnxfold.runtime.autodiff.prepare import shapes_of
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


CONSTANT = ["constant weight", "weight too"]  # constant weights may take another way


@pytest.mark.parametrize("constant", [True, False], ids=CONSTANT)
@pytest.mark.parametrize("group", [1, 4], ids=["dense", "depthwise"])
@pytest.mark.parametrize(
    ("strides", "dilations", "pads", "kernel"),
    [
        ((1, 1), (1, 1), (1, 2, 0, 1), (3, 4)),
        ((2, 2), (1, 1), (0, 0, 1, 1), (3, 3)),  # the pads of TensorFlow
        ((2, 3), (1, 1), (1, 0, 2, 1), (3, 5)),
        ((3, 1), (1, 2), (2, 1, 0, 3), (2, 3)),
        ((2, 2), (2, 3), (0, 4, 3, 2), (3, 2)),
        ((4, 5), (1, 1), (0, 0, 0, 0), (2, 3)),  # gaps between windows, and a rest behind the last
        ((2, 1), (1, 1), (3, 0, 3, 0), (2, 1)),  # pads beyond the kernel
    ],
)
def test_conv_of_any_geometry(
    constant: bool, group: int, strides: tuple[int, int], dilations: tuple[int, int], pads: tuple[int, ...],
    kernel: tuple[int, int],
) -> None:  # fmt: skip
    x, w = normal(2, 4, 11, 13), normal(4, 4 // group, *kernel)
    at = {"x": x} if constant else {"x": x, "w": w}
    body = (
        f"y = Conv <group: int = {group}, strides: ints = [{strides[0]},{strides[1]}],"
        f" pads: ints = [{','.join(map(str, pads))}], dilations: ints = [{dilations[0]},{dilations[1]}]> (x, w)"
    )
    check(graph(body, at, **({"w": w} if constant else {})), at, LINEAR_RTOL, 1.0)


@pytest.mark.parametrize("constant", [True, False], ids=CONSTANT)
@pytest.mark.parametrize("group", [1, 2, 4], ids=["dense", "grouped", "depthwise"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("space", [(12,), (5, 6, 7)], ids=["1-D", "3-D"])
def test_conv_of_other_ranks(constant: bool, group: int, stride: int, space: tuple[int, ...]) -> None:
    rank = len(space)
    x, w = normal(2, 4, *space), normal(4, 4 // group, *(3, 2, 4)[:rank])
    at = {"x": x} if constant else {"x": x, "w": w}
    pads = [1, 0, 2][:rank] + [0, 1, 1][:rank]
    body = f"y = Conv <group: int = {group}, strides: ints = {[stride] * rank}, pads: ints = {pads}> (x, w)"
    check(graph(body, at, **({"w": w} if constant else {})), at, LINEAR_RTOL, 1.0)


@pytest.mark.parametrize("places", [2, 9], ids=["few places", "many places"])
@pytest.mark.parametrize("kernel", [1, 3])
def test_weights_of_few_and_many_places(places: int, kernel: int) -> None:
    """Of few places, one product has all images in it; of many, every image has its own."""
    at = {"x": normal(3, 8, places, places), "w": normal(12, 4, kernel, kernel)}
    body = f"y = Conv <group: int = 2, pads: ints = {[kernel // 2] * 4}> (x, w)"
    check(graph(body, at), at, LINEAR_RTOL, 1.0)


PAD, BOTH = "h = Pad (x, p, v)", [0, 0, 0, 1, 0, 0, 1, 2]


@pytest.mark.parametrize(
    ("body", "pads", "value", "kept"),
    [
        (PAD + " y = Conv <strides: ints = [2, 2], pads: ints = [1, 0, 0, 2]> (h, w)", BOTH, 0, False),
        (PAD + " y = Conv (h, w)", BOTH, 1, True),
        (PAD + " y = Conv (h, w)", [1, 0, 0, 1, 0, 0, 1, 2], 0, True),
        (PAD + ' y = Conv <auto_pad: string = "SAME_UPPER"> (h, w)', BOTH, 0, True),
        (PAD + " c = Conv (h, w) m = ReduceMean (h) y = Add (c, m)", BOTH, 0, True),
    ],
    ids=["zeros", "ones", "along the batch", "auto_pad", "used elsewhere"],
)
def test_pads_before_a_conv(body: str, pads: list[int], value: float, kept: bool) -> None:
    at = {"x": normal(2, 4, 9, 10), "w": normal(8, 4, 3, 2)}
    proto = graph(body, at, p=np.array(pads), v=np.float32(value))
    next(t for t in proto.graph.initializer if t.name == "p").name = "q"
    proto.graph.node.insert(0, helper.make_node("Identity", ["q"], ["p"]))  # exporters compute their pads
    check(proto, at, LINEAR_RTOL, 1.0)
    forward = [n.op_type for n in with_gradient(proto, LOSS, ["w"]).graph.node]
    assert ("Pad" in forward[: forward.index("Conv")]) == kept
    assert [n.op_type for n in proto.graph.node if n.op_type == "Pad"] == ["Pad"]  # the given model stays


def test_sums_and_products_have_no_axis_of_seeds() -> None:
    at = {"x": normal(2, 4, 9, 10), "w": normal(4, 4, 3, 3), "b": normal(4)}
    body = "h = Conv <pads: ints = [1, 1, 1, 1]> (x, w, b) r = Relu (h) s = Sum (r, x, r) y = Mul (s, s)"
    proto = with_gradient(graph(body, at), LOSS, list(at))
    known = shapes_of(onnx.shape_inference.infer_shapes(proto).graph)
    found = [node for node in proto.graph.node if node.op_type in ("Add", "Mul", "Sum")]
    assert len(found) > 5
    assert all(len(known[node.output[0]]) <= 4 for node in found)
    check(graph(body, at), at, CURVED_RTOL, 1e-2)


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


def two_layers() -> tuple[onnx.ModelProto, dict[str, tuple[int, ...]]]:
    """x [4, 3, 5, 5], tensor a of 3 channels, tensor b of 2."""
    text = "agraph (float[4,3,5,5] x) => (float[4,2,5,5] b) { a = Mul (x, x) b = Conv (a, w) }"
    proto = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 18]> {text}')
    proto.graph.initializer.append(numpy_helper.from_array(normal(2, 3, 1, 1), "w"))
    del proto.graph.output[:]
    return proto, {"a": (4, 3, 5, 5), "b": (4, 2, 5, 5)}


def by_channel(x: Array) -> dict[str, Array]:
    """What the tensors of `two_layers` hold, [C, places]."""
    a = np.square(x.astype(np.float64))
    b = np.einsum("mc,nchw->nmhw", normal(2, 3, 1, 1)[:, :, 0, 0].astype(np.float64), a)
    return {name: t.transpose(1, 0, 2, 3).reshape(t.shape[1], -1) for name, t in (("a", a), ("b", b))}


def test_statistics_of_layers_of_two_widths() -> None:
    proto, shapes = two_layers()
    emit = Emitter(proto.graph)
    dead = objective.ChannelStatistics("a", np.array([0.1, 0.2, 0.5]), np.array([1.0, 0.0, 2.0]))
    layers = [dead, objective.ChannelStatistics("b", np.array([0.3, -0.4]), np.array([0.7, 1.5]))]
    emit.output(emit.op("Identity", [objective.fit_loss(emit, layers, shapes)], LOSS), [1])
    proto = onnx.shape_inference.infer_shapes(proto)
    x = normal(4, 3, 5, 5)
    check(proto, {"x": x}, CURVED_RTOL, 1e-3)
    held, expected = by_channel(x), []
    for layer in layers:
        t, alive = held[layer.tensor], layer.variance > 0
        ratio = t.var(1)[alive] / layer.variance[alive]
        off = np.square(t.mean(1) - layer.mean)[alive] / layer.variance[alive]
        expected.append(np.sum(off + np.square(np.log(ratio))) / len(alive))
    session = Session(with_gradient(proto, LOSS, ["x"]).SerializeToString())
    found = dict(zip(session.outputs, session.run({"x": x}), strict=True))
    assert found[LOSS][0] == pytest.approx(np.mean(expected), rel=1e-5)
    np.testing.assert_allclose(found[objective.MEANS], np.concatenate([t.mean(1) for t in held.values()]), rtol=1e-5)


def test_priors_of_layers_of_two_widths() -> None:
    proto, shapes = two_layers()
    emit = Emitter(proto.graph)
    alive = np.array([True, False, True])
    priors = [
        bn_prior.Prior("a", np.array([0.2, 0.0, -0.3]), np.array([0.5, 1.0, -1.0]), alive, 0.8),
        bn_prior.Prior("b", np.array([0.1, 0.4]), np.array([0.2, -0.6]), np.array([True, True]), 1.3),
    ]
    emit.output(emit.op("Identity", [objective.prior_loss(emit, priors, shapes)], LOSS), [1])
    proto = onnx.shape_inference.infer_shapes(proto)
    x = normal(4, 3, 5, 5)
    check(proto, {"x": x}, CURVED_RTOL, 1e-3)
    expected = []
    for p in priors:
        t, share = by_channel(x)[p.tensor], p.alive / p.alive.sum()
        deviation = t.std(1)
        position = (t.mean(1) - bn_prior.SLOPE * p.bias) / deviation - bn_prior.SHIFT
        uneven = np.log(deviation) - p.log_norm
        uneven = uneven - np.sum(share * uneven)
        off = np.sum(share * np.log(deviation)) - np.log(p.level)
        terms = bn_prior.POSITION * np.log1p(position**2) + bn_prior.EVENNESS * np.log1p(uneven**2)
        expected.append(np.sum(share * terms) + bn_prior.LEVEL * np.log1p(off**2))
    session = Session(with_gradient(proto, LOSS, ["x"]).SerializeToString())
    found = dict(zip(session.outputs, session.run({"x": x}), strict=True))
    assert found[LOSS][0] == pytest.approx(np.mean(expected), rel=1e-5)


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
