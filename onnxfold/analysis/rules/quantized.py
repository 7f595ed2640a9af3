"""Operators on quantized numbers: to and from them, and those that take them with a scale and zero point beside.

Scales and zero points of weights are no axes of their own here: they are stored with the weight, and written with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .conv import convolution
from .facts import At, Count, Fact, Refuse, Tie
from .linear import general, product
from .node_view import NodeView, TensorView
from .pointwise import same_axes
from .table import Rule

MICROSOFT = "com.microsoft"


def rescale(n: NodeView) -> Iterator[Fact]:
    """Every element alone; scales and zero points for each position of an axis belong to that."""
    x, y = n.x(), n.y()
    if n.attr("block_size", 0):
        yield Refuse("has block-wise scales")
        return
    yield from same_axes(x, y)
    for i in (1, 2):
        if n.has(i) and n.x(i).rank == 1 and n.x(i).size(0) != 1 and x.rank:
            yield Tie(n.x(i).axis(0), y.axis(n.attr("axis", 1)))


def dynamic(n: NodeView) -> Iterator[Fact]:
    """One scale from the least and the largest number of all: channels pass, however many there are."""
    yield from same_axes(n.x(), n.y())


def _several(n: NodeView, numbers: Sequence[int]) -> bool:
    """Whether one of these inputs, scales and zero points of activations, has more than one number."""
    return any(n.has(i) and any(d != 1 for d in n.x(i).shape) for i in numbers)


def qlinear_conv(n: NodeView) -> Iterator[Fact]:
    """Inputs x, w, bias are numbers 0, 3, 8."""
    if n.attr("channels_last", 0):
        yield Refuse("has its channels last")
        return
    if _several(n, (1, 2, 6, 7)):
        yield Refuse("has several scales for its activations")
        return
    yield from convolution(n, n.x(0), n.x(3), n.x(8) if n.has(8) else None)


def qlinear_matmul(n: NodeView) -> Iterator[Fact]:
    """Inputs a, b are numbers 0, 3; only b may have several scales."""
    if _several(n, (1, 2, 6, 7)) or n.x(4).rank > 1:
        yield Refuse("has several scales for its activations")
        return
    yield from product(n, n.x(0), n.x(3))


def qgemm(n: NodeView) -> Iterator[Fact]:
    """Inputs a, b, c are numbers 0, 3, 6."""
    if _several(n, (1, 2, 7, 8)):
        yield Refuse("has several scales for its activations")
        return
    yield from general(n, n.x(0), n.x(3), n.x(6) if n.has(6) else None)


def conv_integer(n: NodeView) -> Iterator[Fact]:
    """Inputs x, w are numbers 0, 1; the others are zero points."""
    yield from convolution(n, n.x(0), n.x(1), None)


def matmul_integer(n: NodeView) -> Iterator[Fact]:
    """Inputs a, b are numbers 0, 1; the others are zero points."""
    yield from product(n, n.x(0), n.x(1))


def matmul_to_float(n: NodeView) -> Iterator[Fact]:
    """Inputs a, b are numbers 0, 1; a bias of floats is the last of all."""
    bias, scales = (4, (2,)) if n.op == "DynamicQuantizeMatMul" else (6, (3,))
    if (n.op == "MatMulIntegerToFloat" and _several(n, (2, 4))) or any(n.x(i).rank > 1 for i in scales):
        yield Refuse("has several scales for its activations")
        return
    yield from product(n, n.x(0), n.x(1))
    if n.has(bias):
        yield from same_axes(n.x(bias), n.y())


def matmul_nbits(n: NodeView) -> Iterator[Fact]:
    """Inputs a, b, bias are numbers 0, 1, 5; b is [N, K] as the analysis sees it, whatever bytes it is packed in."""
    a, b, y, bias = n.x(0), n.x(1), n.y(), n.x(5) if n.has(5) else None
    sizes = n.attr("N"), n.attr("K")
    if not b.constant or b.shape != sizes or a.rank < 1 or y.rank != a.rank:
        yield Refuse("has weights that are computed at run time or packed in an unknown format")
        return
    if a.size(-1) not in (None, b.size(1)) or y.size(-1) not in (None, b.size(0)):
        yield Refuse("has weights that do not match its input or output")
        return
    for k in range(a.rank - 1):
        yield Tie(a.axis(k), y.axis(k))
    yield Tie(b.axis(0), y.axis(-1))
    yield Tie(a.axis(-1), b.axis(1))
    yield Count(b.axis(0), At(attr="N"))
    yield Count(b.axis(1), At(attr="K"))
    if bias is not None and bias.shape == (b.size(0),):
        yield Tie(bias.axis(0), y.axis(-1))


def matmul_bnb4(n: NodeView) -> Iterator[Fact]:
    """Its weight is one row of 4-bit codes of no even steps, in blocks that run over ends of rows: what is merged would
    not be itself again when it is coded anew."""
    yield Refuse("has a weight of 4-bit codes that cannot be merged exactly (store it as floats, or for MatMulNBits)")


def qlinear_unary(n: NodeView) -> Iterator[Fact]:
    """Every element of input 0 alone; the others are its scale and zero point and the output's."""
    yield from same_axes(n.x(), n.y())


