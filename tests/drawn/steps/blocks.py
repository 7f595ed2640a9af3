"""Blocks that networks are made of: squeeze and excite, MLPs, attention, bottlenecks."""

from __future__ import annotations

from ..builder import Builder, Numbers, Tensor, UnfitError
from .kinds import image, last, long
from .pointwise import activation
from .reshape import length


def squeeze_excite(g: Builder, n: Numbers) -> None:
    """Channels weighed by what they are on average; with convolutions or with linear layers."""
    x, linear, hidden = g.take(n, image), n.flag(), n.pick((4, 6))
    c = x.channels
    if linear:
        mean = g.axes("ReduceMean", x, [2, 3], 18, keepdims=0)
        inner = g.op("Relu", g.op("Gemm", mean, g.weight(hidden, c), g.bias(hidden), transB=1))
        flat = g.op("Sigmoid", g.op("Gemm", inner, g.weight(c, hidden), g.bias(c), transB=1))
        scale = g.axes("Unsqueeze", flat, [2, 3], 13)
    else:
        inner = g.op("Relu", g.op("Conv", g.op("GlobalAveragePool", x), g.weight(hidden, c, 1, 1), g.bias(hidden)))
        scale = g.op("HardSigmoid", g.op("Conv", inner, g.weight(c, hidden, 1, 1), g.bias(c)))
    g.put(g.op("Mul", x, scale))


def mlp(g: Builder, n: Numbers) -> None:
    """Two linear layers with an activation between them, around a residual sum."""
    x, hidden, skip = g.take(n, last), n.width(), n.flag()
    y = g.op("Add", g.op("MatMul", x, g.weight(x.channels, hidden, reads=x.channels)), g.bias(hidden))
    before = len(g.pool)
    g.put(y, x.rank - 1)
    activation(g, Numbers([0, n.below(5)]))
    y = g.pool[-1].name
    del g.pool[before:]
    y = g.op("Add", g.op("MatMul", y, g.weight(hidden, x.channels, reads=hidden)), g.bias(x.channels))
    g.put(g.op("Add", x, y) if skip else y, x.rank - 1)


def gated_mlp(g: Builder, n: Numbers) -> None:
    """Gate, up and down, as in LLaMA; gate and up as one weight or two."""
    x, hidden, joined = g.take(n, last), n.width(), n.flag()
    if joined:
        both = g.op("MatMul", x, g.weight(x.channels, 2 * hidden, reads=x.channels))
        count = {"num_outputs": 2} if g.opset >= 18 else {}
        gate, up = g.ops("Split", both, outputs=2, axis=-1, **count)
    else:
        gate, up = (g.op("MatMul", x, g.weight(x.channels, hidden, reads=x.channels)) for _ in range(2))
    inner = g.op("Mul", g.op("Mul", gate, g.op("Sigmoid", gate)), up)
    g.put(g.op("MatMul", inner, g.weight(hidden, x.channels, reads=hidden)), x.rank - 1)


def attention(g: Builder, n: Numbers) -> None:
    """Self-attention of one head or two, keys narrower than values or not, lengths computed or written out."""
    x = g.take(n, lambda t: long(t) and t.rank == 3 and t.shape[1] > 1)
    heads, wide, computed = n.pick((1, 2)), n.pick((4, 3)), n.flag()
    q, k, v = (g.op("MatMul", x, g.weight(x.channels, heads * wide, reads=x.channels)) for _ in range(3))
    if heads > 1:
        q, k, v = (_apart(g, x, one, heads, wide, computed) for one in (q, k, v))
    turned = g.op("Transpose", k, perm=[0, 1, 3, 2] if heads > 1 else [0, 2, 1])
    score = g.op("Softmax", g.op("Mul", g.op("MatMul", q, turned), g.constant(wide**-0.5)), axis=3 if heads > 1 else 2)
    y = g.op("MatMul", score, v)
    if heads > 1:
        y = g.op("Transpose", y, perm=[0, 2, 1, 3])
        y = g.op("Reshape", y, g.constant([0, 0, heads * wide]))
    y = g.op("MatMul", y, g.weight(heads * wide, x.channels, reads=heads * wide))
    g.put(g.op("Add", x, y), 2)


def _apart(g: Builder, x: Tensor, name: str, heads: int, wide: int, computed: bool) -> str:
    if computed:
        target = g.op("Concat", length(g, x, 0), length(g, x, 1), g.constant([heads, wide]), axis=0)
        name = g.ops("Reshape", name, target, shape=(*x.shape[:2], heads, wide))[0]
    else:
        name = g.op("Reshape", name, g.constant([0, 0, heads, wide]))
    return g.op("Transpose", name, perm=[0, 2, 1, 3])


def bottleneck(g: Builder, n: Numbers) -> None:
    """Narrow, depthwise, wide, and the sum with what went in (MobileNet, ResNet)."""
    x, hidden, normed = g.take(n, image), n.width(), n.flag()
    if min(x.spatial) < 2:
        raise UnfitError("too small")
    y = g.op("Conv", x, g.weight(hidden, x.channels, 1, 1), *([] if normed else [g.bias(hidden)]))
    y = g.op("Relu", _normed(g, y, hidden) if normed else y)
    y = g.op("Conv", y, g.weight(hidden, 1, 3, 3), group=hidden, pads=[1, 1, 1, 1])
    y = g.op("Conv", g.op("Clip", y, g.constant(0.0), g.constant(6.0)), g.weight(x.channels, hidden, 1, 1))
    g.put(g.op("Add", _normed(g, y, x.channels) if normed else y, x))


def _normed(g: Builder, x: str, width: int) -> str:
    return g.op("BatchNormalization", x, g.positive(width), g.bias(width), g.bias(width), g.positive(width))


STEPS = (squeeze_excite, mlp, gated_mlp, attention, bottleneck)
