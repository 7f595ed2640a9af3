"""How figures and tables look, on a terminal and in JSON."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from rich import box
from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from ..units import readable, visible


class MessageConsole(Console):
    """A console that may word messages in its own way."""

    def worded(self, message: str) -> str:
        """`message` as it is to be shown."""
        return message


ASCII = str.maketrans({"✔": "ok", "✘": "x", "→": "->", "←": "<-", "•": "*", "Δ": "diff"})
"""What stands for the signs of tables on a terminal that cannot show them."""
_PLAIN = box.Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)
_PERCENT, _GLUE = re.compile(r"(?<=\d) (?=%)"), "\ue000"  # no line ends between a number and its percent sign
_LEAST = 12  # columns of a name
_GAP = "..."
_SHORT = 5  # characters: a prefix of fewer is not worth a word
_HEAD = 40  # columns of a prefix


@dataclass(frozen=True)
class Signs:
    """Words and signs of our own, which are spelled in ASCII where a terminal cannot show more."""

    text: str
    style: str = ""

    def shown(self, options: ConsoleOptions) -> Text:
        """As it is shown there."""
        return Text(_spelled(self.text, options), style=self.style)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.shown(options)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self.shown(options))


@dataclass(frozen=True)
class Message:
    """Words for the user, after a `mark`. They may name parameters in backquotes, which a `MessageConsole` may spell
    its own way. Names from models stand in '...' quotes here, or alone in a `named`: no console changes them."""

    text: str
    style: str = ""
    mark: Signs | None = None

    def _shown(self, console: Console, options: ConsoleOptions) -> Text:
        text = readable(console.worded(self.text) if isinstance(console, MessageConsole) else self.text)
        said = Signs(_PERCENT.sub(_GLUE, text), self.style).shown(options)
        return said if self.mark is None else Text.assemble(self.mark.shown(options), said)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in self._shown(console, options).wrap(console, options.max_width):
            line.rstrip()
            line.plain = line.plain.replace(_GLUE, " ")
            yield line

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self._shown(console, options))


@dataclass(frozen=True)
class Name:
    """A name from a model in a cell of a table: in one line, with its middle left out where it is too long for the
    column; `whole`: in as many lines as it takes. `prefix`: what its column says once for all."""

    text: str
    prefix: str = ""
    whole: bool = False
    style: str = ""

    def _seen(self, options: ConsoleOptions) -> str:
        return _spelled(visible(self.text.removeprefix(self.prefix)), options)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        seen = self._seen(options)
        text = seen if self.whole else cut(seen, options.max_width)
        yield Text(text, style=self.style, no_wrap=not self.whole, overflow="fold" if self.whole else "crop")

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        long = min(cell_len(self._seen(options)), options.max_width)
        return Measurement(min(_LEAST, long), long)


@dataclass(frozen=True)
class Names:
    """Several names in a cell: as many as fit in its line, and how many more there are; `whole`: all of them."""

    names: Sequence[str]
    whole: bool = False
    style: str = "dim"

    def _first(self, count: int, options: ConsoleOptions) -> str:
        more = len(self.names) - count
        shown = _spelled(", ".join(map(visible, self.names[:count])), options)
        return shown + (f" and {more} more" if more else "")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.whole or not self.names:
            yield Text(self._first(len(self.names), options), style=self.style, overflow="fold")
            return
        room, count = options.max_width, len(self.names)
        while count > 1 and cell_len(self._first(count, options)) > room:
            count -= 1
        text = self._first(count, options)
        if cell_len(text) > room:
            one = _spelled(visible(self.names[0]), options)
            more = text.removeprefix(one)
            text = cut(one, max(_LEAST, room - cell_len(more))) + more
        yield Text(text, style=self.style, no_wrap=True, overflow="crop")

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        one = cell_len(self._first(1, options)) if self.names else 0
        long = min(cell_len(self._first(len(self.names), options)), options.max_width)
        return Measurement(min(3 * _LEAST, one, long), long)


def _spelled(text: str, options: ConsoleOptions) -> str:
    """`text` as the terminal can show it."""
    if not options.ascii_only:
        return text
    return text.translate(ASCII).encode("ascii", "backslashreplace").decode()


def cut(text: str, width: int) -> str:
    """`text` in `width` columns at most, its middle left out: names differ at their ends.

    >>> cut("layer.0/attention/self/query/MatMul", 20)
    'layer.0/...ry/MatMul'
    """
    if cell_len(text) <= width:
        return text
    room = max(0, width - len(_GAP))
    start = set_cell_size(text, room // 2).rstrip()
    end = text
    while cell_len(end) > room - cell_len(start):
        end = end[1:]
    return start + _GAP + end


def prefix_of(names: Sequence[str]) -> str:
    """What all of several names begin with, up to a separator that words follow; '' where that is short.

    >>> prefix_of(["/encoder/layer.0/query", "/encoder/layer.1/query"])
    '/encoder/'
    """
    pairs = zip(min(names), max(names), strict=False) if len(names) > 1 else ()
    common = "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    common = _whole_parts(common)
    while common and any(not name[len(common) :] or name[len(common)].isdigit() for name in names):
        common = _whole_parts(common[:-1])
    return common if len(common) >= _SHORT else ""


def _whole_parts(text: str) -> str:
    """`text` up to its last separator."""
    return text[: max(text.rfind(mark) for mark in "/.:") + 1]


def named(*names: str, style: str = "", more: str = "") -> Text:
    """Names from models or paths, with commas between them, and `more` words behind."""
    return Text(", ".join(map(visible, names)) + more, style=style)


class Rows(Table):
    """A table whose line is of ASCII where a terminal shows nothing else."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if options.ascii_only:
            self.box = _PLAIN
        yield from super().__rich_console__(console, options)


def new_table(first: str, right: Sequence[str], more: Sequence[str] = (), prefix: str = "") -> Table:
    """A table of names, then figures aligned to the right, then remarks; `prefix`: what the names begin with."""
    made = Rows(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1), caption_justify="left")
    head = f"{first} {cut(visible(prefix), _HEAD)}..." if prefix else first
    made.add_column(head, overflow="fold", min_width=10)
    for name in right:
        made.add_column(Signs(name), justify="right", no_wrap=True)
    for name in more:
        made.add_column(name, overflow="fold")
    return made


def below(text: str, style: str = "dim") -> Padding:
    """What is said below a table, at the width of the console and not of the table; it may name parameters."""
    return Padding(Message(text, style=style), (0, 0, 0, 1))


@dataclass(frozen=True)
class Trimmed:
    """What is shown in `inner`, without the blanks at ends of lines that tables leave there."""

    inner: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in Segment.split_lines(console.render(self.inner, options)):
            yield from _without_blanks(line)
            yield Segment.line()


def _without_blanks(line: Sequence[Segment]) -> Iterator[Segment]:
    """The segments of a line up to the last character that is no blank."""
    long = len("".join(one.text for one in line).rstrip())
    for one in line:
        if one.control or long > 0:
            yield Segment(one.text[: max(0, long)], one.style, one.control) if not one.control else one
        long -= 0 if one.control else len(one.text)


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: tuples become lists, infinite and undefined numbers None."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
