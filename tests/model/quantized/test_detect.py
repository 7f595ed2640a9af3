"""Weights stored as integers: what they become, where they are written, and which cannot be changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from helpers import CONTROL, as_constant_nodes, as_inputs, fold_by, model, oracles_hold, refused_for
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from packing import X_SCALE, Pack, Packed, add, integers, pack
from tiny import fold, with_and_without_repair

from onnxfold.analysis.analyze import analyze
from onnxfold.analysis.costs import costs, count_parameters
from onnxfold.errors import ModelError
from onnxfold.model.model import load
from onnxfold.runtime.autodiff.prepare import static_copy
from onnxfold.runtime.session import Session
from onnxfold.runtime.shared_prefix import SharedPrefix
from onnxfold.testing import duplicate, permute

STEP_RTOL = 2e-2  # half a step of 1/127 of the largest weight on every sum that left the range; measured up to 7e-3

TEXT = "(float[N,3,6,6] x) => (float y) { h = Conv(x, w, b) a = Relu(h) y = Conv(a, v) }"
WEIGHTS = {"w": (16, 3, 3, 3), "b": (16,), "v": (5, 16, 1, 1)}
PAIRS = """(float[N,3,6,6] x) => (float y) {
    q = QuantizeLinear(x, s, z) r = DequantizeLinear(q, s, z) h = Conv(r, w, b) k = QuantizeLinear(h, s, z)
    a = DequantizeLinear(k, s, z) o = Conv(a, v, c) p = QuantizeLinear(o, s, z) y = DequantizeLinear(p, s, z) }"""
INTEGER = """(float[N,3,6,6] x) => (float y) { q = QuantizeLinear(x, s, z)
    h = QLinearConv(q, s, z, w_q, w_s, w_z, s, z, b_q) o = QLinearConv(h, s, z, v_q, v_s, v_z, s, z, c_q)
    y = DequantizeLinear(o, s, z) }"""


def net(packs: dict[str, Pack], text: str = TEXT) -> ModelProto:
    """Two convolutions of 16 channels, quantized."""
    weights = WEIGHTS if text is TEXT else {**WEIGHTS, "c": (5,)}
    return Packed("net", text, weights, packs=packs).model()


def both(axis: int | None, spare: bool = False) -> dict[str, Pack]:
    return {"w": Pack(axis, spare=spare), "v": Pack(axis, spare=spare)}


def with_biases(axis: int | None) -> dict[str, Pack]:
    return {**both(axis), "b": Pack(axis, of="w"), "c": Pack(axis, of="v")}


# meaning ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packs", [both(0), both(None), {**both(0), "w": Pack(None, np.uint8, 128, spare=False)}])
def test_duplicates_up_to_a_quantization_step(packs: dict[str, Pack]) -> None:
    """With the whole range in use, permuting stays exact, and sums that leave the range are rounded anew."""
    loaded = load(net(packs))
    moved, copied = permute(loaded), duplicate(loaded)
    assert moved.error < 1e-5 and moved.control > CONTROL
    assert copied.error < STEP_RTOL < copied.control


@pytest.mark.parametrize("text", [PAIRS, INTEGER], ids=["pairs", "integer"])
@pytest.mark.parametrize("axis", [0, None])
def test_quantized_all_through(text: str, axis: int | None) -> None:
    """Integers are summed by integer kernels: permuting changes not one bit of the outputs."""
    loaded = load(net(with_biases(axis), text))
    assert permute(loaded).error == 0.0
    found = duplicate(loaded)
    assert found.error < 3 * STEP_RTOL < found.control, found


def test_merged_copies_are_the_same_integers() -> None:
    proto = net(both(0))
    for tensor in proto.graph.initializer:
        array = np.array(numpy_helper.to_array(tensor))
        if tensor.name in ("w_q", "w_s", "b"):
            array[1::2] = array[::2]
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    group = analyze(load(proto)).groups[0]
    result, before = integers(fold_by({group.name: np.arange(16) // 2}, proto)), integers(proto)
    assert np.array_equal(result["w_q"], before["w_q"][::2])
    assert np.array_equal(result["w_s"], before["w_s"][::2])
    summed = before["v_q"][:, ::2].astype(int) + before["v_q"][:, 1::2]
    fits = np.abs(summed).max(axis=(1, 2, 3)) <= 127
    assert np.array_equal(result["v_q"][fits], summed[fits])
    assert (result["v_s"][~fits] > before["v_s"][~fits]).all()


# where it is written ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [PAIRS, INTEGER], ids=["pairs", "integer"])
@pytest.mark.parametrize("axis", [0, None])
def test_biases_go_by_the_scale_of_their_weights(text: str, axis: int | None) -> None:
    """Folding the first convolution changes the scales of both, so both biases are rounded anew."""
    proto = net(with_biases(axis), text)
    result = fold(proto, ratio=0.5, latency=False).model
    old, new = integers(proto), integers(result)
    assert new["w_q"].shape == (8, 3, 3, 3) and new["v_q"].shape == (5, 8, 1, 1) and new["b_q"].shape == (8,)
    assert new["b_q"].dtype == np.int32 and new["w_q"].dtype == np.int8
    assert (new["v_s"] != old["v_s"]).any()
    kept = new["c_q"] * (new["v_s"] * np.float32(X_SCALE))
    assert np.allclose(kept, old["c_q"] * (old["v_s"] * np.float32(X_SCALE)), atol=X_SCALE * new["v_s"].max())
    if text is PAIRS:
        for bias, weight in (("b", "w"), ("c", "v")):
            expected = new[f"{weight}_s"] * np.float32(X_SCALE)
            assert np.allclose(new[f"{bias}_s"], np.broadcast_to(expected, new[f"{bias}_s"].shape), rtol=1e-6)


def test_a_bias_never_leaves_its_integers() -> None:
    """Where a weight is nearly zero and its bias is not, the weight's scale is as coarse as the bias needs."""
    proto = net(with_biases(0), PAIRS)
    for tensor in proto.graph.initializer:
        if tensor.name in ("w_s", "b_s"):
            array = np.array(numpy_helper.to_array(tensor))
            array[:2] *= 1e-9
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        if tensor.name == "b_q":
            array = np.array(numpy_helper.to_array(tensor))
            array[:2] = 2**31 - 1, 2**31 - 1
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    group = analyze(load(proto)).groups[0]
    result = integers(fold_by({group.name: [0, *range(15)]}, proto))
    old = integers(proto)
    expected = (old["b_q"][:2].astype(np.float64) * old["b_s"][:2]).mean()
    assert result["b_q"][0] * np.float64(result["b_s"][0]) == pytest.approx(expected, rel=1e-4)


