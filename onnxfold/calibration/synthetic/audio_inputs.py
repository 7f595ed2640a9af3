"""Which models listen: those whose only input is the samples of a sound, or a spectrogram.

No file says so. What does is the shape of the input, what reads it first, and its name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...model.graph import Graph, Node
from ...model.model import Model
from ...runtime.probe_inputs import shape_of
from ...runtime.session import InputSpec
from .sounds import RATE

_NAMED = re.compile(r"mel|spec(?!ial)|fbank|mfcc|audio|speech|sound|wav|pcm|input_values|input_features", re.IGNORECASE)
_BINS = frozenset({10, 12, 13, 20, 23, 24, 26, 32, 39, 40, 64, 80, 128})  # numbers a frame, of common front ends
_SURE = frozenset({80, 128})  # channels in which a convolution along time says enough: of Whisper, and of its kin
_SHORTEST = 400  # samples that are convolved
_FRAMED = 4000  # samples that are read frame by frame: fewer may be the rows of an image
_FRAMES = 8  # of a spectrogram at least
_ALONG = frozenset({
    "Add", "Cast", "Concat", "Div", "Expand", "Flatten", "Gather", "Identity", "Mul", "Pad", "Reshape", "Slice",
    "Split", "Squeeze", "Sub", "Transpose", "Unsqueeze",
})  # fmt: skip


@dataclass(frozen=True)
class AudioInput:
    """An input of sounds, of this `shape`: samples along `time`, or frames along `time` of numbers along `bins`."""

    name: str
    shape: tuple[int, ...]
    time: int
    bins: int | None = None


def audio_input(
    model: Model, specs: Sequence[InputSpec], count: int, shapes: Mapping[str, Sequence[int]]
) -> AudioInput | None:
    """The only input of `model`, with `count` samples, where that takes sounds; None for another model.

    An open number of samples of sound becomes a second. Raises RequestError for a shape of gigabytes.
    """
    if len(specs) != 1 or not specs[0].shape or specs[0].dtype is None or np.dtype(specs[0].dtype).kind != "f":
        return None
    (spec,) = specs
    shape = (count, *shape_of(spec, 1, shapes.get(spec.name))[1:])
    free = [spec.name not in shapes and not isinstance(n, int) for n in spec.shape]
    named = _NAMED.search(spec.name) is not None
    return _samples(model.graph, spec.name, shape, free, named) or _spectrogram(model.graph, spec.name, shape, named)


def _samples(graph: Graph, name: str, shape: tuple[int, ...], free: Sequence[bool], named: bool) -> AudioInput | None:
    """One long axis, which something reads in pieces."""
    long = [a for a, n in enumerate(shape) if a and (n > 1 or free[a])]
    if len(long) != 1 or len(shape) > 4:
        return None
    (time,) = long
    length = max(RATE, shape[time]) if free[time] else shape[time]
    if length < _SHORTEST:
        return None
    readers = _readers(graph, name, length)
    if not readers or (length < _FRAMED and not named and "wave" not in readers):
        return None
    return AudioInput(name, (*shape[:time], length, *shape[time + 1 :]), time)


def _readers(graph: Graph, name: str, length: int) -> set[str]:
    """How the numbers of input `name` are read first, in pieces shorter than `length`: as a "wave" by what moves along
    it, or as "frames" by a product for each."""
    reached, found = {name}, set[str]()
    for node in graph.nodes:
        if not reached.intersection(node.inputs):
            continue
        if node.op in _ALONG:
            reached.update(node.outputs)
        elif kind := _reading(graph, node, length):
            found.add(kind)
    return found


def _reading(graph: Graph, node: Node, length: int) -> str:
    if node.op == "STFT":
        return "wave"
    shape = graph.tensor(node.inputs[1]).shape if len(node.inputs) > 1 else None
    sizes = [n for n in shape or () if isinstance(n, int)]
    if node.op == "MatMul" and len(sizes) == 2:
        return "frames" if 1 < sizes[0] < length else ""
    if node.op != "Conv" or len(sizes) < 3 or sum(n > 1 for n in sizes[2:]) > 1:  # an image is read along both axes
        return ""
    if not 1 < math.prod(sizes[1:]) < length:
        return ""
    return "wave" if sizes[1] == 1 else "frames"


def _spectrogram(graph: Graph, name: str, shape: tuple[int, ...], named: bool) -> AudioInput | None:
    """One channel (or none) of frames; which axis is time, the usual numbers of bins tell."""
    sides = [a for a, n in enumerate(shape) if a and n > 1]
    if len(sides) != 2 or len(shape) not in (3, 4):
        return None
    first, second = sides
    if len(shape) == 4 and shape[1] > 1 and shape[3] > 1:  # an axis of one between them: neither layout has it there
        return None
    late = shape[second] in _BINS and shape[first] >= _FRAMES and (shape[first] > shape[second] or named)
    early = shape[first] in _BINS and shape[second] >= _FRAMES and (shape[second] > shape[first] or named)
    if len(shape) == 3:
        early &= named or (shape[first] in _SURE and _convolved(graph, name, shape[first]))
        late &= named
    elif not named:
        late &= not _gives_images(graph, shape)
        early &= all(len(graph.tensor(out).shape or ()) == 2 for out in graph.outputs)  # no characters along a line
    if late and not early:
        return AudioInput(name, shape, first, second)
    return AudioInput(name, shape, second, first) if early else None


def _gives_images(graph: Graph, shape: Sequence[int]) -> bool:
    """Whether an output is about as large as the input along both axes, or may be."""
    rows, columns = (n for n in shape[1:] if n > 1)
    for name in graph.outputs:
        out = graph.tensor(name).shape or ()
        sides = sorted((n if isinstance(n, int) else rows for n in out[1:]), reverse=True)
        if len(out) == 4 and sides[0] * 2 >= rows and sides[1] * 2 >= columns:
            return True
    return False


def _convolved(graph: Graph, name: str, channels: int) -> bool:
    """Whether a convolution along one axis reads input `name`, with so many `channels`."""
    for node in graph.nodes:
        if node.op == "Conv" and node.inputs[0] == name:
            weight = graph.tensor(node.inputs[1]).shape or ()
            return len(weight) == 3 and weight[1] == channels
    return False
