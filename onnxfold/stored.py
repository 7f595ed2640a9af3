"""Which constants of a graph are floats stored as integers, and where their integers, scales and zero points are.

A float constant is stored so as the output of DequantizeLinear (that is its name then), or as the weight or bias of an
operator that takes integers (QLinearConv and the like; its name is that of the integers). What can be read but not
written back gets a reason instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from .graph import Graph, Node
from .quantise import Scheme, used

Array = NDArray[Any]
DEQUANTIZE = "DequantizeLinear"
MICROSOFT = "com.microsoft"
_SAME = 1e-4  # relative: scales of biases are products rounded to float32


@dataclass(frozen=True)
class Slots:
    """Which inputs of a node hold integers, their scale and zero point (None: it has no such input)."""

    integers: int
    scale: int | None = None
    zero: int | None = None


@dataclass(frozen=True)
class Holder:
    """An operator that takes a weight and perhaps a bias as integers, and where the scale of its input is."""

    weight: Slots
    bias: Slots | None
    x_scale: int | None = None


HOLDERS: Mapping[tuple[str, str], Holder] = {
    ("", "QLinearConv"): Holder(Slots(3, 4, 5), Slots(8), 1),
    ("", "QLinearMatMul"): Holder(Slots(3, 4, 5), None, 1),
    (MICROSOFT, "QGemm"): Holder(Slots(3, 4, 5), Slots(6), 1),
    (MICROSOFT, "DynamicQuantizeMatMul"): Holder(Slots(1, 2, 3), None),
    (MICROSOFT, "MatMulIntegerToFloat"): Holder(Slots(1, 3, 5), None, 2),
}
SCALELESS = ("ConvInteger", "MatMulInteger")  # their scale is applied later, by other operators
_DEQUANTIZED = Slots(0, 1, 2)


@dataclass(frozen=True)
class Factor:
    """The scale of a bias is `x_scale` times that of `weight`, another stored constant, as kernels want it."""

    x_scale: float
    weight: str


@dataclass(frozen=True)
class Stored:
    """One float constant that is stored as integers.

    `holder` names the first output of the node that takes them at `slots`; `axis`: that of scales, None for one scale
    for all. Integers keep to `low`..`high`. `factor`: for a bias whose scale follows from others. `bits`: of one.
    """

    name: str
    holder: str
    slots: Slots
    axis: int | None
    low: int
    high: int
    bits: int
    factor: Factor | None = None


@dataclass(frozen=True)
class Unwritable:
    """Why a quantised constant must stay as it is, and the node that reads it."""

    why: str
    where: str


class Fixed(Protocol):
    """What is needed of a model's constants: the names of all, and their arrays as they are stored."""

    def __contains__(self, name: str) -> bool: ...
    def stored_array(self, name: str) -> Array: ...


def dequantises(node: Node) -> bool:
    """Whether a node makes floats of integers."""
    return node.op == DEQUANTIZE and node.domain in ("", MICROSOFT)


