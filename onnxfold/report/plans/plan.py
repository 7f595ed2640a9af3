"""A plan of a fold that can be looked at, edited, and kept in a file."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group, RenderableType

from ...compat import Self
from ...model.files import Read
from ...options.budget import Budget
from ...options.parameters import given_path, mapping
from ...options.width_plan import PlannedGroup, WidthPlan
from ...units import in_percent, visible
from ..html import extra
from ..json_text import to_text as plain_text
from ..shown import Rows, Shown
from ..tables import Message, named, new_table
from .keep import Keep
from .plan_file import FORMAT, VERSION, from_document, from_text, read_plan, write_plan

_WIDE = 100  # columns of a plan that is printed


@dataclass(frozen=True)
class Remaining:
    """Shares of the parameters and of the multiply-accumulates that remain, 0..1 (MACs: None where none is counted)."""

    parameters: float
    macs: float | None


Price = Callable[[Mapping[str, int]], Remaining]


class EditablePlan(Shown):
    """A plan to be looked at, edited, and kept in a file: all of `onnxfold.Plan` (which says what its attributes are)
    but applying it."""

    def __init__(self, widths: WidthPlan, price: Price | None = None, reads: Iterable[Read] = ()) -> None:
        """`price`: what remains under widths; None: nobody knows. `reads`: files that it is never saved over."""
        self._widths, self._price, self._reads = widths, price, reads
        self.model, self.source_sha256 = widths.model, widths.source_sha256
        self.budget, self.groups = widths.budget, widths.groups
        self._keep = Keep(widths.keep, widths.groups)

    @property
    def keep(self) -> Keep:
        """The widths, by group, to be read and set: one by one, or all at once (groups that are not named then stay
        whole). Raises RequestError for names that there are not, and for widths that a group cannot have."""
        return self._keep

    @keep.setter
    def keep(self, widths: Mapping[str, int]) -> None:
        made = Keep(WidthPlan({}, self.groups).keep, self.groups)
        made.update(widths)
        self._keep = made

    def frozen(self) -> WidthPlan:
        """The plan as it is now, as frozen data: what options hold."""
        old = self._widths
        return WidthPlan(dict(self.keep), old.groups, old.budget, old.model, old.source_sha256, old.file)

    @property
    def edited(self) -> dict[str, int]:
        """The widths that were changed since a budget found them, by group."""
        return self.frozen().edited

    def reset(self) -> None:
        """Take back what was edited since the plan was made or read."""
        self._keep = Keep(self._widths.keep, self.groups)

    def copy(self) -> Self:
        """The same plan, to be edited on its own."""
        made = copy(self)
        made._keep = Keep(self.keep, self.groups)
        return made

    @property
    def remaining(self) -> Remaining | None:
        """What remains of the parameters and of the multiply-accumulates; None of a plan that was read from a file,
        which knows no weights."""
        return None if self._price is None else self._price(self.frozen().shrinks)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a JSON file (docs/plan.md), atomically. Raises RequestError, also where that file is the model,
        or another one that the fold read or wrote."""
        write_plan(self.frozen(), given_path("path", path), self._reads)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """The plan in a file that `save` wrote and somebody may have edited. Raises RequestError, which names the file
        and what is wrong in it."""
        return cls(read_plan(given_path("path", path)))

    def to_dict(self) -> dict[str, Any]:
        """What its file holds (docs/plan.md)."""
        return {"format": FORMAT, "version": VERSION, **self.frozen().to_dict()}

    def to_json(self) -> str:
        """The same as text."""
        return plain_text(self.to_dict())

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The plan that `to_json` or `save` wrote. Raises RequestError."""
        return cls(from_text(text))

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`. Raises RequestError."""
        return cls(from_document(mapping("given", given)))

    @property
    def verdict(self) -> str:
        """What it does, in one line."""
        shrunk, edited = self.frozen().shrinks, self.edited if self.budget is not None else {}
        parts = [f"{len(shrunk)} of {len(self.keep)} groups shrink"]
        if self.groups:
            channels = sum(group.channels for group in self.groups.values())
            parts.append(f"{sum(self.keep.values())} of {channels} channels stay")
        parts += _remaining(self.remaining)
        parts += [f"found for {Budget.from_dict(self.budget)!r}"] if self.budget is not None else []
        parts += [f"{len(edited)} edited"] if edited else []
        return ", ".join(parts)

    def figures(self) -> Rows:
        """Every group: channels, how many it keeps, and what is to be known of it."""
        return [
            {"group": row["name"], "channels": row["before"] or "", "keep": row["after"], "note": row["note"]}
            for row in self.records()
        ]

    def records(self) -> Rows:
        """The groups: name, channels before and after, the layers that make them, a note."""
        unknown = PlannedGroup(1)
        return [
            {
                "name": name, "before": self.groups[name].channels if self.groups else None, "after": keep,
                "layers": self.groups.get(name, unknown).layers, "note": self._note(name, keep),
            }
            for name, keep in self.keep.items()
        ]  # fmt: skip

    def _note(self, name: str, keep: int) -> str:
        group = self.groups.get(name)
        if group is None:
            return ""
        blocks = f"{group.blocks} equal blocks" if group.blocks > 1 else ""
        edited = f"edited, was {group.planned}" if group.planned not in (None, keep) else ""
        return "; ".join(filter(None, [blocks, edited]))

    def plot(self) -> Any:
        """The widths of the groups that shrink the most, before and after: a chart by Altair. Raises RequestError where
        the extra `report` is missing."""
        extra.require("a chart")
        from ..html import charts

        return charts.widths(
            [{"group": visible(r["name"], 60), "before": r["before"] or r["after"], "after": r["after"]}
             for r in self.records()]
        )  # fmt: skip

    def print(self, console: Console | None = None) -> None:
        """Show the table; None: on standard output."""
        (console or Console()).print(self.render())

    def render(self) -> RenderableType:
        """The table as one renderable."""
        rows = self.figures()
        noted = any(row["note"] for row in rows)
        table = new_table("group", right=["channels"], more=["note"] if noted else [])
        for row in rows:
            before, keep = row["channels"], row["keep"]
            width = f"{before} → {keep}" if before and keep < before else str(keep)
            table.add_row(named(row["group"]), width, *([Message(row["note"], style="dim")] if noted else []))
        return Group(named(self.model, style="bold"), "", table, "", Message(self.verdict, style="bold"))

    def __str__(self) -> str:
        """The table as text."""
        held = io.StringIO()
        self.print(Console(file=held, width=_WIDE, color_system=None, force_terminal=False))
        return held.getvalue().rstrip("\n")

    def __eq__(self, other: object) -> bool:
        return self.frozen() == other.frozen() if isinstance(other, EditablePlan) else NotImplemented


def _remaining(found: Remaining | None) -> list[str]:
    if found is None:
        return []
    macs = [] if found.macs is None else [f"{in_percent(found.macs)} of the MACs"]
    return [f"{in_percent(found.parameters)} of the parameters", *macs]
