"""Temporary names say whose they are: what a dead process left goes, all else stays."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import ROOT, SHAPES, fold, net, write_external

from onnxfold.model import leftovers
from onnxfold.model.leftovers import scratch_folder, staging_folder, sweep, temporary_file

WIDE = {n: tuple(64 if d == 16 else d for d in s) for n, s in SHAPES.items()}  # so that weights are over 1 KiB
DYING = """
import os, signal, sys
from pathlib import Path
from onnxfold.model.leftovers import scratch_folder, staging_folder, temporary_file
target = Path(sys.argv[1])
temporary_file(target)
with staging_folder(target) as one, scratch_folder() as two:
    (one / "weights").write_bytes(b"many")
    (two / "model.onnx").write_bytes(b"many")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(target: Path, temporary: Path) -> None:
    """A process that makes one of each and is killed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)}
    done = subprocess.run([sys.executable, "-c", DYING, str(target)], env=environment, check=False, timeout=120)
    assert done.returncode == -9


def test_what_a_killed_process_leaves_goes(tmp_path: Path) -> None:
    beside, temporary = tmp_path / "beside", tmp_path / "temporary"
    beside.mkdir()
    temporary.mkdir()
    (beside / "mine").write_text("mine")
    killed(beside / "out.onnx", temporary)
    assert len(list(beside.iterdir())) == 3 and len(list(temporary.glob("onnxfold-*"))) == 1
    sweep(beside)
    sweep(temporary)
    assert [path.name for path in beside.iterdir()] == ["mine"] and not list(temporary.iterdir())


def test_what_a_living_process_uses_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    file = temporary_file(tmp_path / "out.onnx")
    with staging_folder(tmp_path / "out.onnx") as one, scratch_folder() as two:
        sweep(tmp_path)
        assert file.exists() and one.exists() and two.exists() and two.parent == tmp_path
    assert [path.name for path in tmp_path.iterdir()] == [file.name], "the folders went at their ends"


def test_a_number_that_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process has the number, but it started at another time."""
    file = temporary_file(tmp_path / "out.onnx")
    started = leftovers._started(os.getpid())
    assert started is not None and f"-{os.getpid()}-{started}-" in file.name
    file.rename(tmp_path / file.name.replace(f"-{started}-", f"-{int(started) + 1}-"))
    sweep(tmp_path)
    assert not list(tmp_path.iterdir())


def renamed(change: Callable[[str], str]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        killed(folder / "out.onnx", folder / "temporary")
        (file,) = (path for path in folder.glob(".*") if path.is_file())
        for path in folder.glob(".*"):
            if path.is_dir():
                (path / "weights").unlink()
                path.rmdir()
        other = folder / change(file.name)
        return file.rename(other)

    return make


@pytest.mark.parametrize(
    "change",
    [
        lambda name: name.replace(leftovers._machine(), "000000"),
        lambda name: name.replace("onnxfold-", "onnxmold-"),
        lambda name: f"my{name}",
        lambda name: f"{name}.kept.npz",
        lambda name: name.replace("onnxfold-", "onnxfold-x"),
    ],
    ids=["of another machine", "another prefix", "not hidden", "longer", "another tag"],
)
def test_what_is_not_ours_stays(tmp_path: Path, change: Callable[[str], str]) -> None:
    (tmp_path / "temporary").mkdir()
    path = renamed(change)(tmp_path)
    sweep(tmp_path)
    assert path.exists()


def test_a_link_and_another_users_file_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    (tmp_path / "mine").mkdir()
    path = renamed(str)(tmp_path)
    link = path.with_name(path.name.replace(".tmp", "")[:-1] + "q")
    link.symlink_to(tmp_path / "mine")
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: 12345)
        sweep(tmp_path)
    assert path.exists() and link.is_symlink()
    sweep(tmp_path)
    assert not path.exists() and link.is_symlink() and (tmp_path / "mine").is_dir()


KILLED_AT_COMMIT = """
import os, signal, sys
from onnxfold import fold
from onnxfold.model.save import Staged
commit, replace, unlink, count = Staged.commit, os.replace, os.unlink, 0
def counting(function):
    def counted(*given, **named):
        global count
        count += 1
        if count == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*given, **named)
    return counted
def committing(self):
    os.replace, os.unlink = counting(replace), counting(unlink)
    commit(self)
Staged.commit = committing
fold(sys.argv[1], sys.argv[2], ratio=float(sys.argv[4]), effort="fast", latency=False)
"""


@pytest.mark.parametrize("step", [1, 2, 3])
def test_killed_while_data_files_change_places(tmp_path: Path, step: int) -> None:
    """Before the new one is moved, before the model is, and before the old one goes."""
    source = write_external(tmp_path / "in.onnx", net(shapes=WIDE))
    folder = tmp_path / "out"
    folder.mkdir()
    fold(source, folder / "out.onnx", ratio=0.3, latency=False)
    (old,) = folder.glob("*.data")
    command = [sys.executable, "-c", KILLED_AT_COMMIT, str(source), str(folder / "out.onnx"), str(step), "0.5"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False, timeout=120)
    assert done.returncode == -9
    assert len(list(folder.glob("*.data"))) == (1 if step == 1 else 2) and len(list(folder.glob(".out*"))) == 1
    sweep(folder)
    (left,) = folder.glob("*.data")
    assert (left == old) is (step < 3) and not list(folder.glob(".out*"))
    fold(folder / "out.onnx", ratio=0.2, latency=False)  # loads: its weights are there
