"""The first stages, which all commands share: load, analyze, say which groups may shrink; and probe inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ..analysis.costs import Costs
from ..analysis.result import Analysis
from ..folding.kmeans import ClusterSettings
from ..model.model import Model, Shapes
from ..options.options import Manner
from ..runtime.probe_inputs import index_limits, probe
from ..runtime.session import Feeds, Session
from .checkpoint import Checkpoint
from .executor import Executor
from .merger import Merger

PROBE_WORK = 4e9  # MACs; probe batches are made smaller for larger models


@dataclass(frozen=True)
class Subject:
    """A model, what its analysis found, the groups `chosen` to shrink, and why others are not (`notes`, by name).

    `streamed`: it is never loaded whole (`room.streamed`). `fold_heads`: the heads of its caches may change.
    """

    name: str
    model: Model
    analysis: Analysis = field(repr=False)
    prices: Costs
    chosen: tuple[str, ...]
    notes: Mapping[str, str]

    streamed: bool = False
    fold_heads: bool = False

    def merger(self, manner: Manner, executor: Executor | None = None, kept: Checkpoint | None = None) -> Merger:
        """What merges its groups in this manner, by `executor`; what is `kept` of an earlier run counts."""
        clustering = ClusterSettings(manner.clusterer, manner.seed, manner.threads)
        return Merger(self.model, self.analysis, manner.method, clustering, executor, self.streamed, kept)


def probes(model: Model, prices: Costs, shapes: Shapes, seed: int) -> Callable[[Session], Feeds]:
    """How to make probe inputs, once a session tells what the model takes."""
    batch = int(min(8, max(2, PROBE_WORK // max(1, prices.macs({})))))

    def make(session: Session) -> Feeds:
        return probe(session.inputs, batch=batch, seed=seed, shapes=shapes, limits=index_limits(model.graph))

    return make
