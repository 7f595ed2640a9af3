"""Synthetic inputs kept between runs: they cost minutes and depend on nothing but the model and the settings."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx
from google.protobuf.message import EncodeError

from ...model.external_data import external_tensors, read_external
from ...model.files import writing
from ...model.model import Model
from . import cache_folder
from .cache_entry import read_entry, write_entry
from .synthesize import Synthetic

VERSION = 18  # raise it when the same settings give other inputs
_READING = sum(getattr(os, name, 0) for name in ("O_RDONLY", "O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))


def key(model: Model, settings: Mapping[str, Any]) -> str:
    """SHA-256, in hexadecimal, of the model with its external weights, the settings (JSON values) and our version."""
    digest = hashlib.sha256(f"{VERSION} {onnx.__version__} {np.__version__}\n".encode())
    digest.update(json.dumps(dict(settings), sort_keys=True).encode())
    try:
        content = model.proto.SerializeToString(deterministic=True)
    except (EncodeError, ValueError):  # over 2 GiB: protobuf cannot write it in one piece
        content = b""
        for tensor in model.proto.graph.initializer:
            digest.update(tensor.SerializeToString(deterministic=True))
        for node in model.proto.graph.node:
            digest.update(node.SerializeToString(deterministic=True))
    digest.update(content)
    if model.folder is not None:
        for tensor in external_tensors(model.proto):
            digest.update(read_external(tensor, model.folder))
    return digest.hexdigest()


def holds(name: str) -> bool:
    """Whether there is an entry called `name`, good or not."""
    folder = cache_folder.existing()
    return folder is not None and cache_folder.entry_at(cache_folder.path_of(folder, name)) is not None


def load(name: str) -> Synthetic | None:
    """The entry called `name`, which counts as used now; None where there is none, or one that is not as it was written
    (cut off, changed, of another name or version, no file at all)."""
    folder = cache_folder.existing()
    if folder is None:
        return None
    path = cache_folder.path_of(folder, name)
    try:
        with _opened(path) as file:
            found = read_entry(file, name)
    except OSError:
        return None
    if found is not None:
        with contextlib.suppress(OSError):  # a file system that is read-only
            os.utime(path)
    return found


def save(name: str, made: Synthetic) -> None:
    """Keep `made` under `name`, whole or not at all; what was not used for longest goes where that is too much.

    What cannot be kept is no error: the folder cannot be written, the disk is full, it takes more than all may.
    """
    folder, most = cache_folder.made(), cache_folder.limit()
    if folder is None or not most:
        return
    path = cache_folder.path_of(folder, name)
    with contextlib.suppress(OSError):
        cache_folder.clear_way(path)
        with writing(path) as file:
            write_entry(file, name, made)
            if file.tell() > most:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    cache_folder.evict(folder, most)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """A file to read from, not through a link, and nothing that one may have to wait for. Raises OSError."""
    with open(path, "rb", opener=lambda name, _: os.open(name, _READING)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "no file")
        yield file
