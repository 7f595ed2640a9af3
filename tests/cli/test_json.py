"""--json: standard output holds one JSON document or nothing, whatever a command does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tiny import ROOT, main, write

Capture = pytest.CaptureFixture[str]
COMMANDS: dict[str, tuple[list[str], str]] = {
    "fold": (["in.onnx", "out.onnx", "--ratio", "0.5"], "groups"),
    "inspect": (["inspect", "in.onnx"], "groups"),
    "sweep": (["sweep", "in.onnx", "--at", "0.5"], "rows"),
    "choose": (["sweep", "in.onnx", "--at", "0.5", "--allow", "fold,fp16"], "advice"),
    "compare": (["compare", "in.onnx", "in.onnx"], "check"),
    "fuse": (["in.onnx", "out.onnx", "--fuse", "mean", "--share", "30"], "shared"),
    "layers": (["layers", "in.onnx"], "pairs"),
}
"""What is asked for, and a field that its report has."""


TEXT = """<ir_version: 8, opset_import: ["" : 17]> agraph (float[N,3,8,8] x) => (float[N,16,8,8] y) {
    a = Conv <kernel_shape: ints = [3,3], pads: ints = [1,1,1,1]> (x, w0)
    b = Conv <kernel_shape: ints = [3,3], pads: ints = [1,1,1,1]> (a, w1)
    y = Conv <kernel_shape: ints = [3,3], pads: ints = [1,1,1,1]> (b, w2)
}"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model in which every channel is there twice, and two layers are the same."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    first, then = (np.repeat(rng.standard_normal((8, n, 3, 3)) / n, 2, axis=0).astype(np.float32) for n in (3, 16))
    proto = onnx.parser.parse_model(TEXT)
    for name, weight in (("w0", first), ("w1", then), ("w2", then)):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    write(tmp_path / "in.onnx", proto)


def only_json(text: str) -> Any:
    """What one JSON document says, without NaN and the like."""

    def refuse(constant: str) -> Any:
        raise AssertionError(constant)

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("what", COMMANDS)
def test_the_report_is_all_that_is_on_standard_output(what: str, capsys: Capture) -> None:
    given, field = COMMANDS[what]
    assert main([*given, "--json", "--report", "r.json"]) == 0
    shown = capsys.readouterr()
    found = only_json(shown.out)
    assert field in found and found == only_json(Path("r.json").read_text(encoding="utf-8"))
    assert "in.onnx" in shown.err  # the tables, for people
    assert found["provenance"]["command"].startswith("onnxfold ")


def test_quiet_leaves_the_json_alone(capsys: Capture) -> None:
    assert main(["inspect", "in.onnx", "--json", "-q"]) == 0
    shown = capsys.readouterr()
    assert shown.err == "" and len(only_json(shown.out)["groups"]) == 2


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (["none.onnx", "out.onnx"], 3),
        (["in.onnx", "out.onnx", "--ratio", "1.5"], 2),
        (["in.onnx", "out.onnx", "--ratio", "much"], 2),
        (["in.onnx", "out.onnx", "--ratio", "0.5", "--report", "no/r.json"], 2),
        (["in.onnx", "out.onnx", "--include", "zebra"], 4),
    ],
)
def test_after_an_error_there_is_nothing(given: list[str], code: int, capsys: Capture) -> None:
    assert main([*given, "--json"]) == code
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1


def test_a_result_that_failed_its_checks_is_told(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxfold.evaluation.verdict._interface", lambda *_: ["the model's inputs changed ('x')"])
    assert main(["in.onnx", "out.onnx", "--ratio", "0.5", "--json"]) == 1
    shown = capsys.readouterr()
    assert only_json(shown.out)["passed"] is False and "was not written" in shown.err


def test_what_the_users_own_code_prints_stays_out(capfd: pytest.CaptureFixture[str]) -> None:
    """Of a measure, which prints in a process of its own, and of a whole process."""
    Path("mine.py").write_text("def score(path):\n    print('noise')\n    return 1.0\n", encoding="utf-8")
    data = np.random.default_rng(0).standard_normal((8, 3, 8, 8)).astype(np.float32)
    np.savez("c.npz", x=data)
    given = ["in.onnx", "out.onnx", "--ratio", "0.5", "--metric", "mine.py:score", "--calibration", "c.npz", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "onnxfold", *given], env={"PYTHONPATH": str(ROOT)}, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert only_json(done.stdout.decode())["passed"] is True


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
def test_a_reader_that_stops_early() -> None:
    command = f"{sys.executable} -m onnxfold inspect in.onnx --json -q | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("0\n", "")