def shared_scale(proto: ModelProto) -> None:
    """One tensor for the scales of both weights."""
    next(n for n in proto.graph.node if n.output[0] == "v").input[1] = "w_s"


def constant_nodes(proto: ModelProto) -> None:
    as_constant_nodes(proto, [t.name for t in proto.graph.initializer if t.name.endswith(("_q", "_s", "_z"))])


def no_zero_points(proto: ModelProto) -> None:
    for node in proto.graph.node:
        if node.op_type == "DequantizeLinear":
            del node.input[2:]


def identity_scale(proto: ModelProto) -> None:
    node = next(n for n in proto.graph.node if n.output[0] == "w")
    proto.graph.node.insert(0, helper.make_node("Identity", ["w_s"], ["same"]))
    node.input[1] = "same"
    next(n for n in proto.graph.node if n.output[0] == "w").input[1] = "same"


def listed_as_inputs(proto: ModelProto) -> None:
    as_inputs(proto, [t.name for t in proto.graph.initializer])


ELSEWHERE = (constant_nodes, no_zero_points, identity_scale, listed_as_inputs)


@pytest.mark.parametrize(
    "change, axis", [(shared_scale, None), *((change, axis) for change in ELSEWHERE for axis in (0, None))]
)
def test_wherever_the_parts_are(change: Callable[[ModelProto], None], axis: int | None) -> None:
    proto = net(both(axis))
    change(proto)
    result = fold(proto, ratio=0.5, latency=False)
    check = result.report.check
    assert check is not None and check.passed and check.worst is not None and check.worst.relative_l2 < 1
    onnx.checker.check_model(result.model, full_check=True)
    x = np.zeros((1, 3, 6, 6), np.float32)
    assert Session(result.model.SerializeToString()).run({"x": x})[0].shape == (1, 5, 4, 4)


