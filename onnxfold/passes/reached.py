"""What did not run is not judged: groups in bodies of If, Loop and Scan that no input reached stay as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..analysis.idle_bodies import Bodies
from ..calibration.judge import Judge
from ..calibration.samples import Samples
from ..errors import ExecutionError, NothingToFoldError, RequestError
from ..options.parts import PlanningOptions
from ..planning.subject import Subject
from ..runtime.session import Feeds
from ..runtime.switches import switched
from ..runtime.watch import Watch
from .base import BasePass, Run, State


class KeepUnreached(BasePass):
    """Leaves groups alone that live where nothing runs on the inputs that results are measured on.

    Where samples to fit on reach what those held back do not, results are measured on them too. A model that cannot
    run, or is too large to, keeps its groups: its report says that nothing was measured.
    """

    name = "samples"
    requires = frozenset(("analysis", "samples"))

    def __init__(self, planning: PlanningOptions) -> None:
        self._planning = planning

    def __call__(self, state: State, run: Run) -> State:
        """Raises NothingToFoldError where no group is left."""
        subject, bodies = state.known, Bodies.of(state.source)
        groups = [group for group in subject.analysis.groups if group.name in subject.chosen]
        everything = range(len(bodies.bodies))
        if subject.streamed or not bodies.blind(groups, everything):
            return state
        try:
            samples, cover, idle = self._run(state, frozenset(everything))
        except (ExecutionError, RequestError):  # the verdict says why nothing runs
            return state
        kept = bodies.blind(groups, idle)
        return state.adding(subject=replace(_without(subject, kept), more=cover), samples=samples)

    def _run(self, state: State, bodies: frozenset[int]) -> tuple[Samples | None, tuple[Feeds, ...], frozenset[int]]:
        """Samples that reach all that they can where they are measured on, inputs that do as much, and idle bodies."""
        model, samples, watch = state.source, state.samples, Watch(state.source)
        if samples is None or not samples.trusted:
            probe = state.known.checks(self._planning).single(watch.session)
            idle = bodies - watch.bodies(probe)
            sets = switched(model, watch, probe, idle)
            return samples, tuple(sets), idle.difference(*(watch.bodies({**probe, **one}) for one in sets))
        if not samples.own:
            first = samples.check[0]
            sets = switched(model, watch, first, bodies - watch.bodies(first))
            samples = replace(
                samples, fit=_dealt(samples.fit, sets), judge=_judging(samples.judge, _dealt(samples.check, sets))
            )
        cover, idle = list[Feeds](), bodies
        for feeds in (*samples.check, *samples.fit):
            ran = idle & watch.bodies(feeds) if idle else idle
            cover += [feeds] if ran else []
            idle -= ran
        held = [feeds for feeds in cover if all(feeds is not one for one in samples.check)]
        return replace(samples, judge=_judging(samples.judge, (*samples.check, *held))), tuple(cover), idle


def _judging(judge: Judge, batches: tuple[Feeds, ...]) -> Judge:
    return replace(judge, batches=batches)


def _dealt(feeds: Sequence[Feeds], sets: Sequence[Feeds]) -> tuple[Feeds, ...]:
    """Feeds that have these inputs set as they are and in each of these ways: dealt out where there are enough."""
    ways: list[Feeds] = [{}, *sets]
    if len(feeds) >= 2 * len(ways):
        return tuple({**one, **ways[number % len(ways)]} for number, one in enumerate(feeds))
    return tuple({**one, **way} for one in feeds for way in ways)


def _without(subject: Subject, kept: Mapping[str, str]) -> Subject:
    """The subject without the groups `kept`, whose reasons are given. Raises NothingToFoldError where none is left."""
    chosen = tuple(name for name in subject.chosen if name not in kept)
    if not chosen:
        reasons = "; ".join(dict.fromkeys(kept.values()))
        raise NothingToFoldError(f"nothing to fold in {subject.name}: all groups are {reasons}")
    return replace(subject, chosen=chosen, notes={**subject.notes, **kept})
