"""Weights of few bits in blocks: what they become, how small and how exact, and which cannot be changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from helpers import Case, constant, fold_by, model, node, refused_for
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnxruntime.capi import _pybind_state
from packing import Bits, Pack, Packed, add, integers
from tiny import fold, main

from onnxfold.analysis.analyze import analyze
from onnxfold.analysis.costs import costs, count_parameters
from onnxfold.model.model import load
from onnxfold.model.quantized.packing import Layout, join, layout, split
from onnxfold.model.quantized.scheme import Scheme, dequantize, in_blocks, requantize
from onnxfold.runtime.autodiff.prepare import static_copy
from onnxfold.runtime.session import Session

Array = NDArray[Any]
K, HIDDEN, N = 24, 72, 12  # blocks of 16: one and a half, four and a half
OWN_ERROR = 1.3  # times the error of folding floats and rounding them once; measured 0.85 to 1.1
FLOATS = "(float[N,24] x) => (float[N,12] y) { h = Gemm<transB=1>(x, w, b) a = Relu(h) y = Gemm<transB=1>(a, v, c) }"
SHAPES = {"w": (HIDDEN, K), "b": (HIDDEN,), "v": (N, HIDDEN), "c": (N,)}
DQ_BLOCKS = {"w": Pack(1, np.int8, block=16, spare=False), "v": Pack(1, np.int8, block=16, spare=False)}


def net(how: Bits, name: str = "mlp") -> ModelProto:
    """72 hidden units between MatMulNBits."""
    zero = "{0}_z" if how.zeros else ""
    kind = {np.float32: "float", np.float16: "float16"}[how.dtype]
    said = f"bits={how.bits}, block_size={how.block}"
    w, v = (f"{x}_q, {x}_s, {zero.format(x)}, {f'{x}_g' if how.mixed else ''}" for x in "wv")
    text = f"""({kind}[N,24] x) => ({kind}[N,12] y) {{
        h = com.microsoft.MatMulNBits<K=24, N=72, {said}>(x, {w}, b) a = Relu(h)
        y = com.microsoft.MatMulNBits<K=72, N=12, {said}>(a, {v}, c) }}"""
    proto = Packed(name, text, SHAPES, packs={"w": how, "v": how}).model()
    for tensor in proto.graph.initializer:
        if tensor.name in "bc":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(how.dtype), tensor.name))
    return proto


def random(bits: int = 4, zeros: str = "packed", **more: Any) -> Bits:
    return Bits(bits, zeros=zeros, spare=False, **more)


def group_of(proto: ModelProto) -> str:
    (group,) = analyze(load(proto)).groups
    return group.name


def some_merged() -> NDArray[np.int64]:
    """Channels 0 to 3 are merged two by two, 4 to 11 into one; the other 60 stay alone."""
    return np.concatenate([[0, 0, 1, 1], np.full(8, 2), 3 + np.arange(60)])


def run(proto: ModelProto, x: Array) -> Array:
    return np.asarray(Session(proto.SerializeToString()).run({"x": x})[0]).astype(np.float64)


def inputs(rows: int = 64, dtype: Any = np.float32) -> Array:
    return np.random.default_rng(1).standard_normal((rows, K)).astype(dtype)


def distance(a: Array, b: Array) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


# numbers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("k", [32, 33, 47])
def test_packing_and_back(bits: int, k: int) -> None:
    rng, how = np.random.default_rng(0), Layout(5, k, bits, 16)
    weight, zeros = rng.integers(0, 2**bits, (5, k)), rng.integers(0, 2**bits, (5, how.blocks))
    held = how.held(weight)
    assert held.shape == how.shape and held.dtype == np.uint8
    assert np.array_equal(how.weight(held), weight)
    assert np.array_equal(how.zeros(join(zeros, bits)), zeros)
    assert split(join(zeros, bits), bits).shape[1] - how.blocks < 8 // bits


@pytest.mark.parametrize(
    "change", [{"bits": 3}, {"block_size": 8}, {"block_size": 24}, {"N": 0}, {"K": -1}, {"weight_prepacked": 1}]
)
def test_layouts_that_nobody_describes(change: dict[str, int]) -> None:
    good = {"N": 4, "K": 32, "bits": 4, "block_size": 16}
    assert layout(good) == Layout(4, 32, 4, 16) and layout({**good, **change}) is None


def blocks(scale: Sequence[Sequence[float]], zero: float = 8, groups: Sequence[int] | None = None) -> Scheme:
    scales = np.asarray(scale, np.float64)
    where = in_blocks(4, 2) if groups is None else np.asarray(groups)
    return Scheme(scales, np.full(scales.shape, zero), 1, 0, 15, np.dtype(np.float32), where)


@pytest.mark.parametrize("groups", [[0, 0, 1, 1], [1, 0, 0, 1], [0, 0, 0, 1]])
def test_every_block_for_itself(groups: list[int]) -> None:
    """A block of whole numbers keeps its scale, its neighbor gets the finest one."""
    how = blocks([[0.5, 0.25]], groups=groups)
    whole = np.array([[8, 9, 15, 0]])
    values = dequantize(whole, how, np.float64)
    found, now = requantize(values, how)
    assert np.array_equal(found, whole) and np.array_equal(now.scale, how.scale)
    values[:, np.array(groups) == 1] *= 1.7
    found, now = requantize(values, how)
    assert now.scale[0, 0] == 0.5 and now.scale[0, 1] == pytest.approx(0.25 * 1.7)
    assert np.array_equal(found, whole)


def test_scales_may_be_negative_where_some_are() -> None:
    """The largest number may then be 8 steps from 0 whatever its sign is."""
    values = np.array([[1.0, -0.2, -1.0, 0.2]])
    for first, expected in ((-0.5, [-1 / 8, 1 / 8]), (0.5, [1 / 7, 1 / 8])):
        found, now = requantize(values, blocks([[first, 0.5]]))
        assert now.scale[0].tolist() == pytest.approx(expected)
        assert np.abs(dequantize(found, now, np.float64) - values).max() <= 0.5 * np.abs(now.scale).max()


def test_a_block_of_zeros_may_have_no_scale() -> None:
    found, now = requantize(np.zeros((1, 4)), blocks([[0.0, 0.0]]))
    assert found.tolist() == [[8] * 4] and not now.scale.any()
    found, now = requantize(np.array([[0.0, 0.0, 1.4, 0.0]]), blocks([[0.0, 0.0]]))
    assert found.tolist() == [[8, 8, 15, 8]] and now.scale[0].tolist() == pytest.approx([0.0, 0.2])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_scales_too_small_for_their_type(dtype: Any) -> None:
    how = Scheme(np.ones((1, 2)), np.full((1, 2), 8.0), 1, 0, 15, np.dtype(dtype), in_blocks(4, 2))
    found, now = requantize(np.array([[1e-50, -1e-50, 3.0, 0.5]]), how)
    assert np.isfinite(now.scale).all() and np.allclose(dequantize(found, now, np.float64)[0, :2], 0)


# what folding does to them ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("zeros", ["", "packed", "flat", "float"])
def test_what_is_not_merged_stays_bit_for_bit(bits: int, zeros: str) -> None:
    proto = net(random(bits, zeros))
    before, after = integers(proto), integers(fold_by({group_of(proto): some_merged()}, proto))
    assert after["w_q"].shape == (63, 2, 2 * bits) and after["v_q"].shape == (12, 4, 2 * bits)
    for part in ("w_q", "w_s", "w_z"):
        if part in before:
            old, new = (x[part].reshape(rows, -1) for x, rows in ((before, 72), (after, 63)))
            assert np.array_equal(old[12:], new[3:]) and old.dtype == new.dtype
            assert before[part].ndim == after[part].ndim
    assert set(before) == set(after)


def test_whole_blocks_that_stay_keep_their_numbers() -> None:
    """The consumer: what is left of the fourth and fifth block comes together, the second and third stay as they
    were."""
    proto = net(random())
    labels = np.concatenate([np.full(16, 0), np.arange(1, 57)])  # the first block becomes one channel...
    before = integers(proto)
    after = integers(fold_by({group_of(proto): labels}, proto))
    assert after["v_q"].shape == (12, 4, 8)  # ... so all others move by one: nothing can stay
    assert not np.array_equal(after["v_q"][:, 1], before["v_q"][:, 2])
    pruned = keep(proto, np.arange(16, 72))
    assert np.array_equal(integers(pruned)["v_q"], before["v_q"][:, 1:])
    assert np.array_equal(integers(pruned)["v_s"], before["v_s"][:, 1:])


def keep(proto: ModelProto, kept: Array) -> ModelProto:
    from onnxfold.folding.merge import pruning
    from onnxfold.transform.edits import edits
    from onnxfold.transform.emit import emit

    loaded = load(proto)
    return emit(loaded, edits(loaded, analyze(loaded), {group_of(proto): pruning(kept, HIDDEN)}))


def test_channels_of_a_block_that_is_mixed_stay_together() -> None:
    """With a g_idx what is left is put into blocks by the blocks that it was in."""
    proto = net(random(zeros="", mixed=True))
    old = constant(proto, "v_g")
    kept = np.flatnonzero(old != 1)
    after = keep(proto, kept)
    new = constant(after, "v_g")
    assert new.dtype == np.int32 and np.array_equal(new, np.where(old[kept] > 1, old[kept] - 1, 0))
    before, now = load(proto).constants.array("v_q")[:, kept], load(after).constants.array("v_q")
    assert np.array_equal(now, before)


@pytest.mark.parametrize("how", [random(4), random(4, ""), random(8), random(8, ""), random(2), random(4, "float"),
                                 random(4, "", mixed=True), random(4, dtype=np.float16)], ids=str)  # fmt: skip
def test_errors_are_those_of_rounding(how: Bits) -> None:
    """Quantized and then folded, a model is about as far from the folded floats as one folded and then quantized."""
    proto = net(how)
    values = {name: load(proto).constants.array(name) for name in ("w_q", "v_q")}
    plain = model(FLOATS, values={**values, "w": values["w_q"], "v": values["v_q"],
                                  **{b: constant(proto, b).astype(np.float32) for b in "bc"}})  # fmt: skip
    labels, x = some_merged(), inputs(dtype=how.dtype)
    floats = fold_by({group_of(plain): labels}, plain)
    rounded = model(FLOATS, values={t.name: numpy_helper.to_array(t) for t in floats.graph.initializer})
    for name in ("w", "v"):
        rounded = with_values(rounded, name, unpacked(how, constant(floats, name)))
    expected = run(floats, x.astype(np.float32))
    once = distance(run(rounded, x.astype(np.float32)), expected)
    found = distance(run(fold_by({group_of(proto): labels}, proto), x), expected)
    assert 0 < found <= OWN_ERROR * once, (found, once)


def with_values(proto: ModelProto, name: str, array: Array) -> ModelProto:
    tensor = next(t for t in proto.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float32), name))
    return proto


def unpacked(how: Bits, weight: Array) -> Array:
    """Floats as they are after MatMulNBits has packed them."""
    n, k = weight.shape
    text = f"""(float[N,{k}] x) => (float[N,{n}] y) {{ y = com.microsoft.MatMulNBits<K={k}, N={n}, bits={how.bits},
        block_size={how.block}>(x, w_q, w_s, {"w_z" if how.zeros else ""}, {"w_g" if how.mixed else ""}) }}"""
    one = Packed("one", text, {"w": (n, k)})
    proto = Case.model(one)
    proto.graph.initializer.pop()
    add(proto, {f"w_{part}": value for part, value in how.parts(weight).items()})
    return load(proto).constants.array("w_q")


@pytest.mark.parametrize("proto", [net(random(4)), net(random(8, "")), net(random(4, "float")),
                                   Packed("dq", FLOATS, SHAPES, opset=21, packs=DQ_BLOCKS).model()],
                         ids=["4", "8", "float", "dq"])  # fmt: skip
def test_numbers_and_bytes_are_counted(proto: ModelProto) -> None:
    prices = costs(load(proto))
    assert prices.params({}) == count_parameters(proto) >= (K + N + 1) * HIDDEN
    assert prices.macs({}) == (K + N) * HIDDEN
    result = fold(proto, ratio=0.5, latency=False)
    after = costs(load(result.model))
    assert after.params({}) == count_parameters(result.model) < 0.6 * count_parameters(proto)
    group = analyze(load(proto)).groups[0]
    lengths = {(place.tensor, place.axis): 40 for place in group.places}
    assert prices.params(lengths) == after.params({}) and prices.macs(lengths) == after.macs({})
    smaller = proto.ByteSize() - result.model.ByteSize()
    assert abs(prices.stored({}) - prices.stored(lengths) - smaller) <= 0.15 * smaller


@pytest.mark.parametrize("bits", [4, 8])
def test_a_target_size_is_met(bits: int, size: float = 0.55) -> None:
    text = f"""(float[N,64] x) => (float[N,64] y) {{
        h = com.microsoft.MatMulNBits<K=64, N=512, bits={bits}, block_size=32>(x, w_q, w_s) a = Relu(h)
        y = com.microsoft.MatMulNBits<K=512, N=64, bits={bits}, block_size=32>(a, v_q, v_s) }}"""
    how = Bits(bits, 32, spare=False)
    proto = Packed("wide", text, {"w": (512, 64), "v": (64, 512)}, packs={"w": how, "v": how}).model()
    result = fold(proto, target_size=size, latency=False).model
    assert size - 0.05 <= result.ByteSize() / proto.ByteSize() <= size


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_consumers_are_refitted_and_rounded(dtype: Any) -> None:
    proto = net(random(8, dtype=dtype))
    x = inputs(256, dtype)
    errors = {}
    for recovery in ("none", "least-squares"):
        result = fold(proto, ratio=0.3, latency=False, calibration={"x": x}, recovery=recovery, method="fold")
        check = result.report.check
        assert check is not None and check.passed and check.worst is not None
        errors[recovery] = check.worst.relative_l2
        kinds = {t.name: t.data_type for t in proto.graph.initializer}
        assert {t.name: t.data_type for t in result.model.graph.initializer} == kinds
    assert errors["least-squares"] < 0.9 * errors["none"], errors


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_as_onnxruntime_packs_them(bits: int, symmetric: bool) -> None:
    """Its own kernels choose negative scales; what they pack is read, and written, as they read it."""
    quantize = getattr(_pybind_state, f"quantize_matmul_{bits}bits")
    parts = dict[str, Array]()
    for name, shape in (("w", (HIDDEN, K)), ("v", (N, HIDDEN))):
        how = Layout(*shape, bits, 16)
        held, scale = np.zeros(how.shape, np.uint8), np.zeros((how.n, how.blocks), np.float32)
        zero = np.zeros((how.n, how.zeros_width), np.uint8)
        floats = np.random.default_rng(2).standard_normal(shape[::-1]).astype(np.float32)
        quantize(held, floats, scale, zero, 16, how.n, how.k, symmetric)
        parts |= {f"{name}_q": held, f"{name}_s": scale, **({} if symmetric else {f"{name}_z": zero})}
    proto = net(Bits(bits, zeros="" if symmetric else "packed"))
    for tensor in proto.graph.initializer:
        if tensor.name in parts:
            tensor.CopyFrom(numpy_helper.from_array(parts[tensor.name], tensor.name))
    assert not symmetric or (parts["w_s"] < 0).any()
    constants, x = load(proto).constants, inputs()
    hidden = np.maximum(x @ constants.array("w_q").T + constants.array("b"), 0)
    assert distance(hidden @ constants.array("v_q").T + constants.array("c"), run(proto, x)) < 1e-5
    after = fold_by({group_of(proto): some_merged()}, proto)
    assert np.array_equal(integers(after)["w_q"][3:], parts["w_q"][12:])
    assert ("v_z" in integers(after)) == (not symmetric)


# where they are -----------------------------------------------------------------------------------------------------


def constant_nodes(proto: ModelProto) -> None:
    held = [t for t in proto.graph.initializer if t.name[:2] in ("w_", "v_")]
    nodes = [helper.make_node("Constant", [], [t.name], value=t) for t in held] + list(proto.graph.node)
    for tensor in held:
        proto.graph.initializer.remove(tensor)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def listed(proto: ModelProto) -> None:
    for tensor in proto.graph.initializer:
        proto.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))


def told(proto: ModelProto) -> None:
    for tensor in proto.graph.initializer:
        proto.graph.value_info.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))


def one_scale(proto: ModelProto) -> None:
    """Zero points that both weights share."""
    short = np.full((72, 1), 0x88, np.uint8)
    next(t for t in proto.graph.initializer if t.name == "w_z").CopyFrom(numpy_helper.from_array(short, "w_z"))
    for tensor in [t for t in proto.graph.initializer if t.name == "w_z"]:
        proto.graph.node.insert(0, helper.make_node("Identity", [tensor.name], ["same"]))
    node(proto, "MatMulNBits").input[3] = "same"


@pytest.mark.parametrize("change", [constant_nodes, listed, told, one_scale])
def test_wherever_the_parts_are(change: Callable[[ModelProto], None]) -> None:
    proto = net(random())
    change(proto)
    result = fold(proto, ratio=0.5, latency=False)
    check = result.report.check
    assert check is not None and check.passed and check.worst is not None and check.worst.relative_l2 < 1
    onnx.checker.check_model(result.model, full_check=True)
    assert run(result.model, inputs(2)).shape == (2, 12)
    shapes = {v.name: v.type.tensor_type.shape for v in (*result.model.graph.input, *result.model.graph.value_info)}
    for tensor in result.model.graph.initializer:
        if tensor.name in shapes:
            assert [d.dim_value for d in shapes[tensor.name].dim] == list(tensor.dims)


def test_external_data(tmp_path: Path) -> None:
    onnx.save(net(random()), tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    fold(tmp_path / "m.onnx", tmp_path / "out.onnx", ratio=0.5, latency=False)
    assert integers(onnx.load(tmp_path / "out.onnx"))["w_q"].shape == (40, 2, 8)


def test_what_nothing_concerns_stays_byte_for_byte() -> None:
    """Beside a group of floats, packed weights that read the graph's input or make its output only."""
    text = f"""(float[N,24] x) => (float[N,12] y, float[N,12] o) {{ {FLOATS[FLOATS.index("{") + 1 : -1]}
        o = com.microsoft.MatMulNBits<K=24, N=12, bits=4, block_size=16>(x, u_q, u_s, u_z) }}"""
    proto = Packed("beside", text, {**SHAPES, "u": (12, 24)}, packs={"u": random()}).model()
    result = fold(proto, ratio=0.5, latency=False).model
    old, new = ({t.name: t.SerializeToString() for t in p.graph.initializer} for p in (proto, result))
    assert {n for n in old if old[n] == new[n]} == {"u_q", "u_s", "u_z", "c"}
    assert node(result, "MatMulNBits") == node(proto, "MatMulNBits")


