"""Every bad input ends in one clear line, the right exit code, nothing written and nothing left behind."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from mutants import mutate, mutated
from onnx import ModelProto, TensorProto, helper, numpy_helper
from tiny import FAST, MODELS, ROOT, SHAPES, TEXT, arrays, fold, main, net, snapshot, write, write_external

from onnxfold import OnnxFoldError, RequestError, session

Refused = Callable[..., str]
DONE, FAILED, REQUEST, MODEL, NOTHING = range(5)


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run the command line on bad input: the line that it ends with, after all checks."""

    def run(code: int, *arguments: object, says: str | tuple[str, ...] = ()) -> str:
        before = snapshot(tmp_path)
        assert main([str(a) for a in arguments]) == code
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err.startswith("onnxfold: ") and shown.err.endswith("\n") and shown.err.count("\n") == 1
        assert "Traceback" not in shown.err and len(shown.err) > 30
        for word in (says,) if isinstance(says, str) else says:
            assert word in shown.err, shown.err
        assert snapshot(tmp_path) == before
        return shown.err

    return run


# the input file -----------------------------------------------------------------------------------------------------


def test_missing_file(refused: Refused, tmp_path: Path) -> None:
    refused(MODEL, tmp_path / "no.onnx", tmp_path / "out.onnx", says=("no.onnx", "does not exist"))


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "empty"), (b"hello, this is no model\n" * 50, "not an ONNX model"), (b"\x89PNG\r\n\x1a\n" * 99, "ONNX")],
)
def test_no_model(refused: Refused, tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "in.onnx").write_bytes(content)
    refused(MODEL, tmp_path / "in.onnx", tmp_path / "out.onnx", says=("in.onnx", says))


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes(refused: Refused, tmp_path: Path, seed: int) -> None:
    (tmp_path / "in.onnx").write_bytes(random.Random(seed).randbytes(10 ** (seed % 5)))
    refused(MODEL, tmp_path / "in.onnx", tmp_path / "out.onnx", says="in.onnx")


