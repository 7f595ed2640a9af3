"""Where calibration data comes from: files, folders, readers and arrays, all as a stream of named arrays.

Nothing is ever unpickled. Files are read one at a time, when the stream gets to them.
"""

from __future__ import annotations

import os
import re
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from ..errors import BUILTIN_ERRORS, RequestError
from ..model.input_files import near, no_file
from ..model.shapes.nominal import empty_shape
from ..options.preprocess import Preprocess
from ..runtime.session import Feeds, InputSpec
from ..units import did_you_mean
from .images import SUFFIXES, image_shape, needs_preprocess, read_image, told_by
from .numpy_files import MAGIC, check_npy, check_npz, too_large

ARRAYS = (".npz", ".npy")
KINDS = "an .npz or .npy file, a folder of those, of images or of ONNX test_data_set_* folders"


_DAMAGED: tuple[type[Exception], ...] = (
    OSError, *BUILTIN_ERRORS, zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError, DecodeError,
)  # fmt: skip
"""What zipfile, numpy and protobuf raise about files that are damaged, or no such files."""
with suppress(ImportError):  # Python can be built without it, and reads no such files then
    from lzma import LZMAError

    _DAMAGED = (*_DAMAGED, LZMAError)


@dataclass(frozen=True, eq=False)
class Source:
    """A stream of data for a model, read while it is walked (once).

    Attributes:
        title: what it is called in reports.
        feeds: (where it is from, arrays by input name) of one or more samples each. All inputs are there but for those
            that hold nothing (`inputs.empty_shape`), and numeric; shapes and element types are not checked yet.
        counted: whether it is known to end soon; a reader or a generator may go on for long.
        notes: grows while `feeds` is walked: what was skipped.
    """

    title: str
    feeds: Iterator[tuple[str, Feeds]]
    counted: bool = True
    notes: list[str] = field(default_factory=list)


def open_source(
    source: object, specs: Sequence[InputSpec], preprocess: Preprocess | None, most: int, limit: int
) -> Source:
    """The stream that `source` stands for.

    Args:
        source: what `onnxfold.calibration.read_calibration` takes.
        specs: the inputs of the model.
        preprocess: for image files.
        most: files that are read at most, evenly spaced over a folder.
        limit: bytes that a file may take in memory.

    Raises:
        RequestError: no such source, no ordinary file, nothing in it, too large, damaged, pickled, or with other names
            than the model's inputs (also while the stream is walked).
    """
    notes: list[str] = []
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        return Source(path.name or str(path), _of_path(path, specs, preprocess, most, limit, notes), True, notes)
    if isinstance(source, Mapping):
        named = _named(source, specs, "the calibration data", notes)
        return Source("the arrays given", iter([("the calibration data", named)]), True, notes)
    if isinstance(source, np.ndarray):
        where = "the calibration data"
        return Source("the array given", iter([(where, {_only(specs, "an array").name: source})]), True, notes)
    if callable(getattr(source, "get_next", None)):
        return Source("the calibration reader", _of_items(_drained(source), specs, notes), False, notes)
    if isinstance(source, Iterable) and not isinstance(source, bytes):
        return Source("the feeds given", _of_items(source, specs, notes), isinstance(source, Sized), notes)
    raise RequestError(
        f"calibration data cannot be of type {type(source).__name__}: use {KINDS}, a CalibrationDataReader, dicts of "
        "arrays, or one such dict"
    )


