"""The user's own measure: a function of the path of a model that gives a number, higher is better.

FILE.py:FUNCTION runs in a process of its own, so that nothing it does (hang, crash, exit, print) touches this one. A
function given in Python is simply called.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import RequestError
from ..model.leftovers import scratch_folder
from . import function_process
from .function_process import NotMeasuredError, number, raised
from .own_process import ended, waited

Function = Callable[[str], object]
_SLACK = 30.0  # seconds after the timeout, where nobody is left to end the process
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Measured:
    """What the user's own `metric` says of the original (`before`) and of a result (`after`); `drop`: by how much it
    fell, `max_drop`: by how much it may (None: that was not asked)."""

    metric: str
    before: float
    after: float
    drop: float
    max_drop: float | None = None

    @property
    def kept(self) -> bool:
        """Whether it was asked to keep `max_drop`, and does."""
        return self.max_drop is not None and self.drop <= self.max_drop + _ROUNDING * max(1.0, abs(self.before))

    @property
    def broken(self) -> str:
        """How `max_drop` is broken, in words; '' where it is not."""
        return "" if self.kept or self.max_drop is None else f"{self}, which breaks `max_drop={self.max_drop:g}`"

    def __str__(self) -> str:
        """In words: 'metric 97.1 (was 98.2)'."""
        return f"metric {self.after:.5g} (was {self.before:.5g})"


@dataclass(frozen=True, eq=False)
class OwnMeasure:
    """The user's own measure: how to call it for a file, what it is called, what it says of the original (`before`),
    by how much it may fall (None: any), and how many `seconds` it took."""

    call: Callable[[Path], float] = field(repr=False)
    name: str
    before: float
    max_drop: float | None = None
    seconds: float = 0.0

    def of(self, model: Path) -> Measured:
        """What it says of a model. Raises RequestError where it fails."""
        after = self.call(model)
        return Measured(self.name, self.before, after, self.before - after, self.max_drop)


def own_measure(metric: Function | str, original: Path, max_drop: float | None, timeout: float) -> OwnMeasure:
    """Measure the original. Raises RequestError where there is no such file or function, or where it fails."""
    call, name = (_Process(metric, timeout), metric) if isinstance(metric, str) else (_Direct(metric), _name(metric))
    begin = time.perf_counter()
    value = call(original)
    return OwnMeasure(call, name, value, max_drop, time.perf_counter() - begin)


def _name(function: Function) -> str:
    return getattr(function, "__qualname__", "") or type(function).__name__


@dataclass(frozen=True)
class _Direct:
    """A function given in Python."""

    function: Function

    def __call__(self, model: Path) -> float:
        """Its number. Raises RequestError."""
        try:
            return number(self.function(str(model)))
        except NotMeasuredError as error:
            what = str(error)
        except (Exception, SystemExit) as error:
            raise RequestError(f"`metric`: '{_name(self.function)}' {raised(error)}") from error
        raise RequestError(f"`metric`: '{_name(self.function)}' {what}")


@dataclass(frozen=True)
class _Process:
    """FILE.py:FUNCTION (`metric`), which may take `timeout` seconds."""

    metric: str
    timeout: float

    def __call__(self, model: Path) -> float:
        """Its number. Raises RequestError."""
        file, _, function = self.metric.rpartition(":")
        if not os.path.isfile(file):
            raise RequestError(f"`metric`: there is no file '{file}'")
        with scratch_folder() as folder:
            answer = folder / "answer.json"
            given = [file, function, str(model), str(answer), str(self.timeout + _SLACK)]
            self._run([sys.executable, "-B", function_process.__file__, *given], answer)
            found = json.loads(answer.read_text(encoding="utf-8"))
        if "error" in found:
            raise RequestError(f"`metric`: '{self.metric}' {found['error']}")
        return float(found["value"])

    def _run(self, command: list[str], answer: Path) -> None:
        """Until the answer is there. Raises RequestError where none comes."""
        try:
            code = waited(command, self.timeout)
        except OSError as error:
            raise RequestError(f"`metric`: Python cannot be started: {error.strerror or error}") from error
        if answer.is_file():  # it may have left threads behind that go on
            return
        if code is None:
            raise RequestError(
                f"`metric`: '{self.metric}' took more than {self.timeout:g} seconds for one model: use a larger "
                "`metric_timeout`, or let it evaluate fewer samples"
            )
        raise RequestError(f"`metric`: '{self.metric}' exited ({ended(code)}) before it returned a value")
