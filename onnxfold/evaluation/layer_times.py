"""How long single layers take at other widths, measured: each at a few, and what lies between from these."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from ..frozen import read_only
from ..runtime.session import Feeds
from .operator_profile import by_node, profiled

LEVELS = (1.0, 0.5, 0.25)  # of a layer's channels: at these it is timed
BLOCK = 16  # channels that onnxruntime's convolutions compute at once with AVX-512 (8 without: 24 take less than 32)
_AT_ONCE = 1 << 26  # numbers in the weights and activations of layers that are loaded together
_NAMED = re.compile(r"(?:layer|y)(\d+)(?:_nchwc)?")  # onnxruntime names what it makes of a Conv after its output


@dataclass(frozen=True)
class Layer:
    """A Conv, or a MatMul or Gemm by a weight of two axes: its attributes, and the shapes of its input and weight."""

    op: str
    attributes: tuple[tuple[str, Any], ...]
    x: tuple[int, ...]
    w: tuple[int, ...]

    @property
    def groups(self) -> int:
        """Of a convolution; 1 for all else."""
        return int(dict(self.attributes).get("group", 1))

    @property
    def transposed(self) -> bool:
        """Whether the weight is [outputs, inputs, ...]."""
        return self.op == "Conv" or bool(dict(self.attributes).get("transB"))

    @property
    def outputs(self) -> int:
        """Its output channels, of all groups."""
        return self.w[0 if self.transposed else 1]

    @property
    def inputs(self) -> int:
        """The input channels that one output channel reads."""
        return self.w[1 if self.transposed else 0]

    def at(self, outputs: int, inputs: int) -> Layer:
        """The same with other widths. A convolution with groups has fewer groups where the inputs of each stay."""
        w = (outputs, inputs, *self.w[2:]) if self.transposed else (inputs, outputs)
        if self.op != "Conv":
            return replace(self, x=(*self.x[:-1], inputs), w=w)
        groups = self.groups
        if groups > 1 and inputs == self.inputs:
            groups = max(1, groups * outputs // self.outputs)
        named = tuple(sorted({**dict(self.attributes), "group": groups}.items()))
        return replace(self, attributes=named, x=(self.x[0], groups * inputs, *self.x[2:]), w=w)

    @property
    def size(self) -> int:
        """About how many numbers its weight and its activations are."""
        return math.prod(self.w) + math.prod(self.x) * (1 + self.outputs // max(1, self.inputs * self.groups))


@dataclass(frozen=True, eq=False)
class Surface:
    """Milliseconds of a layer by its widths: `times` [outputs, inputs] at the widths `outputs` and `inputs`, each
    rising. In between they are linear in each width, of whole blocks of `block` channels; below they go on as they fall
    there, but not below zero."""

    outputs: tuple[int, ...]
    inputs: tuple[int, ...]
    times: NDArray[np.float64] = field(repr=False)
    block: int = 1
    _known: dict[tuple[int, int], float] = field(default_factory=dict, repr=False, init=False)

    def __post_init__(self) -> None:
        read_only(self)

    def at(self, outputs: int, inputs: int) -> float:
        """The milliseconds at other widths. They are remembered: plans are priced a hundred thousand times."""
        point = outputs, inputs
        if point not in self._known:
            self._known[point] = self._interpolated(outputs, inputs)
        return self._known[point]

    def _interpolated(self, outputs: int, inputs: int) -> float:
        low, high, along = _between(self.outputs, _padded(outputs, self.outputs[-1], self.block))
        left, right, across = _between(self.inputs, _padded(inputs, self.inputs[-1], self.block))
        lower = self.times[low, left] * (1 - across) + self.times[low, right] * across
        upper = self.times[high, left] * (1 - across) + self.times[high, right] * across
        return max(0.0, float(lower * (1 - along) + upper * along))


def surfaces(layers: Iterable[tuple[Layer, bool, bool]], folder: Path) -> Mapping[Layer, Surface]:
    """Layers timed on the CPU at a few widths each.

    Args:
        layers: every layer, and whether its outputs and its inputs are going to change.
        folder: for profiles.

    Raises ExecutionError where onnxruntime does not run one.
    """
    grids = {one: (_widths(one.outputs, outs), _widths(one.inputs, ins)) for one, outs, ins in layers}
    points = [one.at(*point) for one, grid in grids.items() for point in product(*grid)]
    times = _times(list(dict.fromkeys(points)), folder)
    found = dict[Layer, Surface]()
    for one, (outs, ins) in grids.items():
        grid = np.array([[times[one.at(o, i)] for i in ins] for o in outs])
        rising = np.maximum.accumulate(np.maximum.accumulate(grid, axis=0), axis=1)  # less is never slower: noise
        found[one] = Surface(outs, ins, rising, BLOCK if one.op == "Conv" else 1)
    return found


def _widths(size: int, changes: bool) -> tuple[int, ...]:
    if not changes:
        return (size,)
    return tuple(sorted({_padded(math.ceil(size * level), size, BLOCK) for level in LEVELS}))


def _padded(width: int, most: int, block: int) -> int:
    """A width in whole blocks, `most` at most."""
    return min(most, -(-width // block) * block)


def _between(widths: Sequence[int], wanted: int) -> tuple[int, int, float]:
    """The numbers of two neighbors, and how far from the lower to the higher `wanted` is."""
    if len(widths) == 1:
        return 0, 0, 0.0
    high = min(max(1, int(np.searchsorted(widths, wanted))), len(widths) - 1)
    return high - 1, high, (wanted - widths[high - 1]) / (widths[high] - widths[high - 1])


def _times(layers: Sequence[Layer], folder: Path) -> Mapping[Layer, float]:
    found = dict[Layer, float]()
    for part in _parts(layers):
        proto, feeds = _side_by_side(part)
        events = by_node(profiled(proto.SerializeToString(), feeds, folder / "layers"))
        for name, taken in events.items():
            if match := _NAMED.fullmatch(name):
                found[part[int(match[1])]] = taken
    return found


def _parts(layers: Sequence[Layer]) -> Iterator[list[Layer]]:
    part, taken = list[Layer](), 0
    for one in layers:
        if part and taken + one.size > _AT_ONCE:
            yield part
            part, taken = [], 0
        part, taken = [*part, one], taken + one.size
    if part:
        yield part


def _side_by_side(layers: Sequence[Layer]) -> tuple[ModelProto, Feeds]:
    """A model of all `layers`, none of which reads another, and its inputs; those of one shape share one."""
    random = np.random.default_rng(0)
    shapes = list(dict.fromkeys(one.x for one in layers))
    feeds = {f"x{n}": random.standard_normal(shape, np.float32) for n, shape in enumerate(shapes)}
    nodes = [
        helper.make_node(
            one.op, [f"x{shapes.index(one.x)}", f"w{n}"], [f"y{n}"], name=f"layer{n}", **dict(one.attributes)
        )
        for n, one in enumerate(layers)
    ]
    weights = [
        numpy_helper.from_array(random.standard_normal(one.w, np.float32), f"w{n}") for n, one in enumerate(layers)
    ]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, x.shape) for name, x in feeds.items()]
    outputs = [helper.make_tensor_value_info(f"y{n}", TensorProto.FLOAT, None) for n in range(len(layers))]
    graph = helper.make_graph(nodes, "layers", inputs, outputs, weights)
    opsets = [helper.make_opsetid("", 13)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8), feeds
