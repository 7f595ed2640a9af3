"""Which constants of a graph are floats stored as integers.

A float constant is stored so as the output of DequantizeLinear (that is its name then), or as the weight or bias of an
operator that takes integers (QLinearConv, MatMulNBits and the like; its name is that of the integers). What can be read
but not written back gets a reason instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from ...errors import ModelError
from ..graph import Graph, Node
from .behind import Fixed, held, scale_behind
from .forms import Form
from .packing import MICROSOFT, NBITS, PackedLayout, layout
from .scheme import used
from .tensor import BEHIND, Factor, Slots, Stored, Unwritable

Array = NDArray[Any]
DEQUANTIZE = "DequantizeLinear"
_SAME = 1e-4  # relative: scales of biases are products rounded to float32


@dataclass(frozen=True)
class IntegerOperator:
    """An operator that takes a weight and perhaps a bias as integers, and where the scale of its input is.

    `computes` tells whether it computes on them: others unpack the weight.
    """

    weight: Slots
    bias: Slots | None
    x_scale: int | None = None
    computes: bool = True


SCALELESS = ("ConvInteger", "MatMulInteger")  # what follows applies their scale
INTEGER_OPERATORS: Mapping[tuple[str, str], IntegerOperator] = {
    ("", "QLinearConv"): IntegerOperator(Slots(3, 4, 5), Slots(8), 1),
    ("", "QLinearMatMul"): IntegerOperator(Slots(3, 4, 5), None, 1),
    (MICROSOFT, "QGemm"): IntegerOperator(Slots(3, 4, 5), Slots(6), 1),
    (MICROSOFT, "DynamicQuantizeMatMul"): IntegerOperator(Slots(1, 2, 3), None),
    (MICROSOFT, "MatMulIntegerToFloat"): IntegerOperator(Slots(1, 3, 5), None, 2),
    **{("", op): IntegerOperator(Slots(1, BEHIND, 3), None) for op in SCALELESS},
    (MICROSOFT, NBITS): IntegerOperator(Slots(1, 2, 3, 4), None, computes=False),
}
_DEQUANTIZED = Slots(0, 1, 2)


def dequantizes(node: Node) -> bool:
    """Whether a node makes floats of integers."""
    return node.op == DEQUANTIZE and node.domain in ("", MICROSOFT)


def integer_weights(node: NodeProto) -> dict[str, float]:
    """The inputs of a node that would be floats in a model that is not quantized (tensors of integers, if constant),
    and how many numbers share an element of each."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    if node.op_type == DEQUANTIZE and domain in ("", MICROSOFT):
        slots = [_DEQUANTIZED]
    else:
        operator = INTEGER_OPERATORS.get((domain, node.op_type))
        slots = [s for s in (operator.weight, operator.bias) if s is not None] if operator is not None else []
    how = layout({a.name: a.i for a in node.attribute}) if (domain, node.op_type) == (MICROSOFT, NBITS) else None
    share = 1 if how is None else how.n * how.k / math.prod(how.shape)
    return {node.input[s.integers]: share for s in slots if s.integers < len(node.input)}


def packed_weight(node: Node) -> tuple[str, PackedLayout] | None:
    """The weight of a node that packs it, and how; None for others."""
    how = layout(node.attrs) if (node.domain, node.op) == (MICROSOFT, NBITS) else None
    return None if how is None or len(node.inputs) < 2 else (node.inputs[1], how)


def find(graph: Graph, fixed: Fixed, forms: Mapping[str, Form]) -> dict[str, Stored | Unwritable]:
    """All quantized constants of `graph` by name. `forms`: what becomes of them before they are used, by the output of
    DequantizeLinear; such a constant has the name of the last form."""
    found: dict[str, Stored | Unwritable] = {}
    for name, node, slots in _candidates(graph, fixed):
        why, form = _obstacle(graph, fixed, node, slots), forms.get(name)
        found[name if form is None else form.tensors[-1]] = (
            Unwritable(why, node.label) if why else _formed(_described(graph, fixed, name, node, slots), form, node)
        )
    for one in list(_biases(graph, fixed)):
        _settle(graph, fixed, found, one)
    return found


def unpacked(node: Node, read: Callable[[str], Array]) -> Array:
    """What a DequantizeLinear node makes of constants, in any of its forms. Raises ModelError for a scale or a zero
    point of another length than the axis."""
    values, scale = (read(name) for name in node.inputs[:2])
    zero = read(node.inputs[2]).astype(np.float64) if _given(node, 2) else np.zeros(1)
    try:
        shift, step = (_spread(numbers, node, values.shape) for numbers in (zero, scale.astype(np.float64)))
        found = np.asarray(((values.astype(np.float64) - shift) * step).astype(scale.dtype))
    except (ValueError, IndexError, ZeroDivisionError):
        found = None
    if found is None or found.shape != values.shape:
        raise ModelError(
            f"'{node.label}' has scales of shape {list(scale.shape)} or zero points that do not fit its weight of "
            f"shape {list(values.shape)}: export the model again"
        )
    return found


