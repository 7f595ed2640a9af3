"""Where the time of a model goes: milliseconds by operator, from onnxruntime's own profile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from ..errors import ExecutionError
from ..runtime.probe_inputs import first
from ..runtime.session import SHORT, Feeds, Session
from .latency import OperatorTime
from .operator_profile import operator_times
from .verdict import Check, ProviderCheck

_QUICK = 100.0  # ms that a run of both models may take together: of slower ones nothing is looked into
_LARGEST, _SMALL = 1 << 29, 1 << 25  # bytes of a file that is loaded once more for this; where time is short


def with_operators(
    verdict: Check, before: Path, after: Path, feeds: Callable[[], Feeds], folder: Path, quick: bool = False
) -> Check:
    """The verdict with times by operator on the CPU, where both models run there and that takes no time to speak of; of
    latencies that another device has, nothing is looked into here.

    Args:
        before, after: both files.
        feeds: gives what they run on, at batch 1 where the original takes that; asked only where both ran.
        folder: for the profiles.
        quick: only small files are looked into.
    """
    done = next((one for one in verdict.providers if one.provider == SHORT["cpu"]), None)
    largest = _SMALL if quick else _LARGEST
    if done is None or not _quick(done) or max(one.stat().st_size for one in (before, after)) > largest:
        return verdict
    try:
        single = _fitting(before, feeds())
        times = [operator_times(model, single, folder / name) for model, name in ((before, "before"), (after, "after"))]
    except ExecutionError:  # the verdict says whether a model runs
        return verdict
    looked_into = replace(done, operators=_beside(*times))
    return replace(verdict, providers=tuple(looked_into if one is done else one for one in verdict.providers))


def _quick(done: ProviderCheck) -> bool:
    before, after = done.latency_before_ms, done.latency_after_ms
    return not done.timed_on and before is not None and after is not None and before + after <= _QUICK


def _fitting(model: Path, feeds: Feeds) -> Feeds:
    """One sample, where the model takes a batch of one."""
    single = first(feeds, 1)
    try:
        Session(model).run(single)
    except ExecutionError:  # a fixed batch
        return feeds
    return single


def _beside(before: Mapping[str, float], after: Mapping[str, float]) -> tuple[OperatorTime, ...]:
    """What takes longest in the original first."""
    names = sorted({*before, *after}, key=lambda op: (-before.get(op, 0.0), -after.get(op, 0.0), op))
    return tuple(OperatorTime(op, round(before.get(op, 0.0), 6), round(after.get(op, 0.0), 6)) for op in names)
