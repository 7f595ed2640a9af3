"""Two tensors become one: sums, products, Concat."""

from __future__ import annotations

from ..builder import Builder, Numbers, Tensor
from .kinds import any_tensor, image


def residual(g: Builder, n: Numbers) -> None:
    """A sum with another tensor of the same shape."""
    x = g.take(n, any_tensor)
    other = g.take(n, lambda t: t != x and (t.shape, t.channel) == (x.shape, x.channel))
    g.put(g.op(n.pick(("Add", "Sub", "Sum", "Max")), x, other), x.channel)


def projected_residual(g: Builder, n: Numbers) -> None:
    """A sum with another image of the same size, brought to the same width by a convolution."""
    x = g.take(n, image)
    other = g.take(n, lambda t: image(t) and t.spatial == x.spatial and t != x)
    shortcut = g.op("Conv", other, g.weight(x.channels, other.channels, 1, 1), g.bias(x.channels))
    g.put(g.op("Add", shortcut, x))


def padded_residual(g: Builder, n: Numbers) -> None:
    """A sum with a narrower image, filled up with zeros behind its channels, or on both sides (CIFAR ResNets)."""
    x = g.take(n, image)
    other = g.take(n, lambda t: image(t) and t.spatial == x.spatial and t.channels < x.channels)
    missing = x.channels - other.channels
    before = missing // 2 if n.flag() else 0
    filled = g.op("Pad", other, g.constant([0, before, 0, 0, 0, missing - before, 0, 0]))
    g.put(g.op("Add", x, filled))


def gate(g: Builder, n: Numbers) -> None:
    """A product with the sigmoid of another tensor, or of the same."""
    x = g.take(n, any_tensor)
    other = g.take(n, lambda t: (t.shape, t.channel) == (x.shape, x.channel))
    g.put(g.op("Mul", x, g.op("Sigmoid", other)), x.channel)


def gate_of_fewer(g: Builder, n: Numbers) -> None:
    """A product with a tensor that is spread over places (the end of squeeze and excite)."""
    x = g.take(n, image)
    other = g.take(n, lambda t: t.shape == (*x.shape[:2], 1, 1) and t != x)
    g.put(g.op("Mul", x, other))


def concat(g: Builder, n: Numbers) -> None:
    """Channels of two tensors, one after the other."""
    x = g.take(n, any_tensor)

    def fits(other: Tensor) -> bool:
        return other.channel == x.channel and other.rank == x.rank and other.spatial == x.spatial

    other, again = g.take(n, fits), n.flag()
    axis = x.channel - x.rank if n.flag() else x.channel
    g.put(g.op("Concat", x, other, *([x] if again else []), axis=axis), x.channel)


def concat_with_negative(g: Builder, n: Numbers) -> None:
    """Every channel and its opposite (CReLU)."""
    x = g.take(n, any_tensor)
    g.put(g.op("Relu", g.op("Concat", x, g.op("Neg", x), axis=x.channel)), x.channel)


def concat_places(g: Builder, n: Numbers) -> None:
    """Channels stay, places become more."""
    x = g.take(n, lambda t: t.rank > 2)
    axis = n.pick([axis for axis in range(1, x.rank) if axis != x.channel])
    other = g.take(
        n,
        lambda t: t.channel == x.channel and t.rank == x.rank
        and all(a == b for k, (a, b) in enumerate(zip(t.shape, x.shape, strict=True)) if k != axis),
    )  # fmt: skip
    g.put(g.op("Concat", x, other, axis=axis), x.channel)


STEPS = (
    residual, projected_residual, padded_residual, gate, gate_of_fewer, concat, concat_with_negative, concat_places,
)  # fmt: skip
