"""The sweep: one model folded to several budgets, with everything that does not depend on the budget done once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..analysis.costs import Size, count_parameters
from ..errors import NothingToFoldError, RequestError
from ..evaluation.verdict import Check, ProviderCheck, check
from ..model.save import staged
from ..options.budget import Budget
from ..planning.knee import knee
from ..planning.planner import Planner


@dataclass(frozen=True)
class Timing:
    """Median latencies in ms on one provider, both models run in turn; None where nothing was timed."""

    provider: str
    status: str
    message: str
    latency_before_ms: float | None
    latency_after_ms: float | None

    @classmethod
    def of(cls, done: ProviderCheck) -> Timing:
        """The latencies of a comparison."""
        return cls(done.provider, done.status, done.message, done.latency_before_ms, done.latency_after_ms)

    @property
    def share(self) -> float | None:
        """Latency after over latency before."""
        if not self.latency_before_ms or self.latency_after_ms is None:
            return None
        return self.latency_after_ms / self.latency_before_ms


@dataclass(frozen=True)
class SweepRow:
    """One budget. `size`, `error` and `agreement` are None where it could not be met (`note` says why).

    `target` is the share of the MACs that may remain; `error` the relative L2 error of the outputs (before a final
    softmax), `agreement` the share of samples that keep their top class (None for outputs without classes);
    `problems` is what makes the folded model unfit.
    """

    target: float
    size: Size | None
    error: float | None
    agreement: float | None
    timings: tuple[Timing, ...]
    problems: tuple[str, ...]
    note: str

    @property
    def usable(self) -> bool:
        """Whether there is a model, and it passed its checks."""
        return self.size is not None and not self.problems


def recommended(rows: Sequence[SweepRow], before: Size) -> float | None:
    """The target of the row at the knee of errors over MACs removed; None where there is none."""
    usable = [(row, row.size, row.error) for row in rows if row.usable and row.size and row.error is not None]
    at = knee([0.0, *(1 - size.macs / max(1, before.macs) for _, size, _ in usable)], [0.0, *(e for *_, e in usable)])
    return usable[at - 1][0].target if at else None


def _row(
    planner: Planner,
    budget: Budget,
    original: Path,
    target: Path,
    usable: Sequence[str],
    missing: Sequence[str],
    latency: bool,
) -> SweepRow:
    """One budget decided and measured. Raises PlanError or NothingToFoldError where there is nothing to measure."""
    folded, model = planner.decide(budget).folded, planner.subject.model
    if not folded.merges:
        raise NothingToFoldError(planner.nothing_left(budget))
    with staged(folded.proto, model, target) as written:
        verdict = check(
            original, written.path, planner.feeds, providers=usable, missing=missing,
            protos=(model.proto, folded.proto), inputs=planner.described, latency=latency,
            caches=planner.subject.analysis.caches,
        )  # fmt: skip
        lengths = planner.work.lengths({name: merge.after for name, merge in folded.merges.items()})
        size = Size(written.size, count_parameters(folded.proto), planner.subject.prices.macs(lengths))
    evaluator = planner.evaluator
    return SweepRow(
        budget.value, size, evaluator.error(folded.proto) if evaluator.possible else None,
        evaluator.agreement(folded.proto) if evaluator.possible and verdict.passed and _classes(verdict) else None,
        tuple(Timing.of(done) for done in verdict.providers), verdict.problems, "; ".join(verdict.notes),
    )  # fmt: skip


def _classes(verdict: Check) -> bool:
    """Whether any output is a score per class."""
    return any(error.top1 is not None for done in verdict.providers for error in done.outputs)


def _shares(at: Sequence[float]) -> list[float]:
    """Different shares, falling. Raises RequestError."""
    shares = sorted({float(share) for share in at}, reverse=True)
    if not shares or not all(math.isfinite(share) and 0 < share <= 1 for share in shares):
        raise RequestError(f"--at wants shares of the MACs above 0 and at most 1 (like .9,.7,.5), not {list(at)}")
    return shares
