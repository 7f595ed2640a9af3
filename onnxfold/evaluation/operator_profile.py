"""Milliseconds by operator or by node, from onnxruntime's own profile."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from ..runtime.session import Feeds, Session

Events = Iterable[Mapping[str, Any]]
RUNS = 5  # that count; one before them does not


def operator_times(model: Path | bytes, feeds: Feeds, profile: Path) -> Mapping[str, float]:
    """Milliseconds by operator on the CPU, as onnxruntime has them after its own optimizations.

    `profile`: the beginning of the name of a file, which is removed. Raises ExecutionError.
    """
    return by_operator(profiled(model, feeds, profile))


def profiled(model: Path | bytes, feeds: Feeds, profile: Path) -> Events:
    """The events of a few runs on the CPU. `profile` as above. Raises ExecutionError."""
    session = Session(model, profile=profile)
    for _ in range(1 + RUNS):
        session.run(session.fitted(feeds))
    written = session.end_profile()
    events: Events = json.loads(written.read_text(encoding="utf-8"))
    written.unlink()
    return events


def by_operator(events: Events) -> Mapping[str, float]:
    """Milliseconds by operator, of the events of a profile: the median of all runs but the first."""
    return _by(events, lambda one: one.get("args", {}).get("op_name"))


def by_node(events: Events) -> Mapping[str, float]:
    """Milliseconds by name of a node, likewise."""
    return _by(events, lambda one: one["name"].removesuffix("_kernel_time"))


def _by(events: Events, key: Callable[[Mapping[str, Any]], Any]) -> Mapping[str, float]:
    found = sorted((one for one in events if "dur" in one), key=lambda one: one["ts"])
    ends = [one["ts"] + one["dur"] for one in found if one["name"] == "model_run"]
    total: list[Counter[str]] = [Counter() for _ in ends]
    for one in found:
        name, run = key(one), bisect_right(ends, one["ts"])
        if name and one["name"].endswith("_kernel_time") and run < len(ends):
            total[run][name] += one["dur"]
    return {name: median(run[name] for run in total[1:]) / 1e3 for name in set().union(*total[1:])}
