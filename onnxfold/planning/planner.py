"""From budgets to folded models, for one model: samples if they can be used, else weights alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from ..calibration.collect import given_up, without_caches
from ..calibration.samples import Samples
from ..errors import ExecutionError
from ..evaluation.candidates import Evaluator
from ..evaluation.latency import Profiler
from ..model.model import Shapes
from ..options.budget import Aim, Budget
from ..options.choices import Recovery
from ..options.options import Manner
from ..progress import Progress
from ..runtime.probe_inputs import DESCRIPTION, emptied
from ..runtime.session import Feeds, Session
from .checkpoint import Checkpoint
from .executor import Executor
from .sampled import SampledMerger
from .search import Decision, decide, decide_sampled
from .subject import Subject, probes

Found = TypeVar("Found")


class Planner:
    """Decides budgets for `subject`. Sensitivity and error curves are had once, however many budgets there are.

    `evidence` is None, or what samples there are; those that are not trusted only count as none. It is replaced by a
    version that is not trusted (`sampled` turns false) when the model proves not to run piece by piece.
    """

    def __init__(
        self,
        subject: Subject,
        manner: Manner,
        evidence: Samples | None,
        shapes: Shapes,
        progress: Progress[Any],
        *,
        providers: Sequence[str],
        target: Path,
        external_data: bool = False,
        executor: Executor | None = None,
        kept: Checkpoint | None = None,
    ) -> None:
        """`providers`, `target` and `external_data` are what targets are measured for (`Profiler`)."""
        self.subject, self.manner = subject, manner
        self.evidence = None if evidence is None else without_caches(evidence, subject.analysis.caches)
        self.work = subject.merger(manner, executor, kept)
        self._shapes, self._progress = shapes, progress
        self._profiler = Profiler(subject.model, target, external_data, next(iter(providers), None), self._single)

    @property
    def sampled(self) -> bool:
        """Whether samples decide."""
        return self.evidence is not None and self.evidence.trusted

    @property
    def recovery(self) -> Recovery:
        """How merges are repaired."""
        if self.manner.recovery is not Recovery.AUTO:
            return self.manner.recovery
        return Recovery.LEAST_SQUARES if self.sampled else Recovery.CLOSED_FORM

    @property
    def feeds(self) -> Feeds | Callable[[Session], Feeds]:
        """What results are checked on."""
        return self.evidence.check[0] if self.evidence is not None and self.sampled else self._probes

    @property
    def described(self) -> str:
        """What `feeds` are, for the user."""
        return self.evidence.described if self.evidence is not None and self.sampled else DESCRIPTION

    @property
    def evaluator(self) -> Evaluator:
        """Measures errors: on the samples held back, or on probe inputs."""
        return self._of_samples(lambda sampled: sampled.evaluator) or self._from_weights

    def decide(self, budget: Budget) -> Decision:
        """What meets `budget`. Raises PlanError where it cannot be met, RequestError where nothing can be measured."""
        prices, profiler, progress = self.subject.prices, self._profiler, self._progress
        return self._of_samples(lambda sampled: decide_sampled(sampled, prices, budget, profiler, progress)) or decide(
            self.work, prices, budget, self.subject.chosen, self.recovery, self._from_weights, profiler, progress
        )

    def _of_samples(self, found: Callable[[SampledMerger], Found]) -> Found | None:
        """What is `found` with samples; None where there are none, or where the model proves not to run piece by piece:
        they are given up then."""
        if self.evidence is None or not self.sampled:
            return None
        try:
            return found(self._with_samples)
        except ExecutionError as error:
            self.evidence = given_up(self.evidence, error, self.manner.method, self.manner.recovery)
            return None

    def nothing_left(self, budget: Budget) -> str:
        """Why a decision for `budget` removed no channel."""
        widest = max(width.size for width in self.work.widths(self.subject.chosen))
        if budget.aim in (Aim.QUALITY, Aim.AGREEMENT):
            return (
                f"no group can shrink while the outputs keep --{budget.aim.value} {budget.value:g}: ask for more with "
                "--ratio, for example --ratio 0.1"
            )
        return (
            f"this budget removes nothing: the widest group has {widest} channels, kept widths are multiples of "
            f"{budget.round_to} (--round-to)"
        )

    def settings(self, round_to: int) -> dict[str, Any]:
        """How decisions were made, for the report."""
        manner, evidence = self.manner, self.evidence
        return {
            "effort": manner.effort.value, "samples": None if evidence is None else evidence.described,
            "samples_match": None if evidence is None else evidence.match, "samples_used": self.sampled,
            "method": manner.method.value, "recovery": self.recovery.value, "clusterer": manner.clusterer.value,
            "round_to": round_to, "seed": manner.seed, "include": list(manner.include),
            "exclude": list(manner.exclude), "fold_heads": self.subject.fold_heads,
        }  # fmt: skip

    @cached_property
    def _with_samples(self) -> SampledMerger:
        found = self.evidence
        assert found is not None
        made = SampledMerger(self.work, found, self.subject.chosen, self.manner.method, self.recovery, self._progress)
        self.evidence = replace(found, notes=(*found.notes, *made.notes))
        return made

    @cached_property
    def _from_weights(self) -> Evaluator:
        caches = self.subject.analysis.caches
        return Evaluator(self.subject.model, lambda session: [self._probes(session)], not self.subject.streamed, caches)

    def _probes(self, session: Session) -> Feeds:
        subject = self.subject
        return emptied(
            probes(subject.model, subject.prices, self._shapes, self.manner.seed)(session), subject.analysis.caches
        )

    def _single(self, session: Session) -> Feeds:
        return self.feeds(session) if callable(self.feeds) else self.feeds
