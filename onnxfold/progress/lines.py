"""The display in a log, which nobody can draw over: a line now and then."""

from __future__ import annotations

import sys

from ..units import visible
from .course import Course, View


class Lines:
    """A line in a log now and then."""

    def show(self, course: Course) -> None:
        print(f"onnxfold: {line(course.view())}", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """A log gets the figures of every line; nobody waits in front of it."""

    def close(self) -> None:
        """Lines stay."""


def line(view: View) -> str:
    """A course in one line, like "plan: trying plans 3/24, 41 % done, about 2 min left"."""
    doing = " > ".join(map(visible, view.doing[:2]))
    where = ": ".join(filter(None, [view.phase, doing]))
    left = "" if view.remaining is None else f", about {spoken(view.remaining)} left"
    return f"{where or 'starting'}, {100 * view.done:.0f} % done{left}"


def spoken(seconds: float) -> str:
    """About how long, like "40 s", "2 min" or "1 h 20 min"."""
    if seconds < 55:
        return f"{max(5, round(seconds / 5) * 5)} s"
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
