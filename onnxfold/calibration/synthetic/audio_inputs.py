"""Which models listen: those whose only input is the samples of a sound, or a spectrogram.

No file says so. A name may ("waveform", "log_mel"); else the input has to look like sound in everything that its shape
and the first operator tell, because images, heartbeats and tables are repaired better by other inputs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...model.graph import Graph, Node
from ...model.model import Model
from ...runtime.probe_inputs import index_limits, shape_of
from ...runtime.session import InputSpec
from .sounds import RATE

_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_SOUNDS = frozenset({
    "audio", "fbank", "fbanks", "filterbank", "logmel", "mel", "mels", "melspec", "melspectrogram", "mfcc", "mfccs",
    "pcm", "sound", "spectrogram", "spectrograms", "speech", "wav", "wave", "waveform", "waveforms",
})  # fmt: skip
_SAMPLES = "input_values"  # of wav2vec 2.0 and its kin, in Hugging Face's words
_BINS = frozenset({10, 12, 13, 20, 23, 24, 26, 32, 39, 40, 64, 80, 128})  # numbers a frame, of common front ends
_UNNAMED = frozenset({32, 40, 64, 80, 128})  # those that tables and sensors seldom have
_KNOWN = frozenset({(49, 10), (96, 64)})  # frames and bins: Hello Edge (Zhang et al., 2017) and MLPerf Tiny; VGGish
_SIDE = 16  # sides of images are multiples of it, numbers of frames seldom
_WHISPER = 80  # channels of frames that are convolved along time: Whisper and its kin
_SHORTEST, _LONG, _FRAMED = 400, 8_000, 16_000  # samples: where a name says sound; convolved; read frame by frame
_FRAMES = 8  # of a spectrogram at least
_ALONG = frozenset({
    "Add", "Cast", "Clip", "Concat", "DequantizeLinear", "Div", "Expand", "Flatten", "Gather", "Identity", "Mul", "Pad",
    "QuantizeLinear", "Reshape", "Slice", "Split", "Squeeze", "Sub", "Transpose", "Unsqueeze",
})  # fmt: skip
_EITHER = frozenset({"Add", "Concat", "Div", "Mul", "Sub"})  # of these, any input may be the one that is followed


@dataclass(frozen=True)
class AudioInput:
    """An input of sounds, of this `shape`: samples along `time`, or frames along `time` of numbers along `bins`.

    `open`: the model leaves its length to us."""

    name: str
    shape: tuple[int, ...]
    time: int
    bins: int | None = None
    open: bool = False


def audio_input(
    model: Model, specs: Sequence[InputSpec], count: int, shapes: Mapping[str, Sequence[int]]
) -> AudioInput | None:
    """The only input of `model`, for a batch of `count`, where that takes sounds; None for another model.

    An open number of samples becomes a second. Raises RequestError for a shape of gigabytes.
    """
    if len(specs) != 1 or not specs[0].shape or specs[0].dtype is None or np.dtype(specs[0].dtype).kind != "f":
        return None
    (spec,) = specs
    if spec.name in index_limits(model.graph):
        return None
    shape = (count, *shape_of(spec, 1, shapes.get(spec.name))[1:])
    named = sounds_like(spec.name)
    free = [not isinstance(n, int) and spec.name not in shapes for n in spec.shape]
    return _samples(model.graph, spec.name, shape, free, named) or _spectrogram(model.graph, spec.name, shape, named)


def sounds_like(name: str) -> bool:
    """Whether an input of this name may be one of sounds."""
    return name == _SAMPLES or any(word.lower() in _SOUNDS for word in _WORD.findall(name))


def _samples(graph: Graph, name: str, shape: tuple[int, ...], free: Sequence[bool], named: bool) -> AudioInput | None:
    """One long axis, which something reads in pieces."""
    long = [a for a, n in enumerate(shape) if a and (n > 1 or free[a])]
    if len(long) != 1 or len(shape) > 4:
        return None
    (time,) = long
    length = RATE if free[time] else shape[time]
    read = _readers(graph, name, length)
    if named:
        sure = length >= _SHORTEST and bool(read)
    else:
        sure = not free[time] and (length >= _FRAMED if read == {"frames"} else length >= _LONG and "wave" in read)
    return AudioInput(name, (*shape[:time], length, *shape[time + 1 :]), time, None, free[time]) if sure else None


def _readers(graph: Graph, name: str, length: int) -> set[str]:
    """How the numbers of input `name` are read first, in pieces shorter than `length`: as a "wave" by what moves along
    it, or as "frames" by a product for each."""
    reached, found = {name}, set[str]()
    for node in _consumers(graph, reached):
        if node.op == "STFT":
            found.add("wave")
        elif node.op in ("Conv", "MatMul") and (kind := _reading(graph, node, length)):
            found.add(kind)
    return found


def _consumers(graph: Graph, reached: set[str]) -> list[Node]:
    """The nodes that read a tensor `reached`, or what is the same numbers in another shape, or on another scale."""
    found = []
    for node in graph.nodes:
        data = node.inputs if node.op in _EITHER else node.inputs[:1]
        if not reached.intersection(data):
            continue
        if node.op in _ALONG:
            reached.update(filter(None, node.outputs))
        else:
            found.append(node)
    return found


def _reading(graph: Graph, node: Node, length: int) -> str:
    source, weight = (graph.tensor(name).shape for name in node.inputs[:2])
    sizes = [n for n in weight or () if isinstance(n, int)]
    if node.op == "MatMul":
        cut = source is not None and len(source) > 2  # a product of a table would take all of its columns
        return "frames" if cut and len(sizes) == 2 and 1 < sizes[0] < length else ""
    along = [n for n in sizes[2:] if n > 1]
    if len(along) > 1 or not 1 < math.prod(sizes[1:]) < length:  # an image is read along both axes
        return ""
    if sizes[1] == 1:
        return "wave"
    return "frames" if len(sizes) == 3 else ""


def _spectrogram(graph: Graph, name: str, shape: tuple[int, ...], named: bool) -> AudioInput | None:
    """One channel (or none) of frames; which axis is time, the usual numbers of bins tell."""
    sides = [a for a, n in enumerate(shape) if a and n > 1]
    if len(sides) != 2 or len(shape) not in (3, 4) or (len(shape) == 4 and sides == [1, 3]):
        return None
    first, second = sides
    orders = [(first, second), (second, first)]  # (time, bins)
    if named:
        orders.sort(key=lambda order: shape[order[0]] < shape[order[1]])
        orders = orders[::-1] if shape[first] == shape[second] and second == len(shape) - 1 else orders
    for time, bins in orders:
        frames, width = shape[time], shape[bins]
        if frames < _FRAMES or width not in _BINS:
            continue
        if named or _looks_like_frames(graph, name, shape, time, bins):
            return AudioInput(name, shape, time, bins)
    return None


def _looks_like_frames(graph: Graph, name: str, shape: Sequence[int], time: int, bins: int) -> bool:
    """Whether an input without a telling name is a spectrogram all the same."""
    frames, width = shape[time], shape[bins]
    kernels = [
        [n for n in graph.tensor(node.inputs[1]).shape or () if isinstance(n, int)]
        for node in _consumers(graph, {name})
        if node.op == "Conv"
    ]
    if len(shape) == 3:
        return width == _WHISPER and bins == 1 and any(len(k) == 3 and k[1] == width and k[2] > 1 for k in kernels)
    if (frames, width) not in _KNOWN and (width not in _UNNAMED or frames <= width or frames % _SIDE == 0):
        return False
    outputs = [graph.tensor(out).shape or () for out in graph.outputs]
    if bins < time and any(len(out) != 2 for out in outputs):  # characters along a line of text
        return False
    if any(len(out) == 4 and sum(n != 1 for n in out[1:]) > 1 for out in outputs):  # an image, or a map of heat
        return False
    return any(len(k) == 4 and k[1] == 1 and min(k[2:]) > 1 for k in kernels)  # sensors are read one by one
