"""Loading: a path or a ModelProto becomes a checked, frozen `Model` whose weights are read only when asked for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto

from ..errors import ExecutionError, ModelError, RequestError
from ..units import brief, did_you_mean, in_bytes
from .constants import Constants
from .dimensions import Dim
from .entry import Entry, entered
from .external_data import check_tensor, every_tensor, external_file, external_length, external_tensors, is_link
from .functions import check_functions
from .graph import Graph, hollow, plain_domains, read_graph, skeleton
from .input_files import foreign, near, no_file
from .onnx_calls import asking_onnx
from .shapes.inference import consistent, negative
from .shapes.resolve import probed, shaped
from .subgraphs import captures, every_node
from .tied import Tied, find_tied

Source = str | os.PathLike[str] | ModelProto
Shapes = Mapping[str, Sequence[int]] | None


def named(source: Source) -> str:
    """What reports call a model."""
    return "model" if isinstance(source, ModelProto) else os.fspath(source)


PROTOBUF_LIMIT = 2**31 - 1  # bytes of one message


@dataclass(frozen=True, eq=False)
class Model:
    """A model as the user gave it, never changed, and the view of it that the analysis reads.

    `proto` holds external tensors unloaded; `folder` is where their files are (None for a model given in memory).
    `entry`: what became of functions and of names in bodies when it was read, and the way back.
    """

    proto: ModelProto = field(repr=False)
    graph: Graph = field(repr=False)
    folder: Path | None
    path: Path | None
    entry: Entry = field(default_factory=Entry, repr=False)

    @cached_property
    def constants(self) -> Constants:
        """Every tensor of the main graph whose value is fixed in the file."""
        return Constants(self.proto, self.graph, self.folder)

    @cached_property
    def hollow(self) -> ModelProto:
        """What inference needs of the model."""
        return hollow(self.proto)

    @cached_property
    def _at(self) -> dict[object, Graph]:
        return {}

    def at(self, shapes: Mapping[str, Sequence[int]]) -> Graph:
        """The graph with inputs of these `shapes`, and all shapes that follow from that; the last one is kept."""
        key = tuple((name, *shape) for name, shape in sorted(shapes.items()))
        if key not in self._at:
            self._at.clear()
            self._at[key] = shaped(self.graph, skeleton(self.hollow, shapes), self.constants)
        return self._at[key]

    @cached_property
    def tied(self) -> Tied:
        """Weights that the graph makes of stored tensors, and which of them belong together."""
        return find_tied(self.graph, self.constants, every_node(self.proto))

    @cached_property
    def size(self) -> int:
        """Bytes of the file, external data included."""
        total = self.path.stat().st_size if self.path else (self.entry.original or self.proto).ByteSize()
        return total + sum(external_length(t) for t in external_tensors(self.proto))

    def data_files(self) -> set[Path]:
        """The files that hold external data."""
        if self.folder is None:
            return set()
        return {external_file(t, self.folder)[0] for t in external_tensors(self.proto)}


def check_source(source: object) -> None:
    """Raise RequestError for what is neither a path nor a ModelProto."""
    if isinstance(source, ModelProto):
        return
    if not isinstance(source, str | os.PathLike) or "\0" in str(source):
        raise RequestError(f"`model` must be the path of an .onnx file or a ModelProto, not {brief(source)}")


def load(source: str | os.PathLike[str] | ModelProto, input_shapes: Mapping[str, Sequence[int]] | None = None) -> Model:
    """Read and check a model.

    Args:
        source: an .onnx file, or a ModelProto (with its weights inside it).
        input_shapes: shapes to assume for graph inputs that leave dimensions open, ``{name: (1, 3, 224, 224)}``. A
            length of 0 (of a cache without tokens) is what the model is run with; the dimension counts as open.

    Raises:
        ModelError: the file is missing, is no ONNX model, is refused by the ONNX checker, or has external data that
            is missing, too short or outside the model's folder.
        RequestError: `input_shapes` names an input that the model lacks, or has another rank.
    """
    if isinstance(source, ModelProto):
        proto, path, content = source, None, None
    else:
        check_source(source)
        path = Path(source)
        proto, content = _parse(path)
    what = str(path) if path else "the model given"
    try:
        return _read(proto, path, what, input_shapes or {}, content)
    except UnicodeDecodeError as error:  # protobuf decodes strings when they are asked for
        raise ModelError(f"{what} contains a name that is not valid UTF-8: export or download it again") from error


def _read(
    given: ModelProto, path: Path | None, what: str, input_shapes: Mapping[str, Sequence[int]], content: bytes | None
) -> Model:
    """`content`: the bytes of the model `given`, where they are at hand."""
    proto = _sorted(given)
    folder = path.absolute().parent if path else None
    check_functions(proto, what)
    for tensor in every_tensor(proto):
        check_tensor(tensor)
    for tensor in external_tensors(proto):
        if folder is None:
            raise ModelError(f"{what}: weight '{tensor.name}' is stored outside it; load it from its path instead")
        external_file(tensor, folder)
    _check(proto, path, what, content if proto is given else None)
    _check_shapes(proto, input_shapes, what)
    proto, entry = entered(proto)
    light = hollow(proto)
    bare = skeleton(light, _with_open(proto, input_shapes))
    if reason := negative(bare):
        raise ModelError(f"{what} cannot be run: {reason}: export the model again")
    bare = consistent(bare)
    graph = read_graph(bare, whole=every_node(proto))
    constants = Constants(proto, graph, folder)
    graph = shaped(graph, bare, constants)
    fixed = {name: shape for name, shape in input_shapes.items() if 0 not in shape}
    model = Model(proto, probed(graph, light, constants, fixed), folder, path, entry)
    vars(model).update(constants=constants, hollow=light)  # those of another proto (`replace`) are found anew
    return model


def _with_open(proto: ModelProto, shapes: Mapping[str, Sequence[int]]) -> Mapping[str, Sequence[Dim]]:
    """`shapes`, with the declared open dimensions in place of lengths of 0."""
    declared = {v.name: [d.dim_param or None for d in v.type.tensor_type.shape.dim] for v in proto.graph.input}
    return {
        name: [n or dim for n, dim in zip(shape, declared[name] or [None] * len(shape), strict=True)]
        for name, shape in shapes.items()
    }


def _parse(path: Path) -> tuple[ModelProto, bytes]:
    """The model in a file, and its bytes."""
    try:
        if kind := no_file(path):
            raise ModelError(f"{path} is {kind}: name the .onnx file" + (" in it" if path.is_dir() else " itself"))
        if (size := path.stat().st_size) > PROTOBUF_LIMIT:
            raise ModelError(f"{path} has {in_bytes(size)}, more than ONNX allows: store the weights in another file")
        content = path.read_bytes()
    except FileNotFoundError:
        raise ModelError(f"{path} does not exist{near(path)}") from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    if not content:
        raise ModelError(f"{path} is empty: export the model again")
    proto = ModelProto()
    try:
        proto.ParseFromString(content)
    except DecodeError:
        raise ModelError(f"{path} is {foreign(path)}") from None
    if not proto.HasField("graph") or not (proto.graph.node or proto.graph.output):
        raise ModelError(f"{path} has no ONNX graph: is it an ONNX file?")
    return proto, content


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


def _check(proto: ModelProto, path: Path | None, what: str, content: bytes | None) -> None:
    if not proto.HasField("graph"):
        raise ModelError(f"{what} holds no ONNX graph")
    checked: ModelProto | str | bytes = plain_domains(proto)
    outside = list(external_tensors(proto))
    if path is not None and outside:
        # the checker reads the file; where domains had to be changed, or are links (which it refuses), the graph alone
        links = any(is_link(tensor, path.absolute().parent) for tensor in outside)
        checked = str(path) if checked is proto and not links else skeleton(proto)
    elif checked is proto and content is not None:
        checked = content
    try:
        with asking_onnx():
            onnx.checker.check_model(checked)
    except ExecutionError as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{what} fails the ONNX checker: {reason[:300]}") from error


def _check_shapes(proto: ModelProto, shapes: Mapping[str, Sequence[int]], what: str) -> None:
    known = {v.name: v for v in proto.graph.input}
    for name, shape in shapes.items():
        if name not in known:
            meant = did_you_mean(name, known) if len(known) > 1 else ""
            raise RequestError(f"{what} has no input '{name}': its inputs are {', '.join(known)}{meant}")
        if not known[name].type.HasField("tensor_type"):
            raise RequestError(f"input '{name}' is not a tensor, so it has no shape to set")
        declared = known[name].type.tensor_type
        if declared.HasField("shape") and len(declared.shape.dim) != len(shape):
            raise RequestError(f"input '{name}' has {len(declared.shape.dim)} dimensions, not {len(shape)}")
        if any(not 0 <= n < 2**31 for n in shape) or 0 in shape[:1]:
            raise RequestError(
                f"the shape of input '{name}' must have positive dimensions, not {list(shape)} (0 only for open ones "
                "behind the first: caches without tokens)"
            )
        for axis, (dim, n) in enumerate(zip(declared.shape.dim, shape, strict=False)):
            if dim.dim_value > 0 and dim.dim_value != n:
                raise RequestError(f"axis {axis} of input '{name}' has length {dim.dim_value} in the model, not {n}")
