"""Progress: one line on standard error, only on a terminal, only for what takes a second."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from .units import readable, visible


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


T = TypeVar("T")
Progress = Callable[[str, Iterable[T]], Iterator[T]]
DELAY = 1.0  # seconds before anything shows


class Title(str):
    """A title whose text may change while it is shown: to `now`, once that is set."""

    now: str = ""


def announced(text: str) -> None:
    """Say `text` on standard error, only on a terminal."""
    if sys.stderr.isatty():
        from rich.console import Console  # slow to import, and only terminals need it

        Console(stderr=True).print(readable(text), style="dim", highlight=False, markup=False)


def silent(_: str, items: Iterable[T]) -> Iterator[T]:
    """Show nothing."""
    yield from items


def on_terminal(what: str, items: Iterable[T]) -> Iterator[T]:
    """Yield `items` (a list, for its length) and show how far it is once that takes more than a second."""
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console  # slow to import, and only terminals need it
    from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    console = Console(stderr=True)
    if not console.is_terminal:
        yield from items
        return
    listed = list(items)
    bar = RichProgress(
        SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
        TimeRemainingColumn(), console=console, transient=True,
    )  # fmt: skip
    task, begin, shown = bar.add_task(visible(what), total=len(listed)), time.perf_counter(), False
    try:
        for done, item in enumerate(listed):
            if not shown and time.perf_counter() - begin > DELAY:
                bar.start()
                shown = True
            bar.update(task, completed=done, description=visible(getattr(what, "now", "") or what))
            yield item
    finally:
        if shown:
            bar.stop()
