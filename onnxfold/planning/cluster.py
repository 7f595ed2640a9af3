"""The workers of a Dask cluster do tasks, and whoever is silent for too long is given up with one line.

Tasks and outcomes are pickled: scheduler and workers can run what they like here (docs/large-models.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from itertools import islice
from typing import Any, TypeVar

from ..errors import ExecutionError, OnnxFoldError, RequestError, RuleError

Given = TypeVar("Given")
Done = TypeVar("Done")

ANSWER = 10.0  # seconds that a scheduler may take to answer
ARRIVAL = 10.0  # seconds that the first worker may take to come
SILENCE = 60.0  # seconds without a sign of any worker; they give one every second or two, also while they work
LOOK = 1.0  # seconds between two looks at them
_AHEAD = 2  # tasks that are sent for every thread of the workers, so that none waits for the next one


@contextlib.contextmanager
def connected(address: str) -> Iterator[Cluster]:
    """The cluster whose scheduler has this address, until the block ends.

    Raises RequestError, in one line, for one that cannot be used or that fails in the block.
    """
    where = f"the Dask scheduler at {address}"
    distributed = _imported()
    try:
        with ThreadPoolExecutor(1) as apart:  # an event loop may run in this thread
            apart.submit(asyncio.run, _greet(distributed, address)).result()
        client = distributed.Client(address, timeout=ANSWER, set_as_default=False)
    except Exception as error:  # OSError, ValueError, TimeoutError, and whatever a transport raises
        raise RequestError(f"{where} does not answer ({_reason(error)}): check the address") from None
    try:
        cluster = Cluster(distributed, client, address)
        cluster.await_workers()
        yield cluster
    except (OnnxFoldError, ExecutionError, RuleError, GeneratorExit, MemoryError):
        raise
    except Exception as error:
        raise RequestError(
            f"{where} or one of its workers failed ({_reason(error)}): they need the same onnxfold, and the "
            "model's files under the same path"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # it does not answer any more
            client.close(timeout=ANSWER)


class Cluster:
    """The workers that a `client` reaches, and when one of them was last heard of."""

    def __init__(self, distributed: Any, client: Any, address: str) -> None:
        self._distributed, self._client, self._address = distributed, client, address
        self._sign, self._heard = 0.0, time.monotonic()  # by the scheduler's clock, by ours

    def await_workers(self) -> None:
        """Raise RequestError where no worker comes."""
        end = time.monotonic() + ARRIVAL
        while not self._workers():
            if time.monotonic() > end:
                raise RequestError(
                    f"the Dask scheduler at {self._address} has no workers: start some with 'dask worker "
                    f"{self._address}'"
                )
            time.sleep(min(LOOK, 0.2))

    def each(self, function: Callable[[Given], Done], tasks: Iterable[Given]) -> Generator[Done]:
        """What `function` makes of each task, in the order in which they are done. Raises what `function` raises."""
        left, waiting = iter(tasks), set[Any]()
        while True:
            room = _AHEAD * sum(worker["nthreads"] for worker in self._workers()) - len(waiting)
            waiting |= {self._sent(function, task) for task in islice(left, max(room, 0 if waiting else 1))}
            if not waiting:
                return
            for future in self._ready(waiting):
                waiting.remove(future)
                yield self._outcome(future)

    def _sent(self, function: Callable[[Given], Done], task: Given) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tasks with weights are large, and have to be
            return self._client.submit(partial(function, task), pure=False)

    def _ready(self, waiting: set[Any]) -> Iterable[Any]:
        """Those that are done; none, after a while, if the rest of the cluster is heard of."""
        try:
            with self._client.as_current():
                found = self._distributed.wait(waiting, timeout=LOOK, return_when="FIRST_COMPLETED")
        except TimeoutError:
            self._listen()
            return ()
        self._heard = time.monotonic()
        return tuple(found.done)

    def _outcome(self, future: Any) -> Any:
        while True:
            try:
                return future.result(timeout=LOOK)
            except TimeoutError:
                if future.status == "error":  # the task's own
                    raise
                self._listen()

    def _listen(self) -> None:
        """Raise RequestError where no worker has been heard of for too long."""
        sign = max((float(worker["last_seen"]) for worker in self._workers()), default=0.0)
        if sign > self._sign:
            self._sign, self._heard = sign, time.monotonic()
        elif time.monotonic() - self._heard > SILENCE:
            raise RequestError(
                f"no worker of the Dask scheduler at {self._address} has responded for {SILENCE:.0f} seconds: "
                "check whether they are still running"
            )

    def _workers(self) -> list[dict[str, Any]]:
        """What the scheduler says of each. Raises RequestError if it says nothing, and what a transport raises."""
        try:
            said = self._client.sync(self._client.scheduler.identity, callback_timeout=ANSWER)
        except TimeoutError:
            raise RequestError(
                f"the Dask scheduler at {self._address} stopped responding ({ANSWER:.0f} seconds without an answer)"
            ) from None
        return list(said["workers"].values())


async def _greet(distributed: Any, address: str) -> None:
    """Ask the scheduler for its name. A client would wait without end for one that accepts and says nothing."""

    async def ask() -> None:
        async with distributed.rpc(address) as scheduler:
            await scheduler.identity()

    await asyncio.wait_for(ask(), ANSWER)


def _imported() -> Any:
    try:
        distributed: Any = import_module("distributed")
    except ImportError as error:
        raise RequestError(f"`scheduler` needs Dask ({error}): pip install 'onnxfold[dask]'") from None
    for name in ("distributed", "asyncio", "tornado"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what they would say comes as exceptions
    return distributed


def _reason(error: BaseException) -> str:
    lines: list[Any] = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}"[:200] if lines else type(error).__name__