def test_a_model_that_nothing_folds_stays_byte_for_byte() -> None:
    proto = net(random())
    loaded = load(proto)
    from onnxfold.transform.edits import edits
    from onnxfold.transform.emit import emit

    same = emit(loaded, edits(loaded, analyze(loaded), {}))
    assert same.SerializeToString(deterministic=True) == proto.SerializeToString(deterministic=True)


def test_they_are_unpacked_for_gradients() -> None:
    proto = net(random())
    copy = static_copy(load(proto), {"x": (4, K)})
    assert {n.op_type for n in copy.graph.node} == {"Transpose", "MatMul", "Add", "Relu"}
    x = inputs(4)
    assert distance(run(copy, x), run(proto, x)) < 1e-5


@pytest.mark.parametrize("change", [None, constant_nodes])
def test_they_are_trained(change: Callable[[ModelProto], None] | None) -> None:
    """Refinement trains the floats that they stand for, and stores them as before."""
    proto = net(random(8))
    if change is not None:
        change(proto)
    errors = {}
    for refine in (False, True):
        how = {"refine": True, "steps": 60} if refine else {}
        result = fold(proto, ratio=0.5, latency=False, calibration={"x": inputs(256)}, **how)
        check = result.report.check
        assert check is not None and check.passed and check.worst is not None
        errors[refine] = check.worst.relative_l2
        assert not any("not refined" in note for note in check.notes), check.notes
    assert errors[True] < errors[False]


