"""How numbers are written for people: bytes, counts, milliseconds, percent."""

from __future__ import annotations

import math
from collections.abc import Sequence


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
