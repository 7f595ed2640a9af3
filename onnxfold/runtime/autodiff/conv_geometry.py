"""Where the windows of a convolution lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnx import NodeProto

from ...model.conv_windows import windows
from .parts import attributes


@dataclass(frozen=True)
class Geometry:
    """Shapes (input, output, weight [M, C/group, *k]) and attributes of a Conv node; `before`: pads of each axis."""

    into: Sequence[int]
    out: Sequence[int]
    shape: Sequence[int]
    group: int
    strides: Sequence[int]
    dilations: Sequence[int]
    before: Sequence[int]

    @classmethod
    def of(cls, node: NodeProto, into: Sequence[int], out: Sequence[int], shape: Sequence[int]) -> Geometry:
        attrs = attributes(node)
        found = windows(shape[2:], attrs)
        before = [b for b, _ in found.padding(into[2:], out[2:])]
        return cls(into, out, shape, int(attrs.get("group", 1)), found.strides, found.dilations, before)

    @property
    def last(self) -> list[int]:
        """Where the last window begins, along each space axis, pads before counted."""
        return [(n - 1) * s for n, s in zip(self.out[2:], self.strides, strict=True)]

    @property
    def reach(self) -> list[int]:
        """How far the last element of a window is from its first, along each space axis."""
        return [(k - 1) * d for k, d in zip(self.shape[2:], self.dilations, strict=True)]

    @property
    def after(self) -> list[int]:
        """Pads behind each axis that the last window ends with; negative where it leaves something out."""
        ends = zip(self.last, self.reach, self.into[2:], self.before, strict=True)
        return [start + reach + 1 - n - b for start, reach, n, b in ends]

    @property
    def depthwise(self) -> bool:
        """Whether every channel has a kernel of its own, and one only."""
        return self.shape[1] == 1 and self.shape[0] == self.group
