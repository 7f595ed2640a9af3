"""The display on a terminal or in a notebook, by rich: the phases, a bar with the time that remains, what goes on."""

from __future__ import annotations

import threading
from importlib.util import find_spec

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..units import visible
from .course import Course, View
from .lines import spoken

WIDEST = 100  # columns
_REFRESH = 5  # times a second


class Screen:
    """One live display, which vanishes at the end."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self._live: Live | None = None
        self._lock, self._closed = threading.Lock(), False

    @property
    def moves(self) -> bool:
        """Whether what was drawn can be drawn over."""
        console = self.console
        if console.is_jupyter:
            return find_spec("ipywidgets") is not None  # by which rich draws in notebooks
        return console.is_terminal and not console.is_dumb_terminal

    def show(self, course: Course) -> None:
        """Begin to draw."""
        with self._lock:
            if self._live is None and not self._closed:
                self._live = Live(
                    Drawn(course), console=self.console, refresh_per_second=_REFRESH, transient=True,
                )  # fmt: skip
                self._live.start(refresh=True)

    def say(self, text: str) -> None:
        """Words that stay, above it."""
        self.console.print(Text(text, style="dim"))

    def close(self) -> None:
        """Remove it."""
        with self._lock:
            self._closed = True
            if self._live is not None:
                self._live.stop()


class Drawn:
    """A course as it is whenever it is drawn."""

    def __init__(self, course: Course) -> None:
        self._course = course

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        view, plain = self._course.view(), options.ascii_only
        lines = [phases(view, plain)] if view.phases else []
        width = min(options.max_width, WIDEST)
        yield from (_cut(one, width) for one in lines)
        yield bar(view, width)
        doing = view.doing[:3] or (() if view.phases or view.done else ("reading the model",))
        yield _cut(Text("  " + " > ".join(map(visible, doing)), style="dim"), width)


def phases(view: View, plain: bool = False) -> Text:
    """All phases: those that are done, the current one, those that follow."""
    done, now = ("+", ">") if plain else ("✔", "▸")
    text = Text()
    for number, phase in enumerate(view.phases):
        mark, style = (done, "green") if number < view.at else (now, "bold") if number == view.at else (" ", "dim")
        text.append(f"{mark} {phase.value}  ", style=style)
    return text


def bar(view: View, width: int) -> Table:
    """How much is done, how long that took, and what remains."""
    left = "" if view.remaining is None else f", about {spoken(view.remaining)} left"
    figures = Text(f"{100 * view.done:3.0f} %  {_clock(view.elapsed)}{left}", no_wrap=True, overflow="crop")
    grid = Table.grid(padding=(0, 1))
    grid.add_row(Text(" "), ProgressBar(total=1.0, completed=view.done, width=max(10, width - 42)), figures)
    return grid


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _cut(text: Text, width: int) -> Text:
    """One line: what wraps would be left behind."""
    text.truncate(width, overflow="crop")
    text.no_wrap = True
    return text
