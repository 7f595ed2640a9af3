"""Writing models: atomically, with external data streamed to a new file. A crash leaves the old file or the new one."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import tempfile
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.external_data_helper import uses_external_data

from ..errors import ModelError, RequestError
from ..progress import Progress, silent
from .constants import FLOATS
from .external_data import PIECE, Stretch, external_tensors, read_external, refuse_nan
from .half_precision import BFLOAT16, holds, widened
from .model import PROTOBUF_LIMIT, Model
from .tensors import Pending, is_deferred


def on_disk(model: Model, folder: Path) -> Path:
    """The model's file, or one written to `folder`."""
    if model.path is not None:
        return model.path
    handle, name = tempfile.mkstemp(suffix=".onnx", dir=folder)
    with os.fdopen(handle, "wb") as file:
        file.write(model.proto.SerializeToString())
    return Path(name)


_PAGE, _LINE = 4096, 64
_MAPPED = 1 << 20  # bytes; tensors from here on begin at a page, so that they can be memory-mapped, others at a line
_CHECKSUM = 40  # hexadecimal digits of a SHA1
_DIGITS = 8  # of the digest in the name of a data file
_SMALL = 1024  # bytes; tensors below stay inside the model


def check_target(target: Path, source: Path | None) -> None:
    """Raise RequestError unless `target` can be written and is not the input itself."""
    folder = target.absolute().parent
    try:
        if target.is_dir():
            raise RequestError(f"{target} is a folder: name the file to write")
        if not folder.is_dir():
            raise RequestError(f"the folder {folder} does not exist: create it first")
        if target.exists() and not target.is_file():
            raise RequestError(f"{target} is no ordinary file: name another output")
        if source is not None and target.exists() and _same(source, target):
            raise RequestError(f"{target} is the input itself: name another output")
    except OSError as error:
        raise RequestError(f"cannot write {target}: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise RequestError(f"the folder {folder} is not writable: choose another place for the output")


def _same(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:  # one is not there, or cannot be looked at: loading it says so
        return False


@contextlib.contextmanager
def staged(
    proto: ModelProto,
    source: Model,
    target: Path,
    external: bool = False,
    pending: Mapping[str, Pending] | None = None,
    progress: Progress[TensorProto] = silent,
    within: Path | None = None,
) -> Iterator[Staged]:
    """Write `proto` beside `target` under a temporary name that `Staged.commit` renames; else nothing is left behind.

    Weights that were external stay external, in a new file named after the target and its contents; so do all of over
    1 KiB if `external` is set or the file would pass protobuf's 2 GiB. `pending` are the values that `proto` leaves
    open, by name: each is computed when its turn comes. Raises ModelError for weights outside that hold NaN. `within`:
    another folder of the same file system to write to.
    """
    if any(_same(target, file) for file in source.data_files()):
        raise RequestError(f"{target} holds the weights of the input: name another output")
    made: list[Path] = []
    try:
        proto, tensors = _divided(proto, source, external)
        data = None
        if tensors:
            data = _move_out(tensors, source.folder, target, made, pending or {}, progress, within)
        name = _temporary(target, ".onnx", made, within)
        _write(name, proto.SerializeToString(), target)
        yield Staged(name, target, data, made, source.data_files())
    except OSError as error:
        raise RequestError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        for path in made:
            path.unlink(missing_ok=True)


def size_written(proto: ModelProto, source: Model, target: Path, external: bool = False) -> int:
    """The bytes that `staged` would write for the same arguments, external data included. Writes nothing."""
    proto, tensors = _divided(proto, source, external)
    end, name = 0, _data_name(target, "0" * _DIGITS)
    for tensor in tensors:
        length = _length(tensor, source.folder)
        start = end + _gap(end, length)
        end = start + length
        _refer(tensor, name, start, end - start, "0" * _CHECKSUM)
    return int(proto.ByteSize()) + end


class Staged:
    """A model written under a temporary name: `path` can be loaded; `commit` puts it in place."""

    def __init__(self, path: Path, target: Path, data: Path | None, made: list[Path], keep: set[Path]) -> None:
        self.path, self.target, self.data, self._made, self._keep = path, target, data, made, keep

    @property
    def size(self) -> int:
        """Bytes, external data included."""
        return self.path.stat().st_size + (self.data.stat().st_size if self.data else 0)

    def commit(self) -> None:
        """Rename to the target. The data file already has its own name, which nothing refers to before this."""
        stale, folder = _data_of(self.target, self.target), self.target.absolute().parent
        if self.data is not None and self.data.parent != folder:
            moved = folder / self.data.name
            if not moved.exists():
                self._made.append(moved)
            os.replace(self.data, moved)
            self.data = moved
        os.replace(self.path, self.target)
        self._made.clear()
        _sync(folder)
        for old in stale - ({self.data} if self.data else set()):
            if old.resolve() not in self._keep:  # the input may share it
                old.unlink(missing_ok=True)


def inline(proto: ModelProto, folder: Path | None, as_is: bool = False) -> ModelProto:
    """`proto` with its external tensors inside it, for sessions made from memory; bfloat16, of which CPUs run little,
    is float32 there, unless `as_is`."""
    wide = not as_is and holds(proto, BFLOAT16)
    if next(external_tensors(proto), None) is None:
        return widened(proto, (BFLOAT16,)) if wide else proto
    if folder is None:
        raise ModelError("the model's external data cannot be found: load it from its path")
    copy = ModelProto()
    copy.CopyFrom(proto)
    for tensor in list(external_tensors(copy)):
        raw = bytes(read_external(tensor, folder))
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
        tensor.raw_data = raw
    return widened(copy, (BFLOAT16,)) if wide else copy


def _divided(proto: ModelProto, source: Model, external: bool) -> tuple[ModelProto, list[TensorProto]]:
    """(what to write, which of its tensors go to a data file); a copy where there are any."""
    everything = external or proto.ByteSize() >= PROTOBUF_LIMIT
    outside = {t.name: t for t in source.proto.graph.initializer if uses_external_data(t)}
    if not everything and not outside and next(external_tensors(proto), None) is None:
        return proto, []
    copy = ModelProto()
    copy.CopyFrom(proto)
    movable = _movable(copy, outside, everything)
    for tensor in movable:
        if tensor.name in outside and not tensor.external_data:  # edited: its other entries are still those of the user
            tensor.external_data.extend(outside[tensor.name].external_data)
    return copy, movable


def _move_out(
    tensors: Sequence[TensorProto],
    source: Path | None,
    target: Path,
    made: list[Path],
    pending: Mapping[str, Pending],
    progress: Progress[TensorProto],
    within: Path | None,
) -> Path:
    """Move `tensors` to a new data file and return that; `source` is the folder of those that are outside already."""
    folder = within or target.absolute().parent
    name = _temporary(target, ".data", made, within)
    digest, checksum = hashlib.sha256(), hashlib.sha1(usedforsecurity=False)
    summed = any(entry.key == "checksum" for tensor in tensors for entry in tensor.external_data)
    moved: list[tuple[TensorProto, int, int]] = []
    with name.open("wb") as file:

        def put(piece: bytes | memoryview) -> None:
            file.write(piece)
            digest.update(piece)
            if summed:
                checksum.update(piece)

        for tensor in progress("writing", tensors):
            put(b"\0" * _gap(file.tell(), _length(tensor, source)))
            start = file.tell()
            for piece in _pieces(tensor, source, pending):
                put(piece)
            moved.append((tensor, start, file.tell() - start))
        file.flush()
        os.fsync(file.fileno())
    data = folder / _data_name(target, digest.hexdigest()[:_DIGITS])
    _copy_mode(name, target)
    fresh = not data.exists()
    os.replace(name, data)
    made[-1:] = [data] if fresh else []
    for tensor, offset, length in moved:
        _refer(tensor, data.name, offset, length, checksum.hexdigest())
    return data


def _data_name(target: Path, digest: str) -> str:
    return f"{target.name}.{digest}.data"


def _refer(tensor: TensorProto, location: str, offset: int, length: int, checksum: str) -> None:
    """Replace the values of `tensor` by where they are; a checksum (of the whole file) only where there was one."""
    for field in ("raw_data", "float_data", "double_data", "int32_data"):
        tensor.ClearField(field)
    tensor.data_location = TensorProto.EXTERNAL
    found = {entry.key: entry for entry in tensor.external_data}
    for key, value in {"location": location, "offset": str(offset), "length": str(length)}.items():
        (found.get(key) or tensor.external_data.add(key=key)).value = value
    if "checksum" in found:
        found["checksum"].value = checksum


def _movable(proto: ModelProto, outside: Container[str], everything: bool) -> list[TensorProto]:
    """Tensors to store outside: what was outside (by name, for weights that were edited), or all large ones."""

    def large(tensor: TensorProto) -> bool:
        return len(tensor.raw_data) >= _SMALL or (tensor.data_type in FLOATS and math.prod(tensor.dims) * 4 >= _SMALL)

    main = [
        tensor for tensor in proto.graph.initializer
        if tensor.name in outside or uses_external_data(tensor) or (everything and large(tensor))
    ]  # fmt: skip
    external = list(external_tensors(proto))
    return main + external[sum(map(uses_external_data, proto.graph.initializer)) :]


def _pieces(tensor: TensorProto, folder: Path | None, pending: Mapping[str, Pending]) -> Iterator[bytes | memoryview]:
    """The raw bytes of `tensor`, no more than needed in memory at a time."""
    if is_deferred(tensor):
        values: Any = np.ascontiguousarray(pending[tensor.name].make()).reshape(-1).view(np.uint8)
        raw = memoryview(values)
        yield from (raw[begin : begin + PIECE] for begin in range(0, len(raw), PIECE))
    elif uses_external_data(tensor):
        assert folder is not None
        for piece in Stretch.of(tensor, folder).pieces():
            if math.prod(tensor.dims) > 1:  # one NaN alone is what a Where fills in, say
                refuse_nan(tensor.data_type, tensor.name, piece)
            yield piece
    else:
        yield _raw(tensor)


def _length(tensor: TensorProto, folder: Path | None) -> int:
    """How many bytes `_pieces` gives."""
    if is_deferred(tensor):
        return int(math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    if uses_external_data(tensor):
        assert folder is not None
        return Stretch.of(tensor, folder).length
    return len(_raw(tensor))


def _gap(end: int, length: int) -> int:
    """The bytes between `end` and where a tensor of so many bytes may begin."""
    return -end % (_PAGE if length >= _MAPPED else _LINE)


def _raw(tensor: TensorProto) -> bytes:
    if tensor.HasField("raw_data"):
        return tensor.raw_data
    return numpy_helper.to_array(tensor).tobytes()


def left_behind(staging: Path, target: Path) -> set[Path]:
    """Data files beside `target` of a run that was killed between the two renames: nothing refers to them."""
    unfinished = [_data_of(model, target) for model in staging.glob(".*.onnx")]
    return set().union(*unfinished) - _data_of(target, target)


def _temporary(target: Path, suffix: str, made: list[Path], within: Path | None = None) -> Path:
    """A new, empty, hidden file beside `target` (or `within` another folder), noted in `made`."""
    folder = within or target.absolute().parent
    handle, name = tempfile.mkstemp(prefix=f".{target.name[:32]}.", suffix=suffix, dir=folder)
    os.close(handle)
    made.append(Path(name))
    return made[-1]


def _data_of(model: Path, target: Path) -> set[Path]:
    """Data files of ours beside `target` that an existing `model`, it or a version of it, refers to."""
    try:
        proto = ModelProto.FromString(model.read_bytes())
    except (OSError, DecodeError):  # not there, or not a model: then it has no data files
        return set()
    names = {e.value for t in proto.graph.initializer for e in t.external_data if e.key == "location"}
    mine = {n for n in names if n.startswith(f"{target.name}.") and n.endswith(".data") and os.sep not in n}
    return {target.absolute().parent / n for n in mine if len(n) == len(_data_name(target, "0" * _DIGITS))}


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically. Raises OSError, and leaves nothing behind then."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically. Raises OSError, and leaves nothing behind then."""
    made: list[Path] = []
    try:
        name = _temporary(path, ".tmp", made)
        _write(name, content, path)
        os.replace(name, path)
        made.clear()
    finally:
        for left in made:
            left.unlink(missing_ok=True)


def _write(path: Path, content: bytes, target: Path) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    _copy_mode(path, target)


def _copy_mode(path: Path, target: Path) -> None:
    """Permissions as an ordinary new file would have them (mkstemp makes private ones)."""
    if target.exists():
        mode = target.stat().st_mode & 0o777
    else:
        mask = os.umask(0)
        os.umask(mask)
        mode = 0o666 & ~mask
    path.chmod(mode)


def _sync(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not all systems can sync a folder; the rename has happened all the same
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
