"""Entries of a model's own metadata, and what tells one file from another."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from onnx import ModelProto

from .model import Model

_CHUNK = 1 << 20  # bytes


def with_entries(proto: ModelProto, entries: Mapping[str, str]) -> ModelProto:
    """A copy of `proto` whose `metadata_props` have these entries: in place of those with the same keys, or at the end.
    All others stay as they are, in their order."""
    made = ModelProto()
    made.CopyFrom(proto)
    left = dict(entries)
    for entry in made.metadata_props:
        if entry.key in left:
            entry.value = left.pop(entry.key)
    for key, value in left.items():
        made.metadata_props.add(key=key, value=value)
    return made


def entry_bytes(entries: Mapping[str, str]) -> int:
    """How many bytes such entries take in a file."""
    return int(with_entries(ModelProto(), entries).ByteSize())


def sha256(path: Path | None) -> str | None:
    """64 hexadecimal digits; None where there is no file, or none that can be read."""
    if path is None:
        return None
    try:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while read := file.read(_CHUNK):
                digest.update(read)
        return digest.hexdigest()
    except OSError:
        return None


def source_hash(model: Model) -> str | None:
    """The `sha256` of a model's file; of one in memory, that of its bytes."""
    if model.path is not None:
        return sha256(model.path)
    given = model.entry.original or model.proto
    return hashlib.sha256(given.SerializeToString(deterministic=True)).hexdigest()


def installed(package: str) -> str:
    """The version of an installed package; "unknown" where it runs from a source tree that was not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