# what is refused ----------------------------------------------------------------------------------------------------


def changed(proto: ModelProto, name: str, array: Array) -> None:
    tensor = next(t for t in proto.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(array, name))


def short_weight(proto: ModelProto) -> None:
    changed(proto, "w_q", np.zeros((72, 2, 7), np.uint8))


def wide_weight(proto: ModelProto) -> None:
    changed(proto, "w_q", np.zeros((72, 2, 8), np.int32))


def short_scales(proto: ModelProto) -> None:
    changed(proto, "w_s", np.ones((72, 1), np.float32))


def infinite_scales(proto: ModelProto) -> None:
    changed(proto, "w_s", np.full((72, 2), np.inf, np.float32))


def short_zeros(proto: ModelProto) -> None:
    changed(proto, "w_z", np.ones(71, np.uint8))


def no_scales(proto: ModelProto) -> None:
    del node(proto, "MatMulNBits").input[2:]


def prepacked(proto: ModelProto) -> None:
    node(proto, "MatMulNBits").attribute.append(helper.make_attribute("weight_prepacked", 1))


def other_blocks(proto: ModelProto) -> None:
    add(proto, {"w_g": np.full(24, 7, np.int32)})
    node(proto, "MatMulNBits").input[3], node(proto, "MatMulNBits").input[4] = "", "w_g"


