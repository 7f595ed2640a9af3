"""The passes that rank how alike the layers of a model are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ...errors import NothingToFoldError
from ...options.choices import Distance
from ...progress import Phase
from ..base import BasePass, Run, State
from ..prepare import analyzed
from .alignment import alignable
from .distances import Class, Unit, alone, nothing, rank
from .layers import Left, layers
from .residual_blocks import blocks, whole_blocks


@dataclass(frozen=True, eq=False)
class Comparable:
    """The `units` (layers, or whole blocks) that could be compared, and the layers that are left out."""

    units: Sequence[Sequence[Unit]] = field(repr=False)
    left: tuple[Left, ...]


@dataclass(frozen=True, eq=False)
class LayersRanked:
    """The distances of all pairs, by classes of one shape, and what they were measured on."""

    classes: tuple[Class, ...] = field(repr=False)
    left: tuple[Left, ...]
    samples: str | None


class FindUnits(BasePass):
    """Finds what can be compared. Leaves `Comparable`."""

    name = "analyze"
    requires = frozenset[str]()
    provides = frozenset(("analysis",))
    phases = (Phase.ANALYZE,)

    def __init__(self, whole: bool) -> None:
        self._whole = whole

    def __call__(self, state: State, run: Run) -> State:
        """Raises NothingToFoldError."""
        found, left = layers(state.source)
        units = whole_blocks(blocks(state.source), found) if self._whole else alone(found)
        if not units:
            raise NothingToFoldError(nothing(state.source.path or "this model", self._whole, left))
        return state.adding(Comparable(units, left))


class RankLayers(BasePass):
    """Measures how alike layers are, pair by pair. Leaves `LayersRanked`."""

    name = "rank"
    requires = frozenset(("analysis",))
    phases = (Phase.SHARE,)

    def __init__(self, distance: Distance, align: bool) -> None:
        self._distance, self._align = distance, align

    def __call__(self, state: State, run: Run) -> State:
        found, samples, model = state.done(Comparable), state.samples, state.source
        feeds = samples.fit if samples is not None and samples.trusted else None
        free = alignable(analyzed(model)) if self._align else {}
        ranked = rank(model, found.units, self._distance, free, feeds, run.progress)
        return state.adding(LayersRanked(tuple(ranked), found.left, None if samples is None else samples.described))
