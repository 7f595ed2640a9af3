"""What a candidate weighs and how fast it is, measured while the fold is still being decided."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from onnx import ModelProto

from .errors import RequestError
from .model import Model
from .session import Feeds, Session
from .store import inline, size_written
from .validate import brief, interleaved, short, timing_feeds

AGREE = 1.05  # ratios of latencies that differ by less are one measurement
MOST_PAIRS = 2  # of measurements, one in each order


class Gauge:
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
    ) -> None:
        self._model, self._target, self._external = model, target, external_data
        self._provider, self._feeds = provider, feeds

    def size(self, proto: ModelProto) -> int:
        """Bytes of the file that a version would be, external data included."""
        return size_written(proto, self._model, self._target, self._external)

    def latency(self, proto: ModelProto) -> float:
        """The share of the original's median latency that a version takes, at batch 1 or the model's own.

        Both run in turn, once with each of them first, and again while the ratios disagree; the median counts. Raises
        RequestError where the original cannot be timed; what onnxruntime raises where the version cannot.
        """
        old, feeds = self._original
        new = self._session(proto)
        return latency_share(old, new, timing_feeds(old, new, feeds))

    @cached_property
    def _original(self) -> tuple[Session, Feeds]:
        if self._provider is None:
            raise RequestError("--target-latency has nothing to measure on: none of --providers is there")
        try:
            session = self._session(self._model.proto)
            feeds = self._feeds(session)
            session.run(feeds)
        except Exception as error:  # onnxruntime's exceptions share no base class
            where = short(self._provider)
            raise RequestError(
                f"--target-latency cannot be measured, the model does not run on {where}: {brief(error)}"
            ) from error
        return session, feeds

    def _session(self, proto: ModelProto) -> Session:
        assert self._provider is not None
        return Session(inline(proto, self._model.folder, as_is=True).SerializeToString(), self._provider)


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
