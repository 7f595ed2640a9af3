"""How figures and tables look, on a terminal and in JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table


def new_table(first: str, right: Sequence[str], more: Sequence[str] = ()) -> Table:
    """A table of names, then figures aligned to the right, then remarks."""
    made = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1), caption_justify="left")
    made.add_column(first, overflow="fold", min_width=10)
    for name in right:
        made.add_column(name, justify="right", no_wrap=True)
    for name in more:
        made.add_column(name, overflow="fold")
    return made


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: tuples become lists, infinite and undefined numbers None."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def in_bytes(n: int) -> str:
    """A number of bytes."""
    return f"{n} B" if n < 1000 else _scaled(n, (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)))


def in_units(n: int) -> str:
    """A count."""
    return str(n) if n < 1000 else _scaled(n, (("G", 1e9), ("M", 1e6), ("k", 1e3)))


def _scaled(n: int, units: Sequence[tuple[str, float]]) -> str:
    """Three significant digits and a unit."""
    unit, size = next((u, s) for u, s in units if n >= s)
    value = n / size
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"


def in_ms(ms: float) -> str:
    """A time in milliseconds."""
    return f"{ms:.{3 if ms < 1 else 2 if ms < 10 else 1 if ms < 100 else 0}f} ms"


def in_percent(share: float) -> str:
    """A share, 0..1 or more, with two significant digits."""
    if not math.isfinite(share):
        return "not finite"
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


def change(before: int, after: int) -> str:
    """By how much `after` differs, in percent with one decimal."""
    return f"{100 * (after / before - 1):+.1f} %" if before else ""


def less(before: int, after: int) -> str:
    """By how much `after` differs, in whole percent."""
    return f"{100 * (after / before - 1):+.0f} %" if before else "+0 %"