def evenly(count: int, most: int) -> list[int]:
    """At most `most` of the indices below `count`, evenly spaced."""
    return [i * count // most for i in range(most)] if count > most else list(range(count))


def _drained(reader: Any) -> Iterator[Any]:
    """What an onnxruntime CalibrationDataReader gives."""
    while (item := reader.get_next()) is not None:
        yield item


def _of_items(items: Iterable[Any], specs: Sequence[InputSpec], notes: list[str]) -> Iterator[tuple[str, Feeds]]:
    for i, item in enumerate(items):
        where = f"feed {i} of the calibration data"
        if not isinstance(item, Mapping):
            raise RequestError(f"{where} is of type {type(item).__name__}: pass a dict of arrays by input name")
        yield where, _named(item, specs, where, notes)


def _of_path(
    path: Path, specs: Sequence[InputSpec], preprocess: Preprocess | None, most: int, limit: int, notes: list[str]
) -> Iterator[tuple[str, Feeds]]:
    try:
        files = _in_folder(path, notes) if path.is_dir() else [path]
        if not path.exists():
            raise RequestError(f"calibration data {path} does not exist{near(path)}")
        for file in files:
            _check_kind(file)
    except OSError as error:
        raise RequestError(f"calibration data {path} cannot be read: {error.strerror}") from error
    read = _reader(files[0], specs, preprocess, limit)
    for i in evenly(len(files), most):
        yield str(files[i]), read(files[i], notes)


Read = Callable[[Path, list[str]], Feeds]


def _check_kind(path: Path) -> None:
    """Raise RequestError for pipes and the like."""
    if not path.is_dir() and (kind := no_file(path)):
        raise RequestError(f"calibration data {path} is {kind}, not a file: use {KINDS}")


def _reader(path: Path, specs: Sequence[InputSpec], preprocess: Preprocess | None, limit: int) -> Read:
    """How to read files like `path`, after the checks that need no file."""
    suffix = path.suffix.lower()
    if suffix in ARRAYS:
        return lambda file, notes: _read_arrays(file, specs, limit, notes)
    if suffix in SUFFIXES:
        only = _only(specs, "a folder of images")
        if preprocess is None:
            raise needs_preprocess(str(path), only.name)
        image_shape(only, preprocess)
        known = preprocess

        def read(file: Path, notes: list[str]) -> Feeds:
            notes.extend(told_by(known))
            return {only.name: read_image(file, only, known)}

        return read
    if path.is_dir():
        return lambda file, notes: _read_test_set(file, specs, limit)
    raise RequestError(f"{path} is not calibration data that onnxfold can read: use {KINDS}")


def _in_folder(path: Path, notes: list[str]) -> list[Path]:
    """The files of calibration data in a folder, all of one kind, in the order of their names."""
    entries = sorted(p for p in path.iterdir() if not p.name.startswith("."))
    for entry in entries:
        if entry.suffix.lower() in (*ARRAYS, *SUFFIXES) and entry.exists():
            _check_kind(entry)
    if any(_numbered(p) is not None for p in entries):
        return [path]
    if sets := [p for p in entries if p.is_dir() and p.name.startswith("test_data_set_")]:
        return sorted(sets, key=lambda p: (len(p.name), p.name))
    arrays = [p for p in entries if p.suffix.lower() in ARRAYS and p.is_file()]
    images = sorted(
        p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file()
    )
    if arrays and images:
        raise RequestError(f"{path} holds {arrays[0].name} and images: use a folder with one kind of calibration data")
    if not arrays and not images:
        raise RequestError(f"the folder {path} contains no calibration data: use {KINDS}")
    used = {*arrays, *images}
    if others := [p.name for p in entries if p not in used and not p.is_dir()]:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        notes.append(f"{path.name}: skipped {', '.join(others[:3])}{more}")
    return arrays or images


def _read_arrays(path: Path, specs: Sequence[InputSpec], limit: int, notes: list[str]) -> Feeds:
    """An .npz or .npy file. One array alone is the only input of a model with one, whatever its name."""
    with _reading(path), path.open("rb") as file:  # opened here, because numpy leaves damaged files open
        start = file.read(6)
        file.seek(0)
        if start.startswith(MAGIC):
            only = _only(specs, f"{path} (an .npy file)")
            check_npy(file, path.stat().st_size)
            return {only.name: np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))}
        if not start.startswith(b"PK"):
            raise RequestError(f"{path} is not a NumPy file: write it with numpy.savez or numpy.save")
        with np.load(file, allow_pickle=False) as stored:
            names = {spec.name: spec.name for spec in specs}
            if len(stored.files) == len(specs) == 1:
                names = {specs[0].name: stored.files[0]}
                if stored.files[0] not in (specs[0].name, "arr_0"):
                    notes.append(f"array '{stored.files[0]}' is used as input '{specs[0].name}'")
            else:
                _check_names(stored.files, specs, str(path), notes)
                names = {name: name for name in names if name in stored.files}
            check_npz(stored.zip, names.values(), path, limit)
            return {name: np.asarray(stored[inside]) for name, inside in names.items()}


