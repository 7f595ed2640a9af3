"""Every file that is written: never over one that a run reads, whole or not at all, and what it stands for stays.

A file is written under a temporary name in its folder, synced and renamed. Through a link, its target is replaced and
the link stays. Pipes and character devices are written to as they are; sockets, block devices and folders are refused.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from ..errors import RequestError
from .leftovers import sweep, temporary_file

Read = tuple[Path, str]
"""A file that a run reads, and what it is to the run, like "the model"."""

_PATIENCE = 10.0  # seconds that the reader of a pipe may take to open it
_KINDS = (
    (stat.S_ISDIR, "a folder"), (stat.S_ISSOCK, "a socket"), (stat.S_ISBLK, "a block device"),
    (stat.S_ISFIFO, "a pipe"), (stat.S_ISCHR, "a device"),
)  # fmt: skip
_THROUGH = ("a pipe", "a device")  # what takes bytes as they come
_OPENING = sum(getattr(os, name, 0) for name in ("O_WRONLY", "O_APPEND", "O_NOCTTY", "O_NONBLOCK"))


def check_file(path: Path, what: str, reads: Iterable[Read] = (), through: bool = True) -> None:
    """Find out before the work whether `path` can be written. Writes nothing.

    Args:
        what: what it is called in messages, like "the report".
        reads: the files that the run reads. Asked for only if there is such a file already.
        through: whether pipes and devices make sense.

    Raises:
        RequestError: the name is taken by something that cannot be written to, there is no such folder, or the file is
            one of `reads`: by its name, or by another name of the same file.
    """
    try:
        state, real = _state(path), destination(path)
        if state is not None and (kind := _kind(state)):
            if through and kind in _THROUGH:
                return
            raise RequestError(f"cannot write {what} {path}: it is {kind}, choose another file")
        if not real.absolute().parent.is_dir():
            at = "" if real == path else f" (it is a link to {real})"
            raise RequestError(f"cannot write {what} {path}{at}: name a file in a folder that exists")
        if state is not None:
            if role := read_as(state, reads):
                raise RequestError(f"{what} would overwrite {role} {path}: choose another file")
            if _shown(state):
                raise RequestError(f"cannot write {what} {path}: this run prints to it, choose another file")
    except OSError as error:
        raise RequestError(f"cannot write {what} {path}: {error.strerror or error}") from error
    if not os.access(real.absolute().parent, os.W_OK):
        raise RequestError(f"cannot write {what} {path}: its folder is not writable")


def check_apart(written: Iterable[Read]) -> None:
    """Raise RequestError where two of the files to write are one."""
    seen = list[Read]()
    for path, what in written:
        for other, before in seen:
            if same_file(path, other) and not _through(path):
                raise RequestError(f"{what} would overwrite {before} {path}: choose another file")
        seen.append((path, what))


def read_as(state: os.stat_result, reads: Iterable[Read]) -> str:
    """What the file with this `state` is to a run, if it reads that; else ''."""
    for file, role in reads:
        with contextlib.suppress(OSError):
            if os.path.samestat(file.stat(), state):
                return role
    return ""


def same_file(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file, there or not."""
    try:
        return os.path.samefile(one, other)
    except OSError:  # one is not there, or cannot be looked at
        return os.path.realpath(one) == os.path.realpath(other)


def kind_of(path: Path) -> str:
    """What `path` leads to, as "a pipe", if that is there and no ordinary file; else ''. Raises OSError."""
    state = _state(path)
    return "" if state is None else _kind(state)


def destination(path: Path) -> Path:
    """The file that is replaced when `path` is written: where a link leads to in the end."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


@contextlib.contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to, which is in place when the block ends without an error.

    Raises OSError, and leaves nothing behind then."""
    if kind := kind_of(path):
        if kind not in _THROUGH:
            raise OSError(errno.EINVAL, f"it is {kind}")
        held = io.BytesIO()
        yield held
        _send(path, held.getbuffer())
        return
    target = destination(path)
    sweep(target.absolute().parent)
    made = temporary_file(target)
    try:
        with made.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        copy_mode(made, target)
        os.replace(made, target)
        sync(target.absolute().parent)
    finally:
        made.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, as `writing` does."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, as `writing` does."""
    with writing(path) as file:
        file.write(content)


def copy_mode(path: Path, target: Path) -> None:
    """Permissions as an ordinary new file would have them (temporary files are private)."""
    if target.exists():
        mode = target.stat().st_mode & 0o777
    else:
        mask = os.umask(0)
        os.umask(mask)
        mode = 0o666 & ~mask
    path.chmod(mode)


def sync(folder: Path) -> None:
    """Make renames in a folder last."""
    with contextlib.suppress(OSError):  # not all systems can sync a folder; the rename has happened all the same
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _state(path: Path) -> os.stat_result | None:
    """That of what `path` leads to; None if there is nothing. Raises OSError, also for links that go in circles."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _kind(state: os.stat_result) -> str:
    return next((name for is_kind, name in _KINDS if is_kind(state.st_mode)), "")


def _through(path: Path) -> bool:
    try:
        return kind_of(path) in _THROUGH
    except OSError:
        return False


def _shown(state: os.stat_result) -> bool:
    """Whether it is the file that standard output or standard error go to: replaced, it would lose what is printed."""
    for handle in (1, 2):
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(handle), state):
                return True
    return False


def _send(path: Path, content: memoryview) -> None:
    """Write to a pipe or a device. Raises OSError, also where nobody opens the pipe to read from it."""
    handle = _opened(path)
    try:
        os.set_blocking(handle, True)
        sent = 0
        while sent < len(content):
            sent += os.write(handle, content[sent:])
    finally:
        os.close(handle)


def _opened(path: Path) -> int:
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            return os.open(path, _OPENING)
        except OSError as error:
            if error.errno != errno.ENXIO or time.monotonic() > end:
                raise OSError(error.errno, "nobody is reading it") if error.errno == errno.ENXIO else error from None
        time.sleep(0.05)
