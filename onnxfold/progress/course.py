"""How far a run is: its phases, the loops in them, and the time that remains."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from ..compat import StrEnum

T = TypeVar("T")
Progress = Callable[[str, Iterable[T]], Iterator[T]]


class Title(str):
    """A title whose text may change while it is shown: to `now`, once that is set. `part`: how much of what is left of
    its phase, or of a turn of the loop around it, the loop takes, where whoever opens it knows that."""

    now: str = ""
    part: float = 0.0

    @classmethod
    def taking(cls, part: float, text: str) -> Title:
        """A title of a loop that takes this `part` (0..1) of what is left of its phase, or of the turn around it."""
        made = cls(text)
        made.part = part
        return made


class Phase(StrEnum):
    """The parts of a run that a user waits for; the values are what displays call them."""

    ANALYZE = "analyze"
    INPUTS = "inputs"
    SENSITIVITY = "sensitivity"
    PLAN = "plan"
    RECONSTRUCT = "reconstruct"
    SHARE = "share"
    MODELS = "models"
    TRAIN = "train"
    QUANTIZE = "quantize"
    CHECK = "check"


_OPENS: Mapping[str, Phase] = {
    "measuring sensitivity": Phase.SENSITIVITY, "choosing merges": Phase.RECONSTRUCT,
    "reconstructing": Phase.RECONSTRUCT, "merging groups": Phase.RECONSTRUCT,
}  # fmt: skip
"""Loops that begin another phase of a pass that has several; all others plan."""

_PART = 0.5  # of what is left of a phase, that one loop of several takes
_PARTS = {
    "making synthetic inputs": 0.95, "measuring sensitivity": 0.95, "trying plans": 0.95, "reconstructing": 0.9,
    "folding to targets": 0.95, "training": 0.95, "fusing layers": 0.95, "comparing layers": 0.95,
}  # fmt: skip
_INNER = {"measuring sensitivity": 0.15, "measuring groups": 0.25, "trying plans": 0.8, "training": 0.95}
"""What such loops take of a turn of the loop around them: of what is left of it; others half of that."""

_MOST = 0.98  # of what is left of a phase: a loop may take longer than was expected
_DEFAULT = 1.0  # seconds that a phase is taken for, where nobody knows
_DOUBT = 0.15  # of all that is expected: only after that do measured times outweigh what was expected


@dataclass(eq=False)
class Loop:
    """An open loop: `done` of `total` turns. `start` and `part`: where it begins and how much it takes, of its phase or
    of a turn of the loop around it; `filled`: how much of its own turn inner loops have taken. `small`: it only shows
    that something goes on, and moves nothing in the loops around it."""

    title: str
    total: int
    start: float
    part: float
    small: bool = False
    done: int = 0
    filled: float = 0.0

    @property
    def text(self) -> str:
        """For people, like "reconstructing 3/12"."""
        title = getattr(self.title, "now", "") or self.title
        return f"{title} {min(self.done + 1, self.total)}/{self.total}"


@dataclass(frozen=True)
class View:
    """One look at a run: its `phases`, the number of the current one, how much of all is done (0..1), seconds that
    have passed and about how many remain (None: nobody knows), and what it does, the outermost loop first."""

    phases: tuple[Phase, ...]
    at: int
    done: float
    elapsed: float
    remaining: float | None
    doing: tuple[str, ...]

    @property
    def phase(self) -> str:
        """The name of the current phase; '' before the first."""
        return self.phases[self.at].value if 0 <= self.at < len(self.phases) else ""


class Course:
    """Phases one after another, and in them loops inside each other.

    How much a phase weighs is told by counts of its work (`expect`), how far it is by the turns of its outermost loop;
    the clock only corrects how long that work takes here.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._begin = self._entered = now()
        self._phases, self._at = tuple[Phase, ...](), -1
        self._expected, self._loop_seconds, self._known = dict[Phase, float](), dict[str, float](), False
        self._loops, self._several = list[Loop](), tuple[Phase, ...]()
        self._share = self._most = 0.0  # of the phase, of all

    def begin(self, phases: Sequence[Phase]) -> None:
        """The phases of a run. Those of a pipeline within another one do not count."""
        if not self._phases:
            self._phases = tuple(dict.fromkeys(phases))

    def expect(self, seconds: Mapping[Phase, float], loops: Mapping[str, float] | None = None) -> None:
        """About how long phases take, and loops in them by title."""
        if seconds and not self._loops:
            if not self._known and self._at <= 0:  # what was shown till now was a guess
                self._most = 0.0
            self._expected, self._loop_seconds, self._known = dict(seconds), dict(loops or {}), True

    @contextmanager
    def within(self, phases: Sequence[Phase]) -> Iterator[None]:
        """The first of these phases begins, unless this is part of a loop; loops that are left open end with it."""
        open_, several = len(self._loops), self._several
        if phases and not open_:
            self._several = tuple(phases)
            self._enter(phases[0])
        try:
            yield
        finally:
            del self._loops[open_:]
            self._several = several

    def opened(self, title: str, total: int, small: bool = False) -> Loop:
        """A loop of so many turns begins, in the one that is open."""
        if not self._loops and len(self._several) > 1:
            self._enter(_OPENS.get(title, Phase.PLAN))
        around = self._around
        if around is None:
            loop = Loop(title, total, self._share, self._part(title, small), small)
        else:
            part = (isinstance(title, Title) and title.part) or _INNER.get(title, _PART)
            loop = Loop(title, total, around.filled, (1 - around.filled) * part, small)
        self._loops.append(loop)
        return loop

    @property
    def _around(self) -> Loop | None:
        """The innermost loop that is open and moves something; the outermost one where none does."""
        return next((one for one in reversed(self._loops) if not one.small), self._loops[0] if self._loops else None)

    def _part(self, title: str, small: bool) -> float:
        """How much of the phase an outermost loop takes: as was expected of it, or most of what is left."""
        left = 1 - self._share
        if not self._phases:
            return left
        if isinstance(title, Title) and title.part:
            return min(_MOST, title.part) * left
        known = self._loop_seconds.get(title)
        if known is not None and self._at >= 0:
            return min(_MOST * left, known / self._weight(self._phases[self._at]))
        return left * _PARTS.get(title, 0.0 if small else _PART)

    def turned(self, loop: Loop, done: int) -> None:
        """So many turns of a loop are done; loops in it that were left open are over."""
        loop.done, loop.filled = done, 0.0
        if loop in self._loops:
            del self._loops[self._loops.index(loop) + 1 :]
            self._move()

    def closed(self, loop: Loop) -> None:
        """A loop is over, and so are those in it."""
        if loop in self._loops:
            at = self._loops.index(loop)
            if at == 0:
                self._share = max(self._share, loop.start + loop.part)
            del self._loops[at:]
            if self._around is not None and not loop.small:
                self._around.filled = loop.start + loop.part

    def view(self) -> View:
        """How far it is now."""
        loops = list(self._loops)
        self._most = max(self._most, self._done())
        return View(
            self._phases, self._at, self._most, self._now() - self._begin, self._remaining(),
            tuple(loop.text for loop in loops if loop.total),
        )  # fmt: skip

    def _enter(self, phase: Phase) -> None:
        """Phases only come one after another."""
        at = self._phases.index(phase) if phase in self._phases else -1
        if at > self._at:
            self._at, self._entered, self._share = at, self._now(), 0.0

    def _move(self) -> None:
        """How far the phase is, by all loops that are open."""
        inner = 0.0
        for loop in reversed([one for one in self._loops[1:] if not one.small]):
            inner = loop.start + loop.part * min(1.0, (loop.done + max(loop.filled, inner)) / max(1, loop.total))
        outer = self._loops[0]
        share = min(1.0, (outer.done + max(outer.filled, inner)) / max(1, outer.total))
        self._share = max(self._share, outer.start + outer.part * share)

    def _weight(self, phase: Phase) -> float:
        return max(1e-3, self._expected.get(phase, _DEFAULT))

    def _done(self) -> float:
        """Of all work, by what is expected of every phase; of a loop alone, how far that is."""
        if self._at < 0:
            return 0.0 if self._phases else self._share
        weights = [self._weight(phase) for phase in self._phases]
        return (sum(weights[: self._at]) + weights[self._at] * self._share) / sum(weights)

    def _remaining(self) -> float | None:
        """What was expected of the rest, corrected by how long the part that is done took."""
        done = self._done()
        if not self._known or self._at < 0:
            return None
        total = sum(self._weight(phase) for phase in self._phases)
        elapsed, doubt = self._now() - self._begin, _DOUBT * total
        pace = (elapsed + doubt) / (done * total + doubt)  # seconds that an expected second takes
        now = self._weight(self._phases[self._at])
        later = sum(self._weight(phase) for phase in self._phases[self._at + 1 :]) * pace
        spent = self._now() - self._entered
        rest = now * pace * (1 - self._share)
        if self._share > 0:
            told = spent * (1 - self._share) / self._share
            rest += self._share * (told - rest)
        return rest + later
