"""What a candidate weighs and how fast it is, measured while the fold is still being decided."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from onnx import ModelProto

from ..errors import ExecutionError, RequestError
from ..model.model import Model
from ..model.save import size_written
from ..runtime.probe_inputs import first
from ..runtime.session import Feeds, Session, brief, short
from .device_latency import CommandTimer

LATENCY_SECONDS = 1.5  # spent per provider on interleaved timing runs, all models together
_BRIEFLY = 1 / 3  # of that, where little time is to be spent
LATENCY_RUNS = (3, 1000)  # at least and at most, per model
TURN = (3, 5)  # untimed and timed runs before the other model's turn; measured: single runs in turn are off by 4x
SLOWER = 1.02  # times the latency; below, a difference is noise


@dataclass(frozen=True)
class OperatorTime:
    """Milliseconds that all nodes of one operator take in a run of each model (the median of several); operators as
    onnxruntime has them after its own optimizations."""

    op: str
    before_ms: float
    after_ms: float


def timing_feeds(old: Session, new: Session, given: Feeds) -> Feeds:
    """One sample where the original takes a batch of one, else all of `given`. Runs both, so they are warm after it."""
    single = first(given, 1)
    try:
        old.run(single)
    except ExecutionError:  # a fixed batch
        single = dict(given)
        old.run(single)
    new.run(new.fitted(single))
    return single


def interleaved(old: Session, new: Session, feeds: Feeds) -> tuple[float, float]:
    """Median latencies in ms of both models, as `in_turn` has them."""
    before, after = in_turn(old, new, feeds)
    return float(np.median(before)), float(np.median(after))


def in_turn(old: Session, new: Session, feeds: Feeds, *others: Session) -> tuple[Sequence[float], ...]:
    """Latencies in ms of two models or more (warm already), run in turn so that a busy machine slows all alike.

    Fast models take turns of several runs: the first of a turn pay for threads and caches that the other model had.
    """
    return _in_turn((old, new, *others), feeds, LATENCY_SECONDS)


def briefly_in_turn(old: Session, new: Session, feeds: Feeds, *others: Session) -> tuple[Sequence[float], ...]:
    """The same in a third of the time, of fewer runs."""
    return _in_turn((old, new, *others), feeds, LATENCY_SECONDS * _BRIEFLY)


def _in_turn(sessions: Sequence[Session], feeds: Feeds, seconds: float) -> tuple[Sequence[float], ...]:
    times = tuple(list[float]() for _ in sessions)
    fed = [one.fitted(feeds) for one in sessions]
    least, most = LATENCY_RUNS
    begin = time.perf_counter()
    sessions[0].run(fed[0])
    shortest = (time.perf_counter() - begin) * len(sessions) * sum(TURN) * least
    untimed, timed = TURN if shortest < seconds else (0, 1)
    begin = time.perf_counter()
    while len(times[0]) < most and (len(times[0]) < least or time.perf_counter() - begin < seconds):
        for session, given, taken in zip(sessions, fed, times, strict=True):
            for _ in range(untimed):
                session.run(given)
            for _ in range(timed):
                start = time.perf_counter()
                session.run(given)
                taken.append((time.perf_counter() - start) * 1e3)
    return times


AGREE = 1.05  # ratios of latencies that differ by less are one measurement
MOST_PAIRS = 2  # of measurements, one in each order


class Profiler:
    """Measures versions of `model` against it: file sizes as `target` would be written, latencies on `provider`.

    `provider` is None where there is none to time on, `feeds` makes what is timed. Nothing runs before it is asked for.
    """

    def __init__(
        self,
        model: Model,
        target: Path,
        external_data: bool,
        provider: str | None,
        feeds: Callable[[Session], Feeds],
        timer: CommandTimer | None = None,
    ) -> None:
        """`timer`: measures latencies on another device, instead of the provider."""
        self._timer = timer
        self._model, self._target, self._external = model, target, external_data
        self._provider, self._feeds = provider, feeds

    def size(self, proto: ModelProto) -> int:
        """Bytes of the file that a version would be, external data included."""
        return size_written(proto, self._model, self._target, self._external)

    def latency(self, proto: ModelProto) -> float:
        """The share of the original's median latency that a version takes, at batch 1 or the model's own.

        Both run in turn, once with each of them first, and again while the ratios disagree; the median counts. Raises
        RequestError where the original cannot be timed, ExecutionError where the version cannot.
        """
        if self._timer is not None:
            return self._timer.share(self._model.proto, proto, self._model.folder)
        old, feeds = self._original
        new = self._session(proto)
        return latency_share(old, new, timing_feeds(old, new, feeds))

    @cached_property
    def _original(self) -> tuple[Session, Feeds]:
        if self._provider is None:
            raise RequestError(
                "`target_latency` cannot be measured: none of the `providers` you asked for is available here"
            )
        try:
            session = self._session(self._model.proto)
            feeds = self._feeds(session)
            session.run(feeds)
        except (ExecutionError, RequestError) as error:
            where = short(self._provider)
            raise RequestError(
                f"`target_latency` cannot be measured: the model does not run on {where} ({brief(error)})"
            ) from error
        return session, feeds

    def _session(self, proto: ModelProto) -> Session:
        assert self._provider is not None
        return Session.of_version(proto, self._model.folder, self._provider, as_is=True)


def latency_share(old: Session, new: Session, feeds: Feeds) -> float:
    """The latency of `new` over that of `old`: the median over measurements that let each of them go first."""
    ratios: list[float] = []
    for _ in range(MOST_PAIRS):
        before, after = interleaved(old, new, feeds)
        ratios.append(after / before)
        after, before = interleaved(new, old, feeds)
        ratios.append(after / before)
        if _spread(ratios) <= AGREE:
            break
    return math.exp(float(np.median(np.log(ratios))))


def _spread(ratios: Sequence[float]) -> float:
    return max(ratios) / min(ratios)