def _spread(numbers: Array, node: Node, shape: tuple[int, ...]) -> Array:
    """Scales or zero points in a shape that broadcasts against that of the values."""
    axis, block = int(node.attrs.get("axis", 1)), int(node.attrs.get("block_size", 0))
    if numbers.size == 1:
        return numbers.reshape(())
    axis %= len(shape)
    if block:
        return np.take(np.repeat(numbers, block, axis), np.arange(shape[axis]), axis)
    return numbers.reshape([-1 if i == axis else 1 for i in range(len(shape))])


def _candidates(graph: Graph, fixed: Fixed) -> Iterator[tuple[str, Node, Slots]]:
    """(name, node, slots) of every quantized constant but the biases of operators that take integers."""
    for node in graph.nodes:
        if dequantizes(node) and node.outputs[0] in fixed:
            yield node.outputs[0], node, _DEQUANTIZED
        slots = INTEGER_OPERATORS[node.domain, node.op].weight if (node.domain, node.op) in INTEGER_OPERATORS else None
        if slots is not None and _given(node, slots.integers) in fixed:
            yield node.inputs[slots.integers], node, slots


def _given(node: Node, slot: int | None) -> str:
    return node.inputs[slot] if slot is not None and slot < len(node.inputs) else ""


def _obstacle(graph: Graph, fixed: Fixed, node: Node, slots: Slots) -> str:
    """Why this constant cannot be written back; '' if it can."""
    integers, scale, zero = (_given(node, slot) for slot in (slots.integers, slots.scale, slots.zero))
    groups = _given(node, slots.groups)
    if slots.scale == BEHIND:
        behind = scale_behind(graph, fixed, node)
        scale = held(graph, behind) if behind is not None else ""
        if scale and fixed.stored_array(scale).size > 1 and len(graph.consumers.get(scale, ())) > 1:
            return f"{node.op} has a scale that others use"
    if not scale:
        return f"{node.op} holds integer weights, but not their scale"
    if scale not in fixed or (zero and zero not in fixed) or (groups and groups not in fixed):
        return f"{node.op} has a scale computed at run time"
    consumers, captured = graph.consumers.get(integers, ()), {name for n in graph.nodes for name in n.captures}
    if len(consumers) > 1 or integers in graph.outputs or integers in captured:
        return "integer weights that several nodes share"
    values, scales = fixed.stored_array(integers), fixed.stored_array(scale).astype(np.float64)
    if node.op == NBITS:
        return _misfit(node, values, scales, *(fixed.stored_array(n) if n else None for n in (zero, groups)))
    kind = _kind(values)
    if not kind.lstrip("U").startswith("INT"):
        return f"{node.op} holds weights of type {kind.lower()}"
    if node.attrs.get("block_size", 0):
        return _misfit_of_blocks(node, values, scales, fixed.stored_array(zero) if zero else None)
    if not (np.isfinite(scales) & (scales > 0)).all():
        return f"{node.op} has a scale that is not positive"
    axis = _axis(node, values.ndim, scales.size)
    if (scales.ndim > 1 and slots.scale != BEHIND) or (axis is not None and scales.size != values.shape[axis]):
        return f"{node.op} has scales along several axes"
    return ""


def _misfit(node: Node, values: Array, scales: Array, zeros: Array | None, groups: Array | None) -> str:
    """What is wrong with the parts of a MatMulNBits weight; '' if nothing is."""
    how = layout(node.attrs)
    if how is None:
        return f"{node.op} packs its weights in an unknown format"
    if values.dtype != np.uint8 or values.shape != how.shape:
        return f"{node.op} has weights that are not N x K numbers"
    if scales.size != how.n * how.blocks or not np.isfinite(scales).all():
        return f"{node.op} has scales that do not match its blocks"
    packed = zeros is not None and zeros.dtype == np.uint8
    if zeros is not None and zeros.size != how.n * (how.zeros_width if packed else how.blocks):
        return f"{node.op} has zero points that do not match its blocks"
    if groups is not None and (
        groups.size not in (how.k, how.blocks * how.block)
        or not np.array_equal(np.unique(groups[: how.k]), np.arange(how.blocks))
    ):
        return f"{node.op} has a g_idx that does not match its blocks"
    if groups is not None and packed:  # onnxruntime 1.31 does not compute what its documentation says
        return f"{node.op} has packed zero points and a g_idx"
    return ""


