"""What an interrupted run has done, kept beside its target, so that another one can go on from there.

The folder ``.NAME.onnxfold`` holds the outcome of every group that is merged (a few labels and factors), a key that
tells model and options apart, and the files that are being written. It goes when the target is there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import OnnxFoldError
from ..model.external_data import Stretch, external_tensors
from ..model.files import destination, write_bytes
from ..model.leftovers import STAGING, sweep
from ..model.model import Model
from .merge_task import MergeOutcome

_FORMAT = "1"  # of the outcomes
_MARK = "onnxfold-work"  # the file that holds the key
_SAMPLE = 4096  # bytes of every weight outside the model that the key depends on


def key_of(model: Model, *options: object) -> str:
    """64 hexadecimal digits that depend on the model and the `options`.

    Of a weight outside the model: on where it is, its first 4 KiB, and the size and time of its file. Reading all of it
    would take as long as folding.
    """
    digest = hashlib.sha256(model.proto.SerializeToString(deterministic=True))
    for file in sorted(model.data_files()):
        state = file.stat()
        digest.update(f"{file.name} {state.st_size} {state.st_mtime_ns}".encode())
    if model.folder is not None:
        for tensor in external_tensors(model.proto):
            digest.update(Stretch.of(tensor, model.folder).raw()[:_SAMPLE])
    plain = [option.value if isinstance(option, Enum) else option for option in options]
    digest.update(repr((_FORMAT, _version(), *plain)).encode())
    return digest.hexdigest()


@contextlib.contextmanager
def checkpoint(target: Path, key: str, resume: bool) -> Iterator[Checkpoint]:
    """A `Checkpoint` that goes when all went well, and, unless `resume`, with a run that cannot succeed."""
    work = Checkpoint(target, key, resume)
    try:
        yield work
    except OnnxFoldError:
        if not resume:
            work.remove()
        raise
    work.remove()


class Checkpoint:
    """The folder for `target`, made when this is, with what is left of an earlier run under the same `key`.

    `resume`: whether that is used; else the run begins anew. What is left is read when this is made, and `notes` say
    what was ignored. Where the name is taken by something else nothing is kept, and `staging` is None.
    """

    def __init__(self, target: Path, key: str, resume: bool) -> None:
        target = destination(target)
        self.path = target.absolute().parent / f".{target.name}.onnxfold"
        self.notes: tuple[str, ...] = ()
        self.staging: Path | None = None
        self._found: Mapping[str, MergeOutcome] = {}
        mark = self.path / _MARK
        if os.path.lexists(self.path) and not _ours(self.path):
            self.notes = (f"{self.path.name} is not a work folder of onnxfold: ignored, so this run cannot be resumed",)
            return
        before = _text(mark)
        sweep(self.path / STAGING, target.absolute().parent)
        shutil.rmtree(self.path / STAGING, ignore_errors=True)
        if before != key or not resume:
            if resume and before is not None:
                self.notes = (f"{self.path.name} belongs to another model or other options: ignored",)
            shutil.rmtree(self.path, ignore_errors=True)
        found = {path.name: _read(path) for path in sorted(self.path.glob("*.npz"))}
        self._found = {name: outcome for name, outcome in found.items() if outcome is not None}
        broken = [name for name, outcome in found.items() if outcome is None]
        self.notes += tuple(f"{self.path.name}/{name} is corrupt: its group was merged again" for name in broken)
        self.staging = self.path / STAGING
        self.staging.mkdir(parents=True)
        if not mark.is_file():
            write_bytes(mark, key.encode())

    def get(self, name: str, keep: int, size: int, repair: bool) -> MergeOutcome | None:
        """What an earlier run found for group `name` of `size` channels; None if it did not get there."""
        outcome = self._found.get(self._path(name, keep, repair).name)
        if outcome is None or outcome.labels.shape != (size,):
            return None
        return outcome if len(np.unique(outcome.labels[outcome.labels >= 0])) == keep else None

    def put(self, name: str, keep: int, repair: bool, outcome: MergeOutcome) -> None:
        """Keep what was found for group `name`, whole or not at all."""
        if self.staging is None:
            return
        arrays: dict[str, Any] = {}  # as savez takes them: by names, one of which is no array but a flag
        arrays["labels"], arrays["figures"] = outcome.labels.astype(np.int32), np.array([outcome.error, outcome.total])
        for kind, factors in zip(_KINDS, (outcome.normalized, outcome.fused), strict=True):
            arrays[kind] = np.array(list(factors), dtype=np.str_)
            arrays |= {f"{kind} {i}": np.asarray(values) for i, values in enumerate(factors.values())}
        partial = self.staging / "outcome.npz"
        with partial.open("wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, self._path(name, keep, repair))

    def remove(self) -> None:
        """The target is there, or the run failed for good."""
        if self.staging is not None:
            with contextlib.suppress(OSError):
                shutil.rmtree(self.path)

    def _path(self, name: str, keep: int, repair: bool) -> Path:
        digest = hashlib.sha256(f"{name}\0{keep}\0{repair}".encode()).hexdigest()
        return self.path / f"{digest[:32]}.npz"


_KINDS = ("normalized", "fused")


def _read(path: Path) -> MergeOutcome | None:
    """What was kept in a file; None where it is broken."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
            factors = [{str(n): held[f"{kind} {i}"] for i, n in enumerate(held[kind])} for kind in _KINDS]
            labels, (error, total) = held["labels"].astype(np.int64), held["figures"].tolist()
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return MergeOutcome(labels, error, total, *factors)


def _ours(path: Path) -> bool:
    """Whether there is nothing in a folder but what a work folder holds (its key goes first when it is removed)."""
    known = re.compile(rf"{_MARK}|{STAGING}|[0-9a-f]{{32}}\.npz|\.{_MARK}\..*\.tmp")
    return path.is_dir() and not path.is_symlink() and all(known.fullmatch(name) for name in os.listdir(path))


def _version() -> str:
    try:
        return version("onnxfold")
    except PackageNotFoundError:  # run from a source tree
        return ""


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return None
