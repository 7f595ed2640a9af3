"""Every command and every piece of Python in docs/tutorials/ runs as it stands there, on small models: with the least
effort where nothing else is said, and with few samples, so that it takes seconds."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper, parser
from PIL import Image
from test_docs import text
from tiny import MODELS, ROOT, weights, write

from onnxfold.cli.main import main

PAGES = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"\n]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)

DETECTOR = """<ir_version: 8, opset_import: ["" : 17]> agraph (float[1,3,240,320] input)
    => (float[1,300,2] scores, float[1,300,4] boxes) {
    a = Conv <kernel_shape: ints = [16,16], strides: ints = [16,16]> (input, w1, b1)
    r = Relu (a)
    s = Conv <kernel_shape: ints = [1,1]> (r, w2, b2)
    t = Transpose <perm: ints = [0,2,3,1]> (s)
    scores = Reshape (t, pairs)
    c = Conv <kernel_shape: ints = [1,1]> (r, w3, b3)
    u = Transpose <perm: ints = [0,2,3,1]> (c)
    boxes = Reshape (u, corners)
}"""
SHAPES = {"w1": (16, 3, 16, 16), "b1": (16,), "w2": (2, 16, 1, 1), "b2": (2,), "w3": (4, 16, 1, 1), "b3": (4,)}


@dataclass(frozen=True)
class Block:
    """A block of code in a page: its language, the file that it belongs into ('' for none), its text."""

    language: str
    file: str
    code: str

    def commands(self) -> Iterator[list[str]]:
        for line in self.code.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield words


def blocks(page: str) -> list[Block]:
    return [Block(*found) for found in BLOCK.findall(page)]


def detector(folder: Path) -> None:
    """A detector half of whose channels are copies, and a folder of pictures."""
    numbers = weights(SHAPES)
    for name in ("w1", "b1"):
        numbers[name][8:] = numbers[name][:8]
    for name in ("w2", "w3"):
        numbers[name][:, 8:] = numbers[name][:, :8]
    proto = parser.parse_model(DETECTOR)
    shapes = {"pairs": np.array([1, 300, 2]), "corners": np.array([1, 300, 4])}
    proto.graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in {**numbers, **shapes}.items()
    )
    write(folder / "detector.onnx", proto)
    (folder / "photos").mkdir()
    rng = np.random.default_rng(0)
    for number in range(16):
        pixels = rng.integers(0, 255, (12, 16, 3), np.uint8)
        Image.fromarray(pixels).resize((96, 72)).save(folder / "photos" / f"{number:02}.jpg")


GIVEN: dict[str, Callable[[Path], None]] = {"detector.md": detector}
"""What the reader has before a page begins, besides the source tree."""


def hurried(words: list[str]) -> list[str]:
    """The arguments of a command, with the least effort and few samples where it says nothing of these."""
    arguments = words[1:]
    if arguments[0] in ("inspect", "report", "cache"):
        return arguments
    arguments += [] if arguments[0] == "compare" or "--effort" in words else ["--effort", "fast"]
    return arguments + (["--samples", "16"] if "--calibration" in words else [])


def run(words: list[str], patch: pytest.MonkeyPatch) -> int:
    """The exit code of a command of onnxfold, or of a script of the source tree."""
    if words[0] == "onnxfold":
        return main(hurried(words))
    assert words[0] == "python" and Path(words[1]).exists(), words
    patch.setattr(sys, "argv", words[1:])
    patch.setattr(sys, "path", [str(Path(words[1]).parent), *sys.path])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(words[1], run_name="__main__")
    return int(ended.value.code or 0)


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the source tree's models and scripts, and an `ssh` that answers at once."""
    for name in ("models", "benchmarks"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "bin").mkdir()
    ssh = tmp_path / "bin" / "ssh"
    ssh.write_text('#!/bin/sh\ntest "$1" = pi && echo 1.5\n', encoding="utf-8")
    ssh.chmod(0o755)
    monkeypatch.setattr("onnxfold.planning.plan_choice.MOST", 1)  # plan for a target: one is enough to see that it runs
    monkeypatch.setenv("PATH", f"{ssh.parent}:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_a_tutorial_runs(
    page: Path, reader: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    GIVEN.get(page.name, lambda _: None)(reader)
    for block in blocks(text(page)):
        if block.file:
            (reader / block.file).write_text(block.code, encoding="utf-8")
        elif block.language == "python":
            exec(compile(block.code, page.name, "exec"), {"__name__": "__main__"})
        elif block.language == "sh":
            for words in block.commands():
                code = run(words, monkeypatch)
                assert code == 0, f"{page.name}: {shlex.join(words)}\n{capsys.readouterr().err}"


def test_all_tutorials_have_commands() -> None:
    found = {page.name: [w for b in blocks(text(page)) if b.language == "sh" for w in b.commands()] for page in PAGES}
    assert len(found) == 4 and min(map(len, found.values())) >= 3, {name: len(w) for name, w in found.items()}
    untold = {page.name: [b.code for b in blocks(text(page)) if b.language not in ("sh", "python")] for page in PAGES}
    assert not any("onnxfold " in code for codes in untold.values() for code in codes), "a command that nothing runs"


def test_blocks_are_found_with_their_file() -> None:
    page = 'x\n```sh\na b \\\n  "c d"  # no\n\n```\n```python title="m.py"\nx = 1\n```\n```\nout\n```\n'
    assert blocks(page)[1] == Block("python", "m.py", "x = 1\n")
    assert [*blocks(page)[0].commands()] == [["a", "b", "c d"]] and len(blocks(page)) == 2


def test_a_command_that_fails_is_caught(reader: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(["onnxfold", "inspect", "none.onnx"], monkeypatch) == 3
    assert run(["onnxfold", "inspect", str(MODELS / "digits_mlp.onnx")], monkeypatch) == 0
    assert hurried(["onnxfold", "a", "b", "--calibration", "c"]) == [
        "a", "b", "--calibration", "c", "--effort", "fast", "--samples", "16",
    ]  # fmt: skip
