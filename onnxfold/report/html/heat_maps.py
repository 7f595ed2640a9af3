"""The distances of layers as heat maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...units import visible
from ..alike import Alike
from . import charts

MOST = 60  # layers of one of them


def heat_maps(classes: Sequence[Alike]) -> Any:
    """All of them below each other, for a picture: a chart by Altair."""
    import altair

    titles = ("x".join(map(str, one.shape)) for one in classes)
    return altair.vconcat(*(heat_map(one).properties(title=title) for one, title in zip(classes, titles, strict=True)))


def heat_map(one: Alike) -> Any:
    """The distances of layers that could share weights, of the first `MOST` of them."""
    names = unique([visible(name, 60) for name in one.names[:MOST]])
    return charts.distances(names, [line[:MOST] for line in one.distances[:MOST]])


def unique(names: list[str]) -> list[str]:
    """Names that are cut may have become equal: those get a number."""
    return [f"{name} #{number}" if names.count(name) > 1 else name for number, name in enumerate(names)]