def integer_weights(node: NodeProto) -> list[str]:
    """The inputs of a node that would be floats in a model that is not quantised: tensors of integers, if constant."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    if node.op_type == DEQUANTIZE and domain in ("", MICROSOFT):
        slots = [_DEQUANTIZED]
    elif node.op_type in SCALELESS:
        slots = [Slots(1)]
    else:
        holder = HOLDERS.get((domain, node.op_type))
        slots = [s for s in (holder.weight, holder.bias) if s is not None] if holder is not None else []
    return [node.input[s.integers] for s in slots if s.integers < len(node.input)]


def find(graph: Graph, fixed: Fixed) -> dict[str, Stored | Unwritable]:
    """All quantised constants of `graph` by name."""
    found: dict[str, Stored | Unwritable] = {}
    for name, node, slots in _candidates(graph, fixed):
        why = _obstacle(graph, fixed, node, slots)
        found[name] = Unwritable(why, node.label) if why else _described(fixed, name, node, slots)
    for one in list(_biases(graph, fixed)):
        _settle(graph, fixed, found, one)
    return found


def scheme_of(stored: Mapping[str, Stored], name: str, part: Callable[[Stored, int], Array | None]) -> Scheme:
    """How `name` is stored; `part` gives the tensor at an input of the node that holds a constant, if there is one."""
    one = stored[name]
    scale = None if one.slots.scale is None else part(one, one.slots.scale)
    if scale is None:
        return following(one, scheme_of(stored, _weight(one), part))
    zero = None if one.slots.zero is None else part(one, one.slots.zero)
    shape = (-1,) if one.axis is not None else ()
    scales = scale.astype(np.float64).reshape(shape)
    zeros = np.zeros_like(scales) if zero is None else zero.astype(np.float64).reshape(shape)
    return Scheme(scales, np.broadcast_to(zeros, scales.shape), one.axis, one.low, one.high, scale.dtype)


def following(bias: Stored, weight: Scheme) -> Scheme:
    """The scheme of a bias that goes by this one of its weight."""
    assert bias.factor is not None
    scale = weight.scale * bias.factor.x_scale
    axis = None if weight.axis is None else 0
    return Scheme(scale, np.zeros_like(scale), axis, bias.low, bias.high, weight.dtype)


def unpacked(node: Node, read: Callable[[str], Array]) -> Array:
    """What a DequantizeLinear node makes of constants, in any of its forms."""
    values, scale = (read(name) for name in node.inputs[:2])
    zero = read(node.inputs[2]).astype(np.float64) if _given(node, 2) else np.zeros(1)
    shift, step = (_spread(numbers, node, values.shape) for numbers in (zero, scale.astype(np.float64)))
    return np.asarray(((values.astype(np.float64) - shift) * step).astype(scale.dtype))


def _spread(numbers: Array, node: Node, shape: tuple[int, ...]) -> Array:
    """Scales or zero points in a shape that broadcasts against that of the values."""
    axis, block = int(node.attrs.get("axis", 1)), int(node.attrs.get("block_size", 0))
    if numbers.size == 1:
        return numbers.reshape(())
    axis %= len(shape)
    if block:
        return np.take(np.repeat(numbers, block, axis), np.arange(shape[axis]), axis)
    return numbers.reshape([-1 if i == axis else 1 for i in range(len(shape))])


def _weight(bias: Stored) -> str:
    assert bias.factor is not None
    return bias.factor.weight


def _candidates(graph: Graph, fixed: Fixed) -> Iterator[tuple[str, Node, Slots]]:
    """(name, node, slots) of every quantised constant but the biases of operators that take integers."""
    for node in graph.nodes:
        if dequantises(node) and node.outputs[0] in fixed:
            yield node.outputs[0], node, _DEQUANTIZED
        slots = HOLDERS[node.domain, node.op].weight if (node.domain, node.op) in HOLDERS else None
        if node.op in SCALELESS and node.domain in ("", MICROSOFT):
            slots = Slots(1)
        if slots is not None and node.inputs[slots.integers] in fixed:
            yield node.inputs[slots.integers], node, slots


def _given(node: Node, slot: int | None) -> str:
    return node.inputs[slot] if slot is not None and slot < len(node.inputs) else ""


def _obstacle(graph: Graph, fixed: Fixed, node: Node, slots: Slots) -> str:
    """Why this constant cannot be written back; '' if it can."""
    integers, scale, zero = (_given(node, slot) for slot in (slots.integers, slots.scale, slots.zero))
    if not scale:
        return f"{node.op} holds integer weights, but not their scale"
    if node.attrs.get("block_size", 0):
        return f"{node.op} scales its weights by blocks"
    if scale not in fixed or (zero and zero not in fixed):
        return f"{node.op} has a computed scale"
    readers, captured = graph.consumers.get(integers, ()), {name for n in graph.nodes for name in n.captures}
    if len(readers) > 1 or integers in graph.outputs or integers in captured:
        return "integer weights that several nodes share"
    values, scales = fixed.stored_array(integers), fixed.stored_array(scale).astype(np.float64)
    kind = _kind(values)
    if not kind.lstrip("U").startswith("INT"):
        return f"{node.op} holds weights of type {kind.lower()}"
    if not (np.isfinite(scales) & (scales > 0)).all():
        return f"{node.op} has a scale that is not positive"
    axis = _axis(node, values.ndim, scales.size)
    if scales.ndim > 1 or (axis is not None and scales.size != values.shape[axis]):
        return f"{node.op} has scales along several axes"
    return ""


def _described(fixed: Fixed, name: str, node: Node, slots: Slots) -> Stored:
    assert slots.scale is not None
    values, scales = (fixed.stored_array(node.inputs[slot]) for slot in (slots.integers, slots.scale))
    low, high, bits = _range(values)
    return Stored(name, node.outputs[0], slots, _axis(node, values.ndim, scales.size), low, high, bits)


def _axis(node: Node, rank: int, scales: int) -> int | None:
    """The axis that a node's scales of its weight run along."""
    if scales == 1:
        return None
    if node.op == DEQUANTIZE:
        return int(node.attrs.get("axis", 1)) % rank
    if node.op == "QLinearConv" or node.attrs.get("transB", 0):
        return 0
    return rank - 1


