"""NumPy files by their headers: what they would take in memory is known before any of it is taken."""

from __future__ import annotations

import math
import os
from collections.abc import Collection
from io import BytesIO
from pathlib import Path
from typing import IO, Any
from zipfile import ZipFile

import numpy as np

from ..errors import RequestError
from ..units import in_bytes

MAGIC = b"\x93NUMPY"
_HEADER = 2**16 + 16  # bytes; numpy writes no longer ones of plain arrays
# a file that is so small beside what it holds was made to do harm, or is of zeros only
_PACKED, _TIMES = 2**28, 100


def memory_limit(given: int | None) -> int:
    """Bytes that calibration data may take: what is `given`, or half of the machine's memory."""
    if given is not None:
        return given
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):
        return 2**32


def too_large(path: Path, size: int, limit: int) -> RequestError:
    """The error for a file that would take `size` bytes of memory."""
    return RequestError(
        f"{path} takes {in_bytes(size)} of memory, and {in_bytes(limit)} are allowed (`max_memory`, or half of the "
        "machine's): split it into a folder of smaller files"
    )


def check_npz(archive: ZipFile, names: Collection[str], path: Path, limit: int) -> None:
    """Refuse arrays `names` of an open .npz that would take too much memory, or hold less than their headers say.

    Raises RequestError; ValueError for what is no array, or one of Python objects.
    """
    members, total = set(archive.namelist()), 0
    for name in names:
        entry = archive.getinfo(name if name in members else f"{name}.npy")
        with archive.open(entry) as file:
            needed, begin = _described(file)
        if needed > entry.file_size - begin:
            raise ValueError(f"array '{name}' is cut off")
        total += entry.file_size
        if entry.file_size > max(_PACKED, _TIMES * entry.compress_size):
            raise RequestError(
                f"{path}: array '{name}' is packed in {in_bytes(entry.compress_size)} and takes "
                f"{in_bytes(entry.file_size)}: refused (if it is data, write it with numpy.savez, uncompressed)"
            )
    if total > limit:
        raise too_large(path, total, limit)


def check_npy(file: IO[bytes], size: int) -> None:
    """Raise ValueError for an .npy file of `size` bytes that holds less than its header says, or Python objects."""
    needed, begin = _described(file)
    if needed > size - begin:
        raise ValueError(f"its header declares {needed} bytes, but it has {max(0, size - begin)}")


def _described(file: IO[bytes]) -> tuple[int, int]:
    """(bytes of the values, bytes before them) of an array in NumPy's format, from its header alone."""
    head = file.read(_HEADER)
    if not head.startswith(MAGIC):
        raise ValueError("it contains something that is not an array")
    if head[6:7] > b"\x01" and int.from_bytes(head[8:12], "little") > _HEADER - 16:
        raise ValueError("the header of an array is too long")
    stream = BytesIO(head)
    version = np.lib.format.read_magic(stream)
    read: Any = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError("Object arrays are never loaded")
    return math.prod(shape) * dtype.itemsize, stream.tell()
