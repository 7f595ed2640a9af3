"""What a rule sees of one node: its attributes, its known integers, and the axes of its tensors. Read-only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...model.dimensions import Dim, Multiple, period
from ...model.shapes.values import Value
from .facts import At, Axis

__all__ = ["NodeView", "TensorView", "Value"]  # Value: a number that the model computes, for rules


@dataclass(frozen=True)
class TensorView:
    """One tensor of a node. Axes count from 0, negative ones from the end."""

    name: str
    shape: tuple[Dim, ...]
    constant: bool
    floating: bool
    _slot: Callable[[str, int, int], Axis] = field(repr=False, compare=False)

    @property
    def rank(self) -> int:
        return len(self.shape)

    def axis(self, axis: int) -> Axis:
        """All positions along `axis`; where its length is a `Multiple` of an open one, those that repeat."""
        return self._slot(self.name, axis % self.rank, 1)

    def length(self, axis: int) -> Axis:
        """As many positions as the axis is long: those of the first direction where both are seen apart."""
        whole, size = self.axis(axis), self.size(axis)
        return whole if size is None else whole[:size]

    def axes(self) -> list[Axis]:
        """All axes in order."""
        return [self.axis(i) for i in range(self.rank)]

    def blocked(self, axis: int, blocks: int) -> Axis:
        """``blocks * length`` positions: `axis` seen apart by each of `blocks` equal parts of axis 0.

        A grouped Conv's weight [M, C/g, ...] reads C channels: rows of part i read channels i*C/g to (i+1)*C/g.
        """
        return self._slot(self.name, axis % self.rank, blocks)

    def spread(self) -> tuple[list[Dim], list[int | None]]:
        """The dimensions, a `Multiple` as the two that it holds, and the axis whose positions each has."""
        dims, axes = list[Dim](), list[int | None]()
        for axis, dim in enumerate(self.shape):
            if isinstance(dim, Multiple):
                dims += [dim.symbol, dim.times]
                axes += [None, axis]
            else:
                dims.append(dim)
                axes.append(axis)
        return dims, axes

    def repeating(self, axis: int) -> int:
        """How many positions come again and again along an axis that is a multiple of an open one; 0 for others."""
        return period(self.shape[axis]) or 0

    def size(self, axis: int) -> int | None:
        """The length along `axis`; None where it is not fixed."""
        n = self.shape[axis]
        return n if isinstance(n, int) else None


@dataclass(frozen=True)
class NodeView:
    """One node. `inputs` and `outputs` hold None for absent ones. `lengths_only`: nothing reads the values of output 0,
    only how long its axes are."""

    op: str
    label: str
    version: int
    inputs: tuple[TensorView | None, ...]
    outputs: tuple[TensorView | None, ...]
    attrs: Mapping[str, Any]
    _values: Callable[[str], list[Value] | None] = field(repr=False, compare=False)
    lengths_only: bool = False

    def x(self, i: int = 0) -> TensorView:
        """Input `i`, which must be there."""
        tensor = self.inputs[i]
        assert tensor is not None, f"{self.label} has no input {i}"
        return tensor

    def y(self, i: int = 0) -> TensorView:
        """Output `i`, which must be there."""
        tensor = self.outputs[i]
        assert tensor is not None, f"{self.label} has no output {i}"
        return tensor

    def has(self, i: int) -> bool:
        """Whether input `i` is given."""
        return i < len(self.inputs) and self.inputs[i] is not None

    def attr(self, name: str, default: Any = None) -> Any:
        """Attribute `name`, or `default`."""
        return self.attrs.get(name, default)

    def values(self, attr: str, i: int) -> list[Value] | None:
        """Integers given as attribute `attr` in old opsets and as input `i` in new ones; None if absent or unknown."""
        if attr in self.attrs:
            raw = self.attrs[attr]
            return [Value(int(v)) for v in (raw if isinstance(raw, (list, tuple)) else [raw])]
        return self._values(self.x(i).name) if self.has(i) else None

    def ints(self, attr: str, i: int) -> list[int] | None:
        """Like `values`, as plain integers; None if any is not known."""
        values = self.values(attr, i)
        if values is None or any(v.number is None for v in values):
            return None
        return [v.number for v in values if v.number is not None]

    def at(self, attr: str, i: int, index: int) -> At:
        """The place that `values(attr, i)[index]` came from."""
        return At(attr=attr, index=index) if attr in self.attrs else At(input=i, index=index)
