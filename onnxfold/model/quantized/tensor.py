"""Float constants that are stored as integers: where their integers, scales and zero points are, read and written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .forms import Form
from .packing import PackedLayout, join
from .scheme import Scheme, in_blocks

Array = NDArray[Any]


BEHIND = -1  # in place of the number of an input: another node holds this part


@dataclass(frozen=True)
class Slots:
    """Which inputs of a node hold integers, their scale and zero point (None: it has no such input; BEHIND: a node that
    follows has it), and the numbers of the blocks that positions are in, where these are no neighbors."""

    integers: int
    scale: int | None = None
    zero: int | None = None
    groups: int | None = None


@dataclass(frozen=True)
class Factor:
    """The scale of a bias is `x_scale` times that of `weight`, another stored constant, as kernels want it."""

    x_scale: float
    weight: str


@dataclass(frozen=True)
class Stored:
    """One float constant that is stored as integers.

    `owner` names the first output of the node that takes them at `slots`; `axis`: that of scales, None for one scale
    for all; each is for `block` positions along it (0: for one). Integers keep to `low`..`high`, and are of `bits`,
    several in a byte by a `layout`. `factor`: for a bias whose scale follows from others. `behind`: the first output of
    the node that holds the scale, and at which input, where that is another node. `form`: what nodes behind the owner
    make of it, where there are any; then `axis` is one of that.
    """

    name: str
    owner: str
    slots: Slots
    axis: int | None
    low: int
    high: int
    bits: int
    factor: Factor | None = None
    block: int = 0
    layout: PackedLayout | None = None
    behind: tuple[str, int] | None = None
    form: Form | None = None

    def place(self, slot: int) -> tuple[str, int]:
        """The first output of the node that holds a part, and at which input."""
        return self.behind if slot == BEHIND and self.behind is not None else (self.owner, slot)

    @property
    def tensors(self) -> tuple[str, ...]:
        """The constant, after the forms of it that it is made of."""
        return (self.name,) if self.form is None else self.form.tensors

    def seen(self, held: Array) -> Array:
        """Integers, or scales that have all their axes, with the axes of the constant."""
        return held if self.form is None else self.form.seen(held)

    def held(self, seen: Array) -> Array:
        """The way back from `seen`."""
        return seen if self.form is None else self.form.held(seen)


@dataclass(frozen=True)
class Unwritable:
    """Why a quantized constant must stay as it is, and the node that reads it."""

    why: str
    where: str


class Parts(Protocol):
    """Where the parts of stored constants are: in the model as it was loaded, or in a version of it."""

    def part(self, one: Stored, slot: int) -> Array | None:
        """The tensor at an input of the node that holds a constant, if there is one."""

    def layout(self, one: Stored) -> PackedLayout | None:
        """How integers share bytes there."""


def integers_of(one: Stored, parts: Parts) -> Array:
    """The integers of a constant, in its shape."""
    held, layout = parts.part(one, one.slots.integers), parts.layout(one)
    assert held is not None
    return one.seen(held) if layout is None else layout.weight(held)


def scheme_of(stored: Mapping[str, Stored], name: str, parts: Parts) -> Scheme:
    """How `name` is stored."""
    one = stored[name]
    scale = None if one.slots.scale is None else parts.part(one, one.slots.scale)
    if scale is None:
        return following(one, scheme_of(stored, _weight(one), parts))
    zero = None if one.slots.zero is None else parts.part(one, one.slots.zero)
    layout = parts.layout(one)
    if layout is not None:
        shape: tuple[int, ...] = (layout.n, layout.blocks)
        zero = layout.zeros(zero) if zero is not None and zero.dtype == np.uint8 else zero
    else:
        shape = scale.shape if one.block else (-1,) if one.axis is not None else ()
    scales = scale.astype(np.float64).reshape(shape)
    unsaid = 0.0 if layout is None else float(layout.middle)
    zeros = np.full(scales.shape, unsaid) if zero is None else zero.astype(np.float64).reshape(shape)
    zeros = np.broadcast_to(zeros, scales.shape)
    if one.block:
        scales, zeros = one.seen(scales), one.seen(zeros)
    return Scheme(scales, zeros, one.axis, one.low, one.high, scale.dtype, _groups(one, parts))


def _groups(one: Stored, parts: Parts) -> NDArray[np.int64] | None:
    if not one.block or one.axis is None:
        return None
    layout = parts.layout(one)
    if layout is None:
        held = parts.part(one, one.slots.integers)
        assert held is not None
        return in_blocks(one.seen(held).shape[one.axis], one.block)
    numbers = None if one.slots.groups is None else parts.part(one, one.slots.groups)
    return in_blocks(layout.k, one.block) if numbers is None else numbers.astype(np.int64)[: layout.k]


def written(one: Stored, integers: Array, scheme: Scheme, parts: Parts) -> dict[int, Array]:
    """By input of the owner, the tensors that stand for `integers` and `scheme`. A zero point that was not given is
    left out where it is what its lack means."""
    slots, layout = one.slots, parts.layout(one)
    old, scale = parts.part(one, slots.integers), None if slots.scale is None else parts.part(one, slots.scale)
    assert old is not None
    if layout is not None:
        layout = replace(layout, n=integers.shape[0], k=integers.shape[1])
    out = {slots.integers: one.held(integers).astype(old.dtype) if layout is None else layout.held(integers)}
    if scale is None or slots.scale is None or slots.zero is None:
        return out
    if one.block:
        scheme = replace(scheme, scale=one.held(scheme.scale), zero=one.held(scheme.zero))
    shape = scale.shape if one.axis is None else (-1,) if scale.ndim == 1 else scheme.scale.shape
    if one.behind is not None and one.axis is not None:
        shape = tuple(-1 if d == scale.size else 1 for d in scale.shape)
    out[slots.scale] = scheme.scale.reshape(shape).astype(scale.dtype)
    before = parts.part(one, slots.zero)
    if before is not None or (scheme.zero != (0 if layout is None else layout.middle)).any():
        zero, shape = (scheme.zero, shape) if one.behind is None else _apart(scheme.zero, one, before)
        out[slots.zero] = _zeros(zero, layout, shape, old if layout is None else before)
    numbers = None if slots.groups is None else parts.part(one, slots.groups)
    if slots.groups is not None and numbers is not None and scheme.groups is not None:
        out[slots.groups] = scheme.groups.astype(numbers.dtype)
    return out


def _apart(zero: Array, one: Stored, before: Array | None) -> tuple[Array, tuple[int, ...]]:
    """Zero points whose shape has nothing to do with that of scales, which other nodes hold: one, if that is enough."""
    alike = before is not None and before.ndim == 0 and bool((zero == zero.flat[0]).all())
    return (zero.reshape(-1)[:1], ()) if alike or one.axis is None else (zero, (-1,))


def _zeros(zero: Array, layout: PackedLayout | None, shape: tuple[int, ...], like: Array | None) -> Array:
    """Zero points as they are held: of the type of `like`, or packed."""
    if layout is None or (like is not None and like.dtype != np.uint8):
        assert like is not None
        return zero.reshape(shape).astype(like.dtype)
    packed = join(zero, layout.bits)
    return packed.ravel() if like is not None and like.ndim == 1 else packed


def following(bias: Stored, weight: Scheme) -> Scheme:
    """The scheme of a bias that goes by this one of its weight."""
    assert bias.factor is not None
    scale = weight.scale * bias.factor.x_scale
    axis = None if weight.axis is None else 0
    return Scheme(scale, np.zeros_like(scale), axis, bias.low, bias.high, weight.dtype)


def _weight(bias: Stored) -> str:
    assert bias.factor is not None
    return bias.factor.weight
