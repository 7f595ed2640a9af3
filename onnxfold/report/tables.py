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
