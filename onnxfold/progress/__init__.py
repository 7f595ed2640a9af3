"""Progress on standard error: one display for a whole run, with its phases and the time that remains.

`on_terminal` draws it on a terminal and in a notebook, and writes a line every ten seconds into a log. Any other
callable of a title and a list gets the loops of a run one by one, as `silent` does.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from ..units import readable
from .course import Course, Phase, Progress, T, Title
from .display import Display, opened

__all__ = [
    "Clock",
    "Course",
    "Display",
    "Phase",
    "Progress",
    "Title",
    "announced",
    "begun",
    "entered",
    "expected",
    "on_terminal",
    "shown",
    "silent",
    "steps",
]  # fmt: skip


class Clock:
    """The seconds that stages took, one after another."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def mark(self, stage: str) -> None:
        """What passed since the last mark belongs to `stage`."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now

    def take(self, seconds: Mapping[str, float]) -> None:
        """What passed since the last mark was measured by others, by stage."""
        for stage, one in seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + one
        self._last = time.perf_counter()


def announced(text: str) -> None:
    """Say `text` on standard error, only on a terminal; above the display of a run, if there is one."""
    if (display := Display.current) is not None:
        display.say(readable(text))
    elif sys.stderr.isatty():
        from rich.console import Console  # slow to import, and only terminals need it

        Console(stderr=True).print(readable(text), style="dim", highlight=False, markup=False)


def silent(_: str, items: Iterable[T]) -> Iterator[T]:
    """Show nothing."""
    yield from items


def on_terminal(what: str, items: Iterable[T]) -> Iterator[T]:
    """Yield `items` (a list, for its length) and show how far it is once that takes more than a second.

    Given as `progress` to a run, one display shows all of it: its phases, and about how long it will take.
    """
    with opened() as display:
        yield from display(what, items)


@contextmanager
def shown(progress: Progress[Any]) -> Iterator[Progress[Any]]:
    """The progress that a run reports to: one display for all of it where that is `on_terminal`, or what was given."""
    if progress is not on_terminal or Display.current is not None:
        yield silent if progress is on_terminal else progress  # two displays at once would garble each other
        return
    with opened() as display:
        yield display


def begun(progress: Progress[Any], phases: Sequence[Phase]) -> None:
    """Say which phases the run has, in order."""
    if isinstance(progress, Display):
        progress.course.begin(phases)


def expected(progress: Progress[Any], seconds: Mapping[Phase, float], loops: Mapping[str, float]) -> None:
    """Say about how long phases take, and loops in them by title."""
    if isinstance(progress, Display):
        progress.course.expect(seconds, loops)


def entered(progress: Progress[Any], phases: Sequence[Phase]) -> AbstractContextManager[None]:
    """While this is entered, the run is in the first of these phases; the loops in it tell when the next one comes."""
    return progress.course.within(phases) if isinstance(progress, Display) else nullcontext()


def steps(what: str, items: Iterable[T]) -> Iterator[T]:
    """Yield `items`, and let the display of the run tick with each: for work deep below the loops that a caller's own
    `progress` is told of."""
    display = Display.current
    return iter(items) if display is None or not display.mine else display.tick(what, items)
