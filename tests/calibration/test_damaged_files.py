"""Files of calibration data that are missing, damaged or dangerous end in one clear line."""

from __future__ import annotations

import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from samples import (
    IMAGE,
    TEXTS,
    F,
    numbered,
    refused,
    save_npy,
    save_npz,
    save_set,
)

from onnxfold.calibration.reader import read_calibration
from onnxfold.errors import RequestError


def test_missing_and_unknown_files(tmp_path: Path) -> None:
    refused(tmp_path / "no.npz", IMAGE, "no.npz", "does not exist")
    refused("x" * 5000, IMAGE)
    refused("a\0b.npz", IMAGE)
    (tmp_path / "x.csv").write_text("1,2,3\n")
    refused(tmp_path / "x.csv", IMAGE, "x.csv", "use an .npz")
    refused(tmp_path, IMAGE, "contains no calibration data")


def test_empty_folder(tmp_path: Path) -> None:
    refused(tmp_path, IMAGE, str(tmp_path), "contains no calibration data")
    (tmp_path / ".hidden.npz").touch()
    refused(tmp_path, IMAGE, "contains no calibration data")


def test_other_files_are_skipped_with_a_note(tmp_path: Path) -> None:
    save_npy(tmp_path / "x.npy", numbered(2, 3, 8, 8))
    for name in ("README.md", "a.txt", "b.txt", "c.txt", ".DS_Store"):
        (tmp_path / name).touch()
    notes = read_calibration(tmp_path, IMAGE, samples=2).notes
    assert notes == (f"{tmp_path.name}: skipped README.md, a.txt, b.txt and 1 more",)


@pytest.mark.parametrize("name", ["calib.npz", "calib.npy"])
@pytest.mark.parametrize(
    "content", [b"", b"no arrays at all", b"\x93NUMPY", b"\x93NUMPY\x01\x00v\x00{'descr': ", b"PK\x03\x04" + bytes(99)]
)
def test_damaged_files(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, IMAGE, name)
    refused(tmp_path, IMAGE, name)


@pytest.mark.parametrize("compressed", [False, True])
def test_damaged_npz(tmp_path: Path, compressed: bool) -> None:
    """Cut off anywhere or with a changed byte: read or refused, no other exception."""
    path = tmp_path / "calib.npz"
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(F)
    (np.savez_compressed if compressed else np.savez)(path, x=x)
    content = path.read_bytes()
    for length in range(0, len(content), 41):
        path.write_bytes(content[:length])
        refused(path, IMAGE, "calib.npz")
    outcomes = {True: 0, False: 0}
    for at in [*range(200), *range(len(content) - 150, len(content))]:
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x41]) + content[at + 1 :])
        try:
            read_calibration(path, IMAGE)
            outcomes[True] += 1
        except RequestError as error:
            assert "\n" not in str(error)
            outcomes[False] += 1
    assert min(outcomes.values()) > 10, "the changes say nothing: all end alike"


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("shape", ["(1125899906842624, 3, 8, 8)", "(4611686018427387904, 4)", "(-5, 3, 8, 8)"])
def test_a_header_that_promises_too_much(tmp_path: Path, shape: str, zipped: bool) -> None:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}".ljust(117).encode() + b"\n"
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(400)
    path = tmp_path / ("calib.npz" if zipped else "calib.npy")
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", content)
    else:
        path.write_bytes(content)
    refused(path, IMAGE, path.name)


def test_out_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    path = save_npz(tmp_path / "calib.npz", x=np.zeros((1, 3, 8, 8)))
    monkeypatch.setattr(np, "load", full)
    refused(path, IMAGE, "does not fit into memory", "folder of smaller files")


def test_npz_that_holds_no_arrays(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x", b"text")
    refused(tmp_path / "a.npz", IMAGE, "a.npz")
    zipfile.ZipFile(tmp_path / "b.npz", "w").close()
    refused(tmp_path / "b.npz", IMAGE, "holds nothing")


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["object npz", "object npy", "pickle as npz", "pickle as npy", "pickle in npz"])
def test_nothing_is_unpickled(tmp_path: Path, kind: str) -> None:
    mark, how = tmp_path / "executed", kind.split()[-1]
    path = tmp_path / f"calib.{how}"
    array = np.array([Bomb(mark)], object)
    if kind.startswith("object"):
        if how == "npz":
            np.savez(path, x=array)
        else:
            np.save(path, array)
    elif kind == "pickle in npz":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", pickle.dumps(Bomb(mark)))
    else:
        path.write_bytes(pickle.dumps(Bomb(mark)))
    says = "Python objects" if kind.startswith("object") else path.name
    refused(path, IMAGE, path.name, says)
    refused(tmp_path, IMAGE, path.name, says)
    assert not mark.exists()
    # the negative control: the same bytes do execute where pickles are loaded
    if kind == "pickle in npz":
        with zipfile.ZipFile(path) as archive:
            pickle.loads(archive.read("x.npy"))
    elif kind == "object npz":
        with np.load(path, allow_pickle=True) as loaded:
            loaded["x"]
    else:
        np.load(path, allow_pickle=True)
    assert mark.exists()


def test_broken_test_data(tmp_path: Path) -> None:
    folder = save_set(tmp_path / "test_data_set_0", np.zeros((1, 3, 8, 8), F))
    refused(tmp_path, TEXTS, "1 files input_*.pb", "2 inputs (ids, mask)")
    tensor = onnx.TensorProto(data_type=1, dims=[1, 3, 8, 8], data_location=onnx.TensorProto.EXTERNAL)
    for content in (b"", b"\xff\xff\xff", b"hello world", tensor.SerializeToString()):
        (folder / "input_0.pb").write_bytes(content)
        refused(tmp_path, IMAGE, "input_0.pb")
    tensor = numpy_helper.from_array(np.zeros((1, 3, 8, 8), F))
    for change in ({"dims": [2**60, 8]}, {"dims": [-1, 4]}, {"data_type": 99}, {"data_type": 16}):
        other = onnx.TensorProto()
        other.CopyFrom(tensor)
        other.ClearField(next(iter(change)))
        other.MergeFrom(onnx.TensorProto(**change))
        (folder / "input_0.pb").write_bytes(other.SerializeToString())
        refused(folder, IMAGE, "_0")
