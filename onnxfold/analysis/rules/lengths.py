"""Integers in a node that give the length of an axis (Reshape targets, Resize sizes, Expand shapes)."""

from __future__ import annotations

from .facts import At, Axis, Count, Live
from .node_view import Value


def follow(axis: Axis, value: Value, at: At, sign: int = 1) -> list[Count]:
    """The integer `value`, found at `at`, is the length of `axis`: recount it unless the graph does so itself."""
    if not len(axis):
        return []
    if not value.live:
        return [Count(axis, at, sign)]
    return [Count(axis, Live(value.sources, value.linear, None if value.number is None else at, value.unit), sign)]
