"""Bytes of tensors, inside the file or in another one: checked, and mapped into memory only when used."""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto, numpy_helper
from onnx.external_data_helper import uses_external_data

from ..errors import ModelError
from .input_files import no_file
from .subgraphs import subgraphs

PIECE = 2**24  # bytes that are copied at a time
_DEEPEST = 6  # folders between a model and the root of the cache that it is in
_PACKED = {"INT4": 2, "UINT4": 2, "FLOAT4E2M1": 2, "INT2": 4, "UINT2": 4}  # elements per byte


def check_tensor(tensor: TensorProto) -> None:
    """Raise ModelError unless the shape of a tensor is possible and its raw bytes, if it has them, fill it."""
    what = f"weight '{tensor.name}'" if tensor.name else "a constant without a name"
    if not _type_name(tensor.data_type):
        raise ModelError(
            f"{what} has element type {tensor.data_type}, which onnx {onnx.__version__} does not know: "
            "install a newer onnx"
        )
    if any(d < 0 for d in tensor.dims) or math.prod(tensor.dims) >= 2**48:
        raise ModelError(f"{what} has the impossible shape {list(tensor.dims)}: export the model again")
    needed = _bytes(tensor)
    if needed is not None and tensor.HasField("raw_data") and len(tensor.raw_data) != needed:
        raise ModelError(
            f"{what} of shape {list(tensor.dims)} needs {needed} bytes but has {len(tensor.raw_data)}: "
            "export the model again"
        )


def every_tensor(proto: ModelProto) -> Iterator[TensorProto]:
    """Every tensor that a model holds: initializers and tensor attributes, those of bodies, functions, training."""

    def inside(nodes: Iterable[NodeProto]) -> Iterator[TensorProto]:
        for node in nodes:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors
                if attribute.HasField("sparse_tensor"):
                    yield from of_sparse((attribute.sparse_tensor,))
                yield from of_sparse(attribute.sparse_tensors)
            for body in subgraphs(node):
                yield from of_graph(body)

    def of_sparse(tensors: Iterable[SparseTensorProto]) -> Iterator[TensorProto]:
        yield from (t for sparse in tensors for t in (sparse.values, sparse.indices))

    def of_graph(graph: GraphProto) -> Iterator[TensorProto]:
        yield from graph.initializer
        yield from of_sparse(graph.sparse_initializer)
        yield from inside(graph.node)

    yield from of_graph(proto.graph)
    for function in proto.functions:
        yield from inside(function.node)
    for step in proto.training_info:
        yield from of_graph(step.initialization)
        yield from of_graph(step.algorithm)


def external_tensors(proto: ModelProto) -> Iterator[TensorProto]:
    """Those of `every_tensor` that are stored outside the file."""
    return (tensor for tensor in every_tensor(proto) if uses_external_data(tensor))


def external_file(tensor: TensorProto, folder: Path) -> tuple[Path, int, int]:
    """The file, offset and length in bytes of an external tensor; ModelError unless all lies inside `folder`."""
    what = f"weight '{tensor.name}'"
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    try:
        offset, length = int(entries.get("offset") or 0), external_length(tensor)
    except ValueError as error:
        raise ModelError(f"{what} has a broken reference to external data: {error}") from error
    root = folder.resolve()
    if not location or os.path.isabs(location) or ".." in Path(location).parts:
        raise ModelError(f"{what} is stored in '{location}', outside the model's folder: refused")
    try:
        if os.path.islink(root / location) and not os.path.exists(root / location):
            raise ModelError(f"{what} needs '{folder / location}', a link that leads to no file: put the file there")
        file = (root / location).resolve()
        if not file.is_relative_to(root) and not _in_cache(root, file):
            raise ModelError(
                f"{what} is stored in '{location}', a link that leads outside the model's folder: refused (copy model "
                "and data into one folder)"
            )
        if not file.exists():
            raise ModelError(f"{what} needs the file '{folder / location}', which is missing: put it there")
        if kind := no_file(file):
            raise ModelError(f"{what} needs the file '{folder / location}', which is {kind}: put a file there")
        size = file.stat().st_size
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: folders that are links to themselves
        raise ModelError(f"{what} is stored in '{location}', which cannot be read: {error}") from error
    if offset < 0 or length < 0 or offset + length > size:
        raise ModelError(f"{what} ends beyond the end of '{folder / location}': the file is truncated")
    needed = _bytes(tensor)
    if needed is not None and length != needed:
        raise ModelError(f"{what} needs {needed} bytes, but its external data has {length}: export the model again")
    return file, offset, length


