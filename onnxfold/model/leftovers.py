"""Temporary files and folders whose names say which process made them, so that those of a dead process can be removed.

A name holds a tag: a few digits for the machine (and its namespace of process numbers), the process's number, and when
that process started, because numbers are used again. A process that is killed cannot clean up; whoever writes to the
same folder next does.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import platform
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.message import DecodeError
from onnx import ModelProto

from .external_data import external_tensors

OURS = "onnxfold-"  # how tags begin
RESULT = "result.onnx"  # the model in a folder of `staging_folder`, until it is put in place
STAGING = "staging"  # the folder for what is being written, in one that is kept to go on from (`NAME.onnxfold`)
_KEPT = ".onnxfold"
_JOURNAL = "journal.json"
_SHOWN = 32  # characters of a target's name that are repeated in temporary names
_TAG = re.compile(rf"(?:\..*\.)?{OURS}([0-9a-f]{{6}})-(\d+)-(\d+)-\w{{8}}(?:\.\w+)?", re.DOTALL)
_DATA = r"\.[0-9a-f]{8}\.data"  # how the names of data files go on after the target's


def temporary_file(target: Path, suffix: str = ".tmp") -> Path:
    """A new, empty, hidden file beside `target`."""
    handle, name = tempfile.mkstemp(prefix=f".{target.name[:_SHOWN]}.{_tag()}", suffix=suffix, dir=_folder(target))
    os.close(handle)
    return Path(name)


@contextlib.contextmanager
def staging_folder(target: Path, within: Path | None = None) -> Iterator[Path]:
    """A new, hidden folder beside `target`, or `within` another one, which goes at the end with what is in it, and with
    data files beside the target that nothing refers to."""
    made = Path(tempfile.mkdtemp(prefix=f".{target.name[:_SHOWN]}.{_tag()}", dir=within or _folder(target)))
    try:
        yield made
    finally:
        _settle(made, _folder(target))


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new folder for temporary files, which goes at the end."""
    with tempfile.TemporaryDirectory(prefix=_tag()) as made:
        yield Path(made)


def note_data(staging: Path, target: Path, new: Path | None, old: set[Path]) -> None:
    """Keep in `staging` which data files beside `target` go: the `new` one if the model is not put in place, the `old`
    ones if it is. To be called before the first of them is moved. Raises OSError."""
    if new is None and not old:
        return
    noted = {"target": target.name, "new": [new.name] if new else [], "old": sorted(path.name for path in old)}
    with (staging / _JOURNAL).open("w", encoding="utf-8") as file:
        json.dump(noted, file)
        file.flush()
        os.fsync(file.fileno())


def sweep(folder: Path, beside: Path | None = None) -> None:
    """Remove what dead processes of this user left in `folder`. Their targets are `beside` (default: in there too).

    Nothing that another program made, or that a living process may still use. What cannot be removed stays.
    """
    if os.name != "posix":  # no way to ask after a process without disturbing it
        return
    names = list[str]()
    with contextlib.suppress(OSError):
        names = os.listdir(folder)
    for name in names:
        if name.startswith(".") and name.endswith(_KEPT):
            sweep(folder / name / STAGING, folder)
        elif (found := _TAG.fullmatch(name)) is not None and _dead(*found.groups()):
            with contextlib.suppress(OSError):  # another run was quicker, say
                _remove(folder / name, beside or folder)


def data_of(model: Path, target: str) -> set[str]:
    """The names of data files of ours for `target` that an existing `model`, it or a version of it, refers to."""
    try:
        proto = ModelProto.FromString(model.read_bytes())
    except (OSError, DecodeError):  # not there, or not a model: then it has no data files
        return set()
    names = {e.value for tensor in external_tensors(proto) for e in tensor.external_data if e.key == "location"}
    return {name for name in names if _is_data(name, target)}


def _is_data(name: str, target: str) -> bool:
    return os.sep not in name and re.fullmatch(re.escape(target) + _DATA, name) is not None


def _remove(path: Path, beside: Path) -> None:
    """Remove what a dead process left, if it is this user's. Raises OSError."""
    state = path.lstat()
    if state.st_uid == os.geteuid() and stat.S_ISDIR(state.st_mode):
        _settle(path, beside)
    elif state.st_uid == os.geteuid() and stat.S_ISREG(state.st_mode):
        path.unlink()


def _settle(staging: Path, folder: Path) -> None:
    """Remove a staging folder, and what it notes of data files in `folder`."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        noted = json.loads((staging / _JOURNAL).read_text(encoding="utf-8"))
        target = str(noted["target"])
        unused = noted["new" if (staging / RESULT).exists() else "old"]
        for name in set(map(str, unused)) - data_of(folder / target, target):
            if _is_data(name, target):
                (folder / name).unlink(missing_ok=True)
    shutil.rmtree(staging, ignore_errors=True)


def _folder(target: Path) -> Path:
    return target.absolute().parent


def _tag() -> str:
    return f"{OURS}{_machine()}-{os.getpid()}-{_started(os.getpid()) or 0}-"


@functools.cache
def _machine() -> str:
    """Six hexadecimal digits: whose process numbers they are that stand in names."""
    space = ""
    with contextlib.suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")
    return hashlib.sha256(f"{platform.node()} {space}".encode()).hexdigest()[:6]


def _dead(machine: str, pid: str, started: str) -> bool:
    """Whether the process that a tag names is known to have ended."""
    if machine != _machine():
        return False
    number = int(pid)
    if _started(os.getpid()) is not None:  # this system tells
        return _started(number) != started
    try:
        os.kill(number, 0)  # asks only
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def _started(pid: int) -> str | None:
    """When a process started, in ticks since the machine did; None where there is none, or nothing tells."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if len(fields) < 20 or fields[0] in ("Z", "X") else fields[19]