def test_truncated(refused: Refused, tmp_path: Path) -> None:
    content = net().SerializeToString()
    for length in [*range(1, 40), *range(40, len(content), len(content) // 60), len(content) - 1]:
        (tmp_path / "in.onnx").write_bytes(content[:length])
        refused(MODEL, tmp_path / "in.onnx", tmp_path / "out.onnx", says="in.onnx")


def test_folder_as_input(refused: Refused, tmp_path: Path) -> None:
    refused(MODEL, tmp_path, tmp_path / "out.onnx", says="is a folder")


def test_name_too_long(refused: Refused, tmp_path: Path) -> None:
    refused(MODEL, "x" * 5000, tmp_path / "out.onnx")
    write(tmp_path / "in.onnx")
    refused(REQUEST, tmp_path / "in.onnx", tmp_path / ("x" * 5000))
    refused(REQUEST, tmp_path / "in.onnx", tmp_path / ("x" * 256), "--ratio", 0.5)


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
    refused(NOTHING, tmp_path / "in.onnx", tmp_path / "out.onnx", "--ratio", "0.5", says="weight that does not fit")


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
    assert main([str(path), str(tmp_path / "out.onnx"), "--ratio", "0.5"]) == DONE
    assert "nothing was measured" in " ".join(capsys.readouterr().out.split())


def test_operator_that_onnxruntime_lacks(refused: Refused, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Such a model is folded when told how far; the verdict says that nothing could be measured."""
    text = TEXT.replace("y = Gemm", "q = Gemm").replace("}", "y = custom.Odd (q)\n}")
    path = write(tmp_path / "in.onnx", net(text))
    refused(REQUEST, path, tmp_path / "out.onnx", says="--ratio")
    assert main([str(path), str(tmp_path / "out.onnx"), "--ratio", "0.5"]) == DONE
    shown = " ".join(capsys.readouterr().out.split())
    assert "nothing was measured" in shown and "failed" in shown
    assert arrays(tmp_path / "out.onnx")["w2"].shape == (8, 8, 3, 3)


# external data ------------------------------------------------------------------------------------------------------


def relocate(path: Path, location: str) -> None:
    proto = onnx.load(path, load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    write(path, proto)


def test_external_data_missing(refused: Refused, tmp_path: Path) -> None:
    path = write_external(tmp_path / "in.onnx")
    (tmp_path / "weights.bin").unlink()
    refused(MODEL, path, tmp_path / "out.onnx", says=("weights.bin", "missing", "put it there"))


@pytest.mark.parametrize("length", [0, 1, 100, -1])
def test_external_data_cut_short(refused: Refused, tmp_path: Path, length: int) -> None:
    path = write_external(tmp_path / "in.onnx")
    data = tmp_path / "weights.bin"
    data.write_bytes(data.read_bytes()[:length])
    refused(MODEL, path, tmp_path / "out.onnx", says=("weights.bin", "cut off"))


@pytest.mark.parametrize("how", ["dots", "dots inside", "absolute", "link", "empty"])
def test_external_data_outside(refused: Refused, tmp_path: Path, how: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path = write_external(folder / "in.onnx")
    shutil.move(folder / "weights.bin", tmp_path / "secret.bin")
    if how == "link":
        (folder / "weights.bin").symlink_to(tmp_path / "secret.bin")
    places = {
        "dots": "../secret.bin", "dots inside": "a/../../secret.bin", "absolute": str(tmp_path / "secret.bin"),
        "link": "weights.bin", "empty": "",
    }  # fmt: skip
    relocate(path, places[how])
    refused(MODEL, path, tmp_path / "out.onnx", says=("outside the model's folder", "refused"))


@pytest.mark.parametrize(("key", "value"), [("offset", "-8"), ("offset", "x"), ("length", "4"), ("length", "1e9")])
def test_external_data_nonsense(refused: Refused, tmp_path: Path, key: str, value: str) -> None:
    path = write_external(tmp_path / "in.onnx")
    proto = onnx.load(path, load_external_data=False)
    entry = next(e for e in proto.graph.initializer[0].external_data if e.key == key)
    entry.value = value
    refused(MODEL, write(path, proto), tmp_path / "out.onnx", says="'w1'")


def test_output_over_the_external_data(refused: Refused, tmp_path: Path) -> None:
    path = write_external(tmp_path / "in.onnx")
    refused(REQUEST, path, tmp_path / "weights.bin", "--ratio", "0.5", says="holds the weights of the input")


# the output ---------------------------------------------------------------------------------------------------------


def test_output_folder_missing(refused: Refused, tmp_path: Path) -> None:
    write(tmp_path / "in.onnx")
    refused(REQUEST, tmp_path / "in.onnx", tmp_path / "no" / "out.onnx", says=("does not exist", "create it"))


def test_output_folder_read_only(refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "in.onnx")
    monkeypatch.setattr(os, "access", lambda *_: False)  # the superuser may write anywhere
    refused(REQUEST, tmp_path / "in.onnx", tmp_path / "out.onnx", says="not writable")


def test_output_is_a_folder(refused: Refused, tmp_path: Path) -> None:
    write(tmp_path / "in.onnx")
    refused(REQUEST, tmp_path / "in.onnx", tmp_path, says="is a folder")


def test_output_is_a_pipe(refused: Refused, tmp_path: Path) -> None:
    write(tmp_path / "in.onnx")
    refused(REQUEST, tmp_path / "in.onnx", os.devnull, says="no ordinary file")


@pytest.mark.parametrize("how", ["same", "dots", "symlink", "hard link"])
def test_output_is_the_input(refused: Refused, tmp_path: Path, how: str) -> None:
    path, other = write(tmp_path / "in.onnx"), tmp_path / "other.onnx"
    if how == "symlink":
        other.symlink_to(path)
    elif how == "hard link":
        other.hardlink_to(path)
    target = {"same": path, "dots": tmp_path / ".." / tmp_path.name / "in.onnx"}.get(how, other)
    refused(REQUEST, path, target, says="is the input itself")


def test_report_in_a_missing_folder(refused: Refused, tmp_path: Path) -> None:
    path = write(tmp_path / "in.onnx")
    for report in (tmp_path / "no" / "r.json", tmp_path):
        refused(REQUEST, path, tmp_path / "out.onnx", "--report", report, says="--report"[2:])
        refused(REQUEST, path, "--inspect", "--report", report, says="report")
        refused(REQUEST, "compare", path, path, "--report", report, says="report")


def test_report_over_a_model(refused: Refused, tmp_path: Path) -> None:
    path, out = write(tmp_path / "in.onnx"), tmp_path / "out.onnx"
    for report in (path, out):
        refused(REQUEST, path, out, "--report", report, says="would overwrite the model")


# the request --------------------------------------------------------------------------------------------------------

REQUESTS: dict[str, tuple[list[str], str]] = {
    "ratio 1": (["--ratio", "1.0"], "below 1"),
    "ratio -0.1": (["--ratio", "-0.1"], "between 0 and 1"),
    "ratio 1.5": (["--ratio", "1.5"], "between 0 and 1"),
    "ratio 30": (["--ratio", "30"], "between 0 and 1"),
    "ratio nan": (["--ratio", "nan"], "between 0 and 1"),
    "ratio inf": (["--ratio", "inf"], "between 0 and 1"),
    "ratio text": (["--ratio", "much"], "--ratio"),
    "params 0": (["--target-params", "0"], "above 0"),
    "macs nan": (["--target-macs", "nan"], "between 0 and 1"),
    "unreachable": (["--target-macs", "0.001"], "cannot be reached"),
    "round to 0": (["--round-to", "0"], "--round-to"),
    "round to -8": (["--round-to", "-8", "--ratio", "0.5"], "--round-to"),
    "two budgets": (["--ratio", "0.5", "--target-macs", "0.5"], "not several"),
    "three budgets": (["--ratio", "0.5", "--target-macs", "0.5", "--target-params", "0.5"], "not several"),
    "bad regex": (["--include", "a(b"], "not a regular expression"),
    "bad regex to exclude": (["--exclude", "[z-a]"], "not a regular expression"),
    "unknown provider": (["--providers", "tpu"], "'tpu'"),
    "no provider": (["--providers", ""], "at least one provider"),
    "only commas": (["--providers", " , "], "at least one provider"),
    "shape without name": (["--input-shape", "1,3,8,8"], "NAME:D,D"),
    "shape of nothing": (["--input-shape", ":1,3,8,8"], "NAME:D,D"),
    "shape of text": (["--input-shape", "x:a,b"], "NAME:D,D"),
    "shape without numbers": (["--input-shape", "x:"], "NAME:D,D"),
    "unknown input": (["--input-shape", "z:1,3,8,8"], "its inputs are x"),
    "wrong rank": (["--input-shape", "x:1,3,8"], "4 dimensions"),
    "zero length": (["--input-shape", "x:0,3,8,8"], "positive"),
    "too long": (["--input-shape", "x:99999999999999999999,3,8,8"], "positive"),
    "against the model": (["--input-shape", "x:1,4,8,8"], "axis 1"),
    "unknown option": (["--frobnicate"], "--frobnicate"),
    "shortened option": (["--rat", "0.5"], "--rat"),
    "unknown method": (["--method", "magic"], "magic"),
    "unknown recovery": (["--recovery", "magic"], "magic"),
    "bad seed": (["--seed", "-1", "--ratio", "0.5"], "--seed"),
    "bad threads": (["--threads", "-1", "--ratio", "0.5"], "--threads"),
    "one argument more": (["more.onnx"], "more.onnx"),
}


@pytest.mark.parametrize("what", REQUESTS)
def test_bad_request(refused: Refused, tmp_path: Path, what: str) -> None:
    options, says = REQUESTS[what]
    refused(REQUEST, write(tmp_path / "in.onnx"), tmp_path / "out.onnx", *options, says=says)


def test_no_arguments(refused: Refused) -> None:
    refused(REQUEST, says=("IN", "--help"))


def test_no_output(refused: Refused, tmp_path: Path) -> None:
    refused(REQUEST, write(tmp_path / "in.onnx"), says=("IN OUT", "--inspect"))


def test_include_that_matches_nothing(refused: Refused, tmp_path: Path) -> None:
    path = write(tmp_path / "in.onnx")
    refused(NOTHING, path, tmp_path / "out.onnx", "--include", "zebra", says=("--include", "--inspect"))
    refused(NOTHING, path, tmp_path / "out.onnx", "--exclude", ".", says="--exclude")


def test_group_ratio_that_matches_nothing(refused: Refused, tmp_path: Path) -> None:
    path = write(tmp_path / "in.onnx")
    given = ("--group-ratio", "zebra=0.5", "--group-ratio", ".=0.5")
    refused(REQUEST, path, tmp_path / "out.onnx", *given, says=("--group-ratio 'zebra'", "--inspect"))


@pytest.mark.parametrize("argument", ["method", "recovery", "clusterer"])
def test_library_refuses_unknown_words(argument: str) -> None:
    with pytest.raises(RequestError, match=f"unknown {argument} 'magic'"):
        fold(net(), ratio=0.5, **{argument: "magic"})


# interruptions ------------------------------------------------------------------------------------------------------


def test_interrupted(refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    path = write(tmp_path / "in.onnx")
    for place in ("onnxfold.stages.load", "onnxfold.ending.check", "onnxfold.store._write"):
        with monkeypatch.context() as patch:
            patch.setattr(place, stop)
            refused(130, path, tmp_path / "out.onnx", "--ratio", "0.5", says="interrupted")


class FullDisk:
    """A file that takes `room` bytes."""

    def __init__(self, file: Any, room: int) -> None:
        self.file, self.room = file, room

    def write(self, content: bytes) -> int:
        self.room -= len(content)
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return int(self.file.write(content))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> FullDisk:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


@pytest.mark.parametrize("external", [[], ["--save-as-external-data"]])
@pytest.mark.parametrize("room", [0, 100, 2000])
def test_full_disk(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, external: list[str]
) -> None:
    path, out = write(tmp_path / "in.onnx"), tmp_path / "out.onnx"
    assert main([str(path), str(out), "--ratio", "0.3", "-q", *external]) == DONE
    opened = Path.open

    def open_full(self: Path, mode: str = "r", *more: Any, **named: Any) -> Any:
        file = opened(self, mode, *more, **named)
        return FullDisk(file, room) if "w" in mode and self.parent == tmp_path else file

    monkeypatch.setattr(Path, "open", open_full)
    refused(REQUEST, path, out, "--ratio", "0.5", *external, says=("cannot write", "No space left"))


def test_full_disk_for_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path, out = write(tmp_path / "in.onnx"), tmp_path / "out.onnx"
    monkeypatch.setattr("onnxfold.report.write_text", full)
    assert main([str(path), str(out), "--ratio", "0.5", "-q", "--report", str(tmp_path / "r.json")]) == REQUEST
    line = capsys.readouterr().err
    assert "cannot write the report" in line and "out.onnx is written" in line and line.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.onnx", "out.onnx"]


KILL_AT = """
import os, sys, time
calls = {name: getattr(os, name) for name in ("fsync", "replace")}
count = 0
def stop(name):
    def call(*a, **k):
        global count
        count += 1
        if count == int(sys.argv[1]):
            print("here", flush=True)
            time.sleep(60)
        return calls[name](*a, **k)
    return call
for name in calls:
    setattr(os, name, stop(name))
from onnxfold.cli import main
code = main(sys.argv[2:])
print("end", flush=True)
"""


@pytest.mark.parametrize("external", [False, True])
def test_killed_while_writing(tmp_path: Path, external: bool) -> None:
    """At every step of writing, a killed run leaves the old model or the new one, whole."""
    path, out = (write_external if external else write)(tmp_path / "in.onnx"), tmp_path / "out.onnx"
    assert main([str(path), str(out), "--ratio", "0.3", "-q"]) == DONE
    old = arrays(out)
    assert main([str(path), str(tmp_path / "other.onnx"), "--ratio", "0.5", "-q"]) == DONE
    new = arrays(tmp_path / "other.onnx")
    for step in range(1, 12):
        command = [sys.executable, "-c", KILL_AT, str(step), str(path), str(out), "--ratio", "0.5", "-q", *FAST]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            said = child.stdout.readline().strip()
            if said == "here":
                child.kill()
        found = arrays(out)
        assert found.keys() == old.keys()
        assert any(all(np.array_equal(found[n], w[n]) for n in w) for w in (old, new))
        if said == "end":
            break
        onnx.checker.check_model(str(out))
    assert said == "end" and step > (3 if external else 2)
    assert all(np.array_equal(found[n], new[n]) for n in new)


# mutations ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["digits_resnet_bn", "digits_mobilenet"])
def test_mutated_bytes(tmp_path: Path, name: str) -> None:
    """A model with damaged bytes is folded or refused; it never ends in another exception."""
    content = (MODELS / f"{name}.onnx").read_bytes()
    path, outcomes = tmp_path / "in.onnx", {True: 0, False: 0}
    for seed in range(150):
        path.write_bytes(mutated(content, random.Random(seed)))
        try:
            fold(path, ratio=0.3, latency=False)
            outcomes[True] += 1
        except OnnxFoldError as error:
            outcomes[False] += 1
            assert str(error)
    assert min(outcomes.values()) > 10, "the mutations say nothing: all end alike"


@pytest.mark.parametrize("start", range(0, 240, 40))
def test_mutated_structure(tmp_path: Path, start: int) -> None:
    """A model that parses but says strange things: odd lengths, names, types, missing or doubled parts."""
    refusals = 0
    for seed in range(start, start + 40):
        proto = onnx.shape_inference.infer_shapes(net())
        chance = random.Random(seed)
        for _ in range(chance.choice([1, 1, 2, 3])):
            mutate(proto, chance)
        try:
            fold(write(tmp_path / "in.onnx", proto), ratio=0.5, latency=False)
        except OnnxFoldError:
            refusals += 1
    assert 5 < refusals < 40


# a real process -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["no.onnx", "out.onnx"], MODEL),
        (["in.onnx", "in.onnx"], REQUEST),
        (["in.onnx", "out.onnx", "--ratio", "2"], REQUEST),
    ],
)
def test_in_a_process(tmp_path: Path, arguments: list[str], code: int) -> None:
    write(tmp_path / "in.onnx")
    done = subprocess.run(
        [sys.executable, "-m", "onnxfold", *arguments, *FAST], cwd=tmp_path, capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert done.returncode == code and done.stdout == ""
    assert done.stderr.startswith("onnxfold: ") and done.stderr.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["in.onnx"]


def test_ctrl_c_in_a_process(tmp_path: Path) -> None:
    import signal

    write(tmp_path / "in.onnx")
    code = KILL_AT.replace("\ncode = main(sys.argv[2:])", "\nsys.exit(main(sys.argv[2:]))")
    # a shell starts what runs in its background with this signal ignored, and children inherit that
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n" + code
    with subprocess.Popen(
        [sys.executable, "-c", code, "1", "in.onnx", "out.onnx", "--ratio", "0.5", *FAST], cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as child:  # fmt: skip
        assert child.stdout is not None
        assert child.stdout.readline().strip() == "here"
        time.sleep(0.1)
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=30)
    assert child.returncode == 130 and errors == "onnxfold: interrupted, nothing was written\n"
    assert [p.name for p in tmp_path.iterdir()] == ["in.onnx"]


def test_session_never_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider that silently became the CPU is an error, not a measurement."""
    with pytest.raises(RuntimeError, match="fell back"):

        class Fallen:
            def __init__(self, *_: object, **__: object) -> None: ...
            def get_providers(self) -> list[str]:
                return ["CPUExecutionProvider"]

        monkeypatch.setattr(session.ort, "InferenceSession", Fallen)
        session.Session(b"", "CUDAExecutionProvider")
