"""Who does independent tasks: this thread, several threads (by joblib), or the workers of a Dask cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from ..errors import BUILTIN_ERRORS, RuleError
from .cluster import connected

Given = TypeVar("Given")
Done = TypeVar("Done")


@dataclass(frozen=True)
class Executor:
    """So many `jobs` at a time in this process, or as many as the workers of the Dask `scheduler` take.

    `scheduler` is its address, like tcp://127.0.0.1:8786; '' for none.
    """

    jobs: int = 1
    scheduler: str = ""

    @property
    def away(self) -> bool:
        """Whether tasks leave this process."""
        return bool(self.scheduler)

    def threads(self, wanted: int) -> int:
        """The threads that one task may use, of so many `wanted` for all (0: all there are)."""
        if self.away:
            return 1  # a worker takes as many tasks as it has threads
        return wanted if self.jobs == 1 else max(1, (wanted or os.cpu_count() or 1) // self.jobs)

    def each(self, function: Callable[[Given], Done], tasks: Iterable[Given]) -> Generator[tuple[int, Done]]:
        """(number of the task, what `function` made of it), in the order in which they are done.

        Raises what `function` raises, and RequestError for a cluster that cannot be used, in one line.
        """
        if not self.away and self.jobs == 1:
            yield from ((number, function(task)) for number, task in enumerate(tasks))
            return
        given, numbered = _numbers(tasks), partial(_numbered, function)
        if self.away:
            with connected(self.scheduler) as cluster:
                yield from cluster.each(numbered, given)
            return
        from joblib import Parallel, delayed, parallel_config  # slow to import, and one thread needs none of it

        with parallel_config(backend="threading", n_jobs=self.jobs):
            parallel = Parallel(return_as="generator_unordered", pre_dispatch=self.jobs)
            yield from parallel(delayed(numbered)(task) for task in given)

    def check(self) -> None:
        """Raise RequestError where the cluster cannot be used."""
        if self.away:
            with connected(self.scheduler):
                pass


def _numbered(function: Callable[[Given], Done], numbered: tuple[int, Given]) -> tuple[int, Done]:
    number, task = numbered
    with _ours():
        return number, function(task)


def _numbers(tasks: Iterable[Given]) -> Iterator[tuple[int, Given]]:
    with _ours():
        yield from enumerate(tasks)


@contextmanager
def _ours() -> Iterator[None]:
    """What goes wrong inside is a bug of ours, and no trouble with a cluster: RuleError says so."""
    try:
        yield
    except BUILTIN_ERRORS as error:
        raise RuleError(f"{type(error).__name__}: {error}") from error
