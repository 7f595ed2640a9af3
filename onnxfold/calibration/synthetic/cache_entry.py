"""One entry of the cache of synthetic inputs: a .npz file that says what it holds, and is believed only as a whole."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import BUILTIN_ERRORS
from ..numpy_files import memory_limit
from ..origin import Origin
from .synthesize import Synthetic

FORMAT = 1  # raise it when entries are written in another way
_FACTS = "__onnxfold__"  # the array whose text says what the others are
_KINDS = "biufU"  # of element types: numbers and text, nothing that would have to be pickled
_UNREADABLE = (OSError, MemoryError, zipfile.BadZipFile, zlib.error, struct.error, *BUILTIN_ERRORS)
Arrays = Mapping[str, NDArray[Any]]


def write_entry(file: IO[bytes], name: str, made: Synthetic) -> None:
    """Write what was `made` as the entry called `name`. Raises OSError, also for what is not to be kept:
    Python objects, which would be pickled, and numbers that are not finite."""
    arrays = {f"x{i}": np.asarray(x) for i, x in enumerate(made.feeds.values())}
    facts: dict[str, Any] = {
        "format": FORMAT, "name": name, "inputs": list(made.feeds), "types": [x.dtype.str for x in arrays.values()],
        "shapes": [list(x.shape) for x in arrays.values()], "origin": made.origin.value,
        "match": None if made.match is None else float(made.match), "seconds": float(made.seconds),
        "losses": [float(loss) for loss in made.losses], "note": made.note, "apart": made.apart,
    }  # fmt: skip
    facts["checksum"] = _checksum(facts, arrays)
    if not _is_whole(facts, arrays, name):
        raise OSError(errno.EINVAL, "not to be kept")
    members: dict[str, Any] = {**arrays, _FACTS: np.array(json.dumps(facts))}
    np.savez_compressed(file, **members)


def read_entry(file: IO[bytes], name: str) -> Synthetic | None:
    """What the entry called `name` holds; None where anything about it is not as it was written."""
    facts, arrays = _parsed(file)
    if not _is_whole(facts, arrays, name):
        return None
    return Synthetic(
        dict(zip(facts["inputs"], arrays.values(), strict=True)), Origin(facts["origin"]), facts["match"],
        facts["seconds"], tuple(facts["losses"]), facts["note"], facts["apart"],
    )  # fmt: skip


def _parsed(file: IO[bytes]) -> tuple[Any, Arrays]:
    """The facts and the arrays in a file, of which nothing is known yet; (None, nothing) where it cannot be read."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            if sum(member.file_size for member in archive.zip.infolist()) > memory_limit(None):
                return None, {}
            facts = json.loads(str(archive[_FACTS]))
            return facts, {name: archive[name] for name in archive.files if name != _FACTS}
    except _UNREADABLE:
        return None, {}


def _is_whole(facts: Any, arrays: Arrays, name: str) -> bool:
    """Whether these are the facts of the entry called `name`, of the right types, and of just these `arrays`."""
    if not isinstance(facts, dict) or facts.keys() != _MAY_BE.keys():
        return False
    if not all(may_be(facts[fact]) for fact, may_be in _MAY_BE.items()) or facts["name"] != name:
        return False
    return (
        list(arrays) == [f"x{i}" for i in range(len(facts["inputs"]))]
        and [x.dtype.str for x in arrays.values()] == facts["types"]
        and [list(x.shape) for x in arrays.values()] == facts["shapes"]
        and all(_usable(x) for x in arrays.values())
        and _checksum({fact: value for fact, value in facts.items() if fact != "checksum"}, arrays) == facts["checksum"]
    )


def _usable(x: NDArray[Any]) -> bool:
    return x.dtype.kind in _KINDS and (x.dtype.kind != "f" or bool(np.isfinite(x).all()))


def _checksum(facts: Mapping[str, Any], arrays: Arrays) -> str:
    """SHA-256, in hexadecimal, of all that an entry holds."""
    digest = hashlib.sha256(json.dumps(dict(facts), sort_keys=True).encode())
    for x in arrays.values():
        if x.size and not x.dtype.hasobject:
            digest.update(np.ascontiguousarray(x).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _text(value: object) -> bool:
    return isinstance(value, str)


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(map(_text, value))


def _distinct(value: Any) -> bool:
    return len(set(value)) == len(value)


def _number(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def _list_of(each: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and all(map(each, value))


_MAY_BE: Mapping[str, Callable[[object], bool]] = {
    "format": lambda value: type(value) is int and value == FORMAT,
    "name": _text,
    "inputs": lambda value: _texts(value) and _distinct(value),
    "types": _texts,
    "shapes": _list_of(_list_of(lambda size: type(size) is int)),
    "origin": lambda value: value in [origin.value for origin in Origin],
    "match": lambda value: value is None or _number(value),
    "seconds": _number,
    "losses": _list_of(_number),
    "note": _text,
    "apart": lambda value: isinstance(value, bool),
    "checksum": _text,
}
"""What each fact may be."""