def _kind(values: Array) -> str:
    return str(TensorProto.DataType.Name(helper.np_dtype_to_tensor_dtype(values.dtype)))


def _range(values: Array) -> tuple[int, int, int]:
    """(low, high, bits) of an integer tensor."""
    kind = _kind(values)
    bits = int(kind.lstrip("UINT"))
    return (*used(values.astype(np.int64), bits, kind.startswith("INT")), bits)


@dataclass(frozen=True)
class _Bias:
    """A constant that `node` adds to the product of a quantised input (of that scale; 0 if it has none or several) and
    a weight. `slots`: where its integers are, None if DequantizeLinear makes it."""

    name: str
    node: Node
    weight: str
    x_scale: float
    slots: Slots | None


def _biases(graph: Graph, fixed: Fixed) -> Iterator[_Bias]:
    for node in graph.nodes:
        holder = HOLDERS.get((node.domain, node.op))
        if holder is not None and holder.bias is not None:
            bias, weight = _given(node, holder.bias.integers), node.inputs[holder.weight.integers]
            scale, slots = _given(node, holder.x_scale), holder.bias
        elif node.op in ("Conv", "ConvTranspose", "Gemm") and not node.domain:
            maker = graph.producer.get(node.inputs[0])
            feeds = maker is not None and dequantises(graph.nodes[maker])
            bias, weight, slots = _given(node, 2), node.inputs[1], None
            scale = _given(graph.nodes[maker], 1) if maker is not None and feeds else ""
        else:
            continue
        if bias in fixed:
            step = fixed.stored_array(scale).astype(np.float64) if scale in fixed else np.zeros(0)
            factor = float(step.reshape(())) if step.size == 1 else 0.0
            yield _Bias(bias, node, weight, factor * float(node.attrs.get("alpha", 1.0)), slots)


def _settle(graph: Graph, fixed: Fixed, found: dict[str, Stored | Unwritable], bias: _Bias) -> None:
    """Note in `found` what becomes of a bias. One that cannot follow the scale of its weight keeps that as it is."""
    weight = found.get(bias.weight)
    if bias.slots is not None:
        own = _integer_bias(fixed, bias, weight)
    else:
        made = found.get(bias.name)
        if not isinstance(made, Stored) or not isinstance(weight, Stored) or not _follows(graph, fixed, bias, weight):
            return
        own = replace(made, factor=Factor(bias.x_scale, bias.weight))
    if isinstance(own, Stored) and len(graph.consumers[bias.name]) > 1:
        own = Unwritable("a quantised bias that several nodes share", bias.node.label)
    found[bias.name] = own
    if isinstance(own, Unwritable):
        found[bias.weight] = own


def _integer_bias(fixed: Fixed, bias: _Bias, weight: Stored | Unwritable | None) -> Stored | Unwritable:
    """A bias that its node takes as integers, in steps of the input's scale times the weight's."""
    assert bias.slots is not None
    if isinstance(weight, Unwritable):
        return weight
    if weight is None or not bias.x_scale > 0:
        return Unwritable(f"{bias.node.op} has a computed {'weight' if weight is None else 'scale'}", bias.node.label)
    low, high, bits = _range(fixed.stored_array(bias.name))
    axis = None if weight.axis is None else 0
    factor = Factor(bias.x_scale, bias.weight)
    return Stored(bias.name, bias.node.outputs[0], bias.slots, axis, low, high, bits, factor)


def _follows(graph: Graph, fixed: Fixed, bias: _Bias, weight: Stored) -> bool:
    """Whether the scale of a bias, as DequantizeLinear has it, is the input's times the weight's."""
    holders = [graph.nodes[graph.producer[name]] for name in (bias.name, bias.weight)]
    own, of_weight = (fixed.stored_array(node.inputs[1]).astype(np.float64).ravel() for node in holders)
    if own.size < of_weight.size or (weight.axis is not None and own.size != of_weight.size):
        return False
    return bool(np.allclose(own, bias.x_scale * of_weight, rtol=_SAME, atol=0.0))
