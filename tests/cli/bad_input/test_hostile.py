"""Small files that were made to do harm: each ends within 10 s and 1 GB, in a result or in one line, and prints nothing
that a terminal obeys. Every command runs in a child process, because a file that does harm may end it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper
from refusals import DONE, MODEL, NOTHING, REQUEST
from tiny import TEXT, net, write, write_external

SECONDS, MEGABYTES = 10, 1000
WAIT = 90  # seconds on a clock: other work beside this may make things slow
ROOT = Path(__file__).resolve().parents[3]
CASES = ROOT.parent / "shared" / "cases"
STEERS = "\x1b[2J\x1b[31mPWNED\x1b]0;title\x07\u202e\u2066\u200b\x9b31m"
CHILD = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
resource.setrlimit(resource.RLIMIT_DATA, (4 << 30, 4 << 30))
from onnxfold.cli.main import main
code = main(sys.argv[2:])
status = Path("/proc/self/status").read_text()
memory = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) // 1024
used = resource.getrusage(resource.RUSAGE_SELF)
Path(sys.argv[1]).write_text(f"{memory} {used.ru_utime + used.ru_stime}")
sys.exit(code)
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


@dataclass(frozen=True)
class Ended:
    code: int
    shown: str
    errors: str


def run(folder: Path, *arguments: object) -> Ended:
    """The command line in a child, after the checks that hold for every input."""
    used = folder / "used.txt"
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(used), *map(str, arguments)], capture_output=True, timeout=WAIT, cwd=folder,
        stdin=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    shown, errors = done.stdout.decode(), done.stderr.decode()
    memory, seconds = map(float, used.read_text().split())
    assert memory < MEGABYTES and seconds < SECONDS, (memory, seconds, errors)
    for text in (shown, errors):
        assert all(c.isprintable() or c == "\n" for c in text), text
    assert "internal error" not in errors and "Traceback" not in errors, errors
    if done.returncode in (REQUEST, MODEL, NOTHING):
        assert errors.startswith("onnxfold: ") and errors.count("\n") == 1 and len(errors) < 5000, errors
    return Ended(done.returncode, shown, errors)


def fold(folder: Path, path: Path, *more: object) -> Ended:
    return run(folder, path, folder / "out.onnx", "--effort", "fast", "--ratio", 0.5, "--round-to", 1, *more)


# functions ----------------------------------------------------------------------------------------------------------


def calling(*bodies: Sequence[str], nested: bool = False, constant: int = 0) -> ModelProto:
    """The small network, whose last ReLU is function f0; `bodies`: the functions that f0, f1, ... call in turn."""
    proto = net()
    ours, opsets = "mine", [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    for number, called in enumerate(bodies):
        names = ["x", *(f"t{i}" for i in range(len(called) - 1)), "y"]
        nodes = [
            helper.make_node(one, [a], [b], domain=ours if one != "Relu" else "")
            for one, a, b in zip(called, names[:-1], names[1:], strict=True)
        ]
        if constant:
            weight = onnx.numpy_helper.from_array(np.zeros(constant, np.float32))
            nodes.append(helper.make_node("Constant", [], ["unused"], value=weight))
        if nested:  # the calls lie in the branches of an If
            branch = helper.make_graph(
                nodes, "branch", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
            )
            yes = onnx.numpy_helper.from_array(np.array(True))
            nodes = [
                helper.make_node("Constant", [], ["yes"], value=yes),
                helper.make_node("If", ["yes"], ["z"], then_branch=branch, else_branch=branch),
            ]
        out = "z" if nested else "y"
        proto.functions.append(helper.make_function(ours, f"f{number}", ["x"], [out], nodes, opsets))
    proto.opset_import.append(opsets[1])
    node = next(n for n in proto.graph.node if n.op_type == "Relu")
    node.op_type, node.domain = "f0", ours
    return proto


FUNCTIONS: dict[str, tuple[Callable[[], ModelProto], str]] = {
    "forty that call the next one twice": (
        lambda: calling(*([f"f{i + 1}"] * 2 for i in range(39)), ["Relu"]), "functions",
    ),
    "some that call the next one often": (
        lambda: calling(*([f"f{i + 1}"] * 100 for i in range(4)), ["Relu"]), "functions",
    ),
    "calls in branches": (lambda: calling(*([f"f{i + 1}"] for i in range(30)), ["Relu"], nested=True), "functions"),
    "one that calls itself": (lambda: calling(["f0", "Relu"]), "calls itself"),
    "two that call each other": (lambda: calling(["f1"], ["Relu", "f0"]), "calls itself"),
    "a constant in a thousand calls": (
        lambda: calling(["f1"] * 32, ["f2"] * 32, ["Relu"], constant=100_000), "constants",
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", FUNCTIONS)
@pytest.mark.parametrize("inspect", [True, False])
def test_functions_that_come_to_too_much(tmp_path: Path, how: str, inspect: bool) -> None:
    make, says = FUNCTIONS[how]
    path = write(tmp_path / "in.onnx", make())
    ended = run(tmp_path, path, "--inspect") if inspect else fold(tmp_path, path)
    assert ended.code == MODEL and says in ended.errors, ended


def test_functions_that_are_called_in_measure(tmp_path: Path) -> None:
    path = write(tmp_path / "in.onnx", calling(*([f"f{i + 1}"] * 2 for i in range(8)), ["Relu"]))
    assert run(tmp_path, path, "--inspect").code == DONE


# files that are none ------------------------------------------------------------------------------------------------


def no_file(path: Path, how: str) -> Path:
    """A pipe or a socket at `path`, or a link to a pipe."""
    path.unlink(missing_ok=True)
    if how == "socket":
        here = os.getcwd()
        os.chdir(path.parent)  # names of sockets are short
        try:
            with socket.socket(socket.AF_UNIX) as one:
                one.bind(path.name)
        finally:
            os.chdir(here)
    elif how == "pipe":
        os.mkfifo(path)
    else:
        os.mkfifo(path.with_suffix(".fifo"))
        path.symlink_to(path.with_suffix(".fifo"))
    return path


@pytest.mark.parametrize("how", ["pipe", "socket", "link to a pipe"])
def test_models_that_are_no_files(tmp_path: Path, how: str) -> None:
    path, kind = no_file(tmp_path / "in.onnx", how), how.split()[-1]
    for ended in (run(tmp_path, path, "--inspect"), fold(tmp_path, path)):
        assert ended.code == MODEL and f"a {kind}" in ended.errors, ended


@pytest.mark.parametrize("how", ["pipe", "socket", "link to a pipe"])
def test_external_data_that_is_no_file(tmp_path: Path, how: str) -> None:
    path = write_external(tmp_path / "in.onnx")
    no_file(tmp_path / "weights.bin", how)
    ended = fold(tmp_path, path)
    assert ended.code == MODEL and "weights.bin" in ended.errors and f"a {how.split()[-1]}" in ended.errors, ended


@pytest.mark.parametrize("name", ["c.npz", "c.npy", "c.png", "folder/c.npy", "folder/c.png", "set/input_0.pb"])
def test_calibration_that_is_no_file(tmp_path: Path, name: str) -> None:
    path, given = write(tmp_path / "in.onnx"), tmp_path / name
    given.parent.mkdir(exist_ok=True)
    os.mkfifo(given)
    source = given if given.parent == tmp_path else given.parent
    ended = fold(tmp_path, path, "--calibration", source, "--preprocess", "0,1,nchw")
    assert ended.code == REQUEST and "a pipe" in ended.errors and given.name in ended.errors, ended


def test_links_that_lead_to_themselves(tmp_path: Path) -> None:
    loop = tmp_path / "loop.onnx"
    loop.symlink_to(loop)
    path = write_external(tmp_path / "in.onnx")
    data = tmp_path / "weights.bin"
    data.unlink()
    data.symlink_to("weights.bin")
    for one, name in ((loop, "loop.onnx"), (path, "weights.bin")):
        for ended in (run(tmp_path, one, "--inspect"), fold(tmp_path, one)):
            assert ended.code == MODEL and name in ended.errors, ended


# calibration --------------------------------------------------------------------------------------------------------


def header(shape: Sequence[int], descr: str = "<f4") -> bytes:
    text = repr({"descr": descr, "fortran_order": False, "shape": tuple(shape)}).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def zeros_zipped(path: Path, shape: Sequence[int]) -> None:
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x.npy", "w", force_zip64=True) as file,
    ):
        file.write(header(shape))
        left = int(np.prod(shape)) * 4
        while left:
            file.write(bytes(min(left, 2**24)))
            left -= min(left, 2**24)


def promising(path: Path, shape: Sequence[int]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", header(shape) + bytes(1000))


def sparse(path: Path, shape: Sequence[int]) -> None:
    path.write_bytes(header(shape))
    os.truncate(path, 128 + int(np.prod(shape)) * 4)


def endless_header(path: Path) -> None:
    path.write_bytes(b"\x93NUMPY\x02\x00" + (2**31).to_bytes(4, "little"))
    os.truncate(path, 2**31 + 12)


CALIBRATION: dict[str, tuple[str, Callable[[Path], None], tuple[str, ...], str]] = {
    "zeros in a zip": ("c.npz", lambda p: zeros_zipped(p, (400_000, 3, 8, 8)), (), "packed"),
    "more than is allowed": (
        "c.npz", lambda p: zeros_zipped(p, (50_000, 3, 8, 8)), ("--max-memory", "20M"), "--max-memory",
    ),
    "a header of much": ("c.npz", lambda p: promising(p, (10**9, 3, 8, 8)), (), "cut off"),
    "one sample of much": ("c.npy", lambda p: sparse(p, (1, 3, 60_000, 60_000)), (), "--max-memory"),
    "a long header": ("c.npy", endless_header, (), "too long"),
}  # fmt: skip


@pytest.mark.parametrize("how", CALIBRATION)
def test_calibration_that_takes_too_much(tmp_path: Path, how: str) -> None:
    name, make, more, says = CALIBRATION[how]
    make(tmp_path / name)
    path = write(tmp_path / "in.onnx", net(TEXT.replace("N,3,8,8", "N,3,H,W")))
    ended = fold(tmp_path, path, "--calibration", tmp_path / name, *more)
    assert ended.code == REQUEST and name in ended.errors + " c.npy" and says in ended.errors, ended


@pytest.mark.parametrize("size", [(20_000, 20_000), (65_000, 1), (1, 65_000)])
def test_image_bombs(tmp_path: Path, size: tuple[int, int]) -> None:
    image = pytest.importorskip("PIL.Image")
    image.MAX_IMAGE_PIXELS, before = None, image.MAX_IMAGE_PIXELS
    try:
        image.new("1", size).save(tmp_path / "c.png")
    finally:
        image.MAX_IMAGE_PIXELS = before
    path = write(tmp_path / "in.onnx", net(TEXT.replace("N,3,8,8", "N,3,256,256")))
    ended = fold(tmp_path, path, "--calibration", tmp_path / "c.png", "--preprocess", "0,1,nchw")
    assert ended.code == REQUEST and "c.png" in ended.errors, ended


# sizes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["8388608,3,8,8", "N,3,8,8388608", "268435456,3,8,8", "4194304,3,8,8"])
def test_huge_batches_and_dimensions(tmp_path: Path, shape: str) -> None:
    text = TEXT.replace("N,3,8,8", shape)
    path = write(tmp_path / "in.onnx", net(text.replace("[N,10]", f"[{shape.split(',')[0]},10]")))
    ended = fold(tmp_path, path)
    do = ("--input-shape", "export it again, for smaller inputs")  # that helps only where something is open
    assert ended.code in (REQUEST, MODEL) and any(words in ended.errors for words in do), ended
    assert run(tmp_path, path, "--inspect").code in (DONE, MODEL)


def test_huge_input_shapes(tmp_path: Path) -> None:
    ended = fold(tmp_path, write(tmp_path / "in.onnx"), "--input-shape", "x:8388608,3,8,8")
    assert ended.code in (REQUEST, MODEL) and "--input-shape" in ended.errors, ended


# names --------------------------------------------------------------------------------------------------------------


def renamed(proto: ModelProto, prefix: str) -> ModelProto:
    """Every name of a graph with `prefix` before it."""
    graph = proto.graph
    for one in (*graph.input, *graph.output, *graph.initializer, *graph.node):
        one.name = prefix + one.name
    for node in graph.node:
        node.input[:] = [prefix + name for name in node.input]
        node.output[:] = [prefix + name for name in node.output]
    return proto


@pytest.mark.parametrize(
    "prefix",
    [STEERS, "[red]", "[/nothing]", pytest.param("x" * 1_000_000, marks=pytest.mark.full)],
    ids=["steers", "tag", "end", "long"],
)
def test_names(tmp_path: Path, prefix: str) -> None:
    path = write(tmp_path / "in.onnx", renamed(net(), prefix))
    report = tmp_path / "r.json"
    inspected = run(tmp_path, path, "--inspect", "-v", "--report", report)
    assert inspected.code == DONE and len(inspected.shown) < 20_000
    assert f"{prefix}y" in [place for one in json.loads(report.read_text())["refusals"] for place in one["where"]]
    folded = fold(tmp_path, path, "-v", "--allow-unmeasured")
    assert folded.code == DONE and len(folded.shown) < 20_000, folded
    plot = tmp_path / "p.html"
    assert run(tmp_path, "layers", path, "--plot", plot).code in (DONE, NOTHING)
    if plot.exists():
        assert all(c.isprintable() or c == "\n" for c in plot.read_text()) and plot.stat().st_size < 1_200_000
    np.savez(tmp_path / "c.npz", other=np.zeros((2, 3, 8, 8), np.float32), y=np.zeros(3, np.float32))
    refused = fold(tmp_path, path, "--calibration", tmp_path / "c.npz")
    assert refused.code == REQUEST and len(refused.errors) < 5000, refused


def test_names_of_files(tmp_path: Path) -> None:
    path = write(tmp_path / f"{STEERS.replace('/', '')}.onnx")
    assert run(tmp_path, path, "--inspect").code == DONE
    assert fold(tmp_path, path).code == DONE
    assert run(tmp_path, f"no{STEERS}", "--inspect").code == MODEL


# the shared cases ---------------------------------------------------------------------------------------------------

HOSTILE = sorted(CASES.glob("hostile_*.onnx")) if CASES.is_dir() else []
ENDS = {"hostile_ext_symloop": MODEL, "hostile_func_exponential": MODEL}


@pytest.mark.skipif(not HOSTILE, reason="shared/cases is not here")
@pytest.mark.parametrize("path", HOSTILE, ids=lambda path: path.stem)
def test_shared_cases(tmp_path: Path, path: Any) -> None:
    here = tmp_path / path.name
    here.write_bytes(path.read_bytes())
    (tmp_path / "w.bin").symlink_to("w.bin")
    expected = ENDS.get(path.stem, DONE)
    assert run(tmp_path, here, "--inspect").code == expected
    assert fold(tmp_path, here).code == expected
    assert run(tmp_path, here, tmp_path / "default.onnx", "--effort", "fast").code in (expected, REQUEST, NOTHING)
