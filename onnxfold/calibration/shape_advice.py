"""What to do with an array whose shape a model does not take."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import permutations

from ..runtime.batching import fixed
from ..runtime.session import InputSpec

_MOST_AXES = 5  # of arrays whose orders of axes are tried


def fits(shape: Sequence[int], spec: InputSpec, batched: bool) -> bool:
    """Whether an input takes this shape; `batched`: axis 0 holds samples, so any number of them will do."""
    return len(shape) == len(spec.shape) and all(
        not fixed(d) or n == d or (batched and axis == 0)
        for axis, (n, d) in enumerate(zip(shape, spec.shape, strict=True))
    )


def advice(shape: Sequence[int], spec: InputSpec, batched: bool, declared: InputSpec) -> str:
    """How an array of a `shape` that an input does not take can be made to fit, in words behind what is wrong; '' where
    nobody knows.

    Args:
        spec: the input, its open lengths as the user gave them.
        batched: whether axis 0 of the input holds samples.
        declared: the input as the model has it.

    Another order of the axes comes before another shape, which would mix up the values of such an array.
    """
    if fits(shape, declared, batched):
        return f": the model takes it too, so pass `input_shapes={{{spec.name!r}: {tuple(shape)}}}`"
    for axes in _orders(len(shape), len(spec.shape), batched):
        if fits(_moved(shape, axes, len(spec.shape)), spec, batched):
            return f": {_known(axes)}give array.transpose{axes}"
    return _reshaped(shape, spec) if batched else ""


def _orders(has: int, takes: int, batched: bool) -> Iterator[tuple[int, ...]]:
    """Orders of axes, the most likely first: samples stay in front. An array may lack the axis of samples."""
    if has == takes - 1 and batched:
        yield from list(permutations(range(has)))[1:] if has < _MOST_AXES else ()
    elif has == takes <= _MOST_AXES:
        yield from ((0, *rest) for rest in list(permutations(range(1, has)))[1:])


def _moved(shape: Sequence[int], axes: Sequence[int], takes: int) -> list[int]:
    """The shape with its axes in this order, and with one sample in front where it lacks that axis."""
    return [*([1] if len(shape) < takes else []), *(shape[axis] for axis in axes)]


def _known(axes: tuple[int, ...]) -> str:
    """What people call the order of axes that images have, and the one that is wanted; '' for others."""
    names = {
        (0, 3, 1, 2): ("NHWC", "NCHW"), (0, 2, 3, 1): ("NCHW", "NHWC"), (2, 0, 1): ("HWC", "CHW"),
        (1, 2, 0): ("CHW", "HWC"),
    }  # fmt: skip
    has, takes = names.get(axes, ("", ""))
    one = "it is" if len(axes) == 3 else "they are"
    return f"{one} {has} and the model takes {takes}: " if has else ""


def _reshaped(shape: Sequence[int], spec: InputSpec) -> str:
    """That the same values would do in another shape, where their number is right."""
    inner = [d for d in spec.shape[1:] if isinstance(d, int) and fixed(d)]
    if len(inner) < len(spec.shape) - 1 or not shape:
        return ""
    each = math.prod(inner)
    if math.prod(shape[1:]) == each:
        return f": its samples have as many values, so give array.reshape{(-1, *inner)}"
    if math.prod(shape) == each:
        return f": it has the values of one sample, so give array.reshape{(1, *inner)}"
    return ""
