"""The folder of the cache: private, limited, of use only where it can be."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from tiny import MODELS, snapshot

import onnxfold
from onnxfold.calibration.origin import Origin
from onnxfold.calibration.synthetic import cache, cache_folder
from onnxfold.calibration.synthetic.synthesize import Synthetic

NAMES = [digit * 64 for digit in "abcdef"]
NOISE = np.random.default_rng(0).standard_normal(10_000)  # 80 kB, and not to be packed into less


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "onnxfold"


def save(name: str, used: int | None = None) -> None:
    """Keep an entry of some 80 kB, `used` so many seconds after the epoch."""
    cache.save(name, Synthetic({"x": NOISE}, Origin.PICTURES, None, 1.0))
    where = cache_folder.existing()
    if used is not None and where is not None:
        os.utime(cache_folder.path_of(where, name), (used, used))


def kept() -> str:
    """The first letters of the entries that are there, those used last in front."""
    where = cache_folder.existing()
    return "" if where is None else "".join(entry.path.name[0] for entry in cache_folder.entries(where))


# private ------------------------------------------------------------------------------------------------------------


def test_the_folder_is_private(folder: Path) -> None:
    before = os.umask(0)
    try:
        save(NAMES[0])
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        folder.chmod(0o777)
        assert cache.load(NAMES[0]) is not None
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    finally:
        os.umask(before)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs users with numbers")
def test_a_folder_of_somebody_else_is_not_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(NAMES[0])
    before = snapshot(folder)
    other = os.geteuid() + 1
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: other)
        save(NAMES[1])
        assert cache.load(NAMES[0]) is None
    assert snapshot(folder) == before and cache.load(NAMES[0]) is not None


def test_no_folder_lies_where_a_run_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative name does not count (XDG Base Directory Specification), nor does a home that nobody knows."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    save(NAMES[0])
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: Path("~/.cache/onnxfold"))
    save(NAMES[0])
    assert cache_folder.place() is None and cache.load(NAMES[0]) is None
    assert snapshot(tmp_path / "here") == {}


# limited ------------------------------------------------------------------------------------------------------------


def test_what_was_not_used_for_longest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache_folder.VARIABLE, "250K")  # three entries
    for time, name in enumerate(NAMES[:3]):
        save(name, time)
    assert kept() == "cba"
    assert cache.load(NAMES[0]) is not None  # now it is the one that was used last
    assert kept() == "acb"
    save(NAMES[3])
    assert kept() == "dac"


def test_one_entry_that_is_larger_than_all_may_be(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    save(NAMES[0])
    monkeypatch.setenv(cache_folder.VARIABLE, "10000")
    save(NAMES[1])
    assert kept() == "" and list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "size"),
    [("0", 0), ("500M", 500 * 2**20), ("1.5 GiB", 3 * 2**29), ("", cache_folder.LIMIT), ("much", cache_folder.LIMIT)],
)
def test_the_limit(value: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache_folder.VARIABLE, value)
    assert cache_folder.limit() == size
    save(NAMES[0])
    assert kept() == ("a" if size else "")


def test_what_is_not_ours_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(NAMES[0], 0)
    (folder / "notes.txt").write_text("mine")
    (folder / "short.npz").write_bytes(b"mine")
    (folder / f"{NAMES[1]}.npz").symlink_to(folder / "notes.txt")
    (folder / f"{NAMES[2]}.npz").mkdir()
    monkeypatch.setenv(cache_folder.VARIABLE, "90K")
    save(NAMES[3])
    assert kept() == "d"
    assert cache_folder.clear(folder) == []
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["notes.txt", "short.npz", f"{NAMES[1]}.npz", f"{NAMES[2]}.npz"]
    )
    assert (folder / "notes.txt").read_text() == "mine"


# of use only where it can be ----------------------------------------------------------------------------------------


def no_space(*_: Any, **__: Any) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk(folder: Path, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, call, no_space)
        save(NAMES[0])
    assert cache.load(NAMES[0]) is None and list(folder.iterdir()) == []


@pytest.mark.parametrize("taken", ["cache", "cache/onnxfold"])
def test_a_file_in_its_place(tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).parent.mkdir(exist_ok=True)
    (tmp_path / taken).write_text("mine")
    before = snapshot(tmp_path)
    save(NAMES[0])
    assert cache.load(NAMES[0]) is None and not cache.holds(NAMES[0]) and kept() == ""
    assert snapshot(tmp_path) == before


def test_a_folder_that_cannot_be_made(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "mkdir", no_space)
    save(NAMES[0])
    assert cache.load(NAMES[0]) is None and not folder.exists()


def test_a_fold_without_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made twice, the inputs are the same, and so is the result."""
    source, how = MODELS / "digits_mlp.onnx", {"ratio": 0.25, "latency": False}
    onnxfold.fold(source, tmp_path / "with.onnx", **how)  # type: ignore[arg-type]
    assert len(kept()) == 1
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    onnxfold.fold(source, tmp_path / "without.onnx", **how)  # type: ignore[arg-type]
    assert kept() == "" and (tmp_path / "with.onnx").read_bytes() == (tmp_path / "without.onnx").read_bytes()


KILLED = f"""
import os, signal
import numpy as np
from onnxfold.calibration.origin import Origin
from onnxfold.calibration.synthetic import cache
from onnxfold.calibration.synthetic.synthesize import Synthetic
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
cache.save({NAMES[0]!r}, Synthetic({{"x": np.zeros(9)}}, Origin.PICTURES, None, 1.0))
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_write_that_was_cut_off(folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == -9, done.stderr
    (left,) = folder.iterdir()
    assert left.name.startswith(".") and left.stat().st_size > 0
    assert cache.load(NAMES[0]) is None and kept() == ""
    save(NAMES[1])
    assert not left.exists() and kept() == "b"
