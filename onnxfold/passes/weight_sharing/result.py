"""Layers that share a weight and blocks that were dropped, for the report."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shared:
    """Layers that share one weight (of whole blocks: those of all their weights), the `shape` of that (of the first),
    and the distance of the furthest two."""

    layers: tuple[str, ...]
    shape: tuple[int, ...]
    distance: float


@dataclass(frozen=True)
class Dropped:
    """A residual block that was dropped; `influence`: how far it was from the identity, |out - in| / |out|."""

    block: str
    influence: float
