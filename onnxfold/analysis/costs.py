"""Parameters and multiply-accumulates (MACs) of a model, as products of axis lengths, so that a plan can be priced."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from onnx import AttributeProto, ModelProto, TensorProto, helper

from ..model.constants import FLOATS
from ..model.entry import entered
from ..model.graph import Graph, Node
from ..model.linear import RECURRENT, WEIGHTS
from ..model.model import Model
from ..model.quantized.detect import integer_weights
from ..model.quantized.tensor import Stored
from ..model.shapes.nominal import concrete_shape
from ..model.sparse import sparse_weights, stored_numbers
from ..model.subgraphs import every_initializer, every_node
from ..model.tied import NO_WEIGHTS
from .body_steps import steps
from .rules.linear import subscripts


@dataclass(frozen=True)
class Size:
    """Sizes before or after: bytes of the file (external data included), parameters, MACs at batch 1; `peak_memory`:
    bytes of the activations that exist at the same time, at most, also at batch 1 (None where nobody knows)."""

    file: int
    parameters: int
    macs: int
    peak_memory: int | None = None


Dim = tuple[str, int]  # the length of an axis: (tensor, axis)
Dims = tuple[Dim, ...]  # lengths that are multiplied
_COUNTED = (*WEIGHTS, "Einsum", *RECURRENT)


@dataclass(frozen=True)
class Costs:
    """Products of axis lengths that add up to the MACs and to the parameters of one inference with batch 1."""

    macs_terms: tuple[Dims, ...] = field(repr=False)
    params_terms: tuple[Dims, ...] = field(repr=False)
    item_bytes: tuple[float, ...] = field(repr=False)  # of one parameter, for every term of the parameters
    shapes: Mapping[str, tuple[int, ...]] = field(repr=False)
    blocks: Mapping[Dim, tuple[Dim, int]] = field(repr=False, default_factory=dict)
    """Axes (of scales) with one position for so many of another axis."""

    unsized: frozenset[str] = field(repr=False, default_factory=frozenset)
    """Tensors with an axis of unknown length, which counts as 1."""

    sparse: int = 0
    """Parameters of sparse weights, which stay as they are."""

    def count(self, name: str, lengths: Mapping[tuple[str, int], int]) -> int | None:
        """How many numbers a tensor holds, with the changed axis `lengths`; None where that is not known."""
        if name not in self.shapes or name in self.unsized:
            return None
        return self._total([_dims(name, self.shapes)], lengths)

    def macs(self, lengths: Mapping[tuple[str, int], int]) -> int:
        """MACs with the changed axis `lengths`."""
        return self._total(self.macs_terms, lengths)

    def params(self, lengths: Mapping[tuple[str, int], int]) -> int:
        """Parameters with the changed axis `lengths`."""
        return self.sparse + self._total(self.params_terms, lengths)

    def numbers(self, lengths: Mapping[tuple[str, int], int]) -> dict[str, int]:
        """The parameters of every weight that is no scalar, by its name, with the changed axis `lengths`."""
        return {term[0][0]: self._total([term], lengths) for term in self.params_terms if term}

    def stored(self, lengths: Mapping[tuple[str, int], int]) -> int:
        """Bytes of the parameters with the changed axis `lengths`, each in its own element type."""
        pairs = zip(self.params_terms, self.item_bytes, strict=True)
        return round(sum(size * self._total([term], lengths) for term, size in pairs))

    def products(self, params: bool) -> Iterator[Dims]:
        """The axes that each product of the MACs, or of the parameters, depends on."""
        for term in self.params_terms if params else self.macs_terms:
            wholes = tuple(self.blocks[dim][0] for dim in term if dim in self.blocks)
            yield term + wholes

    def _total(self, terms: Sequence[Dims], lengths: Mapping[tuple[str, int], int]) -> int:
        return sum(math.prod(self._length(dim, lengths) for dim in term) for term in terms)

    def _length(self, dim: Dim, lengths: Mapping[tuple[str, int], int]) -> int:
        if dim in self.blocks:
            whole, block = self.blocks[dim]
            return -(-self._length(whole, lengths) // block)
        return lengths.get(dim, self.shapes[dim[0]][dim[1]])


def costs(model: Model, input_shapes: Mapping[str, Sequence[int]] | None = None) -> Costs:
    """Price `model` at batch 1; open dimensions of its inputs count as in `inputs.concrete_shape`."""
    graph = nominal(model, input_shapes)
    symbols = _symbols(model, graph)
    shapes = {name: _ints(t.shape, symbols) for name, t in graph.tensors.items() if t.shape is not None}
    often, running = steps(model, shapes), [node for node in graph.nodes if not model.constants.made_by(node)]
    macs = [often.get(node.index, ()) + term for node in running for term in _macs(node, shapes)]
    used = {name for node in model.graph.nodes for name in node.inputs if name in model.constants}
    computed = {
        name for node in model.graph.nodes if model.constants.made_by(node)
        for name in node.inputs if not (name in model.tied.family and model.tied.family[name].tied)
    }  # fmt: skip
    stored, part = model.constants.stored, model.constants.part_name
    slots = {one.name: (one.slots.scale, one.slots.zero) for one in stored.values() if one.slots.scale is not None}
    beside = {name: [part(stored[name], slot) for slot in pair if slot is not None] for name, pair in slots.items()}
    known = computed.union(stored, *beside.values())
    sparse = {name: count for name in used if (count := model.constants.numbers(name)) is not None}
    once = {model.tied.stored(name): name for name in sorted(used - known - sparse.keys(), reverse=True)}
    kinds = {name: _stored_kind(model, name) for name in sorted(once.values()) if name in shapes}
    kinds = {name: kind for name, kind in kinds.items() if kind in FLOATS}
    params = [_dims(name, shapes) for name in kinds]
    sizes: list[float] = [helper.tensor_dtype_to_np_dtype(kind).itemsize for kind in kinds.values()]
    blocks = dict[Dim, tuple[Dim, int]]()
    for one in stored.values():
        weights = _dims(one.name, shapes) if one.name in shapes else ()
        packed = 0.0 if one.layout is None else one.block * one.bits / 8  # a block that is not full takes as much
        params, sizes = [*params, weights], [*sizes, 0.0 if packed else one.bits / 8]
        along = _scales(one, weights, beside.get(one.name, []), blocks)
        for number, name in enumerate(beside.get(one.name, [])):
            kind = graph.tensor(name).dtype if name else 0
            if kind in FLOATS:
                params = [*params, along]
                sizes.append(helper.tensor_dtype_to_np_dtype(kind).itemsize + (packed if number == 0 else 0.0))
            else:  # a zero point of as many bits, also where there is none yet
                sizes[-1] += one.bits / 8
    unsized = {n for n, t in graph.tensors.items() if any(_int(dim, symbols) is None for dim in t.shape or ())}
    kept = sum(count for name, count in sparse.items() if name not in computed and graph.tensor(name).dtype in FLOATS)
    return Costs(tuple(macs), tuple(params), tuple(sizes), shapes, blocks, frozenset(unsized), kept)


PER_ACTIVATION, PER_MAC = 4e-9, 4e-11
"""Seconds for two versions of a model forward and one back (on two idle cores, a ResNet-20 takes 5 ms): what is decided
by them does not depend on how busy a machine is."""


def step_seconds(model: Model, prices: Costs) -> float:
    """About how long two versions of the model forward and one back take."""
    return PER_ACTIVATION * activations(model, prices) + PER_MAC * prices.macs({})


def activations(model: Model, prices: Costs) -> int:
    """How many numbers all nodes make."""
    made = {name for node in model.graph.nodes for name in node.outputs if name not in model.constants}
    return sum(math.prod(size) for name, size in prices.shapes.items() if name in made)


def _stored_kind(model: Model, name: str) -> int:
    """The element type in which a constant is stored."""
    kind, view = model.graph.tensor(name).dtype, model.tied.views.get(name)
    stored = model.tied.kinds.get(name, kind) if view is None else model.graph.tensor(view.root).dtype
    return stored if kind in FLOATS else kind


def _scales(one: Stored, weights: Dims, names: Sequence[str], blocks: dict[Dim, tuple[Dim, int]]) -> Dims:
    """The axes that the scales of a stored constant run along, of its own axes `weights`; new ones go into `blocks`."""
    if one.axis is None or not names or not weights:  # without axes the shape is not known
        return ()
    if not one.block:
        return (weights[one.axis],)
    own = (names[0], one.axis)
    blocks[own] = weights[one.axis], one.block
    return tuple(own if axis == one.axis else dim for axis, dim in enumerate(weights))


def nominal(model: Model, input_shapes: Mapping[str, Sequence[int]] | None = None) -> Graph:
    """The graph with every open dimension of its inputs filled in, and all shapes that follow from that."""
    given = {}
    for name in model.graph.inputs:
        shape = model.graph.tensor(name).declarable
        if name not in model.constants and shape is not None:
            given[name] = concrete_shape(shape, 1, (input_shapes or {}).get(name))
    return model.at(given)


def count_parameters(proto: ModelProto) -> int:
    """Numbers stored in initializers and Constant nodes, also of `opened` bodies and of functions: floats, and integers
    that stand for such. Of sparse weights, those that are not 0."""
    proto, _ = entered(proto)
    floats = FLOATS | {TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2}
    share = {name: count for node in every_node(proto) for name, count in integer_weights(node).items()}
    tensors = _tensors(proto).items()
    counted = {name: int(math.prod(t.dims)) for name, t in tensors if t.data_type in floats or name in share}
    sparse = sum(stored_numbers(one) for one in sparse_weights(proto).values() if one.values.data_type in floats)
    return sparse + round(sum(share.get(name, 1) * size for name, size in counted.items()))


def weight_bytes(proto: ModelProto) -> int:
    """Bytes of the values in initializers and Constant nodes, also of `opened` bodies, but for what may be lists of
    lengths."""
    proto, _ = entered(proto)
    kinds = [(math.prod(t.dims), t.data_type) for t in _tensors(proto).values() if t.data_type not in NO_WEIGHTS]
    return sum(size * helper.tensor_dtype_to_np_dtype(kind).itemsize for size, kind in kinds if kind)


def _tensors(proto: ModelProto) -> dict[str, TensorProto]:
    tensors = {t.name: t for t in every_initializer(proto)}
    for node in every_node(proto):
        if node.op_type == "Constant":
            held = [a.t for a in node.attribute if a.type == AttributeProto.TENSOR]
            tensors.update(dict.fromkeys(node.output, held[0]) if held else {})
    return tensors


def _symbols(model: Model, graph: Graph) -> dict[object, int]:
    """The lengths that the inputs in `graph` give to the names of open dimensions: bodies have those names too."""
    found = dict[object, int]()
    for value in model.proto.graph.input:
        for dim, length in zip(value.type.tensor_type.shape.dim, graph.tensor(value.name).shape or (), strict=False):
            if dim.dim_param and isinstance(length, int):
                found[dim.dim_param] = length
    return found


def _int(dim: object, symbols: Mapping[object, int]) -> int | None:
    return dim if isinstance(dim, int) else symbols.get(dim)


def _ints(shape: Sequence[object], symbols: Mapping[object, int]) -> tuple[int, ...]:
    """The lengths of `shape`; unknown ones count as 1."""
    found = (_int(dim, symbols) for dim in shape)
    return tuple(1 if length is None else length for length in found)


def _macs(node: Node, shapes: Mapping[str, tuple[int, ...]]) -> list[Dims]:
    op, inputs, outputs = node.op, node.inputs, node.outputs
    w_at = WEIGHTS.get(op, (1, None))[0]
    if op not in _COUNTED or any(n not in shapes for n in (inputs[0], *inputs[w_at : w_at + 1], outputs[0])):
        return []
    x, w, y = inputs[0], inputs[w_at] if len(inputs) > w_at else "", outputs[0]
    if op != "Einsum" and len(shapes[x]) < (2 if op in RECURRENT else 1):  # it contradicts itself, and will not run
        return []
    if op in RECURRENT:
        return _recurrent(x, w, inputs[2], shapes)
    if op == "Einsum":
        return _einsum(str(node.attrs.get("equation", "")), inputs, y, shapes)
    out = _dims(y, shapes)
    if "Conv" in op and op != "ConvTranspose":
        return [(*out, *_dims(w, shapes)[1:])]
    if op == "ConvTranspose":
        return [(*_dims(x, shapes), *_dims(w, shapes)[1:])]
    turned = op != "MatMul" and node.attrs.get("transA") and len(shapes[x]) > 1
    return [(*out, (x, len(shapes[x]) - (2 if turned else 1)))]


def _dims(name: str, shapes: Mapping[str, tuple[int, ...]]) -> Dims:
    return tuple((name, axis) for axis in range(len(shapes[name])))


def _recurrent(x: str, w: str, r: str, shapes: Mapping[str, tuple[int, ...]]) -> list[Dims]:
    """W and R once for every step of every sequence."""
    steps = ((x, 0), (x, 1))
    return [(*steps, *_dims(name, shapes)) for name in (w, r) if name in shapes]


def _einsum(equation: str, inputs: Sequence[str], y: str, shapes: Mapping[str, tuple[int, ...]]) -> list[Dims]:
    """Every combination of the indices of two operands, once."""
    if len(inputs) != 2:
        return []
    terms, _ = subscripts(equation, [len(shapes[name]) for name in inputs], len(shapes[y]))
    if [len(term) for term in terms] != [len(shapes[name]) for name in inputs]:
        return []
    found: dict[str, tuple[str, int]] = {}
    for term, name in zip(terms, inputs, strict=True):
        for axis, label in enumerate(term):
            if label not in found or shapes[name][axis] > 1:
                found[label] = (name, axis)
    return [tuple(found.values())]
