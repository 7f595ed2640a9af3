"""What has a fixed value in a model, and that value: initializers, Constant nodes, what is computed from them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto
from onnx.external_data_helper import uses_external_data

from ..errors import ExecutionError, ModelError
from .external_data import Stretch, tensor_array
from .graph import Graph, Node
from .growth import GROWS, elements, inferred_size
from .onnx_calls import asking_onnx
from .quantized.detect import DEQUANTIZE, dequantizes, find, unpacked
from .quantized.packing import PackedLayout
from .quantized.scheme import Scheme, dequantize
from .quantized.tensor import Stored, Unwritable, integers_of, scheme_of
from .shapes.values import Values
from .shared_products import shared_products
from .subgraphs import DEFAULT_DOMAINS, every_initializer, every_node

FLOATS = frozenset(
    (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
)  # element types whose channels can be averaged
WEIGHT_TYPES = FLOATS | {TensorProto.INT8, TensorProto.UINT8}
_FEW = 1024, 16  # integers and floats at most
_MOST = 1 << 28  # elements of a constant that is computed
_ABSURD = 1 << 30  # elements of a constant that no model needs: 1 GB and more
# Never evaluated as constants: random operators, and quantizing (what comes of a weight would be stored beside it).
_NOT_CONSTANT = frozenset(
    (
        "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli", "If",
        "Loop", "Scan", DEQUANTIZE, "QuantizeLinear", "Dropout", "Optional", "SequenceEmpty",
        "SequenceConstruct", "StringNormalizer",
    )
)  # fmt: skip


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
        self.integers: dict[str, Values | None] = {}
        self.names, self._dequantizing = self._found(frozenset())
        computed = shared_products(graph, self.names)
        if computed:
            self._nodes = {}
            self.names, self._dequantizing = self._found(computed)

    def _found(self, computed: frozenset[int]) -> tuple[frozenset[str], frozenset[str]]:
        """The names of all constants, and of those that are stored as integers; not what the nodes `computed` give."""
        names = set(self._initializers)
        quantized = set[str]()
        for node in self._graph.nodes:
            if dequantizes(node) and all(name in names - quantized for name in node.inputs if name):
                names.add(node.outputs[0])
                quantized.add(node.outputs[0])
                self._nodes[node.outputs[0]] = node
            if quantized.intersection(node.inputs) or node.index in computed:
                continue
            if node.domain != "" or node.op in _NOT_CONSTANT or node.captures or not node.outputs:
                continue
            if node.op in ("Shape", "Size") and not self._is_list(node.inputs[0]):
                continue  # the size of a weight changes when it is folded
            if all(name in names for name in node.inputs if name):
                for name in filter(None, node.outputs):
                    names.add(name)
                    self._nodes[name] = node
        return frozenset(names), frozenset(quantized)

    def __contains__(self, name: str) -> bool:
        return name in self.names

    @cached_property
    def small(self) -> Mapping[str, NDArray[Any]]:
        """Computed constants of few elements, by name; shape inference needs their values."""
        found: dict[str, NDArray[Any]] = {}
        integers, floats = _FEW
        sizes: dict[str, int] = {name: math.prod(t.dims) for name, t in self._initializers.items()}
        for name, node in self._nodes.items():
            if name in self._dequantizing:
                continue  # a weight: its numbers give no shape
            if any(sizes.get(i, integers + 1) > integers for i in node.inputs if i):
                continue  # large, or unknown before it is computed
            value = node.attrs.get("value") if node.op == "Constant" else None
            if isinstance(value, TensorProto) and math.prod(value.dims) > integers:
                continue
            try:
                count = self._elements(node)
            except ModelError:
                continue
            if count is not None and count >= _ABSURD:  # onnxruntime would make it, and take all memory
                raise too_large(name, count, node.op)
            try:
                if node.op in GROWS if count is None else count > integers:
                    continue
                array = self.array(name)
            except ModelError:
                continue
            sizes[name] = array.size
            if array.size <= (integers if array.dtype.kind in "iub" else floats):
                found[name] = array
        return MappingProxyType(found)

    def _elements(self, node: Node) -> int | None:
        """How many elements a node of constants gives, where it may make much of little (`growth.elements`)."""
        return elements(node, self.stored_array)

    def _is_list(self, name: str) -> bool:
        """Whether constant `name` is a list of integers (never folded), not a weight."""
        tensor = self._initializers.get(name)
        if tensor is not None:
            return tensor.data_type in (TensorProto.INT64, TensorProto.INT32) and len(tensor.dims) <= 1
        node = self._nodes.get(name)
        value = None if node is None else node.attrs.get("value")
        return isinstance(value, TensorProto) and value.data_type in (TensorProto.INT64, TensorProto.INT32)

    @cached_property
    def _quantized(self) -> Mapping[str, Stored | Unwritable]:
        return find(self._graph, self)

    @cached_property
    def stored(self) -> Mapping[str, Stored]:
        """The float constants that are stored as integers, by name."""
        return {name: one for name, one in self._quantized.items() if isinstance(one, Stored)}

    @cached_property
    def unwritable(self) -> Mapping[str, Unwritable]:
        """Why other quantized constants cannot be changed, by name."""
        return {name: one for name, one in self._quantized.items() if isinstance(one, Unwritable)}

    def initializer(self, name: str) -> TensorProto | None:
        """The initializer called `name`, or None if the constant comes from a node."""
        return self._initializers.get(name)

    def outside(self, name: str) -> Stretch | None:
        """Where the values of `name` are in another file; None if they are not, or take arithmetic to be had."""
        tensor = self._initializers.get(name)
        if tensor is None or name in self.stored or self._folder is None or not uses_external_data(tensor):
            return None
        return Stretch.of(tensor, self._folder)

    def array(self, name: str) -> NDArray[Any]:
        """The value of constant `name` in its own element type (read-only); of a stored one, as floats."""
        if name in self.stored:
            return self._dequantized(self.stored[name])
        return self.stored_array(name)

    def read(self, name: str) -> NDArray[Any] | None:
        """The value of `name`, or None if it is no constant."""
        return self.array(name) if name in self else None

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
        return scheme_of(self.stored, name, self)

    def float_type(self, name: str) -> type[np.floating[Any]]:
        """The type that stored constant `name` is computed in: 32 bits of an integer are too many for float32."""
        return np.float64 if self.stored[name].bits > 24 else np.float32

    def _dequantized(self, stored: Stored) -> NDArray[Any]:
        return dequantize(integers_of(stored, self), self.scheme(stored.name), self.float_type(stored.name))

    def part_name(self, stored: Stored, slot: int) -> str:
        """The tensor at an input of the node that holds a stored constant; '' if there is none."""
        owner, slot = stored.place(slot)
        inputs = self._graph.nodes[self._graph.producer[owner]].inputs
        return inputs[slot] if slot < len(inputs) else ""

    def part(self, one: Stored, slot: int) -> NDArray[Any] | None:
        """That tensor; None if there is none."""
        name = self.part_name(one, slot)
        return self.stored_array(name) if name else None

    def layout(self, one: Stored) -> PackedLayout | None:
        """How the integers of a stored constant share bytes."""
        return one.layout

    def _compute(self, name: str) -> NDArray[Any]:
        node = self._nodes[name]
        if node.op == "Constant" and isinstance(node.attrs.get("value"), TensorProto):
            return tensor_array(node.attrs["value"], self._folder)
        if dequantizes(node):
            return unpacked(node, self.stored_array)
        count = self._elements(node)
        if count is not None and count > _MOST:
            raise too_large(name, count, node.op)
        from onnx.reference import ReferenceEvaluator  # slow to import, and most models never need it

        feeds = {i: np.array(self.stored_array(i)) for i in dict.fromkeys(node.inputs) if i}
        untyped = onnx.TypeProto()
        producer = NodeProto()
        producer.CopyFrom(self._protos[node.index])
        producer.ClearField("domain")  # the default one, however it is spelled
        graph = onnx.helper.make_graph(
            [producer], "constant",
            [onnx.helper.make_value_info(i, untyped) for i in feeds],
            [onnx.helper.make_value_info(name, untyped)],
        )  # fmt: skip
        single = onnx.helper.make_model(graph, opset_imports=self._opsets)
        inferred = inferred_size(single, feeds) if count is None else 0
        if inferred > _MOST:
            raise too_large(name, inferred, node.op)
        try:
            with asking_onnx(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of casts that lose something: that is what the model says
                computed: Any = ReferenceEvaluator(single).run(None, feeds)
                return np.asarray(computed[0])
        except ExecutionError as error:
            raise ModelError(f"constant '{name}' cannot be computed ({node.op}): {error}") from error


def too_large(name: str, count: int, op: str) -> ModelError:
    """The error for a constant that takes too long and too much memory to compute."""
    return ModelError(f"constant '{name}' would have {count} elements ({op}), too many to compute: export it again")


def constant_attribute(node: onnx.NodeProto) -> AttributeProto | None:
    """The tensor attribute of a Constant node, if it has that form."""
    return next((a for a in node.attribute if a.name == "value" and a.type == AttributeProto.TENSOR), None)