def test_external_data(tmp_path: Any) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(net(both(0)), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    fold(path, tmp_path / "out.onnx", ratio=0.5, latency=False)
    result = onnx.load(tmp_path / "out.onnx")
    assert integers(result)["w_q"].shape == (8, 3, 3, 3)


def test_four_bits() -> None:
    proto = Packed("net", TEXT, WEIGHTS, packs=both(0), opset=21).model()
    for tensor in proto.graph.initializer:
        if tensor.name in ("w_q", "v_q", "w_z", "v_z"):
            values = numpy_helper.to_array(tensor).astype(int) // 19
            tensor.CopyFrom(helper.make_tensor(tensor.name, TensorProto.INT4, tensor.dims, values.ravel().tolist()))
    proto.ir_version = 10
    result = fold(proto, ratio=0.5, latency=False).model
    held = {t.name: t for t in result.graph.initializer}
    assert held["w_q"].data_type == TensorProto.INT4 and list(held["w_q"].dims) == [8, 3, 3, 3]
    assert len(held["w_q"].raw_data) == 8 * 27 // 2


# what it costs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [PAIRS, INTEGER], ids=["pairs", "integer"])
@pytest.mark.parametrize("axis", [0, None])
def test_numbers_stored_are_counted(text: str, axis: int | None) -> None:
    """All weights, biases and scales, before and after, by lengths and by what is in the file."""
    proto = net(with_biases(axis), text)
    found = load(proto)
    prices = costs(found)
    assert prices.params({}) == count_parameters(proto)
    assert prices.params({}) >= 16 * 27 + 16 + 5 * 16 + 5
    assert prices.macs({}) == 16 * (16 * 27 + 5 * 16)
    result = fold(proto, ratio=0.5, latency=False)
    assert costs(load(result.model)).params({}) == count_parameters(result.model) < count_parameters(proto)


def test_a_target_size_is_met() -> None:
    packs = both(0)
    proto = Packed("wide", TEXT, {"w": (256, 3, 3, 3), "b": (256,), "v": (64, 256, 1, 1)}, packs=packs).model()
    result = fold(proto, target_size=0.6, latency=False)
    assert result.model.ByteSize() <= 0.6 * proto.ByteSize()


# what is refused ----------------------------------------------------------------------------------------------------


def misfit(proto: ModelProto) -> None:
    node = next(n for n in proto.graph.node if n.output[0] == "w")
    node.attribute.append(helper.make_attribute("block_size", 3))  # as if each scale were that of three channels


def two_consumers(proto: ModelProto) -> None:
    proto.graph.node.insert(0, helper.make_node("DequantizeLinear", ["w_q", "w_s", "w_z"], ["twin"], axis=0))
    proto.graph.node.append(helper.make_node("Conv", ["x", "twin"], ["y2"]))
    proto.graph.output.append(helper.make_tensor_value_info("y2", TensorProto.FLOAT, ["N", 16, 4, 4]))


def shown(proto: ModelProto) -> None:
    proto.graph.output.append(helper.make_tensor_value_info("w_q", TensorProto.INT8, [16, 3, 3, 3]))


def zero_scale(proto: ModelProto) -> None:
    tensor = next(t for t in proto.graph.initializer if t.name == "w_s")
    tensor.CopyFrom(numpy_helper.from_array(np.zeros(16, np.float32), "w_s"))


@pytest.mark.parametrize(
    "change, reason",
    [(misfit, "DequantizeLinear has scales that do not match its blocks"),
     (two_consumers, "integer weights that several nodes share"), (shown, "integer weights that several nodes share"),
     (zero_scale, "DequantizeLinear has a scale that is not positive")],
    ids=lambda a: getattr(a, "__name__", ""),
)  # fmt: skip
def test_refused(change: Callable[[ModelProto], None], reason: str) -> None:
    proto = Packed("net", TEXT, WEIGHTS, packs=both(0), opset=21).model()
    change(proto)
    found = analyze(load(proto))
    assert not found.groups
    refused_for(found, [reason])
    assert next(r for r in found.refusals if r.kind == reason).channels >= 16


def test_a_bias_that_several_nodes_share_keeps_the_weights() -> None:
    text = INTEGER.replace("o =", "g = QLinearConv(q, s, z, u_q, u_s, u_z, s, z, b_q) k = Identity(g) o =")
    packs = {**with_biases(0), "u": Pack(spare=False)}
    proto = Packed("shared", text, {**WEIGHTS, "c": (5,), "u": (16, 3, 3, 3)}, packs=packs).model()
    found = analyze(load(proto))
    refused_for(found, ["a quantized bias that several nodes share"])
    assert not found.groups


def test_a_node_without_a_rule_says_why() -> None:
    """Its weights are counted, although nothing tells which of their axes makes channels."""
    text = (
        "(float[N,32] x) => (float[N,8] y) { y = com.microsoft.MatMulBlockQuantizedFp4Weight<block_size=32>(x, w, f) }"
    )
    proto = model(text, values={"w": np.zeros((8, 16), np.uint8), "f": np.ones(8, np.float32)})
    (refusal,) = [r for r in analyze(load(proto)).refusals if "Fp4" in r.kind]
    assert refusal.kind == "no rule for com.microsoft.MatMulBlockQuantizedFp4Weight" and refusal.parameters >= 128


def test_computed_scales_of_integer_weights() -> None:
    proto = net({**with_biases(0), **both(0, spare=True)}, INTEGER)
    proto.graph.node.insert(0, helper.make_node("Mul", ["w_s", "one"], ["scaled"]))
    add(proto, {"one": np.ones(1, np.float32)})
    next(n for n in proto.graph.node if n.output[0] == "h").input[4] = "scaled"
    assert oracles_hold(proto).groups, "computed of constants alone, it is one"


# with samples -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [TEXT, PAIRS, INTEGER], ids=["weights", "pairs", "integer"])
def test_consumers_are_refitted_and_rounded(text: str) -> None:
    """Recovery writes through the same scheme; where it cannot (QLinearConv) the merge stays."""
    packs = both(0) if text is TEXT else with_biases(0)
    proto = net(packs, text)
    x = np.random.default_rng(0).standard_normal((64, 3, 6, 6)).astype(np.float32)
    errors, notes = with_and_without_repair(proto, ratio=0.5, calibration={"x": x})
    for recovery, said in notes.items():
        assert any("compute on integers" in note for note in said) == (text is INTEGER and recovery != "none")
    assert text is INTEGER or errors["least-squares"] < 0.9 * errors["none"], errors


def reference(proto: ModelProto, x: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(Session(proto.SerializeToString()).run({"x": x})[0])


def test_a_float_model_and_its_quantized_version_fold_alike() -> None:
    """The same clusters, merged in floats and rounded: the quantized result is near the float one."""
    plain = model(TEXT, WEIGHTS)
    quantized = pack(model(TEXT, WEIGHTS), both(0))
    labels = {analyze(load(plain)).groups[0].name: np.arange(16) // 2}
    renamed = {analyze(load(quantized)).groups[0].name: np.arange(16) // 2}
    x = np.random.default_rng(0).standard_normal((4, 3, 6, 6)).astype(np.float32)
    expected, found = reference(fold_by(labels, plain), x), reference(fold_by(renamed, quantized), x)
    assert np.linalg.norm(found - expected) <= STEP_RTOL * np.linalg.norm(expected)


def test_weights_are_unpacked_and_ranges_kept_for_gradients() -> None:
    """The copy that inputs are searched with computes the same up to rounding, also where a range is the only ReLU."""
    proto = net(with_biases(0), PAIRS)
    add(proto, {"low": np.array(0, np.uint8)})
    for node in proto.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and {"h", "k"} & {*node.input}:
            node.input[2] = "low"
    copy = static_copy(load(proto), {"x": (4, 3, 6, 6)})
    assert "DequantizeLinear" not in {n.op_type for n in copy.graph.node}
    x = np.random.default_rng(0).standard_normal((4, 3, 6, 6)).astype(np.float32)
    expected = reference(proto, x)
    assert np.linalg.norm(reference(copy, x) - expected) <= 0.1 * np.linalg.norm(expected)


def test_what_comes_before_is_run_once() -> None:
    """The nodes that make weights stand in front; a version differs only where they are read."""
    proto = net(with_biases(0), PAIRS)
    loaded = load(proto)
    changed = {p.tensor for g in analyze(loaded).groups for p in g.places}
    group = analyze(loaded).groups[0]
    x = np.zeros((1, 3, 6, 6), np.float32)
    walks = SharedPrefix(loaded, [{"x": x}]).begin(fold_by({group.name: np.arange(16) // 2}, proto), changed)
    first = next(i for i, n in enumerate(proto.graph.node) if n.op_type == "Conv")
    assert [walk.position for walk in walks] == [first, first]


def test_a_bias_too_short_for_its_node_is_replaced_by_one_of_floats() -> None:
    text = "(float[N,6] x) => (float[N,5] y) { h = Gemm(x, w, b) a = Relu(h) y = Gemm(a, v, c) }"
    weights = {"w": (6, 16), "b": (16,), "v": (16, 5), "c": (1,)}
    proto = Packed("short", text, weights, packs={"w": Pack(1), "v": Pack(1)}).model()
    x = np.random.default_rng(0).standard_normal((64, 6)).astype(np.float32)
    result = fold(proto, ratio=0.5, latency=False, calibration={"x": x}, recovery="least-squares")
    assert result.report.check is not None and result.report.check.passed


def test_scales_that_do_not_fit_are_the_models_fault() -> None:
    """Along an axis of another length, as in a broken file."""
    proto = net({"w": Pack()})
    loaded = load(proto)
    (node,) = (node for node in proto.graph.node if node.op_type == "DequantizeLinear" and node.output[0] == "w")
    assert loaded.constants.array("w").shape == (16, 3, 3, 3)
    next(a for a in node.attribute if a.name == "axis").i = 1
    with pytest.raises(ModelError, match=r"scales of shape \[16\] .* shape \[16, 3, 3, 3\]"):
        load(proto).constants.array("w")
