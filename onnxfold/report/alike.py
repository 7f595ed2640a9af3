"""Layers that could share weights with each other, from the distances of their pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..passes.weight_sharing.distances import Pair


@dataclass(frozen=True)
class Alike:
    """Layers by name, the `shape` of their weight, and their distances [n][n], symmetric with zeros on the diagonal."""

    names: tuple[str, ...]
    shape: tuple[int, ...]
    distances: tuple[tuple[float, ...], ...]


def alike(pairs: Sequence[Pair]) -> list[Alike]:
    """All of them: in one class, every layer is in a pair with every other one."""
    of = dict[str, list[str]]()
    for pair in pairs:
        merged = list(dict.fromkeys([*of.get(pair.one, [pair.one]), *of.get(pair.other, [pair.other])]))
        of.update(dict.fromkeys(merged, merged))
    between = {frozenset((p.one, p.other)): p.distance for p in pairs}
    shapes = {name: p.shape for p in pairs for name in (p.one, p.other)}
    return [
        Alike(
            tuple(names), shapes[names[0]],
            tuple(tuple(between.get(frozenset((a, b)), 0.0) for b in names) for a in names),
        )
        for names in {id(names): names for names in of.values()}.values()
    ]  # fmt: skip
