"""Consumers too wide for the moments of all their inputs: kernel positions are pooled, and only moments of channels are
taken.

A consumer of 1,024 channels by 3x3 has 9,216 inputs; their moments would take 680 MB. Those of its channels over all
positions take 8 MB. They tell how channels can replace one another, in the same way at every kernel position.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..analysis.groups import Place, Role
from ..analysis.result import Analysis
from ..model.linear import Linear
from .moments import LEAST_ROWS, MOST_FEATURES, Moments

Array = NDArray[Any]
Floats = NDArray[np.float64]
_CHUNK = 1 << 24  # numbers in the patches that are looked at together


@dataclass(frozen=True)
class ChannelPooling:
    """How the inputs of a linear node are `taps` (kernel positions, or places of a flattened map) per channel.

    `last`: channels are the faster of the two along a row (a map flattened with its channels last).
    """

    taps: int
    last: bool = False

    def rows(self, node: Linear, x: Array) -> Array:
        """The node's input as [positions, channels]."""
        if node.windows is not None:
            return np.moveaxis(x, 1, -1).reshape(-1, x.shape[1])
        if self.last:
            return x.reshape(-1, node.inputs // self.taps)
        flat = x.reshape(-1, node.inputs // self.taps, self.taps)
        return flat.transpose(0, 2, 1).reshape(-1, flat.shape[1])

    def apart(self, matrix: Array) -> Array:
        """Weights [outputs, features] as [outputs * taps, channels]."""
        outputs, features = matrix.shape
        if self.last:
            return matrix.reshape(outputs * self.taps, features // self.taps)
        parts = matrix.reshape(outputs, features // self.taps, self.taps)
        return parts.transpose(0, 2, 1).reshape(outputs * self.taps, -1)

    def together(self, parts: Array) -> Array:
        """The inverse of `apart`."""
        outputs = len(parts) // self.taps
        if self.last:
            return parts.reshape(outputs, -1)
        return parts.reshape(outputs, self.taps, -1).transpose(0, 2, 1).reshape(outputs, -1)


def pooling_of(node: Linear, read: Place | None) -> ChannelPooling | None:
    """How the inputs of `node`, of one group, are pooled; None where there is nothing to pool.

    `read`: where the channels of a group are along the inputs of its weight, if that is known. What is no convolution
    is pooled where the group takes all inputs, as many in a row (or in step) for every channel.
    """
    if node.groups != 1:
        return None
    if node.windows is not None:
        return ChannelPooling(node.window) if node.window > 1 else None
    if read is None or read.positions.size != node.inputs or read.positions.shape[1] < 2:
        return None
    channels, taps = read.positions.shape
    every = np.arange(node.inputs)
    if np.array_equal(read.positions, every.reshape(channels, taps)):
        return ChannelPooling(taps)
    return ChannelPooling(taps, last=True) if np.array_equal(read.positions, every.reshape(taps, channels).T) else None


def poolings(analysis: Analysis, nodes: Mapping[str, Linear]) -> dict[str, ChannelPooling]:
    """How the inputs of `nodes` are pooled, both by output; those that cannot be are left out, and so are those with
    too many channels for one matrix of the channels before and after."""
    reads = {p.tensor: p for g in analysis.groups for p in g.parameters if p.role is Role.CONSUMES and not p.summed}
    found = {y: pooling_of(node, reads.get(node.weight)) for y, node in nodes.items()}
    return {y: how for y, how in found.items() if how is not None and 2 * nodes[y].features <= MOST_FEATURES * how.taps}


def channel_moments(width: int) -> Moments:
    """Moments of rows [positions, width] alone; see `add_rows`."""
    return Moments(Linear("MatMul", "", "", "", "", 1, width, 1, 1))


def add_rows(sums: Moments, rows: Array, share: float, rng: np.random.Generator) -> None:
    """Take in a `share` of rows [positions, width]."""
    sums.add(rows, np.zeros((len(rows), 1), np.float32), share, rng)


def mean_inputs(node: Linear, x: Array, y: Array, share: float, rng: np.random.Generator) -> tuple[Floats, Floats, int]:
    """Sums of the node's inputs [features] and of targets y (shaped like its output; [outputs]), and of how many rows.

    Exact means of patches, paddings and all, are what a bias needs; this takes a `share` of the places.
    """
    total = node.positions(y)
    chosen = np.sort(rng.choice(total, max(1, int(total * share)), replace=False)) if share < 1 else np.arange(total)
    step = max(1, _CHUNK // node.features)
    inputs = np.zeros(node.features)
    for at in range(0, len(chosen), step):
        inputs += node.patches(x, y.shape, chosen[at : at + step])[:, 0].sum(axis=0, dtype=np.float64)
    return inputs, node.rows(y, chosen).sum(axis=0, dtype=np.float64), len(chosen)


def share_of_rows(total: int) -> float:
    """The share of `total` rows worth looking at for a mean."""
    return min(1.0, LEAST_ROWS / max(1, total))


class Fit(Enum):
    """How a consumer was refitted."""

    FULL = "full"
    CHANNELS = "channels"
    NONE = "none"
    INTEGERS = "integers"


def wide_notes(fits: Mapping[str, Fit]) -> tuple[str, ...]:
    """What the user should know of consumers (by output) that were not refitted in full."""
    notes = []
    wide = f"with over {MOST_FEATURES} inputs (too wide for a full moment matrix)"
    for fit, kind, what in (
        (Fit.CHANNELS, wide, "refitted by channel-level maps, their kernel positions pooled"),
        (Fit.NONE, wide, "merged and not refitted"),
        (Fit.INTEGERS, "that compute on integers (QLinearConv and the like)", "merged and not refitted"),
    ):
        names = [name for name, how in fits.items() if how is fit]
        if names:
            some = ", ".join(f"'{name}'" for name in names[:3]) + (", ..." if len(names) > 3 else "")
            notes.append(f"{len(names)} consumer{'s' if len(names) > 1 else ''} {kind}: {what} ({some})")
    return tuple(notes)
