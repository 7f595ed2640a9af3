"""Shapes of operators that onnx has none for: as onnxruntime gives them, with nothing declared."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser

import onnxfold
from onnxfold.model.model import load

MS, ML = "com.microsoft.", "ai.onnx.ml."
LSTM = ", , , , , s1, i1, s1, i1"
POOL = "kernel_shape=[3,3], strides=[2,2]"
SIZES = "coefficients=[1.0, 2.0, 3.0, 4.0], targets=2"
Q = "q = QuantizeLinear(x, s, z)"
IMAGE, ROWS = "float[2,4,6,6] x", "float[2,3,8] x"
CASES = {
    "GroupNormalization": (IMAGE, "a = GroupNormalization<num_groups=2>(x, c4, c4)", 21),
    "GroupNormalization-18": (IMAGE, "a = GroupNormalization<num_groups=2>(x, c2, c2)", 18),
    "GroupNormalization-20": (IMAGE, "a = GroupNormalization<num_groups=4>(x, c4, c4)", 20),
    "Scaler": ("float[2,8] x", f"a = {ML}Scaler<offset=[0.1], scale=[2.0]>(x)", 17),
    "Scaler-of-integers": ("int64[2,8] x", f"a = {ML}Scaler<offset=[0.1], scale=[2.0]>(x)", 17),
    "Normalizer": ("float[2,8] x", f'a = {ML}Normalizer<norm="MAX">(x)', 17),
    "Imputer": ("float[2,8] x", f"a = {ML}Imputer<imputed_value_floats=[0.1], replaced_value_float=0.0>(x)", 17),
    "FeatureVectorizer": ("float[2,8] x", f"a = {ML}FeatureVectorizer<inputdimensions=[8, 8]>(x, x)", 17),
    "LinearRegressor": ("float[2,2] x", f"a = {ML}LinearRegressor<{SIZES}>(x)", 17),
    "FusedConv": (IMAGE, f'a = {MS}FusedConv<strides=[2,2], pads=[1,1,1,1], activation="Relu">(x, w)', 17),
    "QGemm": ("float[2,8] x", f"{Q} a = {MS}QGemm<transB=1>(q, s, z, v, s, i, , s, z)", 17),
    "QGemm-to-floats": ("float[2,8] x", f"{Q} a = {MS}QGemm<transB=1>(q, s, z, v, s, i)", 17),
    "DynamicQuantizeMatMul": (ROWS, f"a = {MS}DynamicQuantizeMatMul(x, u, s, i)", 17),
    "MatMulIntegerToFloat": (ROWS, f"{Q} a = {MS}MatMulIntegerToFloat(q, u, s, s, z, i)", 17),
    "MatMulBnb4": (ROWS, f"a = {MS}MatMulBnb4<N=16, K=8, block_size=16, quant_type=1>(x, codes, scales)", 17),
    "QLinearAdd": (IMAGE, f"{Q} a = {MS}QLinearAdd(q, s, z, q, s, z, s, z)", 17),
    "QLinearSigmoid": (IMAGE, f"{Q} a = {MS}QLinearSigmoid(q, s, z, s, z)", 17),
    "QLinearSoftmax": (ROWS, f"{Q} a = {MS}QLinearSoftmax<opset=13>(q, s, z, s, z)", 17),
    "QLinearConcat": (IMAGE, f"{Q} a = {MS}QLinearConcat<axis=1>(s, z, q, s, z, q, s, z)", 17),
    "QLinearAveragePool": (IMAGE, f"{Q} a = {MS}QLinearAveragePool<{POOL}>(q, s, z, s, z)", 17),
    "QLinearGlobalAveragePool": (IMAGE, f"{Q} a = {MS}QLinearGlobalAveragePool(q, s, z, s, z)", 17),
    "DequantizeLinear": (IMAGE, f"q = {MS}QuantizeLinear(x, s, z) a = {MS}DequantizeLinear(q, s, z)", 17),
    "DynamicQuantizeLSTM": (ROWS, f"a = {MS}DynamicQuantizeLSTM<hidden_size=4>(x, lw, lr, {LSTM})", 17),
}  # fmt: skip
VALUES = {
    "s": np.float32(0.05), "z": np.uint8(128), "i": np.int8(0), "w": np.ones((6, 4, 3, 3), np.float32),
    "v": np.ones((5, 8), np.int8), "u": np.ones((8, 5), np.int8), "codes": np.zeros(64, np.uint8),
    "scales": np.ones(8, np.float32), "lw": np.ones((1, 8, 16), np.int8), "lr": np.ones((1, 4, 16), np.int8),
    "s1": np.ones(1, np.float32), "i1": np.zeros(1, np.int8), "c2": np.ones(2, np.float32),
    "c4": np.ones(4, np.float32),
}  # fmt: skip


def net(name: str) -> ModelProto:
    """The operator, and an Identity behind it."""
    inputs, body, opset = CASES[name]
    domains = f'"" : {opset}, "com.microsoft" : 1, "ai.onnx.ml" : 1'
    text = f"<ir_version: 8, opset_import: [{domains}]> agraph ({inputs}) => (float[K] y) {{ {body} y = Identity(a) }}"
    proto = parser.parse_model(text)
    used = {name for node in proto.graph.node for name in node.input}
    proto.graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in VALUES.items() if n in used)
    return proto


@pytest.mark.parametrize("name", CASES)
def test_shapes_and_types_are_those_that_onnxruntime_gives(name: str) -> None:
    proto = net(name)
    found = load(proto).graph.tensor("a")
    proto.graph.output[0].CopyFrom(helper.make_empty_tensor_value_info("y"))
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    kind = np.int64 if "int64" in session.get_inputs()[0].type else np.float32
    (value,) = session.run(None, {"x": np.ones(session.get_inputs()[0].shape, kind)})
    assert found.shape == value.shape
    assert helper.tensor_dtype_to_np_dtype(found.dtype) == value.dtype


def test_open_lengths_stay_open() -> None:
    proto = net("GroupNormalization")
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    assert load(proto).graph.tensor("a").shape == ("N", 4, 6, 6)


def test_a_file_that_the_checker_calls_deprecated_is_taken_with_a_note() -> None:
    """GroupNormalization of opset 18 has one scale for each block; onnxruntime runs it."""
    text = """<ir_version: 8, opset_import: ["" : 18]> agraph (float[1,4,6,6] x) => (float[1,4,2,2] y) {
        a = GroupNormalization<num_groups=2>(x, c2, c2) h = Conv(a, w) r = Relu(h) y = Conv(r, v) }"""
    proto = parser.parse_model(text)
    rng = np.random.default_rng(0)
    sizes = {"w": (16, 4, 3, 3), "v": (4, 16, 3, 3), "c2": (2,)}
    for name, size in sizes.items():
        proto.graph.initializer.append(numpy_helper.from_array(rng.standard_normal(size).astype(np.float32), name))
    result = onnxfold.fold(proto, ratio=0.5, effort="fast", latency=False)
    assert [(g.before, g.after) for g in result.report.groups] == [(16, 8)]
    assert any("GroupNormalization of opset 18" in note for note in result.report.notes)


def test_what_an_unknown_operator_gives_can_be_declared() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "com.other" : 1]> agraph (float[2,4] x) => (float[2,4] y) {
        h = MatMul(x, u) a = com.other.Odd(h) r = Relu(a) k = MatMul(r, w) t = Tanh(k) y = MatMul(t, u) }"""
    proto = parser.parse_model(text)
    proto.graph.initializer.extend(numpy_helper.from_array(np.ones((4, 4), np.float32), name) for name in "uw")
    reasons = [r.kind for r in onnxfold.inspect(proto).refusals]
    assert "MatMul has tensors of unknown shape: add the output shapes of Odd to the model's value_info" in reasons
    proto.graph.value_info.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, [2, 4]))
    assert not any("unknown shape" in r.kind for r in onnxfold.inspect(proto).refusals)