def qlinear_binary(n: NodeView) -> Iterator[Fact]:
    """Inputs 0 and 3, broadcast against each other."""
    for i in (0, 3):
        yield from same_axes(n.x(i), n.y())


def qlinear_pool(n: NodeView) -> Iterator[Fact]:
    """Axes 0 and 1 pass, positions are mixed."""
    if n.attr("channels_last", 0):
        yield Refuse("has its channels last")
        return
    for axis in (0, 1):
        yield Tie(n.x().axis(axis), n.y().axis(axis))


def qlinear_concat(n: NodeView) -> Iterator[Fact]:
    """The output's scale and zero point, then every input with its own, one after the other along `axis`."""
    y = n.y()
    axis, start = n.attr("axis") % y.rank, 0
    parts: list[TensorView] = [n.x(i) for i in range(2, len(n.inputs), 3)]
    for x in parts:
        yield from (Tie(x.axis(k), y.axis(k)) for k in range(y.rank) if k != axis)
        size = x.size(axis)
        if size is None or y.size(axis) is None:
            return  # where the parts lie is open: this axis is kept
        yield Tie(x.axis(axis), y.axis(axis)[start : start + size])
        start += size


RULES = (
    Rule(rescale, ("QuantizeLinear", "DequantizeLinear")),
    Rule(rescale, ("QuantizeLinear", "DequantizeLinear"), domain=MICROSOFT),
    Rule(dynamic, ("DynamicQuantizeLinear",)),
    Rule(qlinear_conv, ("QLinearConv",)),
    Rule(qlinear_matmul, ("QLinearMatMul",)),
    Rule(conv_integer, ("ConvInteger",)),
    Rule(matmul_integer, ("MatMulInteger",)),
    Rule(qgemm, ("QGemm",), domain=MICROSOFT),
    Rule(matmul_to_float, ("DynamicQuantizeMatMul", "MatMulIntegerToFloat"), domain=MICROSOFT),
    Rule(matmul_nbits, ("MatMulNBits",), domain=MICROSOFT),
    Rule(matmul_bnb4, ("MatMulBnb4",), domain=MICROSOFT),
    Rule(qlinear_unary, ("QLinearSigmoid", "QLinearLeakyRelu"), domain=MICROSOFT),
    Rule(qlinear_binary, ("QLinearAdd", "QLinearMul"), domain=MICROSOFT),
    Rule(qlinear_pool, ("QLinearAveragePool", "QLinearGlobalAveragePool"), domain=MICROSOFT),
    Rule(qlinear_concat, ("QLinearConcat",), domain=MICROSOFT),
)