def _in_cache(folder: Path, file: Path) -> bool:
    """Whether `file` lies in the cache that `folder` is a part of, as Hugging Face lays one out: the files of all
    snapshots/REVISION/... are links into one folder `blobs`, which holds them by hash."""
    above = (one for one in [folder, *folder.parents][:_DEEPEST] if one.name == "snapshots")
    return any(file.parent == one.parent / "blobs" for one in above)


def is_link(tensor: TensorProto, folder: Path) -> bool:
    """Whether the file of an external tensor is a link, or lies behind one."""
    location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
    return (folder.resolve() / location).resolve() != folder.resolve() / location


def refuse_nan(kind: int, name: str, piece: bytes | memoryview) -> None:
    """Raise ModelError if `piece`, some of the raw bytes of weight `name` of element type `kind`, holds NaN."""
    if kind in (TensorProto.FLOAT, TensorProto.DOUBLE):
        bad = bool(np.isnan(np.frombuffer(piece, np.float32 if kind == TensorProto.FLOAT else np.float64)).any())
    else:  # bits: half as long as in numpy, and ml_dtypes takes ten times as long
        infinite = {int(TensorProto.FLOAT16): 0x7C00, int(TensorProto.BFLOAT16): 0x7F80}.get(kind)
        bad = infinite is not None and bool(((np.frombuffer(piece, np.uint16) & 0x7FFF) > infinite).any())
    if bad:
        raise ModelError(f"weight '{name}' has values that are NaN: the model is broken, export it again")


def external_length(tensor: TensorProto) -> int:
    """Bytes that an external tensor takes."""
    declared = next((entry.value for entry in tensor.external_data if entry.key == "length"), "")
    return int(declared) if declared else _bytes(tensor) or 0


def _bytes(tensor: TensorProto) -> int | None:
    """Bytes of the values of `tensor`; None for an element type without a known size."""
    name = _type_name(tensor.data_type)
    if name in ("", "UNDEFINED", "STRING") or name.startswith("FLOAT6"):
        return None
    count = int(math.prod(tensor.dims))
    if name in _PACKED:
        return -(-count // _PACKED[name])
    return count * _item_bytes(tensor.data_type)


@cache
def _type_name(kind: int) -> str:
    """What onnx calls an element type; '' for one that it does not know."""
    return str(TensorProto.DataType.Name(kind)) if kind in TensorProto.DataType.values() else ""


@cache
def _item_bytes(kind: int) -> int:
    return int(onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize)


@dataclass(frozen=True)
class Stretch:
    """Where the values of an external tensor are: bytes of a file, of one element type (of onnx) and shape."""

    file: Path
    offset: int
    length: int
    kind: int
    shape: tuple[int, ...]

    @classmethod
    def of(cls, tensor: TensorProto, folder: Path) -> Stretch:
        """That of `tensor`. Raises ModelError unless all of it lies inside `folder`."""
        return cls(*external_file(tensor, folder), tensor.data_type, tuple(tensor.dims))

    def raw(self) -> memoryview:
        """The raw bytes, memory-mapped: nothing is read until it is used, and all is let go with the view."""
        if self.length == 0:
            return memoryview(b"")
        try:
            with self.file.open("rb") as handle:
                mapped = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:  # it was there when the model was loaded
            raise ModelError(f"{self.file} cannot be read: {error.strerror or error}") from error
        return memoryview(mapped)[self.offset : self.offset + self.length]

    def pieces(self) -> Iterator[bytes]:
        """The raw bytes one after the other, read and not mapped, so that they do not stay in memory."""
        with self.file.open("rb") as handle:
            handle.seek(self.offset)
            left = self.length
            while left:
                piece = handle.read(min(left, PIECE))
                if not piece:
                    raise ModelError(f"{self.file} became shorter while it was read")
                left -= len(piece)
                yield piece

    def array(self) -> NDArray[Any]:
        """The values, memory-mapped and read-only, in their own element type."""
        dtype = onnx.helper.tensor_dtype_to_np_dtype(self.kind)
        return np.frombuffer(self.raw(), dtype=dtype).reshape(self.shape)


def read_external(tensor: TensorProto, folder: Path) -> memoryview:
    """The raw bytes of an external tensor, memory-mapped (nothing is read until it is used)."""
    return Stretch.of(tensor, folder).raw()


def tensor_array(tensor: TensorProto, folder: Path | None) -> NDArray[Any]:
    """The values of a TensorProto in its own element type (bfloat16 and narrower through ml_dtypes)."""
    if not uses_external_data(tensor):
        check_tensor(tensor)
        try:
            return np.asarray(numpy_helper.to_array(tensor))
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise ModelError(f"weight '{tensor.name}' cannot be read: {error}") from error
    if folder is None:
        raise ModelError(f"weight '{tensor.name}' is stored outside the model: load it from its path")
    return Stretch.of(tensor, folder).array()
