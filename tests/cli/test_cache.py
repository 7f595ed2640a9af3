"""``onnxfold cache``: what it shows, and what it removes."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import snapshot

from onnxfold.calibration.origin import Origin
from onnxfold.calibration.synthetic import cache, cache_folder
from onnxfold.calibration.synthetic.synthesize import Synthetic
from onnxfold.cli.main import main

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a cache with two entries of 1,000 bytes, and a file that is none."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = tmp_path / "cache" / "onnxfold"
    for name, age in (("a" * 64, 3 * 86400 + 60), ("b" * 64, 5 * 3600 + 60)):
        cache.save(name, Synthetic({"x": np.zeros(3)}, Origin.PICTURES, None, 1.0))
        path = made / f"{name}.npz"
        path.write_bytes(bytes(1000))  # good or not, it is an entry
        os.utime(path, (time.time() - age,) * 2)
    (made / "mine.txt").write_text("mine")
    return made


def shown(capsys: Capture, *arguments: str, code: int = 0) -> str:
    assert main(["cache", *arguments]) == code
    said = capsys.readouterr()
    assert (said.out if code else said.err) == ""
    return said.err if code else said.out


def test_show(folder: Path, capsys: Capture) -> None:
    assert shown(capsys, "show").splitlines() == [
        f"place    {folder}", "entries  2",
        "bytes    2.00 kB of 2.15 GB at most (set ONNXFOLD_CACHE_SIZE to change it)",
        "used     5 hours ago to 3 days ago",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "said"), [("500M", "524 MB at most (by "), ("x", "2.15 GB at most (ONNXFOLD_CACHE_SIZE is not a size")]
)
def test_the_limit_is_shown(value: str, said: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache_folder.VARIABLE, value)
    assert said in shown(capsys, "show")


def test_clear(folder: Path, capsys: Capture) -> None:
    assert shown(capsys, "clear") == f"removed 2 entries, 2.00 kB, from {folder}\n"
    assert snapshot(folder) == {"mine.txt": b"mine"}
    assert "entries  0\n" in shown(capsys, "show")
    assert shown(capsys, "clear") == f"removed 0 entries, 0 B, from {folder}\n"


def test_entries_that_cannot_be_removed(folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "no")

    monkeypatch.setattr(Path, "unlink", refused)
    said = shown(capsys, "clear", code=2)
    assert "cannot remove 2 of 2 entries" in said and said.count("\n") == 1
    assert len(list(folder.iterdir())) == 3


def test_no_folder(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "onnxfold (does not exist yet)\nentries  0\n" in shown(capsys, "show")
    assert "removed 0 entries" in shown(capsys, "clear") and snapshot(tmp_path) == {}
    (tmp_path / "onnxfold").write_text("mine")
    assert "nothing is cached" in shown(capsys, "show") and "removed 0 entries" in shown(capsys, "clear")
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: Path("~/.cache/onnxfold"))
    assert "disabled" in shown(capsys, "show") and "disabled" in shown(capsys, "clear")
    assert snapshot(tmp_path) == {"onnxfold": b"mine"}


@pytest.mark.parametrize("arguments", [[], ["frob"], ["show", "clear"], ["show", "--report", "x"]])
def test_other_requests_are_refused(arguments: list[str], capsys: Capture) -> None:
    assert shown(capsys, *arguments, code=2).count("\n") == 1


def test_help(capsys: Capture) -> None:
    assert "show|clear" in (text := shown(capsys, "--help")) and "exit codes" in text
