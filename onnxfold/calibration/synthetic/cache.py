"""Synthetic inputs kept between runs: they cost minutes and depend on nothing but the model and the settings."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import EncodeError

from ...model.external_data import external_tensors, read_external
from ...model.model import Model
from ..origin import Origin
from .synthesize import Synthetic

VERSION = 10  # raise it when the same settings give other inputs
_FACTS = "__onnxfold__"


def folder() -> Path:
    """$XDG_CACHE_HOME/onnxfold, or ~/.cache/onnxfold (XDG Base Directory Specification: only absolute paths count)."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "onnxfold"


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
    return (folder() / f"{name}.npz").is_file()


def load(name: str) -> Synthetic | None:
    """The entry called `name`; None where there is none, or one that cannot be read."""
    try:
        content = io.BytesIO((folder() / f"{name}.npz").read_bytes())
        with np.load(content, allow_pickle=False) as entry:
            facts = json.loads(str(entry[_FACTS]))
            feeds = {n: entry[f"x{i}"] for i, n in enumerate(facts["inputs"])}
        return Synthetic(
            feeds, Origin(facts["origin"]), None if facts["match"] is None else float(facts["match"]),
            float(facts["seconds"]), tuple(float(v) for v in facts["losses"]), str(facts["note"]), bool(facts["apart"]),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error):
        return None


def save(name: str, made: Synthetic) -> None:
    """Keep `made` under `name`, atomically. A cache that cannot be written is no error: nothing is kept then."""
    facts = {
        "inputs": list(made.feeds), "origin": made.origin.value, "match": made.match, "seconds": made.seconds,
        "losses": made.losses, "note": made.note, "apart": made.apart,
    }  # fmt: skip
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {f"x{i}": x for i, x in enumerate(made.feeds.values())}
    arrays[_FACTS] = np.array(json.dumps(facts))
    np.savez_compressed(buffer, **arrays)
    with contextlib.suppress(OSError):
        folder().mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{name[:16]}.", suffix=".tmp", dir=folder())
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(buffer.getvalue())
            os.replace(temporary, folder() / f"{name}.npz")
        finally:
            Path(temporary).unlink(missing_ok=True)
