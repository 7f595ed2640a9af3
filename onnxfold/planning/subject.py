"""What a fold works on: a model, its analysis, and the groups that may shrink."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ..analysis.costs import Costs
from ..analysis.result import Analysis
from ..calibration.samples import Samples
from ..folding.kmeans import ClusterSettings
from ..frozen import read_only
from ..model.model import Model, Shapes
from ..options.options import PlanningOptions
from ..runtime.probe_inputs import DESCRIPTION, emptied, index_limits, probe, refuse_huge
from ..runtime.session import Feeds, Session
from .checkpoint import Checkpoint
from .executor import Executor
from .merger import Merger

PROBE_WORK = 4e9  # MACs; probe batches are made smaller for larger models


@dataclass(frozen=True)
class Subject:
    """A model, what its analysis found, the groups `chosen` to shrink, and why others are not (`notes`, by name).

    `streamed`: it is never loaded whole (`memory.streamed`). `fold_heads`: the heads of its caches may change. `more`:
    inputs that results are measured on too, each in place of those of the same name: they reach other bodies.
    """

    name: str
    model: Model
    analysis: Analysis = field(repr=False)
    prices: Costs
    chosen: tuple[str, ...]
    notes: Mapping[str, str]

    streamed: bool = False
    fold_heads: bool = False
    more: tuple[Feeds, ...] = ()

    def __post_init__(self) -> None:
        read_only(self)

    def merger(
        self, options: PlanningOptions, executor: Executor | None = None, kept: Checkpoint | None = None
    ) -> Merger:
        """What merges its groups, by `executor`; what is `kept` of an earlier run counts."""
        chosen, run = options.selection, options.runtime
        clustering = ClusterSettings(chosen.clusterer, run.seed, run.threads)
        return Merger(self.model, self.analysis, chosen.method, clustering, executor, self.streamed, kept)

    def probes(self, options: PlanningOptions) -> Callable[[Session], Feeds]:
        """How to make probe inputs, with nothing in caches whose heads may change."""
        make = probes(self.model, self.prices, options.runtime.input_shapes, options.runtime.seed)
        return lambda session: emptied(make(session), self.analysis.caches)


@dataclass(frozen=True)
class CheckInputs:
    """The inputs that results are checked on, or what makes them for a session, and what they are, for people; `more`
    as in `Subject`."""

    feeds: Feeds | Callable[[Session], Feeds]
    described: str
    more: tuple[Feeds, ...] = ()

    def __post_init__(self) -> None:
        read_only(self)

    @classmethod
    def of(
        cls, samples: Samples | None, probes: Callable[[Session], Feeds], more: tuple[Feeds, ...] = ()
    ) -> CheckInputs:
        """Samples held back where they can be trusted, else probe inputs."""
        if samples is not None and samples.trusted:
            return cls(samples.check[0], samples.described, tuple(one for one in more if one is not samples.check[0]))
        return cls(probes, DESCRIPTION, more)

    def single(self, session: Session) -> Feeds:
        """The inputs, for this session."""
        return self.feeds(session) if callable(self.feeds) else self.feeds

    def each(self, session: Session) -> list[Feeds]:
        """The inputs, and `more`, for this session."""
        single = self.single(session)
        return [single, *({**single, **one} for one in self.more)]

    def several(self, samples: Samples | None) -> Callable[[Session], Sequence[Feeds]]:
        """All batches of the samples held back, or those of probe inputs."""
        if samples is not None and samples.trusted:
            return lambda _: samples.check
        return self.each


def probes(model: Model, prices: Costs, shapes: Shapes, seed: int) -> Callable[[Session], Feeds]:
    """How to make probe inputs, once a session tells what the model takes. Raises RequestError for huge ones."""
    batch = int(min(8, max(2, PROBE_WORK // max(1, prices.macs({})))))
    refuse_huge(model.proto, batch, shapes or {})

    def make(session: Session) -> Feeds:
        return probe(session.inputs, batch=batch, seed=seed, shapes=shapes, limits=index_limits(model.graph))

    return make
