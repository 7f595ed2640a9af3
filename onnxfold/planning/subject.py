"""What a fold works on: a model, its analysis, and the groups that may shrink."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from ..analysis.costs import Costs
from ..analysis.result import Analysis
from ..analysis.rotation import streams
from ..calibration.judge import Judge, JudgeSettings, independent_judge
from ..calibration.samples import Samples
from ..errors import ExecutionError, RequestError
from ..evaluation.candidates import Reference
from ..folding.kmeans import ClusterSettings
from ..frozen import read_only
from ..model.model import Model, Shapes
from ..options.choices import Effort
from ..options.parts import PlanningOptions
from ..runtime.probe_inputs import DESCRIPTION, emptied, index_limits, probe, refuse_huge
from ..runtime.session import Feeds, Session
from .checkpoint import Checkpoint
from .executor import Executor
from .merger import Merger

PROBE_WORK = 4e9  # MACs; probe batches are made smaller for larger models
_RUNS, _FEWEST = 4, 16  # batches that judge, and samples in them at least


@dataclass(frozen=True)
class Subject:
    """A model, what its analysis found, the groups `chosen` to shrink, and why others are not (`notes`, by name).

    `streamed`: it is never loaded whole (`memory.streamed`). `fold_heads`: the heads of its caches may change;
    `fold_residual`: so may residual streams under norms, where samples decide. `more`:
    inputs that results are measured on too, each in place of those of the same name: they reach other bodies. `shapes`:
    of the inputs that are made for it.
    """

    name: str
    model: Model
    analysis: Analysis = field(repr=False)
    prices: Costs
    chosen: tuple[str, ...]
    notes: Mapping[str, str]

    streamed: bool = False
    fold_heads: bool = False
    fold_residual: bool = False
    more: tuple[Feeds, ...] = ()
    shapes: Shapes = None

    def __post_init__(self) -> None:
        read_only(self)

    @cached_property
    def by_weights(self) -> tuple[str, ...]:
        """The chosen groups that may shrink where no samples decide: weights alone do not tell what norms do."""
        found = streams(self.model, self.analysis)
        return tuple(name for name in self.chosen if name not in found)

    def merger(
        self, options: PlanningOptions, executor: Executor | None = None, kept: Checkpoint | None = None
    ) -> Merger:
        """What merges its groups, by `executor`; what is `kept` of an earlier run counts."""
        chosen, run = options.selection, options.runtime
        clustering = ClusterSettings(chosen.clusterer, run.seed, run.threads)
        return Merger(self.model, self.analysis, chosen.method, clustering, executor, self.streamed, kept)

    def checks(self, options: PlanningOptions) -> CheckInputs:
        """What is measured on where no samples are. Raises RequestError for inputs that would be huge."""
        shapes, seed, quick = self.shapes, options.runtime.seed, options.effort is Effort.FAST
        probing = probes(self.model, self.prices, shapes, seed)

        def make() -> Judge:
            found = judge_without_samples(self.model, probing, shapes, seed, quick)
            return replace(found, batches=tuple(emptied(feed, self.analysis.caches) for feed in found.batches))

        return CheckInputs(make)


@dataclass(frozen=True, eq=False)
class CheckInputs:
    """What results are checked on, made when it is first asked for; `more` as in `Subject`, `beside` those of them that
    are not among the batches."""

    make: Callable[[], Judge] = field(repr=False)
    more: tuple[Feeds, ...] = field(default=(), repr=False)
    beside: tuple[Feeds, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        read_only(self)

    @classmethod
    def of(cls, samples: Samples | None, otherwise: CheckInputs, more: tuple[Feeds, ...] = ()) -> CheckInputs:
        """What judges the samples where these can be trusted, else something made without any."""
        if samples is not None and samples.trusted:
            judge = samples.judge
            held = {id(feed) for feed in judge.batches}
            beside = tuple(one for one in more if id(one) not in held)
            return cls(lambda: judge, tuple(one for one in more if one is not judge.batches[0]), beside)
        return cls(lambda: otherwise.judge, more, more)

    @cached_property
    def judge(self) -> Judge:
        """The inputs. Raises RequestError and ExecutionError where none can be made."""
        return self.make()

    @property
    def described(self) -> str:
        """What they are, for people."""
        try:
            return self.judge.described
        except (ExecutionError, RequestError):  # whoever runs them will say why
            return "nothing"

    def single(self, session: Session) -> Feeds:
        """One batch, for a session."""
        return self.judge.batches[0]

    def each(self, session: Session) -> Sequence[Feeds]:
        """One batch, and `more`, for a session."""
        single = self.single(session)
        return [single, *({**single, **one} for one in self.more)]

    def several(self, session: Session) -> Sequence[Feeds]:
        """All batches, and what is `beside`."""
        single = self.single(session)
        return [*self.judge.batches, *({**single, **one} for one in self.beside)]


def reference_of(samples: Samples | None) -> Reference:
    """What tells how far the original's outputs move, beside what judges; nothing where `samples` cannot be trusted."""
    if samples is None or not samples.trusted:
        return Reference()
    return Reference(samples.alike, samples.spread)


def judge_without_samples(
    model: Model, probing: Callable[[Session], Feeds], shapes: Shapes, seed: int, quick: bool = False
) -> Judge:
    """Inputs of a kind that says something of the model's data, or those of `probing`; `quick`: little time is spent on
    them. Raises ExecutionError where onnxruntime does not load the model, RequestError where no inputs can be made."""
    session = Session.idle(model)
    feeds, settings = probing(session), JudgeSettings(session.inputs, quick)
    del session  # a copy of all weights
    count = max(_FEWEST, _RUNS * max((len(x) for x in feeds.values() if np.ndim(x)), default=1))
    found = independent_judge(model, feeds, count, seed, shapes, settings=settings)
    return found or Judge((feeds,), DESCRIPTION, False)


def probes(model: Model, prices: Costs, shapes: Shapes, seed: int) -> Callable[[Session], Feeds]:
    """How to make probe inputs, once a session tells what the model takes. Raises RequestError for huge ones."""
    batch = int(min(8, max(2, PROBE_WORK // max(1, prices.macs({})))))
    refuse_huge(model.proto, batch, shapes or {})

    def make(session: Session) -> Feeds:
        return probe(session.inputs, batch=batch, seed=seed, shapes=shapes, limits=index_limits(model.graph))

    return make
