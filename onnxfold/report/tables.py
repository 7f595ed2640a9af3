"""How figures and tables look, on a terminal and in JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from ..units import readable, visible


class MessageConsole(Console):
    """A console that may word messages in its own way."""

    def worded(self, message: str) -> str:
        """`message` as it is to be shown."""
        return message


@dataclass(frozen=True)
class Message:
    """Words for the user, after a `mark`. They may name parameters in backquotes, which a `MessageConsole` may spell
    its own way. Names from models stand in '...' quotes here, or alone in a `named`: no console changes them."""

    text: str
    style: str = ""
    mark: Text | None = None

    def _shown(self, console: Console) -> Text:
        text = readable(console.worded(self.text) if isinstance(console, MessageConsole) else self.text)
        return Text(text, style=self.style) if self.mark is None else self.mark.copy().append(text, style=self.style)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self._shown(console)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self._shown(console))


def named(*names: str, style: str = "", more: str = "") -> Text:
    """Names from models or paths, with commas between them, and `more` words behind."""
    return Text(", ".join(map(visible, names)) + more, style=style)


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
