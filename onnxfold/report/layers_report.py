"""Which layers of a model are alike: ranked pairs as data, as JSON and as a table. Nothing is written."""

from __future__ import annotations

import json
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..passes.weight_sharing.distances import Class, Pair
from ..passes.weight_sharing.layers import Left
from .fold_report import SCHEMA
from .tables import Message, named, new_table, plain


@dataclass(frozen=True)
class LayersReport:
    """The distances of all pairs that could share a weight, the nearest first; `kinds` by class, with all names;
    `left`: layers that cannot share, and why. `samples` describes what was sampled for a distance that needs it."""

    model: str
    distance: str
    aligned: bool
    samples: str | None
    pairs: tuple[Pair, ...]
    kinds: tuple[Class, ...]
    left: tuple[Left, ...]

    @property
    def verdict(self) -> str:
        """One line that says what was found."""
        units = sum(len(kind.units) for kind in self.kinds)
        return f"{units} layers in {len(self.kinds)} shapes, {len(self.pairs)} pairs could share a weight"

    def to_json(self) -> str:
        """Everything but the matrices, which the pairs give."""
        data = {
            "schema": SCHEMA, "model": self.model, "distance": self.distance, "aligned": self.aligned,
            "samples": self.samples, "verdict": self.verdict,
            "pairs": [{"layers": [p.one, p.other], "distance": p.distance, "shape": p.shape} for p in self.pairs],
            "left": [{"layer": one.name, "why": one.why} for one in self.left],
        }  # fmt: skip
        return json.dumps(plain(data), indent=2, allow_nan=False)

    def print(self, console: Console | None = None, most: int | None = None) -> None:
        """Show the pairs, `most` of them at most; None: all."""
        parts: list[RenderableType] = [named(self.model, style="bold"), "", self._table(most)]
        if self.left:
            parts += ["", self._left()]
        (console or Console()).print(Group(*parts, "", Message(self.verdict, style="bold")))

    def _table(self, most: int | None) -> Table:
        shown = self.pairs[:most]
        table = new_table("layer", right=[], more=["and"])
        table.add_column("shape", justify="right")
        table.add_column(f"{self.distance} distance", justify="right")
        for pair in shown:
            shape = "x".join(map(str, pair.shape))
            table.add_row(named(pair.one), named(pair.other), shape, f"{pair.distance:.4f}")
        if len(self.pairs) > len(shown):
            table.caption = Text(f" and {len(self.pairs) - len(shown)} more (-v shows all)", style="dim")
        return table

    def _left(self) -> Table:
        table = new_table("cannot share because", right=["layers"], more=["which"])
        reasons: dict[str, list[str]] = {}
        for one in self.left:
            reasons.setdefault(one.why, []).append(one.name)
        for why, names in reasons.items():
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            table.add_row(Message(why), str(len(names)), named(*names[:3], style="dim", more=more))
        return table
