"""External data and targets that are missing, wrong or in the way: one clear line, and all files stay."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import pytest
from refusals import MODEL, REQUEST, Refused
from tiny import main, write, write_external


@contextlib.contextmanager
def special(path: Path, kind: str) -> Iterator[Callable[[], bool]]:
    """A pipe or a socket at `path`; whether it is still that very one."""
    with socket.socket(socket.AF_UNIX) as made:
        if kind == "a pipe":
            os.mkfifo(path)
        else:
            made.bind(str(path))
        before = path.lstat()
        yield lambda: os.path.samestat(before, path.lstat()) and not path.is_file()


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
    line = refused(MODEL, path, tmp_path / "out.onnx")
    assert "weights.bin" in line and "missing" in line and "put it there" in line


@pytest.mark.parametrize("length", [0, 1, 100, -1])
def test_external_data_cut_short(refused: Refused, tmp_path: Path, length: int) -> None:
    path = write_external(tmp_path / "in.onnx")
    data = tmp_path / "weights.bin"
    data.write_bytes(data.read_bytes()[:length])
    line = refused(MODEL, path, tmp_path / "out.onnx")
    assert "weights.bin" in line and "truncated" in line


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
    line = refused(MODEL, path, tmp_path / "out.onnx")
    assert "outside the model's folder" in line and "refused" in line


@pytest.mark.parametrize(("key", "value"), [("offset", "-8"), ("offset", "x"), ("length", "4"), ("length", "1e9")])
def test_external_data_nonsense(refused: Refused, tmp_path: Path, key: str, value: str) -> None:
    path = write_external(tmp_path / "in.onnx")
    proto = onnx.load(path, load_external_data=False)
    entry = next(e for e in proto.graph.initializer[0].external_data if e.key == key)
    entry.value = value
    assert "'w1'" in refused(MODEL, write(path, proto), tmp_path / "out.onnx")


def test_output_over_the_external_data(refused: Refused, tmp_path: Path) -> None:
    path = write_external(tmp_path / "in.onnx")
    assert "holds the weights of the input" in refused(REQUEST, path, tmp_path / "weights.bin", "--ratio", "0.5")


# the output ---------------------------------------------------------------------------------------------------------


def test_output_folder_missing(refused: Refused, tmp_path: Path) -> None:
    write(tmp_path / "in.onnx")
    line = refused(REQUEST, tmp_path / "in.onnx", tmp_path / "no" / "out.onnx")
    assert "does not exist" in line and "create it" in line


def test_output_folder_read_only(refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "in.onnx")
    monkeypatch.setattr(os, "access", lambda *_: False)  # the superuser may write anywhere
    assert "not writable" in refused(REQUEST, tmp_path / "in.onnx", tmp_path / "out.onnx")


def test_output_is_a_folder(refused: Refused, tmp_path: Path) -> None:
    write(tmp_path / "in.onnx")
    assert "is a folder" in refused(REQUEST, tmp_path / "in.onnx", tmp_path)


@pytest.mark.parametrize("kind", ["a pipe", "a socket"])
def test_output_is_no_ordinary_file(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = write(tmp_path / "in.onnx"), tmp_path / "out.onnx"
    with special(out, kind) as same:
        assert main([str(path), str(out), "--ratio", "0.5"]) == REQUEST
        assert f"out.onnx is {kind}: a model can only be written to a regular file" in capsys.readouterr().err
        assert same() and sorted(p.name for p in tmp_path.iterdir()) == ["in.onnx", "out.onnx"]


@pytest.mark.parametrize("how", ["same", "dots", "symlink", "hard link"])
def test_output_is_the_input(refused: Refused, tmp_path: Path, how: str) -> None:
    path, other = write(tmp_path / "in.onnx"), tmp_path / "other.onnx"
    if how == "symlink":
        other.symlink_to(path)
    elif how == "hard link":
        other.hardlink_to(path)
    target = {"same": path, "dots": tmp_path / ".." / tmp_path.name / "in.onnx"}.get(how, other)
    assert "is the input itself" in refused(REQUEST, path, target)


def test_report_in_a_missing_folder(refused: Refused, tmp_path: Path) -> None:
    path = write(tmp_path / "in.onnx")
    for report in (tmp_path / "no" / "r.json", tmp_path):
        assert "report" in refused(REQUEST, path, tmp_path / "out.onnx", "--report", report)
        assert "report" in refused(REQUEST, path, "--inspect", "--report", report)
        assert "report" in refused(REQUEST, "compare", path, path, "--report", report)


def test_report_over_a_model(refused: Refused, tmp_path: Path) -> None:
    path, out = write(tmp_path / "in.onnx"), tmp_path / "out.onnx"
    for report in (path, out):
        assert "would overwrite the model" in refused(REQUEST, path, out, "--report", report)
