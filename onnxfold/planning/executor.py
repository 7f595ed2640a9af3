"""Who does independent tasks: this thread, several threads, or the workers of a Dask cluster. joblib hands them out."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeVar

from ..errors import BUILTIN_ERRORS, ExecutionError, OnnxFoldError, RequestError, RuleError

Given = TypeVar("Given")
Done = TypeVar("Done")
_ANSWER = 10  # seconds that a scheduler may take to answer


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
        from joblib import Parallel, delayed, parallel_config  # slow to import, and one thread needs none of it

        with self._cluster() if self.away else parallel_config(backend="threading", n_jobs=self.jobs):
            parallel = Parallel(return_as="generator_unordered", pre_dispatch="all" if self.away else self.jobs)
            yield from parallel(delayed(_numbered)(function, number, task) for number, task in _numbers(tasks))

    def check(self) -> None:
        """Raise RequestError where the cluster cannot be used."""
        if self.away:
            with self._cluster():
                pass

    @contextmanager
    def _cluster(self) -> Iterator[None]:
        from joblib import parallel_config  # slow to import, as above

        where = f"the Dask scheduler at {self.scheduler}"
        try:
            distributed: Any = import_module("distributed")
        except ImportError as error:
            raise RequestError(f"`scheduler` needs Dask ({error}): pip install 'onnxfold[dask]'") from None
        for name in ("distributed", "asyncio", "tornado"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # what they would say comes as exceptions
        try:
            client = distributed.Client(self.scheduler, timeout=_ANSWER, set_as_default=True)
        except Exception as error:  # OSError, ValueError, TimeoutError, and whatever a transport raises
            raise RequestError(f"{where} does not answer ({_reason(error)}): check the address") from None
        try:
            if not client.scheduler_info()["workers"]:
                raise RequestError(f"{where} has no workers: start some with 'dask worker {self.scheduler}'")
            with parallel_config(backend="dask"):
                yield
        except (OnnxFoldError, ExecutionError, RuleError, GeneratorExit, MemoryError):
            raise
        except Exception as error:
            raise RequestError(
                f"{where} or one of its workers failed ({_reason(error)}): they need the same onnxfold, and the "
                "model's files under the same path"
            ) from error
        finally:
            client.close(timeout=_ANSWER)


def _numbered(function: Callable[[Given], Done], number: int, task: Given) -> tuple[int, Done]:
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


def _reason(error: BaseException) -> str:
    lines: list[Any] = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}"[:200] if lines else type(error).__name__
