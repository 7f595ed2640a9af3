"""Weights of few bits in blocks: wherever their parts are, and which cannot be changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers import as_constant_nodes, as_inputs, node, refused_for
from nbits import FLOATS, SHAPES, Array, K, distance, inputs, net, random, run
from onnx import ModelProto, TensorProto, helper, numpy_helper
from packing import Packed, add, integers
from tiny import fold, main

from onnxfold.analysis.analyze import analyze
from onnxfold.analysis.costs import count_parameters
from onnxfold.model.model import load
from onnxfold.runtime.autodiff.prepare import static_copy

# where they are -----------------------------------------------------------------------------------------------------


def constant_nodes(proto: ModelProto) -> None:
    as_constant_nodes(proto, [t.name for t in proto.graph.initializer if t.name[:2] in ("w_", "v_")])


def listed(proto: ModelProto) -> None:
    as_inputs(proto, [t.name for t in proto.graph.initializer])


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
    (short_weight, "MatMulNBits has weights that are not N x K numbers"),
    (wide_weight, "MatMulNBits has weights that are not N x K numbers"),
    (short_scales, "MatMulNBits has scales that do not match its blocks"),
    (infinite_scales, "MatMulNBits has scales that do not match its blocks"),
    (short_zeros, "MatMulNBits has zero points that do not match its blocks"),
    (no_scales, "MatMulNBits holds integer weights, but not their scale"),
    (prepacked, "MatMulNBits packs its weights in an unknown format"),
    (other_blocks, "MatMulNBits has a g_idx that does not match its blocks"),
    (packed_and_mixed, "MatMulNBits has packed zero points and a g_idx"),
    (shared, "integer weights that several nodes share"),
    (computed_scale, "MatMulNBits has a scale computed at run time"),
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
