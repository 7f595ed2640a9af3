"""Weights stored as integers behind nodes that move their axes before they are used."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from helpers import CONTROL, Case, as_constant_nodes, fold_by, folds, model, oracles_hold, refused_for
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from packing import Pack, Packed, integers, pack
from tiny import fold, with_and_without_repair

from onnxfold.analysis.analyze import analyze
from onnxfold.analysis.costs import costs, count_parameters
from onnxfold.model.model import load
from onnxfold.model.quantized.forms import Form, kept_axes
from onnxfold.runtime.autodiff.prepare import static_copy
from onnxfold.runtime.session import Session
from onnxfold.testing import duplicate, permute

STEP_RTOL = 2e-2  # half a step of 1/127 of the largest weight on every sum that left the range; measured up to 8e-3

BOTH = " h = MatMul(x, a) r = Relu(h) y = MatMul(r, c) }"
TURNED = "{ a = Transpose<perm = [1,0]>(w) c = Transpose<perm = [1,0]>(v)" + BOTH
CONVS = "(float[N,3,6,6] x) => (float y) "
LINES = {"w": (16, 6), "v": (5, 16)}
WEIGHTS = {"w": (16, 3, 3, 3), "b": (16,), "v": (5, 16, 1, 1)}
PACKS = {"w": Pack(0), "v": Pack(0)}


def lines(name: str, body: str, **more: Any) -> Case:
    """Two layers on rows of 6 numbers."""
    return Packed(name, f"(float[N,6] x) => (float y) {body}", **{"weights": LINES, "packs": PACKS, **more})


def convs(name: str, body: str, **more: Any) -> Case:
    """Two convolutions of images of three channels."""
    return Packed(name, CONVS + body, **{"weights": WEIGHTS, "packs": PACKS, **more})


CASES = [
    lines("turned", TURNED),
    lines("turned, one scale", TURNED, packs={"w": Pack(None), "v": Pack(None)}),
    lines("turned, scales of inputs", TURNED, packs={"w": Pack(1), "v": Pack(1, even=True)}),
    lines("turned, zero points", TURNED, packs={"w": Pack(0, np.uint8, 128), "v": Pack(0, np.uint8, 128)}),
    lines("turned without perm", TURNED.replace("<perm = [1,0]>", "")),
    lines("turned twice", "{ t = Transpose(w) u = Transpose(t) a = Transpose(u) c = Transpose(v)" + BOTH),
    lines("turned for Gemm", "{ a = Transpose(w) h = Gemm(x, a, b) r = Relu(h) y = Gemm<transB = 1>(r, v) }",
          weights={**LINES, "b": (16,)}),
    lines("cast", "{ a = Cast<to = 1>(w) h = Gemm<transB = 1>(x, a) r = Relu(h) c = Cast<to = 1>(v)"
          "y = Gemm<transB = 1>(r, c) }"),
    lines("like the input", "{ a = CastLike(w, x) h = Gemm<transB = 1>(x, a) r = Relu(h) c = CastLike(v, x)"
          "y = Gemm<transB = 1>(r, c) }"),
    lines("cast and turned", "{ k = Cast<to = 1>(w) i = Identity(k) a = Transpose(i) c = Transpose(v)" + BOTH),
    lines("squeezed", "{ t = Squeeze(w, one) a = Transpose(t) k = Flatten(v) c = Transpose(k)" + BOTH,
          weights={"w": (16, 1, 6), "v": (5, 16)}, values={"one": [1]}, packs={"w": Pack(0), "v": Pack(0)}),
    lines("blocks", TURNED, packs={"w": Pack(1, block=2), "v": Pack(0, even=True)}, opset=21),
    convs("unsqueezed", "{ k = Unsqueeze(w, one) h = Conv(x, k, b) r = Relu(h) t = Unsqueeze(v, both) y = Conv(r, t) }",
          weights={"w": (16, 3, 3), "b": (16,), "v": (5, 16)}, values={"one": [2], "both": [2, 3]}),
    convs("matrix for a Conv", "{ h = Conv(x, w, b) r = Relu(h) t = Reshape(v, shape) y = Conv(r, t) }",
          weights={**WEIGHTS, "v": (5, 16)}, values={"shape": [5, 16, 1, 1]}),
    convs("rest of a Reshape", "{ h = Conv(x, w, b) r = Relu(h) t = Reshape(v, shape) y = Conv(r, t) }",
          weights={**WEIGHTS, "v": (5, 16)}, values={"shape": [0, -1, 1, 1]}),
    convs("last axis first", "{ k = Transpose<perm = [3,2,0,1]>(w) h = Conv(x, k, b) r = Relu(h) y = Conv(r, v) }",
          weights={**WEIGHTS, "w": (3, 3, 3, 16)}, packs={"w": Pack(3), "v": Pack(0)}),
    convs("a bias", "{ k = Reshape(b, shape) h = Conv(x, w) o = Add(h, k) r = Relu(o) y = Conv(r, v) }",
          values={"shape": [1, 16, 1, 1]}, packs={**PACKS, "b": Pack(0)}),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_channels_are_followed(case: Case) -> None:
    """Duplicates fold exactly, as sums of two integers still fit; the shapes that are declared follow."""
    proto = onnx.shape_inference.infer_shapes(case.model(), data_prop=True)
    found = oracles_hold(proto, groups=(16,))
    refused_for(found, [])
    folds(proto)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_is_written_are_integers(case: Case) -> None:
    proto = case.model()
    old, result = integers(proto), fold(proto, ratio=0.5, latency=False)
    new = integers(result.model)
    assert {name: array.dtype for name, array in new.items()} == {name: array.dtype for name, array in old.items()}
    assert new["w_q"].size == old["w_q"].size // 2 and new["v_q"].size == old["v_q"].size // 2
    assert [n.op_type for n in result.model.graph.node] == [n.op_type for n in proto.graph.node]
    prices = costs(load(proto))
    assert prices.params({}) == count_parameters(proto)
    assert costs(load(result.model)).params({}) == count_parameters(result.model)


@pytest.mark.parametrize("axis", [0, 1, None])
def test_sums_are_rounded_anew(axis: int | None) -> None:
    packs = {"w": Pack(axis, spare=False), "v": Pack(axis, spare=False)}
    loaded = load(lines("whole range", TURNED, packs=packs).model())
    moved, copied = permute(loaded), duplicate(loaded)
    assert moved.error < 1e-5 and moved.control > CONTROL
    assert copied.error < STEP_RTOL < copied.control


def test_the_same_as_without_the_nodes() -> None:
    """A matrix behind Transpose folds to the same integers as one that is stored in that way."""
    turned, plain = lines("turned", TURNED).model(), lines("plain", "{ h = Gemm<transB = 1>(x, w) r = Relu(h)"
                                                           " y = Gemm<transB = 1>(r, v) }").model()  # fmt: skip
    folded = [
        integers(fold_by({analyze(load(p)).groups[0].name: np.arange(16) // 2}, p)) for p in (turned, plain)
    ]  # fmt: skip
    for name, array in folded[1].items():
        assert np.array_equal(folded[0][name], array), name


def halved_scales(proto: ModelProto) -> ModelProto:
    """Scales in float16, and a Cast behind each DequantizeLinear of a weight."""
    for tensor in [t for t in proto.graph.initializer if t.name.endswith("_s")]:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    nodes = list(proto.graph.node)
    for node in [n for n in nodes if n.op_type == "DequantizeLinear"]:
        name, node.output[0] = node.output[0], f"{node.output[0]}_half"
        nodes.insert(nodes.index(node) + 1, helper.make_node("Cast", [node.output[0]], [name], to=TensorProto.FLOAT))
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return proto


@pytest.mark.parametrize("spare", [True, False])
def test_scales_of_float16(spare: bool) -> None:
    packs = {"w": Pack(0, spare=spare), "v": Pack(0, spare=spare)}
    proto = halved_scales(lines("float16", TURNED, packs=packs, opset=19).model())
    loaded = load(proto)
    moved, copied = permute(loaded), duplicate(loaded)
    assert moved.error < 1e-5 and moved.control > CONTROL
    assert copied.error < (1e-3 if spare else STEP_RTOL) < copied.control
    assert integers(fold(proto, ratio=0.5, latency=False).model)["w_s"].dtype == np.float16


def test_four_bits_in_blocks() -> None:
    proto = lines("int4", TURNED, packs={"w": Pack(1, block=2, spare=False), "v": Pack(1, block=4, spare=False)},
                  opset=21).model()  # fmt: skip
    proto.ir_version = 10
    for tensor in proto.graph.initializer:
        if tensor.name[-2:] in ("_q", "_z"):
            values = numpy_helper.to_array(tensor).astype(int) // 19
            tensor.CopyFrom(helper.make_tensor(tensor.name, TensorProto.INT4, tensor.dims, values.ravel().tolist()))
    loaded = load(proto)
    (group,) = analyze(loaded).groups
    assert group.size == 16 and permute(loaded).control > CONTROL
    held = {t.name: t for t in fold(proto, ratio=0.5, latency=False).model.graph.initializer}
    assert held["w_q"].data_type == held["v_q"].data_type == TensorProto.INT4
    assert list(held["w_q"].dims) == [8, 6] and list(held["v_q"].dims) == [5, 8]
    assert list(held["w_s"].dims) == [8, 3] and list(held["v_s"].dims) == [5, 2]


def test_parts_in_constant_nodes() -> None:
    proto = lines("nodes", TURNED).model()
    as_constant_nodes(proto, [t.name for t in proto.graph.initializer])
    oracles_hold(proto, groups=(16,))
    folds(proto)


def test_integers_that_are_moved_too() -> None:
    """Transpose in front of DequantizeLinear and behind it: the integers are stored as the node takes them."""
    proto = lines("moved", TURNED).model()
    node = next(n for n in proto.graph.node if n.output[0] == "w")
    node.input[0] = "turned_q"
    proto.graph.node.insert(0, helper.make_node("Transpose", ["w_q"], ["turned_q"]))
    held = next(t for t in proto.graph.initializer if t.name == "w_q")
    held.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(numpy_helper.to_array(held).T), "w_q"))
    oracles_hold(proto, groups=(16,))


def test_in_the_bodies_of_an_if() -> None:
    """One branch turns the matrix that it is given, the other has one of its own."""
    text = """(float[N,6] x, bool flag) => (float y) { k = Identity(w) h = If(flag) <
        then_branch = one () => (float[N,16] p) { a = Transpose(k) p = MatMul(x, a) },
        else_branch = two () => (float[N,16] q) { c = Cast<to = 1>(u) q = Gemm<transB = 1>(x, c) }>
        y = MatMul(h, v) }"""
    proto = Packed("if", text, {"w": (16, 6), "u": (16, 6), "v": (16, 5)}, packs={"w": Pack(0)}).model()
    for flag in (True, False):
        loaded, feeds = load(proto), {"x": np.ones((2, 6), np.float32), "flag": np.array(flag)}
        for oracle in (permute, duplicate):
            assert oracle(loaded, feeds=feeds).error < 1e-5


def test_a_list_that_others_read() -> None:
    """Another Reshape keeps the list that it had."""
    body = "{ h = Conv(x, w, b) r = Relu(h) t = Reshape(v, shape) k = Reshape(u, shape) o = Conv(r, t) i = Conv(e, k) }"
    text = "(float[N,3,6,6] x, float[N,16,4,4] e) => (float o, float i) " + body
    packs = {**PACKS, "u": Pack(0)}
    proto = Packed("list", text, {**WEIGHTS, "v": (5, 16), "u": (5, 16)}, values={"shape": [5, 16, 1, 1]},
                   packs=packs).model()  # fmt: skip
    oracles_hold(proto, groups=(16,))
    folds(proto)


# what is not followed -----------------------------------------------------------------------------------------------


def test_joined_axes_are_no_form() -> None:
    assert kept_axes((4, 8), (32,)) is None and kept_axes((1, 4, 8), (4, 1, 8)) == [1, None, 2]
    form = Form.first("w", (16, 1, 6)).then("t", [0, 2]).then("a", [1, 0])
    assert form.shape == (6, 16) and form.axis(0) == 1 and form.axis(1) is None
    held = np.arange(96).reshape(16, 1, 6)
    assert np.array_equal(form.held(form.seen(held)), held) and form.shapes((6, 8)) == [(8, 1, 6), (8, 6), (6, 8)]


def test_one_use_of_several() -> None:
    """A matrix that is used as it is and turned as well stays, and the model is folded elsewhere."""
    text = "(float[N,6] x) => (float y) { a = Transpose(w) h = MatMul(x, a) r = Relu(h) o = MatMul(r, w)" \
           " p = Relu(o) y = MatMul(p, v) }"  # fmt: skip
    proto = Packed("twice", text, {"w": (16, 6), "v": (6, 5)}, packs={"w": Pack(0), "v": Pack(1)}).model()
    found = analyze(load(proto))
    refused_for(found, ["MatMul has a weight computed from integers"])
    assert not found.groups


def test_axes_that_are_joined() -> None:
    text = "(float[N,6] x) => (float y) { a = Reshape(w, shape) h = MatMul(x, a) r = Relu(h) y = MatMul(r, v) }"
    proto = Packed("made", text, {"w": (4, 24), "v": (16, 5)}, values={"shape": [6, 16]}, packs=PACKS).model()
    found = analyze(load(proto))
    refused_for(found, ["Reshape mixes this axis"])
    assert not found.groups


# with samples -------------------------------------------------------------------------------------------------------


def test_consumers_are_refitted() -> None:
    packs = {"w": Pack(0, spare=False), "v": Pack(0, spare=False)}
    proto = lines("fit", TURNED, weights={"w": (32, 6), "v": (5, 32)}, packs=packs).model()
    x = np.random.default_rng(0).standard_normal((256, 6)).astype(np.float32)
    errors, _ = with_and_without_repair(proto, ratio=0.5, calibration={"x": x})
    assert errors["least-squares"] < 0.9 * errors["none"], errors


def test_weights_are_refined() -> None:
    """They are trained in the form in which they are used, and written as integers."""
    packs = {"w": Pack(0, spare=False), "v": Pack(0, spare=False)}
    proto = lines("train", TURNED, weights={"w": (32, 6), "v": (5, 32)}, packs=packs).model()
    x, errors = np.random.default_rng(0).standard_normal((256, 6)).astype(np.float32), {}
    for steps in (0, 60):
        how = {"refine": True, "steps": steps} if steps else {"recovery": "none"}
        result = fold(proto, ratio=0.5, latency=False, calibration={"x": x}, **how)
        check = result.report.check
        assert check is not None and check.worst is not None
        assert not any("not refined" in note for note in check.notes), check.notes
        assert integers(result.model)["w_q"].dtype == np.int8
        errors[steps] = check.worst.relative_l2
    assert errors[60] < 0.9 * errors[0], errors


def test_the_copy_for_gradients_computes_the_same() -> None:
    """As the standard says; onnxruntime's own result for a matrix behind Transpose is up to 0.006 off."""
    proto = lines("copy", TURNED, opset=21).model()
    copy = static_copy(load(proto), {"x": (4, 6)})
    x = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    expected = np.asarray(ReferenceEvaluator(proto).run(None, {"x": x})[0])
    assert [n.op_type for n in copy.graph.node] == ["MatMul", "Relu", "MatMul"]
    assert np.allclose(Session(copy.SerializeToString()).run({"x": x})[0], expected, rtol=1e-5, atol=1e-6)


def test_bias_behind_a_form_goes_by_its_weight() -> None:
    """Where its scale is that of the activations times the weight's, it stays so."""
    text = """(float[N,6] x) => (float y) { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)
        a = Transpose(w) k = Squeeze(b) h = Gemm(d, a, k) r = Relu(h) y = Gemm<transB = 1>(r, v) }"""
    proto = model(text, {**LINES, "b": (1, 16)}, {"s": np.float32(0.05), "z": np.uint8(128)})
    bias = next(t for t in proto.graph.initializer if t.name == "b")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias).reshape(16), "b"))
    pack(proto, {"w": Pack(0, spare=False), "b": Pack(0, of="w"), "v": Pack(0, spare=False)})
    for node in proto.graph.node:
        node.op_type = "Identity" if node.op_type == "Squeeze" else node.op_type
    new = integers(fold(proto, ratio=0.5, latency=False).model)
    assert np.allclose(new["b_s"], new["w_s"] * np.float32(0.05), rtol=1e-6)
