"""Which layers of a model are alike: ranked pairs as data, as JSON and as a table. Nothing is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table

from ..errors import RequestError
from ..options.choices import Distance
from ..passes.weight_sharing.distances import Pair
from ..passes.weight_sharing.layers import Left
from .alike import Alike, alike
from .decode import decoded
from .html import extra
from .json_text import SCHEMA, from_text
from .provenance import Provenance
from .shown import Rows, Shown
from .tables import Message, Name, Names, Trimmed, below, named, new_table, plain, prefix_of


@dataclass(frozen=True, repr=False)
class LayersReport(Shown):
    """The distances of all pairs that could share a weight, the nearest first; `left`: layers that cannot share, and
    why. `samples` describes what was sampled for a distance that needs it."""

    model: str
    distance: str
    aligned: bool
    samples: str | None
    pairs: tuple[Pair, ...]
    left: tuple[Left, ...] = ()
    provenance: Provenance | None = None

    @property
    def verdict(self) -> str:
        """One line that says what was found."""
        found = self.classes()
        units = sum(len(one.names) for one in found)
        shapes, pairs = (
            f"{n} {word}{'' if n == 1 else 's'}" for n, word in ((len(found), "shape"), (len(self.pairs), "pair"))
        )
        nearest = f", the nearest {self.pairs[0].distance:.2g} apart" if self.pairs else ""
        return f"{units} layers of {shapes}: {pairs} could share a weight{nearest}"

    @property
    def scale(self) -> str:
        """How to read a distance, in words; '' where that is not known (of another version)."""
        return next((one.scale for one in Distance if one.value == self.distance), "")

    def classes(self) -> list[Alike]:
        """Layers that could share weights with each other, and their distances, from the pairs."""
        return alike(self.pairs)

    def to_dict(self) -> dict[str, Any]:
        """The whole report as plain values; infinite and undefined numbers are None."""
        data = {
            "schema": SCHEMA, "model": self.model, "distance": self.distance, "aligned": self.aligned,
            "samples": self.samples, "verdict": self.verdict,
            "pairs": [{"layers": [p.one, p.other], "distance": p.distance, "shape": p.shape} for p in self.pairs],
            "left": [{"layer": one.name, "why": one.why} for one in self.left],
            "provenance": None if self.provenance is None else asdict(self.provenance),
        }  # fmt: skip
        return dict(plain(data))

    @classmethod
    def from_json(cls, text: str) -> LayersReport:
        """The report that `to_json` wrote, of this version or an earlier one. Raises RequestError."""
        data = from_text(text)
        pairs, left = (_objects(data, name) for name in ("pairs", "left"))
        for one in pairs:
            layers = one.get("layers")
            one["one"], one["other"] = layers if isinstance(layers, list) and len(layers) == 2 else (None, None)
        for one in left:
            one["name"] = one.get("layer")
        return decoded(cls, {**data, "pairs": pairs, "left": left})

    def figures(self) -> Rows:
        """The pairs that are nearest."""
        return self.records()[:10]

    def records(self) -> Rows:
        """All pairs."""
        return [
            {"layer": p.one, "other": p.other, "distance": p.distance, "shape": "x".join(map(str, p.shape))}
            for p in self.pairs
        ]

    def plot(self) -> Any:
        """The distances as heat maps: a chart by Altair. Raises RequestError where the extra `report` is missing."""
        extra.require("a chart")
        from .html.heat_maps import heat_maps

        return heat_maps(self.classes())

    def print(self, console: Console | None = None, most: int | None = None) -> None:
        """Show the pairs, `most` of them at most; None: all."""
        parts: list[RenderableType] = [named(self.model, style="bold"), "", Message(self.verdict, style="bold")]
        parts += ["", self._table(most)]
        if self.left:
            parts += ["", self._left(most is None)]
        (console or Console()).print(Trimmed(Group(*parts)))

    def _table(self, most: int | None) -> RenderableType:
        shown = self.pairs[:most]
        prefix = prefix_of([name for pair in shown for name in (pair.one, pair.other)])
        table = new_table("layer", right=[], more=["and"], prefix=prefix)
        table.add_column("shape", justify="right", no_wrap=True)
        table.add_column("distance", justify="right", no_wrap=True)
        for pair in shown:
            shape = "x".join(map(str, pair.shape))
            names = [Name(name, prefix, whole=most is None) for name in (pair.one, pair.other)]
            table.add_row(*names, shape, f"{pair.distance:.4f}")
        more = len(self.pairs) - len(shown)
        said = [f"{more} more pairs (-v lists all)"] if more else []
        said.append(f"distance: {self.distance}" + (f" ({self.scale})" if self.scale else ""))
        return Group(table, *map(below, said))

    def _left(self, verbose: bool) -> Table:
        table = new_table("cannot share because", right=["layers"], more=["which"])
        reasons: dict[str, list[str]] = {}
        for one in self.left:
            reasons.setdefault(one.why, []).append(one.name)
        for why, names in reasons.items():
            table.add_row(Message(why), str(len(names)), Names(names, whole=verbose))
        return table


def _objects(data: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Copies of the objects in a list. Raises RequestError where there is no such list."""
    found = data.get(name)
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise RequestError(f"the report lacks a list of objects '{name}'")
    return [dict(one) for one in found]