def _read_test_set(path: Path, specs: Sequence[InputSpec], limit: int) -> Feeds:
    """A test_data_set_* folder: input_0.pb, input_1.pb, ... are TensorProtos in the order of the model's inputs."""
    with _reading(path):
        numbers = {n: p for p in path.iterdir() if (n := _numbered(p)) is not None}
        if sorted(numbers) != list(range(len(specs))):
            raise RequestError(
                f"{path} holds {len(numbers)} files input_*.pb, but the model has {len(specs)} inputs "
                f"({', '.join(s.name for s in specs)}): number one for each from 0"
            )
    feeds = {}
    for i, spec in enumerate(specs):
        with _reading(numbers[i]):
            _check_kind(numbers[i])
            if (size := numbers[i].stat().st_size) > limit:
                raise too_large(numbers[i], size, limit)
            tensor = onnx.TensorProto.FromString(numbers[i].read_bytes())
            if tensor.data_location == onnx.TensorProto.EXTERNAL or not tensor.data_type:
                raise RequestError(f"{numbers[i]} is not a tensor that contains its values: write it with numpy_helper")
            feeds[spec.name] = numpy_helper.to_array(tensor)
    return feeds


def _numbered(path: Path) -> int | None:
    found = re.fullmatch(r"input_(\d+)\.pb", path.name)
    return int(found[1]) if found else None


def _check_names(held: Iterable[object], specs: Sequence[InputSpec], where: str, notes: list[str]) -> None:
    """Note arrays that are no input. Raises RequestError for an input that is missing."""
    held, names = list(held), [spec.name for spec in specs]
    if missing := [spec.name for spec in specs if spec.name not in held and empty_shape(spec.shape, 1) is None]:
        raise RequestError(
            f"{where} has no array for input '{missing[0]}': it holds {', '.join(map(str, held)) or 'nothing'}; the "
            f"model's inputs are {', '.join(names)}{did_you_mean(missing[0], map(str, held))}"
        )
    notes += [f"array '{name}' does not match any model input and is ignored" for name in held if name not in names]


def _named(given: Mapping[str, Any], specs: Sequence[InputSpec], where: str, notes: list[str]) -> Feeds:
    """The arrays of all inputs but empty caches. Raises RequestError for one that is missing or no array."""
    _check_names(given, specs, where, notes)
    try:
        return {spec.name: np.asarray(given[spec.name]) for spec in specs if spec.name in given}
    except (ValueError, TypeError, RuntimeError) as error:  # ragged lists, tensors on a GPU
        raise RequestError(f"{where} contains something that is not an array ({_first_line(error)})") from error


def _only(specs: Sequence[InputSpec], what: str) -> InputSpec:
    """The input of a model that has one. Raises RequestError for another number."""
    if len(specs) != 1:
        names = ", ".join(s.name for s in specs)
        raise RequestError(
            f"{what} feeds one input, but the model has {len(specs)} ({names}): pass an .npz file with all of them"
        )
    return specs[0]


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """What goes wrong in reading a file, in one line."""
    try:
        with np.errstate(over="ignore"):  # of sizes that no file has
            yield
    except RequestError:
        raise
    except MemoryError:
        raise RequestError(f"{path} does not fit into memory: split it into a folder of smaller files") from None
    except _DAMAGED as error:
        text = _first_line(error)
        if "Object arrays" in text or "Python objects" in text:
            raise RequestError(
                f"{path} contains pickled Python objects, which onnxfold never loads: save plain arrays"
            ) from error
        raise RequestError(f"{path} cannot be read ({text}): write it again") from error


def _first_line(error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return ((reason or "").splitlines() or [type(error).__name__])[0]
