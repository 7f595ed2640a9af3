"""Reports, plots, synthetic inputs and models: written over nothing that the run reads, refused before any work."""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from refusals import DONE, REQUEST, Refused
from tiny import FAST, main, net, write, write_external

import onnxfold
from onnxfold import RequestError
from onnxfold.passes.base import State

INPUTS = np.random.default_rng(0).standard_normal((8, 3, 8, 8)).astype(np.float32)
LAYERS = ("layers", *FAST)


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading the model would be work."""

    def load(*_: object) -> None:
        raise AssertionError("the refusal comes too late")

    monkeypatch.setattr(State, "load", load)


def an_npz(folder: Path) -> tuple[Path, Path]:
    np.savez(folder / "calib.npz", x=INPUTS)
    return folder / "calib.npz", folder / "calib.npz"


def a_folder_of_arrays(folder: Path) -> tuple[Path, Path]:
    (folder / "calib").mkdir()
    for i in range(2):
        np.save(folder / "calib" / f"{i}.npy", INPUTS)
    return folder / "calib", folder / "calib" / "1.npy"


def images(folder: Path) -> tuple[Path, Path]:
    (folder / "calib" / "below").mkdir(parents=True)
    (folder / "calib" / "below" / "a.png").write_bytes(b"an image")
    return folder / "calib", folder / "calib" / "below" / "a.png"


def test_sets(folder: Path) -> tuple[Path, Path]:
    below = folder / "calib" / "test_data_set_0"
    below.mkdir(parents=True)
    (below / "input_0.pb").write_bytes(numpy_helper.from_array(INPUTS, "x").SerializeToString())
    return folder / "calib", below / "input_0.pb"


def linked_sets(folder: Path) -> tuple[Path, Path]:
    _, file = test_sets(folder)
    (folder / "linked").mkdir()
    (folder / "linked" / "test_data_set_0").symlink_to(file.parent)
    (folder / "linked" / "again").symlink_to(folder / "linked")  # in circles
    return folder / "linked", file


test_sets.__test__ = False  # type: ignore[attr-defined]
Made = Callable[[Path], tuple[Path, Path]]


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("made", [an_npz, a_folder_of_arrays, images, test_sets, linked_sets])
def test_never_over_calibration_data(refused: Refused, tmp_path: Path, made: Made, linked: bool) -> None:
    path = write(tmp_path / "in.onnx")
    calibration, file = made(tmp_path)
    if linked:
        (tmp_path / "other.png").hardlink_to(file)
        file = tmp_path / "other.png"
    given = ["--calibration", calibration]
    says = "would overwrite calibration data"
    assert f"the report {says}" in refused(REQUEST, path, tmp_path / "out.onnx", "--report", file, *given)
    assert f"the report {says}" in refused(REQUEST, "sweep", path, "--report", file, *given)
    assert "holds calibration data: choose another output" in refused(REQUEST, path, file, *given)
    if file.suffix == ".png":
        assert f"the plot {says}" in refused(REQUEST, *LAYERS, path, "--plot", file, *given)
    with pytest.raises(RequestError, match="holds calibration data"):
        onnxfold.fold(path, file, calibration=calibration)


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("linked", [False, True])
def test_never_over_a_model_or_its_weights(refused: Refused, tmp_path: Path, linked: bool) -> None:
    path, weights = write_external(tmp_path / "in.onnx"), tmp_path / "weights.bin"
    out, files = tmp_path / "out.onnx", {"the model": path, "the weights of the input": weights}
    for number, (role, file) in enumerate(files.items()):
        if linked:
            file = tmp_path / f"{number}.html"
            file.hardlink_to(files[role])
        says = f"would overwrite {role}"
        assert f"the report {says}" in refused(REQUEST, path, out, "--report", file)
        assert f"the report {says}" in refused(REQUEST, path, "--inspect", "--report", file)
        assert f"the report {says}" in refused(REQUEST, path, out, "--fuse", "mean", "--report", file)
        assert f"the report {says}" in refused(REQUEST, "compare", path, path, "--report", file)
        assert f"the report {says}" in refused(REQUEST, *LAYERS, path, "--report", file)
        assert f"the synthetic inputs {says}" in refused(REQUEST, path, out, "--synthetic", file)
        with pytest.raises(RequestError, match=f"the synthetic inputs {says}"):
            onnxfold.fold(path, out, synthetic=file)
        if linked:
            assert f"the plot {says}" in refused(REQUEST, *LAYERS, path, "--plot", file)
    assert "holds the weights of the input" in refused(REQUEST, path, weights)


@pytest.mark.usefixtures("no_work")
def test_pictures_beside_synthetic_inputs(refused: Refused, tmp_path: Path) -> None:
    path = write(tmp_path / "in.png")  # a model of that name
    line = refused(REQUEST, path, tmp_path / "out.onnx", "--synthetic", tmp_path / "in.npz")
    assert "the preview images of the synthetic inputs would overwrite the model" in line
    assert "use an .npz file" in refused(REQUEST, path, tmp_path / "out.onnx", "--synthetic", tmp_path / "made.png")


@pytest.mark.usefixtures("no_work")
def test_each_to_a_place_of_its_own(refused: Refused, tmp_path: Path) -> None:
    path, one = write(tmp_path / "in.onnx"), tmp_path / "one"
    says = "would overwrite"
    assert f"the synthetic inputs {says} the model" in refused(REQUEST, path, one, "--synthetic", one)
    assert f"the report {says} the model" in refused(REQUEST, path, one, "--report", one)
    line = refused(REQUEST, path, tmp_path / "out.onnx", "--report", one, "--synthetic", one)
    assert f"the report {says} the synthetic inputs" in line
    plot = tmp_path / "one.html"
    assert f"the report {says} the plot" in refused(REQUEST, *LAYERS, path, "--plot", plot, "--report", plot)


def read_in_turn(path: Path) -> tuple[threading.Thread, list[bytes]]:
    found = list[bytes]()
    thread = threading.Thread(target=lambda: found.append(path.read_bytes()), daemon=True)
    thread.start()
    return thread, found


@pytest.mark.parametrize("linked", [False, True])
def test_a_report_into_a_pipe(tmp_path: Path, linked: bool) -> None:
    path, pipe = write(tmp_path / "in.onnx"), tmp_path / "pipe"
    os.mkfifo(pipe)
    if linked:
        (tmp_path / "link").symlink_to(pipe)
    thread, found = read_in_turn(pipe)
    assert main([str(path), "--inspect", "-q", "--report", str(tmp_path / ("link" if linked else "pipe"))]) == DONE
    thread.join(20)
    assert json.loads(found[0])["model"] == str(path)
    assert stat.S_ISFIFO(pipe.lstat().st_mode) and len(list(tmp_path.iterdir())) == 2 + linked


def test_a_pipe_that_nobody_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("onnxfold.model.files._PATIENCE", 0.1)
    path, pipe = write(tmp_path / "in.onnx"), tmp_path / "pipe"
    os.mkfifo(pipe)
    assert main([str(path), "--inspect", "-q", "--report", str(pipe)]) == REQUEST
    assert capsys.readouterr().err == f"onnxfold: cannot write the report {pipe}: nobody is reading it\n"


def test_a_report_behind_a_link(tmp_path: Path) -> None:
    path, real = write(tmp_path / "in.onnx"), tmp_path / "folder" / "real.json"
    real.parent.mkdir()
    (tmp_path / "r.json").symlink_to("folder/real.json")
    for _ in range(2):
        assert main([str(path), "--inspect", "-q", "--report", str(tmp_path / "r.json")]) == DONE
        assert os.readlink(tmp_path / "r.json") == "folder/real.json" and not real.is_symlink()
        assert json.loads(real.read_text())["model"] == str(path)


def test_synthetic_inputs_into_a_pipe(tmp_path: Path) -> None:
    """The archive alone: there is no place for pictures beside a pipe."""
    path, pipe = write(tmp_path / "in.onnx"), tmp_path / "made.npz"
    os.mkfifo(pipe)
    thread, found = read_in_turn(pipe)
    given = ["--ratio", "0.5", "-q", "--effort", "balanced", "--synthetic", str(pipe)]
    assert main([str(path), str(tmp_path / "out.onnx"), *given]) == DONE
    thread.join(20)
    assert found[0].startswith(b"PK") and stat.S_ISFIFO(pipe.lstat().st_mode)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.onnx", "made.npz", "out.onnx"]


@pytest.mark.parametrize("suffix", ["html", "png"])
def test_a_plot_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    pytest.importorskip("vl_convert")
    path, plot = write(tmp_path / "in.onnx", net()), tmp_path / f"plot.{suffix}"
    proto = onnx.load(path)
    twin = proto.graph.node.add()
    twin.CopyFrom(proto.graph.node[2])
    twin.input[0], twin.input[1], twin.output[0] = "s", "w4", "c4"
    proto.graph.node[4].input[0] = "c4"
    proto.graph.node.insert(4, twin)
    del proto.graph.node[-1]
    proto.graph.initializer.append(numpy_helper.from_array(np.ones((16, 16, 3, 3), np.float32), "w4"))
    write(path, proto)
    plot.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert main([*LAYERS, str(path), "-q", "--plot", str(plot)]) == REQUEST
    assert plot.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 2
    assert main([*LAYERS, str(path), "-q", "--plot", str(plot)]) == DONE
    assert plot.read_bytes() != b"old" and len(list(tmp_path.iterdir())) == 2
