"""What is compared, in which units, and what may be concluded."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import pytest
from helpers import model
from numpy.typing import NDArray
from tiny import CASES, MODELS

import onnxfold
from onnxfold import NothingToFoldError, RequestError, fold
from onnxfold.evaluation.metrics import component_error, relative_l2
from onnxfold.evaluation.quality import wilson
from onnxfold.model.model import load
from onnxfold.runtime.outputs import ComparedTensors

RNG = np.random.default_rng(0)


def error(a: NDArray[Any], b: NDArray[Any]) -> float:
    return component_error([a], [b])


def test_a_constant_hides_nothing_and_pixels_hide_no_scores() -> None:
    scores = RNG.random((64, 5))
    other = RNG.random((64, 5))
    assert (
        error(scores + 100, other + 100) == pytest.approx(error(scores, other), rel=1e-3) and error(scores, other) > 1
    )
    boxes = RNG.random((64, 4)) * 640
    mixed, lost = (np.concatenate([boxes, one[:, :1]], 1) for one in (scores, other))
    assert np.linalg.norm(lost - mixed) / np.linalg.norm(mixed) < 0.01 < 0.5 < error(mixed, lost)


def test_the_unit_is_the_deviation_of_each_component() -> None:
    a = RNG.standard_normal((4096, 3)) * [1, 10, 100]
    b = a + RNG.standard_normal(a.shape) * [0.2, 2, 20]
    assert error(a, b) == pytest.approx(0.2, rel=0.05)
    assert error(a, np.broadcast_to(a.mean(0), a.shape)) == pytest.approx(1), "the mean is 100 % off"


@pytest.mark.parametrize("shape", [(8, 4, 6, 6), (8, 6, 6, 4), (8, 20, 4)])
def test_axes_of_maps_and_of_words(shape: tuple[int, ...]) -> None:
    """Whichever axis has the components, one that is lost among many shows."""
    a = RNG.standard_normal(shape) * 100
    axis = 1 if shape[1] == 4 else -1
    small = np.moveaxis(a, axis, 0)
    small[0] /= 1e2
    b = a.copy()
    np.moveaxis(b, axis, 0)[0] = RNG.standard_normal(small[0].shape)
    assert error(a, b) > 0.3 and np.linalg.norm(a - b) / np.linalg.norm(a) < 0.02


def test_components_that_do_not_move_count_by_their_size() -> None:
    a = np.concatenate([RNG.standard_normal((64, 3)), np.full((64, 1), 5.0)], 1)
    b = a + np.array([0, 0, 0, 0.001])
    unit = 1e-3 * np.median([*a[:, :3].std(axis=0), 0.0])  # of those that move
    assert error(a, b) == pytest.approx(0.5 * 0.001 / unit, rel=1e-6)
    still = np.full((64, 1), 5.0)
    assert error(still, still + 1e-5) == pytest.approx(1e-5 / (1e-5 * 5), rel=1e-6), "nothing moves"
    assert error(a, a) == 0 and math.isinf(error(a, a[:, :3])) and math.isinf(error(a, a * np.nan))


@pytest.mark.parametrize("constant", [0, 1e4])
@pytest.mark.parametrize("shape", [(64,), (10,), (3, 8, 8), (1, 1)])
def test_constants_hide_nothing_in_outputs_without_a_batch(shape: tuple[int, ...], constant: float) -> None:
    """Batches of one sample, of which the outputs have no axis; or scores of one value a sample."""
    rng = np.random.default_rng(1)  # of 16 values, deviations differ much by chance
    batches = [rng.standard_normal(shape) + constant for _ in range(16)]
    others = [x + 0.2 * rng.standard_normal(shape) for x in batches]
    assert 0.15 < component_error(batches, others, samples=[1] * 16) < 0.4


def test_a_first_axis_that_is_no_batch_may_hold_the_components() -> None:
    """[channels, rows, columns]: one channel of small numbers is lost."""
    batches = [RNG.standard_normal((4, 6, 6)) * np.array([1e-2, 1, 1, 1])[:, None, None] for _ in range(8)]
    others = [np.concatenate([1e-2 * RNG.standard_normal((1, 6, 6)), x[1:]]) for x in batches]
    assert component_error(batches, others, samples=[1] * 8) > 0.6 > 0.1 > component_error(batches, others)


def test_values_that_are_infinite_in_both_do_not_count() -> None:
    """-inf for what is masked; where only one has it, everything is lost."""
    a = RNG.standard_normal((64, 6))
    b = a + 0.1 * RNG.standard_normal(a.shape)
    masked = np.zeros(a.shape, bool)
    masked[::2, 1], masked[:, 5] = True, True
    first, second = (np.where(masked, -np.inf, x) for x in (a, b))
    assert error(first, second) == pytest.approx(0.1 * np.sqrt(5 / 6), rel=0.2), "a component that never is there is 0"
    assert math.isfinite(relative_l2(first, second)) and math.isinf(error(first, b)) and math.isinf(error(a, second))
    assert error(np.where(masked, np.nan, a), np.where(masked, np.nan, b)) == error(first, second)


def test_few_values_are_compared_as_a_whole() -> None:
    a = np.array([[3.0, 4.0]])
    assert error(a, np.array([[3.0, 5.0]])) == pytest.approx(1 / 5)


def test_wilson() -> None:
    low, high = wilson(1.0, 10)
    assert high == pytest.approx(1) and 0.7 < low < 0.75 and wilson(0.5, 0) == (0, 1)


def compared(text: str) -> tuple[set[str], set[str]]:
    body = f'<ir_version: 8, opset_import: ["": 17, "ai.onnx.ml": 3]> g {text}'
    proto = onnx.parser.parse_model(body)
    for name, shape in (("w", (3, 8)), ("v", (8, 4))):
        if name in {n for node in proto.graph.node for n in node.input}:
            proto.graph.initializer.append(
                onnx.numpy_helper.from_array(RNG.standard_normal(shape).astype(np.float32), name)
            )
    found = ComparedTensors.of(load(proto))
    return set(found.tensors), set(found.counted)


HEAD = "h = MatMul(x, w) r = Relu(h) s = MatMul(r, v)"


@pytest.mark.parametrize(
    ("outputs", "nodes", "tensors", "counted"),
    [
        ("float[N,4] y", "y = Softmax(s)", {"s"}, set()),
        ("int64[N,1] y", "y = ArgMax<axis = 1>(s)", {"s"}, set()),
        ("float[N,1] y", "a = ArgMax<axis = 1>(s) y = Cast<to = 1>(a)", {"s"}, set()),
        ("bool[N,4] y", "p = Sigmoid(s) y = Greater(p, s)", {"s"}, set()),
        ("float[N,2] t, int64[N,2] y", "k = Constant<value_ints = [2]>() t, y = TopK(s, k)", {"s"}, set()),
        ("int64[2,M] y", "y = NonZero(s)", {"s"}, {"y"}),
        ("uint8[N,4] y", "c = Constant<value_float = 0.1>() z = Constant<value = uint8 {3}>() "
         "y = QuantizeLinear(s, c, z)", {"s"}, set()),
        ("float[N,4] y, int64[N,1] i", "y = Identity(s) i = ArgMax<axis = 1>(s)", {"s"}, set()),
        ("int64[2] y", "y = Shape(s)", set(), set()),
    ],
)  # fmt: skip
def test_what_is_chosen_by_value_is_compared_where_it_is_made(
    outputs: str, nodes: str, tensors: set[str], counted: set[str]
) -> None:
    assert compared(f"(float[N,3] x) => ({outputs}) {{ {HEAD} {nodes} }}") == (tensors, counted)


@pytest.mark.parametrize(
    ("output", "last", "tensors"),
    [
        ("uint8[N,4] y", "y = Identity(q)", {"q"}),
        ("uint8[N,2,2] y", "d = Constant<value_ints = [0,2,2]>() y = Reshape(q, d)", {"y"}),
        ("int64[N,1] y", "y = ArgMax<axis = 1>(q)", {"q"}),
        ("float[N,4] y", "y = DequantizeLinear(q, c, z)", {"y"}),
    ],
)
def test_integers_that_quantized_layers_compute_are_quantities(output: str, last: str, tensors: set[str]) -> None:
    """They are compared as numbers, and what is chosen by them where it is chosen."""
    constants = "c = Constant<value_float = 0.1>() z = Constant<value = uint8 {3}>() "
    weight = f"b = Constant<value = uint8[8,4] {{{','.join(['7'] * 32)}}}>() "
    layer = "h = MatMul(x, w) a = QuantizeLinear(h, c, z) q = QLinearMatMul(a, c, z, b, c, z, c, z) "
    assert compared(f"(float[N,3] x) => ({output}) {{ {constants}{weight}{layer}{last} }}") == (tensors, set())


def test_what_was_chosen_before_a_layer_is_no_output() -> None:
    """A mask by comparison in front of a product: the product is compared."""
    nodes = "z = Constant<value_float = 0.0>() g = Greater(h, z) c = Where(g, h, z) y = MatMul(c, v)"
    assert compared(f"(float[N,3] x) => (float[N,4] y) {{ h = MatMul(x, w) {nodes} }}") == ({"y"}, set())


def test_a_limit_where_nothing_can_be_compared_is_refused() -> None:
    text = f"(float[N,3] x) => (int64[2] y) {{ {HEAD} y = Shape(s) }}"
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> g {text}')
    for name, shape in (("w", (3, 8)), ("v", (8, 4))):
        proto.graph.initializer.append(
            onnx.numpy_helper.from_array(RNG.standard_normal(shape).astype(np.float32), name)
        )
    with pytest.raises(RequestError, match="none of the outputs can be compared"):
        fold(proto, max_error=0.1, effort="fast", latency=False)


@pytest.mark.skipif(not CASES.is_dir(), reason="../shared/cases is not there")
def test_argmax_takes_a_limit() -> None:
    how: dict[str, Any] = {"effort": "fast", "latency": False, "input_shapes": {"x": (16, 3, 64, 64)}}
    with pytest.raises(NothingToFoldError, match="removing even 8 of the 32 channels of 'n3_Conv' costs an output"):
        fold(CASES / "argmax_budget.onnx", max_error=0.05, **how)
    report = fold(CASES / "argmax_budget.onnx", max_error=0.6, **how).report
    assert report.check is not None and report.check.quality is not None and report.check.worst is not None
    assert report.check.mark == "kept" and 0.3 < report.check.quality.error <= 0.6
    assert report.check.worst.changed is not None and 0 < report.check.worst.changed < 0.5


@pytest.mark.skipif(not CASES.is_dir(), reason="../shared/cases is not there")
def test_the_number_of_detections_may_differ(tmp_path: Any) -> None:
    out = tmp_path / "out.onnx"
    report = fold(CASES / "nms_count.onnx", out, ratio=0.1, round_to=1, effort="fast", latency=False).report
    assert out.exists() and report.check is not None and report.check.quality is not None
    assert any("'dets' has shape" in note and "depends on values" in note for note in report.check.notes)
    assert len(report.check.quality.outputs) == 2, "boxes and scores before the suppression"
    assert report.verdict.startswith("output error"), "over 10 %: said first"
    assert onnxfold.compare(CASES / "nms_count.onnx", out, latency=False).check is not None


def test_what_a_body_chooses_is_not_vouched_for_by_its_condition() -> None:
    """The condition comes of the input alone, and says nothing of the layers that the body reads."""
    nodes = """big = Constant<value_float = 1e9>() m = ReduceMax<keepdims = 0>(x) c = Less(m, big)
        y = If (c) <then_branch = t () => (int64[N,1] p) { p = ArgMax<axis = 1>(s) },
                    else_branch = e () => (int64[N,1] q) { q = ArgMin<axis = 1>(s) }>"""
    assert compared(f"(float[N,3] x) => (int64[N,1] y) {{ {HEAD} {nodes} }}") == (set(), set())


def test_empty_outputs_and_dead_components() -> None:
    empty = np.zeros((4, 0))
    assert error(empty, empty) == 0
    a = RNG.standard_normal((64, 4))
    dead = np.zeros((64, 100))
    b = a + 0.5 * RNG.standard_normal(a.shape)
    assert error(np.concatenate([a, dead], 1), np.concatenate([b, dead], 1)) == pytest.approx(error(a, b), rel=0.01)


def test_samples_that_are_fitted_on_and_judge_too_get_no_tick() -> None:
    one = {"image": RNG.standard_normal((1, 64)).astype(np.float32)}
    report = fold(MODELS / "digits_mlp.onnx", ratio=0.1, round_to=1, calibration=one, latency=False).report
    assert report.check is not None and report.check.mark == "unsure"
    assert "on 1 sample of the arrays given, which say little" in report.verdict


@pytest.mark.parametrize(("batch", "count", "said"), [("1", 1, "1 sample given in"), ("N", 5, "5 samples given")])
def test_inputs_of_other_lengths_are_no_samples(batch: str, count: int, said: str) -> None:
    """A table of nine rows beside x."""
    nodes = "h = MatMul(x, w) u = Transpose(t) y = MatMul(h, u)"
    text = f"(float[{batch},6] x, float[9,4] t) => (float[{batch},9] y) {{ {nodes} }}"
    given = {"x": np.ones((count, 6), np.float32), "t": np.eye(9, 4, dtype=np.float32)}
    proto = model(text, {"w": (6, 4)})
    report = onnxfold.compare(proto, proto, inputs=given, latency=False)
    assert report.check is not None and report.check.quality is not None
    assert report.check.quality.samples == report.check.providers[0].samples == count
    assert f" on {said}" in report.verdict
