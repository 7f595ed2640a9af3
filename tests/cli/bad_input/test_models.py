"""Models that are broken, empty or no models: one clear line, exit code 3 or 4, nothing written."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from refusals import DONE, FAILED, MODEL, NOTHING, REQUEST, Refused
from tiny import SHAPES, TEXT, arrays, main, net, write


def test_missing_file(refused: Refused, tmp_path: Path) -> None:
    line = refused(MODEL, tmp_path / "no.onnx", tmp_path / "out.onnx")
    assert "no.onnx" in line and "does not exist" in line


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "empty"), (b"hello, this is no model\n" * 50, "not an ONNX model"), (b"\x89PNG\r\n\x1a\n" * 99, "ONNX")],
)
def test_no_model(refused: Refused, tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "in.onnx").write_bytes(content)
    line = refused(MODEL, tmp_path / "in.onnx", tmp_path / "out.onnx")
    assert "in.onnx" in line and says in line


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes(refused: Refused, tmp_path: Path, seed: int) -> None:
    (tmp_path / "in.onnx").write_bytes(random.Random(seed).randbytes(10 ** (seed % 5)))
    assert "in.onnx" in refused(MODEL, tmp_path / "in.onnx", tmp_path / "out.onnx")


def test_truncated(refused: Refused, tmp_path: Path) -> None:
    content = net().SerializeToString()
    for length in [*range(1, 40), *range(40, len(content), len(content) // 60), len(content) - 1]:
        (tmp_path / "in.onnx").write_bytes(content[:length])
        assert "in.onnx" in refused(MODEL, tmp_path / "in.onnx", tmp_path / "out.onnx")


def test_folder_as_input(refused: Refused, tmp_path: Path) -> None:
    assert "is a folder" in refused(MODEL, tmp_path, tmp_path / "out.onnx")


def test_name_too_long(refused: Refused, tmp_path: Path) -> None:
    write(tmp_path / "in.onnx")
    for code, *arguments in (
        (MODEL, "x" * 5000, tmp_path / "out.onnx"),
        (REQUEST, tmp_path / "in.onnx", tmp_path / ("x" * 5000)),
        (REQUEST, tmp_path / "in.onnx", tmp_path / ("x" * 256), "--ratio", 0.5),
    ):
        assert "too long" in refused(code, *arguments)


def test_name_that_steers_a_terminal(refused: Refused, tmp_path: Path) -> None:
    line = refused(MODEL, "a\x1b[31m\nb.onnx", tmp_path / "out.onnx")
    assert "\x1b" not in line


def broken(change: Callable[[ModelProto], Any]) -> ModelProto:
    proto = net()
    change(proto)
    return proto


BROKEN: dict[str, Callable[[ModelProto], Any]] = {
    "no operator set": lambda p: p.ClearField("opset_import"),
    "unknown operator": lambda p: setattr(p.graph.node[1], "op_type", "Rellu"),
    "input from nowhere": lambda p: p.graph.node[1].input.__setitem__(0, "ghost"),
    "name made twice": lambda p: p.graph.node.append(p.graph.node[0]),
    "cycle": lambda p: p.graph.node[0].input.__setitem__(0, "s"),
    "no inputs of a node": lambda p: p.graph.node[0].ClearField("input"),
    "weight too short": lambda p: setattr(p.graph.initializer[0], "raw_data", b"1234"),
    "constant too long": lambda p: p.graph.node.append(
        helper.make_node("Constant", [], ["k"], value=TensorProto(data_type=16, dims=[1], raw_data=b"12345678"))
    ),
    "negative dimension": lambda p: p.graph.initializer[0].dims.__setitem__(0, -16),
    "huge dimension": lambda p: p.graph.initializer[0].dims.__setitem__(0, 2**60),
    "no element type": lambda p: setattr(p.graph.initializer[0], "data_type", 0),
    "unknown element type": lambda p: setattr(p.graph.initializer[0], "data_type", 77),
    "future IR": lambda p: setattr(p, "ir_version", 2**40),
    "shapes that do not fit": lambda p: p.graph.initializer[2].CopyFrom(
        numpy_helper.from_array(np.ones((16, 8, 3, 3), np.float32), "w2")
    ),
}


def regrouped(groups: int, operator: str = "Conv", **shapes: tuple[int, ...]) -> Callable[[ModelProto], Any]:
    """The second convolution in `groups`, and weights of other shapes."""

    def change(proto: ModelProto) -> None:
        proto.graph.node[2].op_type = operator
        proto.graph.node[2].attribute.append(helper.make_attribute("group", groups))
        for tensor in proto.graph.initializer:
            if tensor.name in shapes:
                tensor.CopyFrom(numpy_helper.from_array(np.ones(shapes[tensor.name], np.float32), tensor.name))

    return change


BROKEN |= {
    "outputs that are no groups": regrouped(2, w2=(15, 8, 3, 3), b2=(15,), w3=(10, 15)),
    "inputs that are no groups": regrouped(3, w2=(15, 5, 3, 3), b2=(15,), w3=(10, 15)),
    "no groups": regrouped(0),
    "fewer than no groups": regrouped(-2),
    "a grouped weight of all inputs": regrouped(2),
    "an empty bias": regrouped(1, b2=(0,)),
    "an empty weight": regrouped(1, w3=(10, 0)),
    "a transposed weight that does not fit": regrouped(1, "ConvTranspose", w2=(8, 16, 3, 3)),
    "a transposed weight of more outputs": regrouped(2, "ConvTranspose"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_model(refused: Refused, tmp_path: Path, what: str) -> None:
    write(tmp_path / "in.onnx", broken(BROKEN[what]))
    refused(MODEL, tmp_path / "in.onnx", tmp_path / "out.onnx", "--ratio", "0.5")


def test_depthwise_weight_that_does_not_fit(refused: Refused, tmp_path: Path) -> None:
    """Nothing makes it run, but nothing was asked of it either: its channels are kept."""
    write(tmp_path / "in.onnx", broken(regrouped(16, w2=(16, 2, 3, 3))))
    refused(NOTHING, tmp_path / "in.onnx", tmp_path / "out.onnx", "--ratio", "0.5", says="weight that does not match")


def test_declared_shape_that_is_false(refused: Refused, tmp_path: Path) -> None:
    """Where inference does not see through (Abs of a constant), it believes what the model says."""
    text = """<ir_version: 8, opset_import: ["" : 17]> agraph (float[1,8] x) => (float[1,4,4] y) {
        h = MatMul (x, w) t = Abs (a) r = Reshape (h, t) s = Relu (r) y = Concat <axis: int = 1> (r, s) }"""
    proto = net(text, {"w": (8, 8)})
    proto.graph.initializer.append(numpy_helper.from_array(np.array([1, 4, 2]), "a"))
    write(tmp_path / "in.onnx", proto)
    refused(MODEL, tmp_path / "in.onnx", tmp_path / "out.onnx", says=("'y'", "[1, 8, 2]", "[1, 4, 4]"))


def test_name_that_is_no_text(refused: Refused, tmp_path: Path) -> None:
    content = net().SerializeToString()
    (tmp_path / "in.onnx").write_bytes(content.replace(b"GlobalAveragePool", b"GlobalAverage\xff\xfePo"))
    refused(MODEL, tmp_path / "in.onnx", tmp_path / "out.onnx")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["w1", "b2", "w3"])
def test_weights_that_are_no_numbers(refused: Refused, tmp_path: Path, bad: float, name: str) -> None:
    proto = net()
    tensor = next(t for t in proto.graph.initializer if t.name == name)
    array = numpy_helper.to_array(tensor).copy()
    array[(3, *(0,) * (array.ndim - 1))] = bad
    tensor.CopyFrom(numpy_helper.from_array(array, name))
    write(tmp_path / "in.onnx", proto)
    at = str([3, *(0,) * (array.ndim - 1)])
    refused(MODEL, tmp_path / "in.onnx", tmp_path / "out.onnx", "--ratio", "0.5", says=(f"'{name}'", at))


def test_infinity_in_a_mask_is_no_error(tmp_path: Path) -> None:
    """Bounds of Clip and attention masks hold infinities; only weights that are merged must be finite."""
    proto = net(TEXT.replace("f = Flatten (p)", "g = Clip (p, low, high)\n f = Flatten (g)"))
    proto.graph.initializer.extend(
        numpy_helper.from_array(np.float32(v), n) for n, v in (("low", -np.inf), ("high", np.inf))
    )
    assert main([str(write(tmp_path / "in.onnx", proto)), str(tmp_path / "out.onnx"), "--ratio", "0.5", "-q"]) == DONE


def test_nothing_to_fold(refused: Refused, tmp_path: Path) -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[2,4] x) => (float[2,4] y) { y = Relu (x) }'
    write(tmp_path / "in.onnx", net(text, {}))
    refused(NOTHING, tmp_path / "in.onnx", tmp_path / "out.onnx", says="nothing to fold")


def test_a_reason_without_channels_has_no_number(refused: Refused, tmp_path: Path) -> None:
    """Of a convolution whose input has no known rank nobody knows how many channels it makes."""
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,K] x, int64[M] s) => (float y) {
        z = Reshape (x, s)
        y = Conv (z, w)
    }"""
    write(tmp_path / "in.onnx", net(text, {"w": (4, 3, 1, 1)}))
    error = refused(NOTHING, tmp_path / "in.onnx", tmp_path / "out.onnx", says="unknown shape")
    assert "channels)" not in error