def _misfit_of_blocks(node: Node, values: Array, scales: Array, zeros: Array | None) -> str:
    """What is wrong with the scales of a DequantizeLinear with blocks; '' if nothing is."""
    axis, block = int(node.attrs.get("axis", 1)), int(node.attrs["block_size"])
    if not -values.ndim <= axis < values.ndim or block < 1 or not np.isfinite(scales).all():
        return f"{node.op} has scales that do not match its blocks"
    shape = list(values.shape)
    shape[axis] = -(-shape[axis] // block)
    if list(scales.shape) != shape or (zeros is not None and zeros.shape != scales.shape):
        return f"{node.op} has scales that do not match its blocks"
    return ""


def _described(graph: Graph, fixed: Fixed, name: str, node: Node, slots: Slots) -> Stored:
    assert slots.scale is not None
    how = layout(node.attrs) if node.op == NBITS else None
    if how is not None:
        high = 2**how.bits - 1
        return Stored(name, node.outputs[0], slots, 1, 0, high, how.bits, block=how.block, layout=how)
    behind = scale_behind(graph, fixed, node) if slots.scale == BEHIND else None
    scale = node.inputs[slots.scale] if behind is None else held(graph, behind)
    values, scales = (fixed.stored_array(part) for part in (node.inputs[slots.integers], scale))
    low, high, bits = _range(values)
    block = int(node.attrs.get("block_size", 0))
    axis = int(node.attrs.get("axis", 1)) % values.ndim if block else _axis(node, values.ndim, scales.size)
    return Stored(name, node.outputs[0], slots, axis, low, high, bits, block=block, behind=behind)


def _formed(one: Stored, form: Form | None, node: Node) -> Stored | Unwritable:
    """A constant as its last form, where it has others than that of its `node`."""
    if form is None or len(form.tensors) < 2:
        return one
    axis = form.axis(one.axis)
    if one.block and axis is None:
        return Unwritable(f"{node.op} has blocks along an axis that is left out", node.label)
    return replace(one, name=form.tensors[-1], axis=axis, form=form)


def _axis(node: Node, rank: int, scales: int) -> int | None:
    """The axis that a node's scales of its weight run along."""
    if scales == 1:
        return None
    if node.op == DEQUANTIZE:
        return int(node.attrs.get("axis", 1)) % rank
    if node.op in ("QLinearConv", "ConvInteger") or node.attrs.get("transB", 0):
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
    """A constant that `node` adds to the product of a quantized input (of that scale; 0 if it has none or several) and
    a weight. `slots`: where its integers are, None if DequantizeLinear makes it."""

    name: str
    node: Node
    weight: str
    x_scale: float
    slots: Slots | None


def _biases(graph: Graph, fixed: Fixed) -> Iterator[_Bias]:
    for node in graph.nodes:
        operator = INTEGER_OPERATORS.get((node.domain, node.op))
        if operator is not None and operator.bias is not None:
            bias, weight = _given(node, operator.bias.integers), node.inputs[operator.weight.integers]
            scale, slots = _given(node, operator.x_scale), operator.bias
        elif node.op in ("Conv", "ConvTranspose", "Gemm") and not node.domain:
            producer = graph.producer.get(node.inputs[0])
            feeds = producer is not None and dequantizes(graph.nodes[producer])
            bias, weight, slots = _given(node, 2), node.inputs[1], None
            scale = _given(graph.nodes[producer], 1) if producer is not None and feeds else ""
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
        if not isinstance(made, Stored) or not isinstance(weight, Stored):
            return
        if not _follows(graph, fixed, bias, (made, weight)):
            return
        own = replace(made, factor=Factor(bias.x_scale, bias.weight))
    if isinstance(own, Stored) and len(graph.consumers[bias.name]) > 1:
        own = Unwritable("a quantized bias that several nodes share", bias.node.label)
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


def _follows(graph: Graph, fixed: Fixed, bias: _Bias, stored: tuple[Stored, Stored]) -> bool:
    """Whether the scale of a bias, as DequantizeLinear has it, is the input's times the weight's (`stored`: both)."""
    dequantizers, (_, weight) = [graph.nodes[graph.producer[one.owner]] for one in stored], stored
    own, of_weight = (fixed.stored_array(node.inputs[1]).astype(np.float64).ravel() for node in dequantizers)
    if weight.block or own.size < of_weight.size or (weight.axis is not None and own.size != of_weight.size):
        return False
    return bool(np.allclose(own, bias.x_scale * of_weight, rtol=_SAME, atol=0.0))
