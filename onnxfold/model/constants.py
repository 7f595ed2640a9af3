"""What has a fixed value in a model, and that value: initializers, Constant nodes, what is computed from them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Container, Mapping
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
from .expressions import made_shape, permutation, source
from .external_data import Stretch, tensor_array
from .graph import Graph, Node
from .growth import GROWS, elements, inferred_size
from .onnx_calls import asking_onnx
from .quantized.detect import DEQUANTIZE, dequantizes, find, unpacked
from .quantized.forms import FORMS, Form, kept_axes
from .quantized.packing import PackedLayout
from .quantized.scheme import Scheme, dequantize
from .quantized.tensor import Stored, Unwritable, integers_of, scheme_of
from .shapes.values import Values
from .shared_products import shared_products
from .sparse import SPARSE_INITIALIZER, SPARSE_VALUE, dense, sparse_weights, stored_numbers
from .subgraphs import DEFAULT_DOMAINS, every_initializer, every_node

FLOATS = frozenset(
    (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
)  # element types whose channels can be averaged
WEIGHT_TYPES = FLOATS | {TensorProto.INT8, TensorProto.UINT8}
_FEW = 1024, 16  # integers and floats at most
_MOST = 1 << 28  # elements of a constant that is computed
_ABSURD = 1 << 30  # elements of a constant that no model needs: 1 GB and more
RANDOM = frozenset(
    ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli")
)  # operators that draw other numbers every time
# Never evaluated as constants: random operators, and quantizing (what comes of a weight would be stored beside it).
_NOT_CONSTANT = RANDOM | {
    "If", "Loop", "Scan", DEQUANTIZE, "QuantizeLinear", "Dropout", "Optional", "SequenceEmpty", "SequenceConstruct",
    "StringNormalizer",
}  # fmt: skip


class Constants:
    """Tensors of fixed value: initializers, Constant nodes, and what plain operators compute from those alone, also in
    bodies that are `opened`.

    Floats that are stored as integers (`stored`) are constants like others, in the form that nodes give them which only
    move their axes; what else is computed from them is none, as it would have to be stored in full. So it is with
    sparse weights, which are kept as they are. Arrays are read (or computed) when asked for and not kept, except small
    computed ones.
    """

    def __init__(self, proto: ModelProto, graph: Graph, folder: Path | None) -> None:
        self._folder = folder
        self._graph = graph
        self._initializers = {t.name: t for t in every_initializer(proto)}
        self._sparse = sparse_weights(proto)
        self._nodes: dict[str, Node] = {}
        self._protos = every_node(proto)
        default = [o.version for o in proto.opset_import if o.domain in DEFAULT_DOMAINS]
        self._opsets = [onnx.helper.make_opsetid("", version) for version in default]
        self._cache: dict[str, NDArray[Any]] = {}
        self.integers: dict[str, Values | None] = {}
        self._held = {*graph.outputs, *graph.borders, *(name for node in graph.nodes for name in node.captures)}
        self.names, self._forms = self._found(frozenset())
        computed = shared_products(graph, self.names)
        if computed:
            self._nodes = {}
            self.names, self._forms = self._found(computed)

    def _found(self, computed: frozenset[int]) -> tuple[frozenset[str], Mapping[str, Form]]:
        """The names of all constants, and the forms of those that are stored as integers or sparse, by what has the
        first of them; not what the nodes `computed` give."""
        names = {*self._initializers, *self._sparse}
        first, last = dict[str, Form](), dict[str, Form]()
        for name, sparse in self._sparse.items():
            last[name] = first[name] = Form.first(name, sparse.dims)
        for node in self._graph.nodes:
            made = node.outputs[0] if node.outputs else ""
            form = self._next_form(node, last, names)
            if dequantizes(node) and all(name in names and name not in last for name in node.inputs if name):
                formed = any(self._graph.nodes[i].op in FORMS for i in self._graph.consumers.get(made, ()))
                form = Form.first(made, self._stored_shape(node.inputs[0]) if formed else None)
            if form is not None:
                names.add(made)
                self._nodes[made] = node
                last[made] = first[form.tensors[0]] = form
            if made in last or node.index in computed or not last.keys().isdisjoint(node.inputs):
                continue
            if node.domain != "" or node.op in _NOT_CONSTANT or node.captures or not node.outputs:
                continue
            if node.op in ("Shape", "Size") and not self._is_list(node.inputs[0]):
                continue  # the size of a weight changes when it is folded
            if all(name in names for name in node.inputs if name):
                for name in filter(None, node.outputs):
                    names.add(name)
                    self._nodes[name] = node
        return frozenset(names), first

    def _next_form(self, node: Node, last: Mapping[str, Form], names: Container[str]) -> Form | None:
        """The form that a node gives what has one, where all that it does is to move axes, and nothing else uses it."""
        given = node.inputs[0] if node.inputs else ""
        form, proto = last.get(given), self._protos[node.index]
        if form is None or node.op not in FORMS or form.shape is None or not all(n in names for n in node.inputs if n):
            return None
        alone = self._graph.consumers.get(given) == (node.index,) and given not in self._held
        if not alone or source(proto, lambda name: int(name == given), self._listed) != given:
            return None
        if node.op == "Transpose":
            return form.then(node.outputs[0], permutation(proto, len(form.shape)))
        axes = kept_axes(form.shape, made_shape(proto, form.shape, self._listed))
        return None if axes is None else form.then(node.outputs[0], axes)

    def _stored_shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of a constant; None where it cannot be computed."""
        if name in self._initializers:
            return tuple(self._initializers[name].dims)
        value = self._listed(name)
        return None if value is None else value.shape

    def _listed(self, name: str) -> NDArray[Any] | None:
        """The value of a constant, a list above all; None for what is none."""
        try:
            return self.stored_array(name) if name in self._initializers or name in self._nodes else None
        except ModelError:
            return None

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def made_by(self, node: Node) -> bool:
        """Whether all that a node gives is constant: it computes before the first inference."""
        return any(node.outputs) and all(name in self.names for name in node.outputs if name)

    @cached_property
    def small(self) -> Mapping[str, NDArray[Any]]:
        """Computed constants of few elements, by name; shape inference needs their values."""
        found: dict[str, NDArray[Any]] = {}
        integers, floats = _FEW
        sizes: dict[str, int] = {name: math.prod(t.dims) for name, t in self._initializers.items()}
        for name, node in self._nodes.items():
            if name in self.formed:
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
    def formed(self) -> frozenset[str]:
        """All forms of all constants that are stored as integers or sparse."""
        return frozenset(name for form in self._forms.values() for name in form.tensors)

    @cached_property
    def _quantized(self) -> Mapping[str, Stored | Unwritable]:
        found = find(self._graph, self, self._forms)
        for name in self._sparse:
            at = self._graph.producer.get(name)
            why, where = (SPARSE_INITIALIZER, name) if at is None else (SPARSE_VALUE, self._graph.nodes[at].label)
            found[self._forms[name].tensors[-1]] = Unwritable(why, where)
        return found

    @cached_property
    def computed(self) -> frozenset[str]:
        """What is computed from weights that are stored as integers, and so is no constant."""
        found = set[str]()
        for node in self._graph.nodes:
            of = any(name in self.formed or name in found for name in node.inputs)
            if of and all(name in self.names or name in found for name in node.inputs if name):
                found.update(name for name in node.outputs if name and name not in self.names)
        return frozenset(found)

    @cached_property
    def between(self) -> frozenset[str]:
        """What stands between a weight that is stored as integers and the form in which it is used."""
        return frozenset(name for form in self._forms.values() for name in form.tensors[:-1])

    @cached_property
    def stored(self) -> Mapping[str, Stored]:
        """The float constants that are stored as integers, by name."""
        return {name: one for name, one in self._quantized.items() if isinstance(one, Stored)}

    @cached_property
    def unwritable(self) -> Mapping[str, Unwritable]:
        """Why other quantized constants, and sparse ones, cannot be changed, by name."""
        return {name: one for name, one in self._quantized.items() if isinstance(one, Unwritable)}

    def numbers(self, name: str) -> int | None:
        """How many numbers are stored of a constant that is sparse; None for others."""
        return self._numbers.get(name)

    @cached_property
    def _numbers(self) -> Mapping[str, int]:
        sparse = ((self._forms[name], stored_numbers(one)) for name, one in self._sparse.items())
        return {name: count for form, count in sparse for name in form.tensors}

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
        if name in self._sparse:
            return self._dense(name)
        if name not in self._cache:
            value = self._compute(name)
            if value.nbytes > 1 << 16:
                return value
            self._cache[name] = value
        return self._cache[name]

    def _dense(self, name: str) -> NDArray[Any]:
        count = math.prod(self._sparse[name].dims)
        if count > _MOST:
            raise too_large(name, count, "sparse")
        return dense(self._sparse[name], self._folder)

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
