"""The sensitivity analysis: orders and errors of all groups from one pass, true to what refitting then finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from helpers import model
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper
from tiny import MODELS

from onnxfold.analysis.analyze import analyze
from onnxfold.folding.merge import pruning
from onnxfold.folding.second_order import Elimination
from onnxfold.model.model import load
from onnxfold.planning.sensitivity import measure_sensitivity
from onnxfold.recovery.reconstruct import Changes, ReconstructionSettings, reconstruct
from onnxfold.runtime.shared_prefix import SharedPrefix
from onnxfold.transform.edits import edits
from onnxfold.transform.emit import emit

TRUE_RTOL = 1e-3  # two ways through float32 sums. Measured over 1e-4

CONV = "(float[N,3,6,6] x) => (float y) { h = Conv (x, w, b) r = Relu (h) y = Conv (r, v, c) }"
CONV_WEIGHTS = {"w": (8, 3, 3, 3), "b": (8,), "v": (5, 8, 3, 3), "c": (5,)}


def feeds(shape: Sequence[int], batches: int = 4) -> list[dict[str, NDArray[np.float32]]]:
    rng = np.random.default_rng(0)
    return [{"x": rng.standard_normal(shape).astype(np.float32)} for _ in range(batches)]


def measured(proto: ModelProto, shape: Sequence[int], ridge: float = 1e-6) -> Mapping[str, Elimination]:
    loaded = load(proto)
    analysis = analyze(loaded)
    return measure_sensitivity(
        loaded, analysis, [g.name for g in analysis.groups], feeds(shape), ridge=ridge
    ).eliminations


def refitted_error(proto: ModelProto, name: str, gone: Sequence[int], shape: Sequence[int]) -> float:
    """The error of the one consumer when these channels of a group go and it is refitted."""
    loaded = load(proto)
    analysis = analyze(loaded)
    size = next(g.size for g in analysis.groups if g.name == name)
    merges = {name: pruning(np.setdiff1d(np.arange(size), gone), size)}
    folded = emit(loaded, edits(loaded, analysis, merges))
    (one,) = reconstruct(
        SharedPrefix(loaded, feeds(shape)), analysis, Changes(merges), folded, ReconstructionSettings(ridge=1e-6)
    )
    return one.after


ONE_READER = {
    "Conv": (CONV, CONV_WEIGHTS, (8, 3, 6, 6)),
    "ConvTranspose": (
        """(float[N,3,6,6] x) => (float y) {
            h = Conv (x, w, b) r = Relu (h) y = ConvTranspose <strides=[2,2], pads=[1,1,0,0]> (r, v, c) }""",
        {"w": (8, 3, 3, 3), "b": (8,), "v": (8, 5, 3, 3), "c": (5,)}, (8, 3, 6, 6),
    ),
    "Gemm": (
        "(float[N,6] x) => (float y) { h = Gemm (x, w, b) r = Relu (h) y = Gemm <transB=1> (r, v, c) }",
        {"w": (6, 8), "b": (8,), "v": (5, 8), "c": (5,)}, (40, 6),
    ),
    "Gemm behind a Flatten": (
        "(float[N,3,6,6] x) => (float y) { h = Conv (x, w, b) r = Relu (h) f = Flatten (r) y = Gemm (f, v, c) }",
        {"w": (8, 3, 6, 5), "b": (8,), "v": (16, 5), "c": (5,)}, (40, 3, 6, 6),
    ),
    "MatMul": (
        "(float[N,4,6] x) => (float y) { h = MatMul (x, w) r = Relu (h) g = MatMul (r, v) y = Add (g, c) }",
        {"w": (6, 8), "v": (8, 5), "c": (5,)}, (20, 4, 6),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ONE_READER)
def test_expected_errors_are_those_after_refitting(case: str) -> None:
    text, weights, shape = ONE_READER[case]
    proto = model(text, weights)
    ((name, found),) = measured(proto, shape).items()
    assert len(found.order) == 7
    for gone in (1, 4, 6):
        after = refitted_error(proto, name, [int(c) for c in found.order[:gone]], shape)
        assert after == pytest.approx(found.errors[gone], rel=TRUE_RTOL)
        assert after > 1e-4


def test_a_duplicate_goes_first() -> None:
    proto = model(CONV, CONV_WEIGHTS)
    for tensor in proto.graph.initializer[:2]:
        value = numpy_helper.to_array(tensor).copy()
        value[6] = value[2]
        tensor.raw_data = value.tobytes()
    (found,) = measured(proto, (8, 3, 6, 6)).values()
    assert found.order[0] in (2, 6)
    assert found.errors[1] < 1e-4 < found.errors[2]


def test_a_normalization_weighs_the_outputs() -> None:
    """Outputs that the normalization behind takes away have no say in which channels go."""
    text = """(float[N,3,6,6] x) => (float y) {
        h = Conv (x, w) r = Relu (h) g = Conv (r, v)
        n = BatchNormalization (g, scale2, bias2, mean2, var2) y = Relu (n) }"""
    norm = {f"{n}2": (5,) for n in ("scale", "bias", "mean", "var")}
    proto = model(text, {"w": (8, 3, 3, 3), "v": (5, 8, 3, 3), **norm})
    tensors = {t.name: t for t in proto.graph.initializer}
    gamma = np.array([1, 0, 0, 0, 0], np.float32)
    tensors["scale2"].raw_data = gamma.tobytes()
    weights = numpy_helper.to_array(tensors["v"]).copy()
    weights[0, 5] = 0  # the only output that counts does not read channel 5
    tensors["v"].raw_data = weights.tobytes()
    (found,) = measured(proto, (16, 3, 6, 6)).values()
    assert found.order[0] == 5 or found.errors[1] < found.errors[-1] * 1e-3
    tensors["scale2"].raw_data = np.ones(5, np.float32).tobytes()
    (other,) = measured(proto, (16, 3, 6, 6)).values()
    assert list(other.order) != list(found.order)


def test_a_join_is_what_errors_are_relative_to() -> None:
    """A branch that adds little to a large stream may err more."""
    text = """(float[N,4,6,6] x) => (float y) {
        k = Mul (x, factor) h = Conv (x, w, b) r = Relu (h) g = Conv (r, v, c) y = Add (g, k) }"""
    weights = {"w": (8, 4, 1, 1), "b": (8,), "v": (4, 8, 1, 1), "c": (4,)}
    small, large = (
        next(iter(measured(model(text, weights, values={"factor": f}), (8, 4, 6, 6)).values())) for f in (0.0, 30.0)
    )
    np.testing.assert_array_equal(small.order, large.order)
    assert large.errors[-1] < small.errors[-1] / 100


def test_all_consumers_count() -> None:
    text = """(float[N,3,6,6] x) => (float y) {
        h = Conv (x, w, b) r = Relu (h) g = Conv (r, v) i = Conv <strides=[2,2]> (r, u) p = GlobalAveragePool (g)
        q = GlobalAveragePool (i) y = Add (p, q) }"""
    proto = model(text, {"w": (8, 3, 3, 3), "b": (8,), "v": (5, 8, 1, 1), "u": (5, 8, 3, 3)})
    (both,) = measured(proto, (100, 3, 6, 6)).values()
    (one,) = measured(model(CONV.replace("(r, v, c)", "(r, v)"), {"w": (8, 3, 3, 3), "b": (8,), "v": (5, 8, 1, 1)}),
                      (100, 3, 6, 6)).values()  # fmt: skip
    assert both.errors[4] > one.errors[4] * 1.2


def test_cells_shrink_alike() -> None:
    text = """(float[N,3,6,6] x) => (float y) {
        h = Conv (x, w, b) g = Conv <group=2> (h, u, d) r = Relu (g) y = Conv (r, v, c) }"""
    proto = model(text, {"w": (8, 3, 3, 3), "b": (8,), "u": (12, 4, 3, 3), "d": (12,), "v": (5, 12, 1, 1), "c": (5,)})
    loaded = load(proto)
    found = measured(proto, (8, 3, 6, 6))
    groups = {g.name: g for g in analyze(loaded).groups}
    with_cells = [g for g in groups.values() if g.blocks > 1 and g.name in found]
    assert [g.size for g in with_cells] == [8, 12]
    for group in with_cells:
        rounds = group.cells[found[group.name].order].reshape(-1, group.blocks)
        np.testing.assert_array_equal(np.sort(rounds, axis=1), np.tile(np.arange(group.blocks), (len(rounds), 1)))


def test_groups_whose_consumers_are_not_linear_are_left_out() -> None:
    text = """(float[N,3,6,6] x) => (float y) {
        h = Conv (x, w, b) g = Conv (h, u, d) p = GlobalAveragePool (g) f = Flatten (p)
        y = Gemm <alpha=0.5> (f, v, c) }"""
    proto = model(text, {"w": (8, 3, 3, 3), "b": (8,), "u": (12, 8, 3, 3), "d": (12,), "v": (12, 5), "c": (5,)})
    loaded = load(proto)
    analysis = analyze(loaded)
    assert [g.size for g in analysis.groups] == [8, 12]
    assert set(measured(proto, (8, 3, 6, 6))) == {analysis.groups[0].name}
    assert measure_sensitivity(loaded, analysis, [], feeds((8, 3, 6, 6))).eliminations == {}


@pytest.mark.parametrize("groups", [2, 4])
def test_grouped_consumers_cost_what_refitting_them_leaves(groups: int) -> None:
    text = f"(float[N,3,6,6] x) => (float y) {{ h = Conv (x, w, b) r = Relu (h) y = Conv <group={groups}> (r, v, c) }}"
    proto = model(text, {"w": (16, 3, 3, 3), "b": (16,), "v": (8, 16 // groups, 3, 3), "c": (8,)})
    shape = (32, 3, 6, 6)
    ((name, found),) = measured(proto, shape).items()
    assert len(found.order) == 16 - groups
    for gone in range(groups, len(found.order) + 1, groups):
        after = refitted_error(proto, name, [int(c) for c in found.order[:gone]], shape)
        assert after == pytest.approx(found.errors[gone], rel=TRUE_RTOL)
        assert after > 1e-3


def test_the_parts_of_a_grouped_consumer_are_consumers_of_their_own_channels() -> None:
    text = "(float[N,3,6,6] x) => (float y) { h = Conv (x, w, b) r = Relu (h) y = Conv <group=2> (r, v) }"
    loaded = load(model(text, {"w": (8, 3, 3, 3), "b": (8,), "v": (6, 4, 3, 3)}))
    analysis = analyze(loaded)
    (group,) = analysis.groups
    found = measure_sensitivity(loaded, analysis, [group.name], feeds((16, 3, 6, 6)), remember=True)
    functions = found.functions[group.name]
    assert [list(part.read) for part in functions.consumers] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert (functions.gram[:4, 4:] == 0).all() and (functions.worth > 0).all()


def test_a_group_whose_samples_break_is_left_out_by_name() -> None:
    """The square root of what is negative: one consumer sees NaN, the other does not."""
    text = """(float[N,3,6,6] x) => (float y, float z) {
        h = Conv (x, w, b) s = Sqrt (h) y = Conv (s, v, c) i = Conv (x, u) r = Relu (i) z = Conv (r, t, c) }"""
    proto = model(
        text,
        {"w": (8, 3, 3, 3), "b": (8,), "v": (5, 8, 3, 3), "c": (5,), "u": (6, 3, 3, 3), "t": (5, 6, 3, 3)},
    )
    loaded = load(proto)
    analysis = analyze(loaded)
    assert [g.size for g in analysis.groups] == [8, 6]
    found = measure_sensitivity(loaded, analysis, [g.name for g in analysis.groups], feeds((8, 3, 6, 6)))
    assert found.broken == (analysis.groups[0].name,)
    assert set(found.eliminations) == set(found.functions) == {analysis.groups[1].name}


def test_one_pass_finds_what_single_ones_find() -> None:
    loaded = load(MODELS / "digits_resnet_bn.onnx")
    analysis = analyze(loaded)
    rng = np.random.default_rng(0)
    data = [{"image": rng.uniform(-1, 1, (16, 1, 8, 8)).astype(np.float32)} for _ in range(2)]
    names = [g.name for g in analysis.groups]
    whole = measure_sensitivity(loaded, analysis, names, data).eliminations
    assert set(whole) == set(names)
    for name in names[:2]:
        alone = measure_sensitivity(loaded, analysis, [name], data).eliminations[name]
        np.testing.assert_array_equal(alone.order, whole[name].order)
        np.testing.assert_allclose(alone.errors, whole[name].errors, rtol=1e-6)
