"""The display of a run: drawn on a terminal or in a notebook, or as lines in a log."""

from __future__ import annotations

import builtins
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Protocol

from .course import Course, T
from .lines import Lines

DELAY = 1.0  # seconds before anything shows
EVERY = 10.0  # seconds between two lines of a log


class Surface(Protocol):
    """Where a display shows."""

    def show(self, course: Course) -> None:
        """Begin to show it; more often than once has no effect."""

    def say(self, text: str) -> None:
        """Words that stay."""

    def close(self) -> None:
        """Leave nothing behind."""


class Display:
    """Shows a `course` on a `surface`, and takes the loops of a run as any progress does."""

    current: ClassVar[Display | None] = None
    """The one that is open: a process has one standard error."""

    def __init__(self, surface: Surface) -> None:
        self.course, self._surface, self._thread = Course(), surface, threading.get_ident()

    @property
    def mine(self) -> bool:
        """Whether the caller is in the thread of the run."""
        return threading.get_ident() == self._thread

    @property
    def console(self) -> Any:
        """The rich console on which it draws, and above which others may print; None for lines in a log."""
        return getattr(self._surface, "console", None)

    def say(self, text: str) -> None:
        """Words for the user, above the display."""
        self._surface.say(text)

    def __call__(self, what: str, items: Iterable[T]) -> Iterator[T]:
        """Yield `items` (a list, for its length) and count them."""
        return self._counted(what, items, small=False)

    def tick(self, what: str, items: Iterable[T]) -> Iterator[T]:
        """The same for small steps, which only show that something goes on."""
        return self._counted(what, items, small=True)

    def _counted(self, what: str, items: Iterable[T], small: bool) -> Iterator[T]:
        listed = items if isinstance(items, (list, tuple, range)) else list(items)
        loop = self.course.opened(what, len(listed), small)
        try:
            for done, item in enumerate(listed):
                self.course.turned(loop, done)
                yield item
            self.course.turned(loop, len(listed))
        finally:
            self.course.closed(loop)


@contextmanager
def opened() -> Iterator[Display]:
    """A display on standard error, until the end of the block."""
    surface = _surface()
    display, before = Display(surface), Display.current
    Display.current = display
    ticking = _Ticking(surface, display.course)
    try:
        ticking.start()
        yield display
    finally:
        Display.current = before
        ticking.stop()
        surface.close()


class _Ticking(threading.Thread):
    """Shows the course once `DELAY` is over, and again every `EVERY` seconds."""

    def __init__(self, surface: Surface, course: Course) -> None:
        super().__init__(name="onnxfold-progress", daemon=True)
        self._surface, self._course, self._over = surface, course, threading.Event()

    def run(self) -> None:
        wait = DELAY if not isinstance(self._surface, Lines) else EVERY
        while not self._over.wait(wait):
            self._surface.show(self._course)
            wait = EVERY

    def stop(self) -> None:
        self._over.set()
        self.join()


def _surface() -> Surface:
    if sys.stderr.isatty() or hasattr(builtins, "get_ipython"):
        from .screen import Screen  # rich is slow to import, and only terminals and notebooks need it

        screen = Screen()
        if screen.moves:
            return screen
    return Lines()