def packed_and_mixed(proto: ModelProto) -> None:
    add(proto, {"w_g": np.arange(24, dtype=np.int32) % 2})
    node(proto, "MatMulNBits").input[4] = "w_g"


def shared(proto: ModelProto) -> None:
    proto.graph.node.append(helper.make_node(
        "MatMulNBits", ["x", *node(proto, "MatMulNBits").input[1:4]], ["o"], domain="com.microsoft",
        N=72, K=24, bits=4, block_size=16,
    ))  # fmt: skip
    proto.graph.output.append(helper.make_tensor_value_info("o", TensorProto.FLOAT, ["N", 72]))


def computed_scale(proto: ModelProto) -> None:
    proto.graph.input.append(helper.make_tensor_value_info("s", TensorProto.FLOAT, [72, 2]))
    node(proto, "MatMulNBits").input[2] = "s"


REFUSED = [
    (short_weight, "MatMulNBits has weights that do not fill N x K numbers"),
    (wide_weight, "MatMulNBits has weights that do not fill N x K numbers"),
    (short_scales, "MatMulNBits has scales that do not fit its blocks"),
    (infinite_scales, "MatMulNBits has scales that do not fit its blocks"),
    (short_zeros, "MatMulNBits has zero points that do not fit its blocks"),
    (no_scales, "MatMulNBits holds integer weights, but not their scale"),
    (prepacked, "MatMulNBits packs its weights in a way of its own"),
    (other_blocks, "MatMulNBits has a g_idx that does not fit its blocks"),
    (packed_and_mixed, "MatMulNBits has packed zero points and a g_idx"),
    (shared, "integer weights that several nodes share"), (computed_scale, "MatMulNBits has a computed scale"),
]  # fmt: skip


@pytest.mark.parametrize("change, reason", REFUSED, ids=lambda a: getattr(a, "__name__", ""))
def test_refused(
    change: Callable[[ModelProto], None], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proto = net(random())
    change(proto)
    found = analyze(load(proto))
    assert not found.groups
    refused_for(found, [reason])
    count_parameters(proto)
    onnx.save(proto, tmp_path / "in.onnx")
    assert main([str(tmp_path / "in.onnx"), str(tmp_path / "out.onnx")]) == 4
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1 and "Traceback" not in shown.err and not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize("op", ["MatMulNBits<K=25, N=72,", "MatMulNBits<K=24, N=71,"])
def test_widths_that_do_not_fit(op: str) -> None:
    proto = net(random())
    for attribute in node(proto, "MatMulNBits").attribute:
        if attribute.name in "KN":
            attribute.i = int(op.split(f"{attribute.name}=")[1].split(",")[0])
    assert not analyze(load(proto)).groups
