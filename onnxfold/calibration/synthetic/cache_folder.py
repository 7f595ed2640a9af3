"""The folder of the cache of synthetic inputs: where it is, whose it is, what is in it, and how much of that stays.

A cache is a convenience: a folder that cannot be made, read or written is one that holds nothing, and no error.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from ...model.leftovers import sweep
from ...units import read_size

LIMIT = 2 * 2**30  # bytes of all entries together, unless the variable names another number
VARIABLE = "ONNXFOLD_CACHE_SIZE"
_NAME = re.compile(r"[0-9a-f]{64}\.npz")
_PRIVATE = 0o700  # inputs resemble the data that a model was trained on


@dataclass(frozen=True)
class Entry:
    """A file of ours in the cache, its bytes, and when it was last `used` (seconds since the epoch)."""

    path: Path
    size: int
    used: float


def place() -> Path | None:
    """Where the platform keeps caches of this user: $XDG_CACHE_HOME/onnxfold or ~/.cache/onnxfold on Linux. None where
    that is not known, because there is no home. Whether there is such a folder is another question."""
    found = platformdirs.user_cache_path("onnxfold", appauthor=False)
    return found if found.is_absolute() else None


def limit() -> int:
    """Bytes that all entries together may take. 0 keeps none; a variable that makes no sense counts for nothing."""
    size = read_size(os.environ.get(VARIABLE, ""))
    return LIMIT if size is None else size


def existing() -> Path | None:
    """The folder; None where there is none, or one that belongs to somebody else."""
    folder = place()
    return folder if folder is not None and _is_own(folder) else None


def made() -> Path | None:
    """The folder, which is made where it is missing, for this user alone; None where that cannot be."""
    folder = place()
    if folder is None:
        return None
    with contextlib.suppress(OSError):
        folder.mkdir(_PRIVATE, parents=True, exist_ok=True)
    return existing()


def path_of(folder: Path, name: str) -> Path:
    """The file of the entry called `name`."""
    return folder / f"{name}.npz"


def clear_way(path: Path) -> None:
    """Make room for an entry where something that is no file has its name: a link, a pipe, an empty folder.

    Raises OSError."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        path.rmdir()
    elif not stat.S_ISREG(mode):
        path.unlink()


def entries(folder: Path) -> Sequence[Entry]:
    """The entries in a folder, good or not, the one that was used last in front."""
    found = list[Entry]()
    with contextlib.suppress(OSError), os.scandir(folder) as names:
        found = [entry for name in names if (entry := entry_at(Path(name.path))) is not None]
    return sorted(found, key=lambda entry: (-entry.used, entry.path))


def evict(folder: Path, most: int) -> None:
    """Remove the entries that were not used for longest, until the rest takes `most` bytes at most."""
    found = entries(folder)
    taken = sum(entry.size for entry in found)
    for entry in reversed(found):
        if taken <= most:
            return
        with contextlib.suppress(OSError):  # it cannot be removed
            entry.path.unlink(missing_ok=True)  # another run may have been quicker
            taken -= entry.size


def clear(folder: Path) -> Sequence[Entry]:
    """Remove all entries and what killed runs left, nothing else. Returns the entries that could not be removed."""
    sweep(folder)
    for entry in entries(folder):
        with contextlib.suppress(OSError):
            entry.path.unlink()
    return entries(folder)


def entry_at(path: Path) -> Entry | None:
    """The entry with this path; None for anything else."""
    try:
        state = path.lstat()
    except OSError:  # another run has removed it
        return None
    if not stat.S_ISREG(state.st_mode) or not _NAME.fullmatch(path.name):
        return None
    return Entry(path, state.st_size, state.st_mtime)


def _is_own(folder: Path) -> bool:
    """Whether it is a folder of this user, which nobody else can read from now on."""
    try:
        state = folder.stat()
        if not stat.S_ISDIR(state.st_mode) or (hasattr(os, "geteuid") and state.st_uid != os.geteuid()):
            return False
        if state.st_mode & 0o077:
            folder.chmod(_PRIVATE)
    except OSError:  # nothing there, or a file on the way to it
        return False
    return True
