"""What exporters make of ordinary layers: weights behind Identity and Cast, layers of two directions, computed pads."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from ..builder import Builder, Numbers, UnfitError
from .kinds import any_tensor, image, last, long

END = 2**63 - 1


def tied_weight(g: Builder, n: Numbers) -> None:
    """A weight used as it is and behind Identity, or a Reshape of a Reshape."""
    x, flat = g.take(n, last), n.flag()
    c = x.channels
    w = g.weight(c, c, reads=c)
    y = g.op("Tanh", g.op("MatMul", x, w))
    again = g.op("Reshape", g.op("Reshape", w, g.constant([-1])), g.constant([c, c])) if flat else g.op("Identity", w)
    g.put(g.op("MatMul", y, again), x.rank - 1)


def half_weight(g: Builder, n: Numbers) -> None:
    """A weight stored in 16 bits, of numbers whose sums are numbers of 16 bits too."""
    x, width = g.take(n, last), n.width()
    stored = np.round(64 * g.rng.standard_normal((x.channels, width)) / np.sqrt(x.channels)) / 64
    w = g.op("Cast", g.constant(stored.astype(np.float16)), to=TensorProto.FLOAT)
    g.put(g.op("MatMul", x, w), x.rank - 1)


def two_directions(g: Builder, n: Numbers) -> None:
    """A recurrent layer whose directions are joined, or taken one by one, all outputs or the last state."""
    x, how, units = g.take(n, lambda t: long(t) and t.rank == 3), n.below(3), n.pick((4, 5))
    op, gates = n.pick((("GRU", 3), ("LSTM", 4), ("RNN", 1)))
    sizes = (gates * units, x.channels), (gates * units, units), (2 * gates * units,)
    parts = [g.weight(2, *size, reads=size[-1]) for size in sizes]
    turned = g.op("Transpose", x, perm=[1, 0, 2])
    y, state = g.ops(op, turned, *parts, outputs=2, hidden_size=units, direction="bidirectional")
    if how == 0:
        apart = g.op("Transpose", y, perm=[2, 0, 1, 3])
        g.put(g.op("Reshape", apart, g.constant([0, 0, 2 * units])), 2)
    elif how == 1:
        halves = [g.axes("Squeeze", one, [1], 13) for one in _halves(g, y, 1)]
        g.put(g.op("Transpose", g.op("Concat", *halves, axis=2), perm=[1, 0, 2]), 2)
    else:
        one, other = (g.op("Gather", state, g.constant(i), axis=0) for i in n.pick(((-2, -1), (1, 0), (0, 1))))
        g.put(g.op("Concat", one, other, axis=1))


def _halves(g: Builder, y: str, axis: int) -> list[str]:
    return g.ops("Split", y, outputs=2, axis=axis, **({"num_outputs": 2} if g.opset >= 18 else {}))


def turned_around(g: Builder, n: Numbers) -> None:
    """Channels in reverse (Flip)."""
    x = g.take(n, any_tensor)
    cut = [g.constant([v]) for v in (-1, -END, x.channel, -1)]
    g.put(g.op("Slice", x, *cut), x.channel)


def computed_pad(g: Builder, n: Numbers) -> None:
    """Rows up to a number of them, by what is computed of the shape."""
    x, wanted = g.take(n, lambda t: image(t) and t.shape[2] < 9), n.pick((9, 12))
    rows = g.op("Gather", g.op("Shape", x), g.constant([2]), axis=0)
    missing = g.op("Sub", g.constant([wanted]), rows)
    pads = g.op("Concat", g.constant([0] * 6), missing, g.constant([0]), axis=0)
    g.put(g.ops("Pad", x, pads, shape=(*x.shape[:2], wanted, x.shape[3]))[0])


def shared_keys(g: Builder, n: Numbers) -> None:
    """Attention of several query heads to keys and values of one, all made by one weight (Falcon)."""
    x, named = g.take(n, lambda t: long(t) and t.rank == 3 and t.shape[1] > 1), n.flag()
    heads, wide, t = n.pick((3, 2)), n.pick((2, 3)), x.shape[1]
    made = g.op("MatMul", x, g.weight(x.channels, (heads + 2) * wide, reads=x.channels))
    apart = g.op("Reshape", made, g.constant([0, 0, heads + 2, wide]))
    cut = (g.constant(v) for v in ([0], [-2] if named else [heads], [2]))
    queries = g.op("Transpose", g.op("Slice", apart, *cut), perm=[0, 2, 1, 3])
    places = ([-2], [-1]) if named else ([heads], [heads + 1])
    keys, values = (g.op("Gather", apart, g.constant(place), axis=2) for place in places)
    scores = g.op("MatMul", queries, g.op("Transpose", keys, perm=[0, 2, 3, 1]))
    read = g.op("MatMul", g.op("Softmax", scores, axis=3), g.op("Transpose", values, perm=[0, 2, 1, 3]))
    if g.shape(read) != (x.shape[0], heads, t, wide):
        raise UnfitError("no heads")
    g.put(g.op("Reshape", g.op("Transpose", read, perm=[0, 2, 1, 3]), g.constant([0, 0, heads * wide])), 2)


STEPS = (tied_weight, half_weight, two_directions, turned_around, computed_pad, shared_keys)
