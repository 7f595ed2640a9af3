"""Reductions and Softmax, over channels and over all else."""

from __future__ import annotations

from ..builder import Builder, Numbers, Tensor, UnfitError
from .kinds import any_tensor, first, long

REDUCTIONS = ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp")


def reduced(g: Builder, op: str, x: Tensor | str, axes: list[int], keep: int = 1) -> str:
    return g.axes(op, x, axes, 13 if op == "ReduceSum" else 18, keepdims=keep)


def reduce_places(g: Builder, n: Numbers) -> None:
    """All but batch and channels; the axes stay with length 1, or go."""
    x, op, keep = g.take(n, lambda t: t.rank > 2), n.pick(REDUCTIONS), n.flag()
    axes = [axis - x.rank if n.flag() else axis for axis in range(1, x.rank) if axis != x.channel]
    g.put(reduced(g, op, x, axes, keep), x.channel if keep else 1)


def reduce_one(g: Builder, n: Numbers) -> None:
    """One axis of places goes."""
    x, op = g.take(n, lambda t: t.rank > 3), n.pick(REDUCTIONS)
    axis = n.pick([axis for axis in range(1, x.rank) if axis != x.channel])
    g.put(reduced(g, op, x, [axis], 0), x.channel - (axis < x.channel))


def reduce_channels(g: Builder, n: Numbers) -> None:
    """A number for every place, and what the channels are to it (spatial attention)."""
    x, op = g.take(n, any_tensor), n.pick(REDUCTIONS)
    g.put(g.op("Sub", x, reduced(g, op, x, [x.channel])), x.channel)


def largest(g: Builder, n: Numbers) -> None:
    """Where along an axis the largest is, as a number."""
    x = g.take(n, lambda t: t.rank > 2)
    axis = n.pick([axis for axis in range(1, x.rank) if axis != x.channel])
    at = g.op(n.pick(("ArgMax", "ArgMin")), x, axis=axis, keepdims=1)
    g.put(g.op("Mul", g.op("Cast", at, to=1), g.constant(0.3)), x.channel)


def softmax(g: Builder, n: Numbers) -> None:
    """Over any axis but the batch, brought back to a scale that shows errors."""
    x, op = g.take(n, any_tensor), n.pick(("Softmax", "LogSoftmax"))
    axis = n.pick([*range(1, x.rank)])
    y = g.op(op, x, axis=axis - x.rank if n.flag() else axis)
    g.put(g.op("Mul", y, g.constant(float(x.shape[axis] if op == "Softmax" else 0.5))), x.channel)


def places_attention(g: Builder, n: Numbers) -> None:
    """A softmax over places weighs them (attention pooling)."""
    x = g.take(n, lambda t: (first(t) and t.rank == 3) or (long(t) and t.rank == 3))
    places = 3 - x.channel
    score = reduced(g, "ReduceMean", x, [x.channel])
    if g.opset < 13 and places == 1:
        raise UnfitError("softmax over one axis alone came with opset 13")
    y = g.op("Mul", x, g.op("Softmax", score, axis=places))
    g.put(reduced(g, "ReduceSum", y, [places], 0))


STEPS = (reduce_places, reduce_one, reduce_channels, largest, softmax, places_attention)
