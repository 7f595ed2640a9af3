"""Writing models: atomically, with external data streamed to a new file. A crash leaves the old file or the new one."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
import tempfile
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.external_data_helper import uses_external_data

from ..errors import ModelError, RequestError
from ..progress import Progress, silent
from .constants import FLOATS
from .external_data import PIECE, Stretch, external_tensors, read_external, refuse_nan
from .files import Read, copy_mode, destination, kind_of, read_as, same_file, sync
from .half_precision import BFLOAT16, holds, widened
from .leftovers import RESULT, data_of, note_data, staging_folder, sweep
from .made_ahead import MadeAhead
from .model import PROTOBUF_LIMIT, Model
from .tensors import Pending, is_deferred

_log = logging.getLogger(__name__)


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


def check_target(target: Path, source: Path | None, reads: Iterable[Read] = ()) -> None:
    """Raise RequestError unless `target` can be written, and is neither the input itself nor one of `reads`."""
    try:
        if kind := kind_of(target):
            how = "name the file to write" if kind == "a folder" else "a model can only be written to a regular file"
            raise RequestError(f"{target} is {kind}: {how}")
        folder = destination(target).absolute().parent
        if not folder.is_dir():
            raise RequestError(f"the folder {folder} does not exist: create it first")
        if target.exists():
            if source is not None and same_file(source, target):
                raise RequestError(f"{target} is the input itself: choose another output")
            if role := read_as(target.stat(), reads):
                raise RequestError(f"{target} holds {role}: choose another output")
    except OSError as error:
        raise RequestError(f"cannot write {target}: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise RequestError(f"the folder {folder} is not writable: choose another place for the output")


def check_link(target: Path, proto: ModelProto, external: bool) -> None:
    """Raise RequestError where `target` is a link into another folder and a version of `proto` has its weights beside
    it (all of them with `external`): they would be found by one of the two names only."""
    real = destination(target)
    if real.parent.resolve() == target.absolute().parent.resolve():
        return
    if external or proto.ByteSize() >= PROTOBUF_LIMIT or next(external_tensors(proto), None) is not None:
        raise RequestError(
            f"{target} is a link into another folder, and weights are stored beside the model: name {real} itself"
        )


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
    """Write `proto` to a hidden folder beside `target`, from where `Staged.commit` moves it; else nothing is left.

    Where `target` is a link, the file that it leads to is replaced.

    Weights that were external stay external, in a new file named after the target and its contents; so do all of over
    1 KiB if `external` is set or the file would pass protobuf's 2 GiB. `pending` are the values that `proto` leaves
    open, by name: each is computed when its turn comes. Raises ModelError for weights outside that hold NaN. `within`:
    another folder of the same file system to write to.
    """
    if any(same_file(target, file) for file in source.data_files()):
        raise RequestError(f"{target} holds the weights of the input: choose another output")
    check_link(target, proto, external)
    real = destination(target)
    try:
        sweep(real.absolute().parent)
        with staging_folder(real, within) as folder:
            back = source.entry.back
            proto, tensors = _divided(proto if pending else back(proto), source, external)
            data = _move_out(tensors, source.folder, folder / real.name, pending or {}, progress) if tensors else None
            _write(folder / RESULT, (back(proto) if pending else proto).SerializeToString(), real)
            if data is not None:
                copy_mode(data, real)
            yield Staged(folder / RESULT, real, data, source.data_files())
    except OSError as error:
        raise RequestError(f"cannot write {target}: {error.strerror or error}") from error


def size_written(proto: ModelProto, source: Model, target: Path, external: bool = False) -> int:
    """The bytes that `staged` would write for the same arguments, external data included. Writes nothing."""
    proto, tensors = _divided(source.entry.back(proto), source, external)
    end, name = 0, _data_name(target, "0" * _DIGITS)
    for tensor in tensors:
        length = _length(tensor, source.folder)
        start = end + _gap(end, length)
        end = start + length
        _refer(tensor, name, start, end - start, "0" * _CHECKSUM)
    return int(proto.ByteSize()) + end


class Staged:
    """A model written under a temporary name: `path` can be loaded; `commit` puts it in place."""

    def __init__(self, path: Path, target: Path, data: Path | None, keep: set[Path]) -> None:
        self.path, self.target, self.data, self._keep = path, target, data, keep

    @property
    def size(self) -> int:
        """Bytes, external data included."""
        return self.path.stat().st_size + (self.data.stat().st_size if self.data else 0)

    def commit(self) -> None:
        """Rename to the target. The data file, which nothing refers to before this, gets there first.

        Raises RequestError where the name of the data file is taken by something else, and OSError."""
        folder = self.target.absolute().parent
        old = {folder / name for name in data_of(self.target, self.target.name)}
        old = {path for path in old if path.resolve() not in self._keep}  # the input may share it
        moved = None if self.data is None else folder / self.data.name
        if moved is not None and os.path.lexists(moved) and (moved.is_symlink() or not moved.is_file()):
            raise RequestError(f"{moved} is where the weights go, but it is not a regular file: move it away")
        fresh = moved if moved is not None and not moved.exists() else None
        note_data(self.path.parent, self.target, fresh, old - {moved} if moved else old)
        if self.data is not None and moved is not None:
            os.replace(self.data, moved)
            self.data = moved
            sync(folder)
        os.replace(self.path, self.target)
        sync(folder)
        _log.info("%s is in place", self.target)
        for path in old - {moved}:
            path.unlink(missing_ok=True)


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
    pending: Mapping[str, Pending],
    progress: Progress[TensorProto],
) -> Path:
    """Move `tensors` to a new data file beside `target` and return that; `source`: where those are that are outside."""
    name = target.with_name("weights")
    digest, checksum = hashlib.sha256(), hashlib.sha1(usedforsecurity=False)
    summed = any(entry.key == "checksum" for tensor in tensors for entry in tensor.external_data)
    moved: list[tuple[TensorProto, int, int]] = []
    with name.open("wb") as file, MadeAhead(tensors, pending) as made:

        def put(piece: bytes | memoryview) -> None:
            file.write(piece)
            digest.update(piece)
            if summed:
                checksum.update(piece)

        for tensor in progress("writing", tensors):
            put(b"\0" * _gap(file.tell(), _length(tensor, source)))
            start = file.tell()
            for piece in _pieces(tensor, source, made):
                put(piece)
            moved.append((tensor, start, file.tell() - start))
        file.flush()
        os.fsync(file.fileno())
    data = target.with_name(_data_name(target, digest.hexdigest()[:_DIGITS]))
    os.replace(name, data)
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


def _pieces(tensor: TensorProto, folder: Path | None, made: MadeAhead) -> Iterator[bytes | memoryview]:
    """The raw bytes of `tensor`, no more than needed in memory at a time."""
    if is_deferred(tensor):
        raw = made.next()
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


def _write(path: Path, content: bytes, target: Path) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    copy_mode(path, target)