def test_budget_that_removes_nothing(refused: Refused, tmp_path: Path) -> None:
    write(tmp_path / "in.onnx")
    refused(NOTHING, tmp_path / "in.onnx", tmp_path / "out.onnx", "--ratio", "0", says="removes nothing")
    refused(NOTHING, tmp_path / "in.onnx", tmp_path / "out.onnx", "--ratio", 0.5, "--round-to", 64, says="--round-to")


@pytest.mark.parametrize("name", ["w1", "w3"])
def test_zero_size_weight(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A weight with a dimension of 0: refused or folded, but no traceback."""
    shapes = {**SHAPES, name: (0, *SHAPES[name][1:])}
    path = write(tmp_path / "in.onnx", net(shapes=shapes))
    assert main([str(path), str(tmp_path / "out.onnx"), "--ratio", "0.5", "-q"]) in (DONE, FAILED, MODEL, NOTHING)
    assert capsys.readouterr().err.count("\n") <= 1


@pytest.mark.parametrize("shape", ["N,3,0,8", "0,3,8,8", "N,0,8,8"])
def test_zero_size_input(tmp_path: Path, shape: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "in.onnx", net(TEXT.replace("N,3,8,8", shape)))
    assert main([str(path), str(tmp_path / "out.onnx"), "--ratio", "0.5", "-q"]) in (DONE, FAILED, MODEL, NOTHING)
    assert capsys.readouterr().err.count("\n") <= 1


def with_input(proto: ModelProto, kind: onnx.ValueInfoProto, node: onnx.NodeProto, shape: list[int]) -> ModelProto:
    proto.graph.input.append(kind)
    proto.graph.node.append(node)
    proto.graph.output.append(helper.make_tensor_value_info(node.output[0], TensorProto.INT64, shape))
    return proto


STRANGE = {
    "sequence_of_strings": (
        helper.make_tensor_sequence_value_info("t", TensorProto.STRING, [2]),
        helper.make_node("SequenceLength", ["t"], ["z"]), [],
    ),
    "sequence": (
        helper.make_tensor_sequence_value_info("t", TensorProto.FLOAT, [2]),
        helper.make_node("SequenceLength", ["t"], ["z"]), [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", STRANGE)
def test_inputs_that_cannot_be_made_up(
    refused: Refused, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    path = write(tmp_path / "in.onnx", with_input(net(), *STRANGE[kind]))
    refused(REQUEST, path, tmp_path / "out.onnx", says="--ratio")
    assert main([str(path), str(tmp_path / "out.onnx"), "--ratio", "0.5"]) == FAILED
    assert "nothing was measured" in " ".join(capsys.readouterr().err.split())
    assert main([str(path), str(tmp_path / "out.onnx"), "--ratio", "0.5", "--allow-unmeasured"]) == DONE
    assert "Nothing was measured" in " ".join(capsys.readouterr().out.split())


def test_operator_that_onnxruntime_lacks(refused: Refused, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Such a model is folded when told how far; the verdict says that nothing could be measured."""
    text = TEXT.replace("y = Gemm", "q = Gemm").replace("}", "y = custom.Odd (q)\n}")
    path = write(tmp_path / "in.onnx", net(text))
    refused(REQUEST, path, tmp_path / "out.onnx", says="--ratio")
    assert main([str(path), str(tmp_path / "out.onnx"), "--ratio", "0.5", "--allow-unmeasured"]) == DONE
    shown = " ".join(capsys.readouterr().out.split())
    assert "Nothing was measured: no provider could run the original model." in shown and "failed" in shown
    assert arrays(tmp_path / "out.onnx")["w2"].shape == (8, 8, 3, 3)
