"""What is written: whole or not at all, never over what is read, and pipes, devices and links stay what they are."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import snapshot

from onnxfold import RequestError
from onnxfold.model import files
from onnxfold.model.files import check_apart, check_file, write_bytes, write_text, writing

ReadInto = Callable[[Path], "Reading"]


class Reading:
    """Reads a pipe to its end, in another thread."""

    def __init__(self, path: Path) -> None:
        self._path, self._found = path, list[bytes]()
        self._thread = threading.Thread(target=lambda: self._found.append(self._path.read_bytes()), daemon=True)
        self._thread.start()

    def content(self) -> bytes:
        self._thread.join(20)
        return self._found[0]


@pytest.mark.parametrize("before", [None, b"one"])
def test_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bytes | None) -> None:
    path = tmp_path / "a.txt"
    if before is not None:
        path.write_bytes(before)
    old = snapshot(tmp_path)

    def failing(*_: Any) -> None:
        raise OSError("no")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, failing)
            with pytest.raises(OSError, match="no"):
                write_text(path, "two")
        assert snapshot(tmp_path) == old
    with pytest.raises(KeyError), writing(path) as file:
        file.write(b"thr")
        raise KeyError
    assert snapshot(tmp_path) == old
    write_text(path, "four")
    assert snapshot(tmp_path) == {"a.txt": b"four"}


def test_a_pipe_is_written_through(tmp_path: Path) -> None:
    pipe, content = tmp_path / "pipe", os.urandom(200_000)  # more than a pipe holds
    os.mkfifo(pipe)
    check_file(pipe, "the report")
    reading = Reading(pipe)
    write_bytes(pipe, content)
    assert reading.content() == content
    assert stat.S_ISFIFO(pipe.lstat().st_mode) and len(list(tmp_path.iterdir())) == 1


def test_a_pipe_behind_a_link_is_written_through(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    reading = Reading(tmp_path / "pipe")
    write_bytes(tmp_path / "link", b"text")
    assert reading.content() == b"text" and (tmp_path / "link").is_symlink()


def test_a_pipe_that_nobody_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error instead of waiting for ever."""
    monkeypatch.setattr(files, "_PATIENCE", 0.1)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="nobody is reading it"):
        write_bytes(tmp_path / "pipe", b"text")


@pytest.mark.parametrize(
    ("mode", "kind", "refused"),
    [
        (stat.S_IFCHR, "a device", False), (stat.S_IFIFO, "a pipe", False), (stat.S_IFBLK, "a block device", True),
        (stat.S_IFSOCK, "a socket", True), (stat.S_IFDIR, "a folder", True),
    ],
)  # fmt: skip
def test_what_is_no_ordinary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, kind: str, refused: bool
) -> None:
    """By what the system says of it: devices are not made here."""
    path = tmp_path / "there"
    path.write_bytes(b"as it was")
    os.chmod(path, 0o600)
    real = path.stat()
    monkeypatch.setattr(files, "_state", lambda _: os.stat_result((mode | 0o600, *real[1:])))
    if refused:
        with pytest.raises(RequestError, match=f"cannot write the report .*there: it is {kind}, choose another file"):
            check_file(path, "the report")
        with pytest.raises(OSError, match=kind):
            write_bytes(path, b"new")
        assert path.read_bytes() == b"as it was"
    else:
        check_file(path, "the report")
        with pytest.raises(RequestError, match=kind):
            check_file(path, "the report", through=False)
        write_bytes(path, b", and more")
        assert path.read_bytes() == b"as it was, and more", "opened and written to"
        assert path.stat().st_ino == real.st_ino, "and not replaced"


@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_followed(tmp_path: Path, there: bool) -> None:
    (tmp_path / "folder").mkdir()
    real = tmp_path / "folder" / "real.txt"
    if there:
        real.write_text("old")
    (tmp_path / "middle").symlink_to("folder/real.txt")
    (tmp_path / "link").symlink_to("middle")
    check_file(tmp_path / "link", "the report")
    write_text(tmp_path / "link", "new")
    assert os.readlink(tmp_path / "link") == "middle" and os.readlink(tmp_path / "middle") == "folder/real.txt"
    assert real.read_text() == "new" and not real.is_symlink()
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["real.txt"]


@pytest.mark.parametrize(
    ("to", "says"),
    [("link", "Too many levels|symbolic links"), ("no/file", "is a link to .*no/file.*folder that exists")],
)
def test_a_link_that_leads_nowhere(tmp_path: Path, to: str, says: str) -> None:
    (tmp_path / "link").symlink_to(to)
    with pytest.raises(RequestError, match=says):
        check_file(tmp_path / "link", "the report")
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("how", ["same", "dots", "link", "hard link"])
def test_never_over_what_is_read(tmp_path: Path, how: str) -> None:
    read, path = tmp_path / "read.npz", tmp_path / "other"
    read.write_bytes(b"precious")
    if how == "link":
        path.symlink_to(read)
    elif how == "hard link":
        path.hardlink_to(read)
    target = {"same": read, "dots": tmp_path / ".." / tmp_path.name / "read.npz"}.get(how, path)
    with pytest.raises(RequestError, match=r"the plot would overwrite calibration data .*: choose another file"):
        check_file(target, "the plot", [(tmp_path / "missing", "the model"), (read, "calibration data")])
    check_file(tmp_path / "new", "the plot", [(read, "calibration data")])


def test_two_files_of_one_name(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("a")
    check_apart([(tmp_path / "a", "the report"), (tmp_path / "b", "the plot")])
    with pytest.raises(RequestError, match=r"the plot would overwrite the report .*link"):
        check_apart([(tmp_path / "a", "the report"), (tmp_path / "link", "the plot")])


def test_a_socket_stays(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))
        with pytest.raises(RequestError, match="it is a socket"):
            check_file(path, "the report")
        with pytest.raises(OSError, match="a socket"):
            write_bytes(path, b"new")
        assert stat.S_ISSOCK(path.lstat().st_mode)


def test_not_over_what_is_printed_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "printed.txt"
    path.write_text("")
    monkeypatch.setattr(os, "fstat", lambda _: path.stat())
    with pytest.raises(RequestError, match="this run prints to it"):
        check_file(path, "the report")
