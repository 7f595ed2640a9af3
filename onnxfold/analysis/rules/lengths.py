"""Integers in a node that give the length of an axis (Reshape targets, Resize sizes, Expand shapes)."""

from __future__ import annotations

from .facts import At, Axis, Count, Live
from .node_view import Value


def follow(axis: Axis, value: Value, at: At, sign: int = 1, rest: bool = False) -> list[Count]:
    """The integer `value`, found at `at`, is the length of `axis`: recount it unless the graph does so itself.

    Where the axis has no atoms, what the graph computes it from must stay. `rest`: -1 there stands for what is left.
    """
    if value.live:
        known = None if value.number is None else at
        return [Count(axis, Live(value.sources, value.linear, known, value.unit, at if rest else None), sign)]
    return [Count(axis, at, sign)] if len(axis) else []
