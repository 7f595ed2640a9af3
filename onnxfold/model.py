"""Loading: a path or a ModelProto becomes a checked, frozen `Model` whose weights are read only when asked for."""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto, numpy_helper
from onnx.external_data_helper import uses_external_data

from .errors import ModelError, RequestError
from .graph import (
    DEFAULT_DOMAINS,
    Graph,
    Node,
    captures,
    consistent,
    every_initializer,
    every_node,
    plain_domains,
    read_graph,
    skeleton,
    subgraphs,
)
from .quantise import Scheme, dequantise
from .shapes import probed, shaped
from .stored import DEQUANTIZE, Stored, Unwritable, dequantises, find, scheme_of, unpacked

FLOATS = frozenset(
    (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
)  # element types whose channels can be averaged
WEIGHT_TYPES = FLOATS | {TensorProto.INT8, TensorProto.UINT8}
_GROWS = frozenset(("Expand", "Tile", "Pad", "Range", "OneHot", "EyeLike"))  # small inputs, large outputs
_PACKED = {"INT4": 2, "UINT4": 2, "FLOAT4E2M1": 2, "INT2": 4, "UINT2": 4}  # elements per byte
_PROTOBUF_LIMIT = 2**31 - 1
# Never evaluated as constants: random operators, and quantising (what comes of a weight would be stored beside it).
_NOT_CONSTANT = frozenset(
    (
        "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli", "If",
        "Loop", "Scan", DEQUANTIZE, "QuantizeLinear", "Dropout", "Optional", "SequenceEmpty",
        "SequenceConstruct", "StringNormalizer",
    )
)  # fmt: skip


@dataclass(frozen=True)
class Model:
    """A model as the user gave it, never changed, and the view of it that the analysis reads.

    `proto` holds external tensors unloaded; `folder` is where their files are (None for a model given in memory).
    """

    proto: ModelProto = field(repr=False)
    graph: Graph = field(repr=False)
    folder: Path | None
    path: Path | None

    @cached_property
    def constants(self) -> Constants:
        """Every tensor of the main graph whose value is fixed in the file."""
        return Constants(self.proto, self.graph, self.folder)

    @cached_property
    def size(self) -> int:
        """Bytes of the file, external data included."""
        total = self.path.stat().st_size if self.path else self.proto.ByteSize()
        return total + sum(external_length(t) for t in external_tensors(self.proto))

    def data_files(self) -> set[Path]:
        """The files that hold external data."""
        if self.folder is None:
            return set()
        return {external_file(t, self.folder)[0] for t in external_tensors(self.proto)}


def load(source: str | os.PathLike[str] | ModelProto, input_shapes: Mapping[str, Sequence[int]] | None = None) -> Model:
    """Read and check a model.

    Args:
        source: an .onnx file, or a ModelProto (with its weights inside it).
        input_shapes: shapes to assume for graph inputs that leave dimensions open, ``{name: (1, 3, 224, 224)}``.

    Raises:
        ModelError: the file is missing, is no ONNX model, is refused by the ONNX checker, or has external data that
            is missing, too short or outside the model's folder.
        RequestError: `input_shapes` names an input that the model lacks, or has another rank.
    """
    if isinstance(source, ModelProto):
        proto, path = source, None
    else:
        path = Path(source)
        proto = _parse(path)
    what = str(path) if path else "the model given"
    try:
        return _read(proto, path, what, input_shapes or {})
    except UnicodeDecodeError as error:  # protobuf decodes strings when they are asked for
        raise ModelError(f"{what} holds a name that is no UTF-8 text: export or download it again") from error


def _read(proto: ModelProto, path: Path | None, what: str, input_shapes: Mapping[str, Sequence[int]]) -> Model:
    proto = _sorted(proto)
    folder = path.absolute().parent if path else None
    for tensor in proto.graph.initializer:
        check_tensor(tensor)
    for tensor in external_tensors(proto):
        if folder is None:
            raise ModelError(f"{what}: weight '{tensor.name}' is stored outside it; load it from its path instead")
        external_file(tensor, folder)
    _check(proto, path, what)
    _check_shapes(proto, input_shapes, what)
    bare = consistent(skeleton(proto, input_shapes))
    graph = read_graph(bare)
    constants = Constants(proto, graph, folder)
    graph = shaped(graph, bare, constants)
    return Model(proto, probed(graph, proto, constants, input_shapes), folder, path)


def _parse(path: Path) -> ModelProto:
    try:
        if path.is_dir():
            raise ModelError(f"{path} is a folder: name the .onnx file in it")
        content = path.read_bytes()
    except FileNotFoundError:
        raise ModelError(f"{path} does not exist: check the path") from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    if not content:
        raise ModelError(f"{path} is empty: export the model again")
    proto = ModelProto()
    try:
        proto.ParseFromString(content)
    except DecodeError:
        raise ModelError(f"{path} is not an ONNX model, or is cut off: export or download it again") from None
    if not proto.HasField("graph") or not (proto.graph.node or proto.graph.output):
        raise ModelError(f"{path} holds no ONNX graph: is it an ONNX file?")
    return proto


def _sorted(proto: ModelProto) -> ModelProto:
    """`proto`, or a copy with its nodes in topological order (onnxruntime takes any order, the checker does not)."""
    made = {name for node in proto.graph.node for name in node.output if name}
    waiting, order, done = list(range(len(proto.graph.node))), list[int](), set[str]()
    needs = [
        {name for name in (*node.input, *captures(node)) if name in made} for node in proto.graph.node
    ]  # names from outside the graph are always there
    while waiting:
        ready = []
        for index in waiting:
            if needs[index] <= done:
                ready.append(index)
                done.update(proto.graph.node[index].output)
        if not ready:
            return proto  # a cycle: the checker says so
        order += ready
        taken = set(ready)
        waiting = [index for index in waiting if index not in taken]
    if order == list(range(len(order))):
        return proto
    copy = ModelProto()
    copy.CopyFrom(proto)
    del copy.graph.node[:]
    copy.graph.node.extend(proto.graph.node[index] for index in order)
    return copy


def _check(proto: ModelProto, path: Path | None, what: str) -> None:
    if not proto.HasField("graph"):
        raise ModelError(f"{what} holds no ONNX graph")
    try:
        outside = next(external_tensors(proto), None) is not None
        if path is not None and (outside or proto.ByteSize() >= _PROTOBUF_LIMIT):
            onnx.checker.check_model(str(path))
        else:
            onnx.checker.check_model(plain_domains(proto))
    except Exception as error:  # the checker raises ValidationError, but also bare ValueError and RuntimeError
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(f"{what} is refused by the ONNX checker: {reason[:300]}") from error


def _check_shapes(proto: ModelProto, shapes: Mapping[str, Sequence[int]], what: str) -> None:
    known = {v.name: v for v in proto.graph.input}
    for name, shape in shapes.items():
        if name not in known:
            raise RequestError(f"{what} has no input '{name}': its inputs are {', '.join(known)}")
        if not known[name].type.HasField("tensor_type"):
            raise RequestError(f"input '{name}' is no tensor: it has no shape to give")
        declared = known[name].type.tensor_type
        if declared.HasField("shape") and len(declared.shape.dim) != len(shape):
            raise RequestError(f"input '{name}' has {len(declared.shape.dim)} dimensions, not {len(shape)}")
        if any(not 1 <= n < 2**31 for n in shape):
            raise RequestError(f"the shape of input '{name}' must have positive dimensions, not {list(shape)}")
        for axis, (dim, n) in enumerate(zip(declared.shape.dim, shape, strict=False)):
            if dim.dim_value > 0 and dim.dim_value != n:
                raise RequestError(f"axis {axis} of input '{name}' has length {dim.dim_value} in the model, not {n}")


def check_tensor(tensor: TensorProto) -> None:
    """Raise ModelError unless the shape of a tensor is possible and its raw bytes, if it has them, fill it."""
    if tensor.data_type not in TensorProto.DataType.values():
        raise ModelError(
            f"weight '{tensor.name}' has element type {tensor.data_type}, which onnx {onnx.__version__} does not know: "
            "install a newer onnx"
        )
    if any(d < 0 for d in tensor.dims) or math.prod(tensor.dims) >= 2**48:
        raise ModelError(f"weight '{tensor.name}' has the impossible shape {list(tensor.dims)}: export the model again")
    needed = _bytes(tensor)
    if needed is not None and tensor.HasField("raw_data") and len(tensor.raw_data) != needed:
        raise ModelError(
            f"weight '{tensor.name}' of shape {list(tensor.dims)} needs {needed} bytes but has {len(tensor.raw_data)}: "
            "export the model again"
        )


def external_tensors(proto: ModelProto) -> Iterator[TensorProto]:
    """Every tensor stored outside the file: initializers, tensor attributes, those of bodies, functions, training."""

    def inside(nodes: Iterable[NodeProto]) -> Iterator[TensorProto]:
        for node in nodes:
            for attribute in node.attribute:
                yield from (t for t in (attribute.t, *attribute.tensors) if uses_external_data(t))
                yield from of_sparse((attribute.sparse_tensor, *attribute.sparse_tensors))
            for body in subgraphs(node):
                yield from of_graph(body)

    def of_sparse(tensors: Iterable[SparseTensorProto]) -> Iterator[TensorProto]:
        yield from (t for sparse in tensors for t in (sparse.values, sparse.indices) if uses_external_data(t))

    def of_graph(graph: GraphProto) -> Iterator[TensorProto]:
        yield from (t for t in graph.initializer if uses_external_data(t))
        yield from of_sparse(graph.sparse_initializer)
        yield from inside(graph.node)

    yield from of_graph(proto.graph)
    for function in proto.functions:
        yield from inside(function.node)
    for step in proto.training_info:
        yield from of_graph(step.initialization)
        yield from of_graph(step.algorithm)


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
        file = (root / location).resolve()
        if not file.is_relative_to(root):
            raise ModelError(
                f"{what} is stored in '{location}', a link that leads outside the model's folder: refused (copy model "
                "and data into one folder)"
            )
        if not file.is_file():
            raise ModelError(f"{what} needs the file '{folder / location}', which is missing: put it there")
        size = file.stat().st_size
    except (OSError, ValueError) as error:
        raise ModelError(f"{what} is stored in '{location}', which cannot be read: {error}") from error
    if offset < 0 or length < 0 or offset + length > size:
        raise ModelError(f"{what} ends beyond the end of '{folder / location}': the file is cut off")
    needed = _bytes(tensor)
    if needed is not None and length != needed:
        raise ModelError(f"{what} needs {needed} bytes, but its external data has {length}: export the model again")
    return file, offset, length


def external_length(tensor: TensorProto) -> int:
    """Bytes that an external tensor takes."""
    declared = next((entry.value for entry in tensor.external_data if entry.key == "length"), "")
    return int(declared) if declared else _bytes(tensor) or 0


def _bytes(tensor: TensorProto) -> int | None:
    """Bytes of the values of `tensor`; None for an element type without a known size."""
    name = TensorProto.DataType.Name(tensor.data_type) if tensor.data_type in TensorProto.DataType.values() else ""
    if name in ("", "UNDEFINED", "STRING") or name.startswith("FLOAT6"):
        return None
    count = int(math.prod(tensor.dims))
    if name in _PACKED:
        return -(-count // _PACKED[name])
    return count * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def read_external(tensor: TensorProto, folder: Path) -> memoryview:
    """The raw bytes of an external tensor, memory-mapped (nothing is read until it is used)."""
    file, offset, length = external_file(tensor, folder)
    if length == 0:
        return memoryview(b"")
    with file.open("rb") as handle:
        mapped = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    return memoryview(mapped)[offset : offset + length]


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
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return np.frombuffer(read_external(tensor, folder), dtype=dtype).reshape(tuple(tensor.dims))


class Constants:
    """Tensors of fixed value: initializers, Constant nodes, and what plain operators compute from those alone, also in
    bodies that are `opened`.

    Floats that are stored as integers (`stored`) are constants like others; what is computed from them is none, as it
    would have to be stored in full. Arrays are read (or computed) when asked for and not kept, except small computed
    ones.
    """

    def __init__(self, proto: ModelProto, graph: Graph, folder: Path | None) -> None:
        self._folder = folder
        self._graph = graph
        self._initializers = {t.name: t for t in every_initializer(proto)}
        self._nodes: dict[str, Node] = {}
        self._protos = every_node(proto)
        default = [o.version for o in proto.opset_import if o.domain in DEFAULT_DOMAINS]
        self._opsets = [onnx.helper.make_opsetid("", version) for version in default]
        self._cache: dict[str, NDArray[Any]] = {}
        names = set(self._initializers)
        quantised = set[str]()
        for node in graph.nodes:
            if dequantises(node) and all(name in names - quantised for name in node.inputs if name):
                names.add(node.outputs[0])
                quantised.add(node.outputs[0])
                self._nodes[node.outputs[0]] = node
            if quantised.intersection(node.inputs):
                continue
            if node.domain != "" or node.op in _NOT_CONSTANT or node.captures or not node.outputs:
                continue
            if node.op in ("Shape", "Size") and not self._is_list(node.inputs[0]):
                continue  # the size of a weight changes when it is folded
            if all(name in names for name in node.inputs if name):
                for name in filter(None, node.outputs):
                    names.add(name)
                    self._nodes[name] = node
        self.names, self._dequantising = frozenset(names), frozenset(quantised)

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def small(self, integers: int = 1024, floats: int = 16) -> dict[str, NDArray[Any]]:
        """Computed constants of at most so many elements, by name; shape inference needs their values."""
        found: dict[str, NDArray[Any]] = {}
        sizes: dict[str, int] = {name: math.prod(t.dims) for name, t in self._initializers.items()}
        for name, node in self._nodes.items():
            if name in self._dequantising:
                continue  # a weight: its numbers give no shape
            if node.op in _GROWS or any(sizes.get(i, integers + 1) > integers for i in node.inputs if i):
                continue  # large, or unknown before it is computed
            value = node.attrs.get("value") if node.op == "Constant" else None
            if isinstance(value, TensorProto) and math.prod(value.dims) > integers:
                continue
            try:
                array = self.array(name)
            except ModelError:
                continue
            sizes[name] = array.size
            if array.size <= (integers if array.dtype.kind in "iub" else floats):
                found[name] = array
        return found

    def _is_list(self, name: str) -> bool:
        """Whether constant `name` is a list of integers (never folded), not a weight."""
        tensor = self._initializers.get(name)
        if tensor is not None:
            return tensor.data_type in (TensorProto.INT64, TensorProto.INT32) and len(tensor.dims) <= 1
        node = self._nodes.get(name)
        value = None if node is None else node.attrs.get("value")
        return isinstance(value, TensorProto) and value.data_type in (TensorProto.INT64, TensorProto.INT32)

    @cached_property
    def _quantised(self) -> Mapping[str, Stored | Unwritable]:
        return find(self._graph, self)

    @cached_property
    def stored(self) -> Mapping[str, Stored]:
        """The float constants that are stored as integers, by name."""
        return {name: one for name, one in self._quantised.items() if isinstance(one, Stored)}

    @cached_property
    def unwritable(self) -> Mapping[str, Unwritable]:
        """Why other quantised constants cannot be changed, by name."""
        return {name: one for name, one in self._quantised.items() if isinstance(one, Unwritable)}

    def initializer(self, name: str) -> TensorProto | None:
        """The initializer called `name`, or None if the constant comes from a node."""
        return self._initializers.get(name)

    def array(self, name: str) -> NDArray[Any]:
        """The value of constant `name` in its own element type (read-only); of a stored one, as floats."""
        if name in self.stored:
            return self._dequantised(self.stored[name])
        return self.stored_array(name)

    def stored_array(self, name: str) -> NDArray[Any]:
        """The value of constant `name` as it is in the file."""
        if name in self._initializers:
            return tensor_array(self._initializers[name], self._folder)
        if name not in self._cache:
            value = self._compute(name)
            if value.nbytes > 1 << 16:
                return value
            self._cache[name] = value
        return self._cache[name]

    def scheme(self, name: str) -> Scheme:
        """How constant `name`, one of `stored`, becomes integers."""
        return scheme_of(self.stored, name, self._part)

    def float_type(self, name: str) -> type[np.floating[Any]]:
        """The type that stored constant `name` is computed in: 32 bits of an integer are too many for float32."""
        return np.float64 if self.stored[name].bits > 24 else np.float32

    def _dequantised(self, stored: Stored) -> NDArray[Any]:
        integers = self._part(stored, stored.slots.integers)
        assert integers is not None
        return dequantise(integers, self.scheme(stored.name), self.float_type(stored.name))

    def part_name(self, stored: Stored, slot: int) -> str:
        """The tensor at an input of the node that holds a stored constant; '' if there is none."""
        inputs = self._graph.nodes[self._graph.producer[stored.holder]].inputs
        return inputs[slot] if slot < len(inputs) else ""

    def _part(self, stored: Stored, slot: int) -> NDArray[Any] | None:
        name = self.part_name(stored, slot)
        return self.stored_array(name) if name else None

    def _compute(self, name: str) -> NDArray[Any]:
        node = self._nodes[name]
        if node.op == "Constant" and isinstance(node.attrs.get("value"), TensorProto):
            return tensor_array(node.attrs["value"], self._folder)
        if dequantises(node):
            return unpacked(node, self.stored_array)
        from onnx.reference import ReferenceEvaluator  # slow to import, and most models never need it

        feeds = {i: np.array(self.stored_array(i)) for i in dict.fromkeys(node.inputs) if i}
        untyped = onnx.TypeProto()
        maker = NodeProto()
        maker.CopyFrom(self._protos[node.index])
        maker.ClearField("domain")  # the default one, however it is spelled
        graph = onnx.helper.make_graph(
            [maker], "constant",
            [onnx.helper.make_value_info(i, untyped) for i in feeds],
            [onnx.helper.make_value_info(name, untyped)],
        )  # fmt: skip
        single = onnx.helper.make_model(graph, opset_imports=self._opsets)
        try:
            computed: Any = ReferenceEvaluator(single).run(None, feeds)
            return np.asarray(computed[0])
        except Exception as error:
            raise ModelError(f"constant '{name}' cannot be computed ({node.op}): {error}") from error


def constant_attribute(node: onnx.NodeProto) -> AttributeProto | None:
    """The tensor attribute of a Constant node, if it has that form."""
    return next((a for a in node.attribute if a.name == "value" and a.type == AttributeProto.TENSOR), None)
