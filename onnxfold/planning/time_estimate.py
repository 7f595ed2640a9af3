"""How long a fold is going to take, before it begins: two short measurements and counts of what is to be done."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..calibration.collect import wanted
from ..calibration.samples import are_made, synthetic_extent
from ..errors import ExecutionError, RequestError
from ..options.budget import Aim
from ..options.parts import PlanningOptions
from ..progress import Phase
from ..recovery.moments import LEAST_ROWS
from ..runtime.session import Session
from .allocation import Width, special_ratios
from .drops import MEASURED
from .given_plan import given_widths
from .goal import Goal
from .making_time import longer, making
from .memory import group_sizes
from .plan_choice import FEW, MOST, TRIAL_SAMPLES, TRIAL_SHARE, tries
from .search import TRIALS
from .single_folds import ROWS, affordable
from .subject import Subject, probes

_CHECK = 8.0  # seconds to measure latency, by operator too
_OPERATORS = 5.0  # of that, by operator: runs that make many models leave it out
_MEASURED = 1.1  # for every group that is folded alone, at every share
_FITTED = 0.4  # of the arithmetic of a fit: half of what is symmetric is computed, and models are narrower by then
_SOLVED, _WALKED = 0.6, 5.0  # to look at all groups on all samples, or to reconstruct all: fits, and forward passes
_CONSUMER = 0.05  # and seconds for every consumer
_SESSION = 0.02  # seconds for every consumer in a trial of a plan
_TRIED = 2.4  # forward passes over what a trial of a plan is fitted on
_CHOSEN = 1.5  # times a group is folded alone where ways to merge are compared
_BRIEF = 4.0  # times shorter than training in full
_STEP = 5.0  # forward passes that a step of refinement takes
_USUAL = 0.5  # texts are trained on at about this share of the length that they are made with
_START = 0.04  # seconds to start the sessions for that
_PAIR = 1.5e-7  # to cluster, for every pair of channels
_BYTE = 6e-9  # to read, hash and write one
_PRICED = 2e-7  # to price a plan, for every axis of the model
_LONG = 18.0  # seconds, with the check: what takes less begins without a word
_SIDE = 512  # of the matrices whose product is timed
_TURNS, _TIMING = 5, 0.5  # at most; seconds after which no further turn is timed


@dataclass(frozen=True)
class Work:
    """How much a run makes of one sensitivity analysis, about: models that are only `quantized`, `folds` of few plans,
    models `folded` (in floats and in fewer bits), models whose layers change as `wholes`, brief `trainings`, and folds
    that are `settled`: made with all plans, and trained in full where any is."""

    quantized: int = 0
    folds: int = 0
    folded: int = 0
    wholes: int = 0
    trainings: int = 0
    settled: int = 0

    @classmethod
    def of_folds(cls, count: int) -> Work:
        """So many folds, each of which is measured once, and one of them in full."""
        return cls(folds=count, folded=count, settled=min(1, count))


@dataclass(frozen=True)
class Estimate:
    """Seconds: to make `samples` (0 where there are some), and for all else (`fold`); `phases` has both, by phase, and
    `loops` parts of them by the titles of loops."""

    samples: float
    fold: float
    phases: Mapping[Phase, float] = field(default_factory=dict, compare=False, repr=False)
    loops: Mapping[str, float] = field(default_factory=dict, compare=False, repr=False)

    def of_models(self, work: Work | None) -> Mapping[Phase, float]:
        """The same for a run that makes several models; None: for the one of a fold."""
        if work is None:
            return self.phases
        return {Phase.INPUTS: self.phases.get(Phase.INPUTS, 0.0), Phase.MODELS: sum(self.stages(work))}

    def stages(self, work: Work) -> tuple[float, float, float, float, float]:
        """Seconds to quantize, to fold, to change whole layers, to train and to settle, one after another; what is done
        once for all folds is part of the folding, and the sensitivity analysis of what comes first."""
        curves, plan, made, trained = (
            self.phases.get(phase, 0.0) for phase in (Phase.SENSITIVITY, Phase.PLAN, Phase.RECONSTRUCT, Phase.TRAIN)
        )
        check = max(0.1, self.phases.get(Phase.CHECK, 0.0) - _OPERATORS)
        weighed, tried = (self.loops.get(name, 0.0) for name in ("weighing widths", "trying plans"))
        few = weighed + tried * FEW / MOST
        return (
            work.quantized * check + (curves if work.quantized else 0.0),
            (work.folds * (few + made) + work.folded * check + plan - weighed - tried if work.folds else 0.0)
            + (0.0 if work.quantized else curves),
            work.wholes * (2 * made + check),
            work.trainings * (trained / _BRIEF + check),
            work.settled * (weighed + tried + made + check + (trained if work.trainings else 0.0)),
        )

    def with_metric(self, seconds: float, searched: bool) -> Estimate:
        """With the user's own measure, which takes so long for one model. `searched`: folds are made and measured until
        one keeps a limit; the last of these is the result."""
        phases, loops = dict(self.phases), dict(self.loops)
        phases[Phase.CHECK] = phases.get(Phase.CHECK, 0.0) + seconds
        more = seconds
        if searched:
            each = phases.pop(Phase.RECONSTRUCT, 0.0)
            loops["measuring folds"] = MEASURED * (seconds + each)
            phases[Phase.PLAN] = phases.get(Phase.PLAN, 0.0) + loops["measuring folds"]
            more += loops["measuring folds"] - each
        return replace(self, fold=self.fold + more, phases=phases, loops=loops)

    @property
    def worth_saying(self) -> bool:
        """Whether it is long enough to be told."""
        return self.samples + self.fold > _LONG

    def __str__(self) -> str:
        """In words: 'about 2 minutes (1 minute of that to make inputs)'."""
        made = f" ({_spoken(self.samples)} of that to make inputs)" if self.samples >= 1 else ""
        return f"about {_spoken(self.samples + self.fold)}{made}"


def estimate(
    subject: Subject,
    options: PlanningOptions,
    own: int,
    measured: bool,
    refining: tuple[int, int] | None = None,
    tried: bool = False,
    searched: bool = False,
) -> Estimate | None:
    """What a fold with samples may take on this machine as busy as it is now; None where that cannot be told.

    Args:
        own: calibration samples of the user, 0 where inputs are to be made.
        measured: whether error curves are (a ratio needs none).
        refining: steps of refinement, and samples in each; None without.
        tried: whether several plans are (targets for MACs or parameters).
        searched: whether several models are made until one keeps a limit of error or agreement.
    """
    if not own and not wanted(options.effort, options.selection.method, options.recovery, refining is not None):
        return None
    try:
        forward = _forward(subject)
    except (ExecutionError, RequestError):  # what is wrong will be said later
        return None
    made, count, shapes = 0.0, own, subject.shapes
    long = longer(subject.model, shapes)
    if not own:
        found = making(subject.model, synthetic_extent(subject.model, options.effort, shapes), forward, shapes)
        made, count = found.seconds, found.count
        if are_made(subject.model, options.effort, options.runtime.seed, shapes):
            made = 0.0
    forward *= long
    alone = (2 if measured else 0) + (_CHOSEN if own else 0)
    work, rate = subject.merger(options), _rate()
    consumers = frozenset[str]().union(*map(work.layout.consumer_outputs, subject.chosen))
    brief, full = (work.layout.fit_work(subject.chosen, rows) for rows in (ROWS, LEAST_ROWS))
    singly = affordable(work.layout, subject.chosen, alone)
    each = forward * count * _MEASURED + _START
    fitting = min(count, max(TRIAL_SAMPLES, count // TRIAL_SHARE))
    plans = tries(subject.model, subject.prices, fitting, count - fitting, brief) if tried else 0
    weighing = _weighing(subject, options, work.layout.widths(subject.chosen)) if measured else 0.0
    trial = _FITTED * brief / rate + _SESSION * len(consumers)
    plans_tried = plans * (weighing + forward * (_TRIED * fitting + count - fitting) + trial)
    step = _STEP * forward * (_USUAL if long > 1 else 1.0)
    trained = 0.0 if refining is None else step * math.prod(refining)
    passes = forward * count
    whole = _SOLVED * full / rate + _WALKED * passes + _CONSUMER * len(consumers)
    groups = alone * each * len(singly) + _FITTED * sum(singly.values()) / rate
    phases = {
        Phase.INPUTS: made,
        Phase.SENSITIVITY: whole,
        Phase.PLAN: groups + weighing + plans_tried,
        Phase.RECONSTRUCT: whole,
        Phase.TRAIN: trained,
        Phase.CHECK: 2 * passes + _CHECK,
    }
    loops = {"measuring groups": groups, "weighing widths": weighing, "trying plans": plans_tried}
    if searched:  # the last model that was made is the result
        loops["trying budgets"] = TRIALS * phases.pop(Phase.RECONSTRUCT)
        phases[Phase.PLAN] += loops["trying budgets"]
    return Estimate(made, sum(x for phase, x in phases.items() if phase is not Phase.INPUTS), phases, loops)


def _weighing(subject: Subject, options: PlanningOptions, widths: Sequence[Width]) -> float:
    """Seconds to walk from the whole model to the narrowest one: every step prices the groups beside the last one."""
    linked = subject.merger(options).layout.linked(subject.prices.products(params=False))
    prices = sum((1 + len(linked[w.name])) * (w.size // options.selection.grain) for w in widths)
    return prices * _PRICED * len(subject.analysis.slots)


def estimate_streamed(subject: Subject, budget: Goal) -> Estimate:
    """What it may take to fold a model from its weights alone, group by group, and to write it."""
    special = special_ratios(subject.analysis.groups, budget)
    groups = [g for g in subject.analysis.groups if g.name in subject.chosen]
    if budget.aim is Aim.RATIO:
        groups = [g for g in groups if special.get(g.name, budget.value) > 0]
    if budget.widths is not None:
        groups = [g for g in groups if g.name in given_widths(budget.widths, subject.analysis.groups).keep]
    rate = _rate()
    merging = sum(g.size * (sum(group_sizes(subject.model, g)) / rate + _PAIR * g.size) for g in groups)
    writing = _BYTE * subject.model.size
    return Estimate(0.0, merging + writing, {Phase.RECONSTRUCT: merging, Phase.CHECK: writing})


def _forward(subject: Subject) -> float:
    """Seconds per sample of one run of the original."""
    model = subject.model
    session = Session.of(model)
    feeds = probes(model, subject.prices, subject.shapes, 0)(session)
    session.run(feeds)
    return _quickest(lambda: session.run(feeds)) / max(1, max((len(x) for x in feeds.values() if x.ndim), default=1))


def _rate() -> float:
    """Multiply-adds per second, times two."""
    x = np.ones((_SIDE, _SIDE), np.float32)
    x @ x
    return 2 * _SIDE**3 / max(1e-6, _quickest(lambda: x @ x))


def _quickest(work: Callable[[], object]) -> float:
    """Seconds of the best of a few turns: others may have the processor in one of them."""
    turns = list[float]()
    while len(turns) < _TURNS and sum(turns) < _TIMING:
        begin = time.perf_counter()
        work()
        turns.append(time.perf_counter() - begin)
    return min(turns)


def _spoken(seconds: float) -> str:
    if seconds < 90:
        return f"{max(5, round(seconds / 5) * 5)} seconds"
    return f"{round(seconds / 60)} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
